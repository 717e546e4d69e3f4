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
