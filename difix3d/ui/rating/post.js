// {ok, ...} as the server answers; {later: true} where the same request may go well another time.
async function postTo(action, body, visitor) {
  const away = { ok: false, later: true, kind: "away", error: "No connection to the server." };
  try {
    const response = await fetch(`rate/${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Visitor": visitor },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(40_000),
    });
    const answer = await response.json().catch(() => null);
    if (response.ok && answer) return { ...answer, ok: true };
    const later = response.status >= 500 || response.status === 429 || response.status === 404 || response.status === 403;
    return { ok: false, later, kind: answer?.kind ?? "away", error: answer?.error ?? away.error };
  } catch {
    return away;
  }
}
