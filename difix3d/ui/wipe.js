// Before and after with a divider to drag: two pictures, or the halves of one side-by-side video.
// props.value: {before, after} addresses of pictures, or {video}, and {labels: [left, right], caption, trust, frame}; or
// null. frame: whatever tells what is shown.
// trust: address of a grey picture; where it is dark the render stayed, and the right side can be tinted there.
// An event "dx-show" with {before, after, labels, caption, trust, frame} as its detail shows that instead, until the
// value changes, if it is of the same frame; "dx-drawn" tells that it has.
const root = element.querySelector(".dx-wipe");
const canvas = root.querySelector("canvas");
const context = canvas.getContext("2d");
const video = root.querySelector("video");
const knob = root.querySelector(".dx-knob");
const play = root.querySelector(".dx-play");
const trustBox = root.querySelector(".dx-trust");
const trustOn = trustBox.querySelector("input");
const TINT = [255, 120, 0], TINT_ALPHA = 0.62;
let position = 0.5, before = null, after = null, shown = "", shownAt, tint = null, drawings = 0;

function size() {
  if (video.dataset.on) return [Math.floor(video.videoWidth / 2), video.videoHeight];
  // A preview may be smaller than the render beside it.
  return after && before ? [before, after].map((each) => [each.naturalWidth, each.naturalHeight]).sort((a, b) => b[0] - a[0])[0] : [0, 0];
}
// The part of a picture from x to x + w of the canvas, whatever the picture's own size.
function part(image, x, w, width, height) {
  const scale = (image.naturalWidth || image.width) / width;
  context.drawImage(image, x * scale, 0, w * scale, image.naturalHeight || image.height, x, 0, w, height);
}
function paint() {
  const [width, height] = size();
  if (!width) return;
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const cut = Math.round(position * width);
  if (video.dataset.on) {
    if (cut > 0) context.drawImage(video, 0, 0, cut, height, 0, 0, cut, height);
    if (cut < width) context.drawImage(video, width + cut, 0, width - cut, height, cut, 0, width - cut, height);
  } else if (before && after && before.naturalWidth && after.naturalWidth) {
    if (cut > 0) part(before, 0, cut, width, height);
    if (cut < width) part(after, cut, width - cut, width, height);
    if (cut < width && tint && trustOn.checked) part(tint, cut, width - cut, width, height);
  }
  root.style.setProperty("--at", `${100 * position}%`);
}
function loop() {
  paint();
  if (!video.paused && video.dataset.on && document.contains(root)) requestAnimationFrame(loop);
}
function move(event) {
  const box = canvas.getBoundingClientRect();
  position = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  knob.setAttribute("aria-valuenow", Math.round(100 * position));
  paint();
}
const stage = root.querySelector(".dx-wipe-stage");
stage.addEventListener("pointerdown", (event) => {
  if (event.target === play) return;
  stage.setPointerCapture(event.pointerId);
  move(event);
});
stage.addEventListener("pointermove", (event) => { if (event.buttons || event.pointerType === "touch") move(event); });
knob.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
  if (!step) return;
  event.preventDefault();
  position = Math.min(1, Math.max(0, position + step));
  knob.setAttribute("aria-valuenow", Math.round(100 * position));
  paint();
});
const toggle = () => (video.paused ? video.play() : video.pause());
play.addEventListener("click", toggle);
video.addEventListener("play", () => { play.textContent = "Pause"; loop(); });
video.addEventListener("pause", () => { play.textContent = "Play"; paint(); });
for (const name of ["loadeddata", "seeked", "timeupdate"]) video.addEventListener(name, paint);
video.addEventListener("error", () => { if (video.dataset.on) root.querySelector("figcaption").textContent = "This browser cannot play the video. The frames are under Fix."; });

function picture(url) {
  const image = new Image();
  image.onload = paint;
  image.src = url;
  return image;
}
function name(value) {
  const labels = value.labels || ["before", "after"];
  root.querySelector(".dx-left").textContent = labels[0];
  root.querySelector(".dx-right").textContent = labels[1];
  root.querySelector("figcaption").textContent = value.caption || "";
}
function trust(url) {
  tint = null;
  trustBox.hidden = !url;
  if (!url) return;
  const image = new Image();
  image.onload = () => {
    const layer = document.createElement("canvas");
    [layer.width, layer.height] = [image.naturalWidth, image.naturalHeight];
    const inside = layer.getContext("2d");
    inside.drawImage(image, 0, 0);
    const pixels = inside.getImageData(0, 0, layer.width, layer.height);
    let total = 0;
    for (let i = 0; i < pixels.data.length; i += 4) {
      const grey = pixels.data[i];
      total += grey;
      pixels.data.set([...TINT, TINT_ALPHA * (255 - grey)], i);
    }
    inside.putImageData(pixels, 0, 0);
    if (shownTrust !== url) return;
    tint = layer;
    const share = total / (255 * layer.width * layer.height);
    trustBox.querySelector("span").textContent = `Trusted: ${Math.round(100 * share)}% of the frame.`;
    paint();
  };
  image.src = url;
}
let shownTrust = "";
trustOn.addEventListener("change", () => { trustBox.querySelector("p").hidden = !trustOn.checked; paint(); });
const sameFrame = (one, other) => JSON.stringify(one.frame) === JSON.stringify(other.frame);
root.addEventListener("dx-show", async (event) => {
  const value = event.detail;
  if (root.hidden || !before || !props.value || !sameFrame(value, props.value)) return;
  const mine = ++drawings;
  // The old pictures stay until the new ones can be drawn.
  const pair = [value.before, value.after].map((url) => Object.assign(new Image(), { src: url }));
  try { await Promise.all(pair.map((each) => each.decode())); } catch (error) { return; }
  if (mine !== drawings) return;
  [before, after] = pair;
  name(value);
  shownTrust = value.trust;
  trust(value.trust);
  paint();
});

function draw() {
  const value = props.value;
  root.hidden = !value;
  if (!value) { shown = ""; video.pause(); return; }
  const { shown: at, ...rest } = value;
  const key = JSON.stringify(rest);
  if (key === shown && (at === undefined || at === shownAt)) return;
  [shown, shownAt] = [key, at];
  drawings += 1;
  name(value);
  shownTrust = value.trust || "";
  trust(shownTrust);
  play.hidden = !value.video;
  if (value.video) {
    video.dataset.on = "1";
    video.src = value.video;
    video.play().catch(() => {});
  } else {
    delete video.dataset.on;
    video.pause();
    before = picture(value.before);
    after = picture(value.after);
  }
  root.dispatchEvent(new CustomEvent("dx-drawn", { bubbles: true }));
}
draw();
watch("value", draw);
