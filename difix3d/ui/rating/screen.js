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

// References: small ones beside the pictures, one of them large over the pictures when it is asked for.
function drawReferences(pair) {
  const list = $(".dx-references");
  list.replaceChildren(...pair.references.map((reference, index) => {
    const button = document.createElement("button"), image = document.createElement("img");
    button.type = "button";
    button.title = "Look at this photo (R)";
    image.src = reference.small;
    image.alt = `Reference photo ${index + 1}`;
    button.append(image);
    button.addEventListener("click", () => look($(".dx-look").hidden || $(".dx-look img").dataset.of !== reference.whole ? reference : null));
    return button;
  }));
  list.dataset.count = pair.references.length;
}
function look(reference) {
  $(".dx-look").hidden = !reference;
  if (!reference) return;
  const image = $(".dx-look img"), photos = current?.references ?? [];
  $(".dx-look span").textContent = `Photo taken nearby, ${photos.indexOf(reference) + 1} of ${photos.length}`;
  image.dataset.of = reference.whole;
  image.src = reference.whole;
}
// The next photo, and after the last one the pictures again.
function lookOn() {
  const photos = current?.references ?? [], at = photos.findIndex((photo) => photo.whole === $(".dx-look img").dataset.of);
  look($(".dx-look").hidden ? photos[0] ?? null : photos[at + 1] ?? null);
}
$(".dx-look").addEventListener("click", lookOn);

function draw() {
  const waits = waiting().length, page = people.page;
  const asking = !page && Boolean(current);
  $(".dx-asking").hidden = !asking;
  $(".dx-nothing").hidden = Boolean(page) || asking;
  $(".dx-tally").hidden = page === "guide" && !people.ready;
  $(".dx-nothing p").textContent = trouble || (tally.empty && !waits ? tally.empty : who.scene || everywhere() ? "One moment…" : "Open a scene first.");
  $(".dx-thanks").hidden = !(tally.empty && tally.done && !trouble);
  // Roughly how many are left: an exact number would tell which pairs were checks, which are not among them.
  const done = tally.done + waits, left = Math.max(0, tally.left - waits), rough = 5 * Math.round(left / 5);
  $(".dx-count").firstChild.data = done || left ? `${done} rated` : "";
  $(".dx-left").textContent = !left ? "" : rough ? `, about ${rough} to go` : ", a few to go";
  $(".dx-count-bar").hidden = !(done || left);
  $(".dx-count-bar i").style.width = `${(100 * done) / Math.max(1, done + left)}%`;
  const kept = waits ? `${waits} vote${waits > 1 ? "s" : ""} kept in this browser, sent again by itself. ` : "";
  $(".dx-said").textContent = trouble ? `${trouble} ${kept}` : note;
  root.classList.toggle("dx-troubled", Boolean(trouble));
  for (const button of root.querySelectorAll("[data-undo]")) button.disabled = undoing || !(tally.undoable || waits);
  for (const button of root.querySelectorAll("[data-choice]")) button.disabled = !asking || !shownAt || undoing;
  if (!asking) return;
  for (const button of root.querySelectorAll("[data-mode]:not(.dx-stage)")) button.setAttribute("aria-pressed", stage.mode === button.dataset.mode);
  $(".dx-place").textContent = current.place;
  $("[data-reset]").hidden = stage.zoom === 1;
  $("[data-reset]").textContent = `${stage.zoom.toFixed(1)}× reset`;
  const more = $("[data-more]");
  more.setAttribute("aria-expanded", details.open);
  more.querySelector("b").textContent = details.count || "";
}

// What was pressed. Buttons lose the focus that a press gave them, so that space flickers and does not press them again.
const press = (selector, act) => root.addEventListener("click", (event) => {
  const button = event.target.closest(selector);
  if (!button || !root.contains(button)) return;
  if (event.detail) button.blur();
  act(button);
});
press("[data-choice]", (button) => vote(button.dataset.choice));
press("[data-undo]", undo);
press("button[data-mode]", (button) => stage.setMode(button.dataset.mode));
press("[data-reset]", stage.reset);
press("[data-more]", () => details.toggle());
const hold = $("[data-flip]");
hold.addEventListener("pointerdown", (event) => { hold.setPointerCapture(event.pointerId); stage.flick(true); });
hold.addEventListener("contextmenu", (event) => event.preventDefault());
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) hold.addEventListener(name, () => { stage.flick(false); hold.blur(); });
try { $("[data-scope]").value = localStorage.getItem("difix3d-scope") || "scene"; } catch { /* not allowed */ }
$("[data-scope]").addEventListener("change", () => {
  try { localStorage.setItem("difix3d-scope", $("[data-scope]").value); } catch { /* not allowed */ }
  forget();
  tally = { done: 0, left: 0, undoable: false, empty: "" };
  $("[data-scope]").blur();
  refill();
});

