// Blind A/B: two pictures with one zoom and pan, buttons, and keys.
// props.value: {token, left, right, reference, place, done, total, undoable} or {empty: text}; or null.
// Triggers "vote" {token, choice: left|right|tie|both_bad|skip, ms} and "undo" {}.
const root = element.querySelector(".dx-compare");
const $ = (selector) => root.querySelector(selector);
const panes = [...root.querySelectorAll(".dx-pane")];
let token = "", shownAt = 0, zoom = 1, panX = 0, panY = 0, swapped = false, busy = false;

function place() {
  for (const image of root.querySelectorAll(".dx-pane img, .dx-pane .dx-under")) image.style.transform = `translate(${panX}%, ${panY}%) scale(${zoom})`;
  root.classList.toggle("dx-swapped", swapped);
  $(".dx-zoom").textContent = zoom > 1 ? `${zoom.toFixed(1)}x · double click to reset` : "";
}
function limit() {
  const most = 50 * (zoom - 1);
  panX = Math.min(most, Math.max(-most, panX));
  panY = Math.min(most, Math.max(-most, panY));
}
const reset = () => { zoom = 1; panX = 0; panY = 0; place(); };

for (const pane of panes) {
  const pointers = new Map();
  let span = 0;
  pane.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom = Math.min(8, Math.max(1, zoom * Math.exp(-event.deltaY / 400)));
    limit();
    place();
  }, { passive: false });
  pane.addEventListener("dblclick", reset);
  pane.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, event); pane.setPointerCapture(event.pointerId); });
  const gone = (event) => { pointers.delete(event.pointerId); span = 0; };
  pane.addEventListener("pointerup", gone);
  pane.addEventListener("pointercancel", gone);
  pane.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const box = pane.getBoundingClientRect();
    pointers.set(event.pointerId, event);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      if (span) zoom = Math.min(8, Math.max(1, (zoom * now) / span));
      span = now;
    } else if (zoom > 1) {
      panX += (100 * (event.clientX - last.clientX)) / box.width;
      panY += (100 * (event.clientY - last.clientY)) / box.height;
    }
    limit();
    place();
  });
}

function setBusy(on) {
  busy = on;
  for (const button of root.querySelectorAll("button[data-choice]")) button.disabled = on || !token;
  $("button[data-undo]").disabled = on || !(props.value && props.value.undoable);
}
function vote(choice) {
  if (busy || !token || !shownAt) return;
  setBusy(true);
  trigger("vote", { token, choice, ms: Math.round(performance.now() - shownAt) });
}
function undo() {
  if (busy || !(props.value && props.value.undoable)) return;
  setBusy(true);
  trigger("undo", {});
}
for (const button of root.querySelectorAll("button[data-choice]")) button.addEventListener("click", () => vote(button.dataset.choice));
$("button[data-undo]").addEventListener("click", undo);
const hold = $("button[data-flip]");
const flip = (on) => { swapped = on; place(); };
hold.addEventListener("pointerdown", (event) => { hold.setPointerCapture(event.pointerId); flip(true); });
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) hold.addEventListener(name, () => flip(false));

const KEYS = { 1: "left", 2: "right", 3: "tie", 4: "both_bad", s: "skip" };
const typing = (target) => target.closest && target.closest("input, textarea, select, [contenteditable=true]");
// One listener a page, however often the component is made anew: it asks for the root that is visible now.
window.dxCompare = { root, vote, undo, flip };
if (!window.dxCompareKeys) {
  window.dxCompareKeys = true;
  const visible = () => window.dxCompare.root.isConnected && window.dxCompare.root.offsetParent !== null;
  document.addEventListener("keydown", (event) => {
    if (!visible() || typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "f") { window.dxCompare.flip(true); return; }
    if (event.repeat) return;
    if (KEYS[key]) { event.preventDefault(); window.dxCompare.vote(KEYS[key]); }
    else if (key === "z") { event.preventDefault(); window.dxCompare.undo(); }
  });
  document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "f") window.dxCompare.flip(false); });
}

function draw() {
  const value = props.value;
  const asking = Boolean(value && value.token);
  $(".dx-asking").hidden = !asking;
  $(".dx-nothing").hidden = asking;
  $(".dx-nothing p").textContent = value && value.empty ? value.empty : "Open a scene first.";
  $(".dx-count").textContent = value && value.total ? `${value.done} of ${value.total} rated` : "";
  $(".dx-count-bar i").style.width = value && value.total ? `${(100 * value.done) / value.total}%` : "0";
  $(".dx-count-bar").hidden = !(value && value.total);
  if (!asking) { token = ""; setBusy(false); return; }
  if (value.token === token) { setBusy(false); return; }
  token = value.token;
  shownAt = 0;
  swapped = false;
  reset();
  const urls = [value.left, value.right];
  panes.forEach((pane, index) => {
    pane.querySelector("img").src = urls[index];
    pane.querySelector(".dx-under").style.backgroundImage = `url("${urls[1 - index]}")`;
  });
  const reference = $(".dx-reference");
  reference.hidden = !value.reference;
  if (value.reference) reference.querySelector("img").src = value.reference;
  $(".dx-place").textContent = value.place;
  setBusy(true);
  const mine = token;
  // The clock starts, and a vote counts, only once both pictures can be seen.
  Promise.all(panes.map((pane) => pane.querySelector("img").decode().catch(() => {}))).then(() => {
    if (mine !== token) return;
    const [first] = panes;
    root.classList.toggle("dx-tall", first.querySelector("img").naturalHeight > first.querySelector("img").naturalWidth);
    shownAt = performance.now();
    setBusy(false);
  });
}
draw();
watch("value", draw);
