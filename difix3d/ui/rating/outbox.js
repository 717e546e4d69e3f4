// Votes that wait for the server's answer. Each is in this browser's storage until the server has it, so that a reload,
// a closed tab, a lost connection or a locked database loses none; the server counts a vote that comes twice once.
function makeOutbox() {
  let hooks = { stored() {}, waiting() {}, refused() {} };
  const PREFIX = "difix3d-vote-";
  const unstored = new Map(); // where the browser's storage is full or not allowed
  const tried = new Set(); // the server may have these, though its answer was lost
  let sending = null, wait = 0, timer = 0, inFlight = "", troubled = null;

  function entries() {
    const found = new Map(unstored);
    try {
      for (let index = 0; index < localStorage.length; index++) {
        const key = localStorage.key(index);
        if (key.startsWith(PREFIX)) found.set(key, JSON.parse(localStorage.getItem(key)));
      }
    } catch { /* what cannot be read cannot be sent */ }
    return [...found].map(([key, entry]) => ({ key, ...entry })).sort((a, b) => a.at - b.at || (a.key < b.key ? -1 : 1));
  }
  function drop(key) {
    unstored.delete(key);
    try { localStorage.removeItem(key); } catch { /* it was not there */ }
  }
  function add(visitor, vote) {
    const key = PREFIX + Math.random().toString(36).slice(2) + Date.now().toString(36);
    const last = entries().at(-1);
    // A clock that jumps back does not turn the order round.
    const entry = { visitor, vote, at: Math.max(Date.now(), last ? last.at + 1 : 0) };
    try { localStorage.setItem(key, JSON.stringify(entry)); } catch { unstored.set(key, entry); }
    return key;
  }
  async function send() {
    const answered = new Set(); // in case one cannot be removed from the storage
    const next = () => entries().find((entry) => !answered.has(entry.key));
    // Looked up anew each time: votes come while others are being sent.
    for (let entry = next(); entry; entry = next()) {
      inFlight = entry.key;
      tried.add(entry.key);
      const answer = await postTo("vote", entry.vote, entry.visitor);
      inFlight = "";
      troubled = null;
      if (answer.ok) {
        answered.add(entry.key);
        drop(entry.key);
        wait = 0;
        hooks.stored(entry.key);
      } else if (answer.later) {
        wait = Math.min(30, wait ? 2 * wait : 1);
        timer = setTimeout(flush, wait * 1000);
        troubled = answer;
        hooks.waiting(answer.error, answer.kind);
        return false;
      } else {
        answered.add(entry.key);
        drop(entry.key);
        hooks.refused(entry.key, answer.error);
      }
    }
    wait = 0;
    return true;
  }
  // True when everything has been sent. One at a time, in the order of the votes.
  function flush() {
    clearTimeout(timer);
    sending ??= send().finally(() => { sending = null; });
    return sending;
  }
  window.addEventListener("online", flush);
  window.addEventListener("pageshow", (event) => { if (event.persisted) flush(); });
  flush();
  return {
    listen(given) {
      hooks = given;
      if (troubled) setTimeout(() => troubled && hooks.waiting(troubled.error, troubled.kind));
    },
    add, drop, flush, entries,
    tried: (key) => tried.has(key),
    get busy() { return inFlight; },
    settled: () => sending ?? Promise.resolve(true),
  };
}
// One a page: it sends from any step of the page, and the rating screen listens while it is there.
function sharedOutbox(hooks) {
  window.dxOutbox ??= makeOutbox();
  if (hooks) window.dxOutbox.listen(hooks);
  return window.dxOutbox;
}
