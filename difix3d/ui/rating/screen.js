// The rating screen. props.value: {visitor, scene, revision}; everything else comes from the server's rate/ addresses.
// A vote is put into the outbox and the next pair, which is there already, is shown at once.
const root = element.querySelector(".dx-compare");
const $ = (selector) => root.querySelector(selector);
const HASTE_MS = 300; // after a new pair is seen: the second press of a double click is not about it
const AHEAD = 2;

let who = { visitor: "", scene: "" }, tally = { done: 0, left: 0, undoable: false, empty: "" };
let current = null, ahead = [], past = [], loading = false, undoing = false, undoToken = "";
const broken = []; // tickets of pairs whose pictures cannot be shown
let shownAt = 0, hiddenMs = 0, hiddenAt = 0, voted = 0, note = "", trouble = "";

const everywhere = () => $("[data-scope]").value === "all";
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const post = (action, body) => postTo(action, body, who.visitor);
const outbox = sharedOutbox({
  stored() { trouble = ""; refill(); draw(); },
  waiting(error, kind) {
    trouble = error;
    if (kind === "consent") people.ask();
    draw();
  },
  refused(key, error) { say(error, "wrong"); past = past.filter((each) => each.key !== key); },
});
const stage = makeStage(root, () => draw());
const details = makeDetails(root, stage, () => { keepDraft(); draw(); });
const people = makePeople(root, post, {
  visitor: () => who.visitor,
  agreed() { outbox.flush(); refill(); draw(); },
  withdrawn() {
    for (const entry of waiting()) outbox.drop(entry.key);
    forget();
    past = [];
    refill();
  },
  draw: () => draw(),
});

let noteTimer = 0;
function say(text, tone = "") {
  note = text;
  root.dataset.tone = tone;
  clearTimeout(noteTimer);
  if (text) noteTimer = setTimeout(() => say(""), tone ? 12_000 : 5_000);
  draw();
}
function forget() {
  for (const pair of [current, ...ahead]) if (pair) release(pair);
  current = null;
  ahead = [];
  shownAt = 0;
}
const waiting = () => outbox.entries().filter((entry) => entry.visitor === who.visitor);

async function refill() {
  if (loading || !who.visitor || !people.ready) return;
  const want = AHEAD + 1 - ahead.length - (current ? 1 : 0);
  if (want <= 0) { advance(); return; }
  loading = true;
  const asked = `${who.scene}|${everywhere()}`;
  const held = [...waiting().map((entry) => entry.vote.ticket), ...[current, ...ahead].filter(Boolean).map((pair) => pair.ticket), ...broken];
  const others = heldElsewhere();
  const ask = (tickets) => post("next", { scene: who.scene, everywhere: everywhere(), held: tickets, want });
  let answer = await ask([...held, ...others]);
  // Rather a pair that another tab shows than none: the last pairs of a scene.
  if (answer.ok && others.length && !current && !ahead.length && !answer.pairs.length) answer = await ask(held);
  loading = false;
  if (asked !== `${who.scene}|${everywhere()}`) { refill(); return; }
  if (!answer.ok) {
    if (answer.kind === "consent") { people.ask(); return; } // whoever agrees is given pairs then
    trouble = answer.error;
    if (answer.later) setTimeout(refill, 4000);
    else { tally = { ...tally, empty: answer.error }; trouble = ""; }
    draw();
    return;
  }
  if (!waiting().length) trouble = "";
  tally = answer;
  for (const pair of answer.pairs) {
    fetched(pair).catch(() => {});
    ahead.push(pair);
  }
  advance();
}
function advance() {
  noteHeld();
  if (!current && ahead.length) show(ahead.shift());
  else draw();
}

// The bytes of both pictures, as addresses inside this browser: what was fetched ahead is there whatever the network does.
function fetched(pair) {
  const local = async (url) => {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${response.status}`);
    return URL.createObjectURL(await response.blob());
  };
  pair.pictures ??= Promise.all([local(pair.left), local(pair.right)]);
  return pair.pictures;
}
const release = (pair) => pair.pictures?.then((urls) => urls.forEach((url) => URL.revokeObjectURL(url)), () => {});

async function show(pair, kept = draftOf(pair)) {
  current = pair;
  noteHeld();
  shownAt = 0;
  details.restore(kept);
  look(null);
  drawReferences(pair);
  draw();
  try {
    await stage.show(...(await fetched(pair)));
  } catch (error) {
    if (current !== pair) return;
    if (error instanceof TypeError) { // fetch has it for no connection
      trouble = "No connection to the server.";
      pair.pictures = null;
      setTimeout(() => { if (current === pair) { trouble = ""; show(pair, kept); } }, 2000);
      draw();
      return;
    }
    broken.push(pair.ticket);
    forget();
    say("A picture of that pair is no longer there. Here is another pair.");
    setTimeout(refill, 500);
    return;
  }
  if (current !== pair) return;
  details.restore(kept); // the brush's canvas has the picture's size only now
  shownAt = performance.now();
  hiddenMs = 0;
  hiddenAt = document.hidden ? shownAt : 0;
  draw();
}

function vote(choice) {
  const now = performance.now();
  if (!current || !shownAt || undoing || now - shownAt < HASTE_MS) return;
  const ms = Math.round(now - shownAt - hiddenMs);
  const body = { ticket: current.ticket, choice, ms, ...details.said() };
  const key = outbox.add(who.visitor, body);
  past.push({ key, pair: current, kept: details.keep() });
  while (past.length > 5) release(past.shift().pair);
  current = null;
  voted += 1;
  say(thanks(voted));
  undoToken = "";
  stage.flick(false);
  advance();
  outbox.flush().then((sent) => { if (sent) refill(); });
}
const thanks = (count) => (count === 1 ? "Thank you. That was your first." : count % 10 === 0 ? `Thank you: ${count} votes in this sitting.` : "");

async function undo() {
  if (undoing || !(tally.undoable || waiting().length)) return;
  undoing = true;
  say("");
  const last = past.at(-1);
  if (outbox.busy) await outbox.settled();
  const unsent = waiting().at(-1);
  if (unsent && last?.key === unsent.key && !outbox.tried(unsent.key)) {
    outbox.drop(unsent.key);
    putBack(last.pair, last.kept);
    past.pop();
  } else if (unsent) {
    say("Undo works again when the votes kept in this browser have been sent.", "wrong");
  } else {
    undoToken ||= random();
    const answer = await post("undo", { scene: who.scene, everywhere: everywhere(), token: undoToken });
    if (answer.ok) undoToken = "";
    if (answer.pair) {
      const same = last && last.pair.left === answer.pair.left && last.pair.right === answer.pair.right;
      putBack(answer.pair, same ? last.kept : null);
      if (same) past.pop();
    } else if (answer.ok) {
      say("Taken back. Its pictures are no longer there to be asked again.");
    } else {
      say(`Not undone: ${answer.error} Press undo again.`, "wrong");
    }
    if (answer.ok) { tally = { ...tally, done: Math.max(0, tally.done - 1) }; tally.undoable = tally.done > 0; }
  }
  undoing = false;
  draw();
}
function putBack(pair, kept) {
  if (current) ahead.unshift(current);
  voted = Math.max(0, voted - 1);
  say("Taken back. Vote again.");
  show(pair, kept);
}
