// One line that says on every tab what is running. props.value: {text, share, state} or null.
function draw() {
  const root = element.querySelector(".dx-status");
  const value = props.value;
  root.hidden = !value;
  if (!value) return;
  root.dataset.state = value.state;
  root.querySelector("span").textContent = value.text;
  root.querySelector("i").style.width = `${Math.round(100 * value.share)}%`;
}
draw();
watch("value", draw);
