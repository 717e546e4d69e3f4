// The running job, step by step. props.value: JSON of difix3d/ui/follow.py:panel, or null.
// DOM nodes are kept between updates, so that pictures do not flicker.
const make = (tag, cls, text) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
};
const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 10) return `${Math.max(0.1, seconds).toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
};
const ICON = { done: "✓", failed: "!", stopped: "■", running: "", waiting: "" };

function rowText(row) {
  if (row.state === "done") return row.skipped ? "unchanged, kept" : duration(row.seconds);
  if (row.state !== "running") return "";
  const count = row.total > 0 && row.unit !== "s" ? ` ${Math.round(row.done)} of ${Math.round(row.total)} ${row.unit}` : "";
  const left = row.seconds_left !== null && row.seconds_left !== undefined ? ` · about ${duration(row.seconds_left)} left` : "";
  return `${row.message}${count}${left}`;
}

function drawRows(list, rows) {
  while (list.children.length < rows.length) {
    const item = make("li", "dx-step");
    item.append(make("span", "dx-icon"), make("span", "dx-step-name"), make("span", "dx-step-text"));
    const bar = make("span", "dx-bar");
    bar.append(make("i"));
    item.append(bar);
    list.append(item);
  }
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach((row, index) => {
    const item = list.children[index];
    item.dataset.state = row.state;
    const [icon, name, text, bar] = item.children;
    icon.textContent = row.state === "waiting" || row.state === "running" ? String(index + 1) : ICON[row.state];
    name.textContent = row.label;
    text.textContent = rowText(row);
    const known = row.state === "running" && row.total > 0;
    bar.hidden = row.state !== "running";
    bar.classList.toggle("dx-busy", !known);
    bar.firstChild.style.width = known ? `${Math.min(100, (100 * row.done) / row.total)}%` : "30%";
  });
}

function drawPictures(box, pictures) {
  const order = ["frame", "preview", "sparse", "keyframes", "report"];
  const sorted = order.map((kind) => pictures.find((p) => p.kind === kind)).filter(Boolean);
  for (const figure of [...box.children]) {
    if (!sorted.some((p) => p.kind === figure.dataset.kind)) figure.remove();
  }
  sorted.forEach((picture) => {
    let figure = [...box.children].find((f) => f.dataset.kind === picture.kind);
    if (!figure) {
      figure = make("figure", "dx-live");
      figure.dataset.kind = picture.kind;
      figure.append(make("img"), make("figcaption"));
    }
    box.append(figure);
    const [img, caption] = figure.children;
    caption.textContent = picture.caption;
    img.alt = picture.caption;
    if (img.dataset.src !== picture.url) {
      img.dataset.src = picture.url;
      const next = new Image();
      next.onload = () => { if (img.dataset.src === picture.url) img.src = picture.url; };
      next.src = picture.url;
    }
  });
}

function drawCurve(box, curve, splats) {
  box.hidden = curve.length < 2;
  if (box.hidden) return;
  const [width, height, left, bottom] = [320, 120, 34, 18];
  const xs = curve.map((p) => p[0]);
  const ys = curve.map((p) => p[1]);
  const maxX = Math.max(...xs), minY = Math.floor(Math.min(...ys)), maxY = Math.max(minY + 1, Math.ceil(Math.max(...ys)));
  const x = (v) => left + ((width - left - 8) * v) / Math.max(maxX, 1e-6);
  const y = (v) => height - bottom - ((height - bottom - 8) * (v - minY)) / (maxY - minY);
  const points = curve.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
  const last = curve[curve.length - 1];
  box.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="PSNR over time">
    <line x1="${left}" x2="${width - 8}" y1="${y(minY)}" y2="${y(minY)}"/><line x1="${left}" x2="${width - 8}" y1="${y(maxY)}" y2="${y(maxY)}"/>
    <text x="${left - 5}" y="${y(minY) + 3}" text-anchor="end">${minY}</text><text x="${left - 5}" y="${y(maxY) + 3}" text-anchor="end">${maxY}</text>
    <text x="${left}" y="${height - 4}">0 s</text><text x="${width - 8}" y="${height - 4}" text-anchor="end">${Math.round(maxX)} s</text>
    <polyline points="${points}"/><circle cx="${x(last[0])}" cy="${y(last[1])}" r="3.5"/></svg>`;
  box.append(make("p", "", `${last[1].toFixed(1)} dB on photos it never saw · ${splats.toLocaleString("en")} splats`));
}

function draw() {
  const root = element.querySelector(".dx-progress");
  const value = props.value;
  root.hidden = !value;
  if (!value) return;
  if (!root.firstChild) {
    root.append(make("ol", "dx-steps"), make("div", "dx-error"), make("ul", "dx-warnings"), make("div", "dx-curve"), make("div", "dx-lives"));
  }
  const [steps, error, warnings, curve, lives] = root.children;
  root.dataset.state = value.state;
  drawRows(steps, value.rows);
  error.hidden = !value.error;
  error.textContent = value.error || "";
  error.setAttribute("role", "alert");
  warnings.replaceChildren(...value.warnings.map((text) => make("li", "", text)));
  if (value.more_warnings) warnings.append(make("li", "", `and ${value.more_warnings} more notes`));
  drawCurve(curve, value.curve, value.splats);
  drawPictures(lives, value.pictures);
}
draw();
watch("value", draw);
