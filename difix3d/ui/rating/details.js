// What may be said besides the vote, for each picture: tags, two scores, marks; and a comment. Folded away until wanted.
function makeDetails(root, stage, onChange) {
  const fold = root.querySelector(".dx-more"), comment = fold.querySelector("textarea");
  const sides = ["left", "right"];
  const brush = makeBrush(stage, draw);
  let draft = blank();

  function blank() {
    return Object.fromEntries(sides.map((side) => [side, { tags: [], artifact_removal: null, faithfulness: null }]));
  }
  function draw() {
    for (const side of sides) {
      const part = fold.querySelector(`[data-side=${side}]`);
      for (const chip of part.querySelectorAll("[data-tag]")) chip.setAttribute("aria-pressed", draft[side].tags.includes(chip.dataset.tag));
      for (const star of part.querySelectorAll("[data-score]")) {
        star.setAttribute("aria-pressed", draft[side][star.dataset.score] === Number(star.dataset.value));
      }
    }
    const set = (selector, pressed) => fold.querySelector(selector).setAttribute("aria-pressed", pressed);
    set("[data-brush]", brush.on);
    for (const button of fold.querySelectorAll("[data-size]")) {
      button.setAttribute("aria-pressed", Number(button.dataset.size) === brush.size);
      button.disabled = !brush.on;
    }
    for (const name of ["[data-unstroke]", "[data-clear]"]) fold.querySelector(name).disabled = !brush.count;
    onChange();
  }
  fold.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const said = draft[button.closest("[data-side]")?.dataset.side], data = button.dataset;
    if (data.tag) said.tags = said.tags.includes(data.tag) ? said.tags.filter((tag) => tag !== data.tag) : [...said.tags, data.tag];
    else if (data.score) said[data.score] = said[data.score] === Number(data.value) ? null : Number(data.value);
    else if ("brush" in data) brush.toggle();
    else if (data.size) brush.setSize(Number(data.size));
    else if ("unstroke" in data) brush.undo();
    else if ("clear" in data) brush.clear();
    draw();
  });
  comment.addEventListener("input", onChange);

  return {
    brush,
    get open() { return !fold.hidden; },
    toggle(wanted = fold.hidden) {
      fold.hidden = !wanted;
      if (!wanted) brush.toggle(false);
      draw();
    },
    // How many things were said.
    get count() {
      const of = (said) => said.tags.length + (said.artifact_removal !== null) + (said.faithfulness !== null);
      return of(draft.left) + of(draft.right) + brush.count + (comment.value.trim() !== "");
    },
    // As the vote carries it; `keep` is what `restore` takes.
    said() {
      const marks = brush.marks();
      return Object.fromEntries([...sides.map((side) => [side, { ...draft[side], marks: marks[side] }]), ["comment", comment.value]]);
    },
    keep: () => ({ draft, comment: comment.value, strokes: brush.strokes }),
    restore(kept) {
      draft = kept?.draft ?? blank();
      comment.value = kept?.comment ?? "";
      brush.restore(kept?.strokes);
      brush.toggle(false);
      draw();
    },
  };
}