const KEYS = {
  1: () => vote("left"), 2: () => vote("right"), 3: () => vote("tie"), 4: () => vote("both_bad"), 0: () => vote("skip"),
  z: undo,
  s: () => stage.setMode("slider"), d: () => stage.setMode("difference"),
  m: () => details.toggle(), b: () => { details.toggle(true); details.brush.toggle(); },
  r: lookOn,
  "+": () => stage.zoomBy(1.3), "=": () => stage.zoomBy(1.3), "-": () => stage.zoomBy(1 / 1.3),
  arrowleft: () => (stage.zoom > 1 ? stage.pan(0.08, 0) : stage.slide(-4)), arrowright: () => (stage.zoom > 1 ? stage.pan(-0.08, 0) : stage.slide(4)),
  arrowup: () => stage.pan(0, 0.08), arrowdown: () => stage.pan(0, -0.08),
};
const REPEATED = new Set(["+", "=", "-", "arrowleft", "arrowright", "arrowup", "arrowdown"]);
const inText = (target) => target.closest?.("input, textarea, select, [contenteditable=true]");
// Space presses what a person went to with Tab in the folded part; a tab of the page that is open already needs it not.
const ownsSpace = (target) => target.closest?.("button, a, summary, [role=slider]") && !target.closest(".dx-votes, .dx-tools, [role=tab][aria-selected=true]");
const visible = () => root.isConnected && root.offsetParent !== null;

function keydown(event) {
  if (!visible() || event.altKey) return;
  // By place where the layout has digits only with Shift (AZERTY).
  const key = KEYS[event.key.toLowerCase()] ? event.key.toLowerCase() : /^(?:Digit|Numpad)([0-4])$/.exec(event.code)?.[1] ?? event.key.toLowerCase();
  if (key === "escape" && !event.ctrlKey) {
    if (people.page) people.close();
    else if (inText(event.target)) event.target.blur();
    else if (!$(".dx-look").hidden) look(null);
    else if (details.brush.on) details.brush.toggle(false);
    else if (details.open) details.toggle(false);
    else stage.reset();
    return;
  }
  if (inText(event.target) || people.page || !current) {
    if (key === "z" && !inText(event.target) && !people.page && !event.ctrlKey && !event.metaKey) undo();
    return;
  }
  if ((event.ctrlKey || event.metaKey) && key === "z" && details.brush.on) { event.preventDefault(); details.brush.undo(); return; }
  if (event.ctrlKey || event.metaKey) return;
  if (key === " ") {
    if (ownsSpace(event.target)) return;
    event.preventDefault();
    stage.flick(true);
  } else if (KEYS[key] && (!event.repeat || REPEATED.has(key))) {
    if (REPEATED.has(key) && stage.zoom === 1 && key.startsWith("arrow") && stage.mode !== "slider") return;
    if (key.startsWith("arrow") && event.target.closest?.("[role=tab], [role=slider]")) return;
    event.preventDefault();
    KEYS[key]();
  }
}
function keyup(event) {
  if (event.key !== " " || !visible() || inText(event.target) || people.page) return;
  if (!ownsSpace(event.target)) event.preventDefault();
  stage.flick(false);
}
function visibility() {
  if (document.hidden) { hiddenAt = performance.now(); stage.flick(false); }
  else if (hiddenAt) { hiddenMs += performance.now() - hiddenAt; hiddenAt = 0; }
}
// As tall as the window leaves room for, and the page's header out of the way while pictures are compared.
function fit() {
  const shown = visible();
  document.body.classList.toggle("dx-rating", shown);
  document.body.classList.toggle("dx-narrow", window.innerWidth <= 700);
  if (shown) root.style.setProperty("--top", `${Math.round(root.getBoundingClientRect().top + window.scrollY)}px`);
}

// One set of listeners a page, however often the component is made anew.
window.dxRating?.abort();
const life = (window.dxRating = new AbortController());
const on = (target, name, act) => target.addEventListener(name, act, { signal: life.signal });
on(document, "keydown", keydown);
on(document, "keyup", keyup);
on(document, "visibilitychange", visibility);
on(window, "blur", () => stage.flick(false));
on(window, "resize", fit);
on(window, "online", refill);
on(window, "pagehide", leave);
on(window, "pageshow", (event) => { if (event.persisted) refill(); });
on(window, "storage", (event) => { if (!event.key || event.key.startsWith("difix3d-vote-")) draw(); });
const watcher = new ResizeObserver(fit);
watcher.observe(root);
watcher.observe(document.querySelector(".gradio-container") ?? document.body);
life.signal.addEventListener("abort", () => { watcher.disconnect(); leave(); });

function opened() {
  const value = props.value;
  if (!value) return;
  const before = who;
  who = value;
  if (who.scene !== before.scene || who.visitor !== before.visitor) {
    forget();
    past = [];
    tally = { done: 0, left: 0, undoable: false, empty: "" };
  }
  if (who.visitor && who.visitor !== before.visitor) people.read().then(() => outbox.flush()).then(refill);
  else refill();
  draw();
}
opened();
watch("value", opened);
