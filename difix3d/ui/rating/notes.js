// What this tab leaves in the browser for others, and for itself after a reload.

// What other tabs of this browser show: a pair is not asked in two of them. A tab that is left takes its note with it.
const TAB = `difix3d-held-${random()}`, HELD_MS = 600_000;
function heldElsewhere() {
  const found = [];
  try {
    for (const key of Object.keys(localStorage)) {
      if (!key.startsWith("difix3d-held-") || key === TAB) continue;
      const note = JSON.parse(localStorage.getItem(key));
      if (Date.now() - note.at > HELD_MS) localStorage.removeItem(key);
      else if (note.visitor === who.visitor) found.push(...note.tickets);
    }
  } catch { /* then both ask the same: the vote counts once all the same */ }
  return found;
}
function noteHeld() {
  const tickets = [current, ...ahead].filter(Boolean).map((pair) => pair.ticket);
  try { localStorage.setItem(TAB, JSON.stringify({ visitor: who.visitor, at: Date.now(), tickets })); } catch { /* as above */ }
}
function leave() { try { localStorage.removeItem(TAB); } catch { /* it was not there */ } }

// What was begun to be said of a pair survives a reload: its ticket is the same then.
const DRAFT = "difix3d-draft";
function keepDraft() {
  if (!current || !shownAt) return;
  try { sessionStorage.setItem(DRAFT, JSON.stringify({ ticket: current.ticket, kept: details.keep() })); } catch { /* full */ }
}
function draftOf(pair) {
  try {
    const draft = JSON.parse(sessionStorage.getItem(DRAFT));
    return draft?.ticket === pair.ticket ? draft.kept : undefined;
  } catch { return undefined; }
}
