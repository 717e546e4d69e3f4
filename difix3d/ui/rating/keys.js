// What was pressed. Buttons lose the focus that a press gave them, so that space flickers and does not press them again.
const press = (selector, act) => root.addEventListener("click", (event) => {
  const button = event.target.closest(selector);
  if (!button || !root.contains(button)) return;
  if (event.detail) button.blur();
  act(button);
});
press("[data-choice]", (button) => vote(button.dataset.choice));
press("[data-undo]", undo);
// In the difference neither picture is seen, nor any mark: nothing can be marked there.
const setMode = (mode) => { if (mode === "difference") details.brush.toggle(false); stage.setMode(mode); };
press("button[data-mode]", (button) => setMode(button.dataset.mode));
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
  s: () => setMode("slider"), d: () => setMode("difference"),
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
  // By place where the layout has digits only with Shift (AZERTY); not what else such a key may be (End, Page Down).
  const place = event.key.length === 1 && /^(?:Digit|Numpad)([0-4])$/.exec(event.code)?.[1];
  const key = KEYS[event.key.toLowerCase()] ? event.key.toLowerCase() : place || event.key.toLowerCase();
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
