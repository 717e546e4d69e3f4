// The screen as the state of screen.js says.
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
