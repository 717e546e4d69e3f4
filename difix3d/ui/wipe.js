// Before and after with a divider to drag: two pictures, or the halves of one side-by-side video.
// props.value: {before, after} addresses of pictures, or {video}, and {labels: [left, right], caption}; or null.
const root = element.querySelector(".dx-wipe");
const canvas = root.querySelector("canvas");
const context = canvas.getContext("2d");
const video = root.querySelector("video");
const knob = root.querySelector(".dx-knob");
const play = root.querySelector(".dx-play");
let position = 0.5, before = null, after = null, shown = "";

function size() {
  if (video.dataset.on) return [Math.floor(video.videoWidth / 2), video.videoHeight];
  return after ? [after.naturalWidth, after.naturalHeight] : [0, 0];
}
function paint() {
  const [width, height] = size();
  if (!width) return;
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const cut = Math.round(position * width);
  if (video.dataset.on) {
    if (cut > 0) context.drawImage(video, 0, 0, cut, height, 0, 0, cut, height);
    if (cut < width) context.drawImage(video, width + cut, 0, width - cut, height, cut, 0, width - cut, height);
  } else if (before && after) {
    if (cut > 0) context.drawImage(before, 0, 0, cut, height, 0, 0, cut, height);
    if (cut < width) context.drawImage(after, cut, 0, width - cut, height, cut, 0, width - cut, height);
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
function draw() {
  const value = props.value;
  root.hidden = !value;
  if (!value) { shown = ""; video.pause(); return; }
  const key = JSON.stringify(value);
  if (key === shown) return;
  shown = key;
  const labels = value.labels || ["before", "after"];
  root.querySelector(".dx-left").textContent = labels[0];
  root.querySelector(".dx-right").textContent = labels[1];
  root.querySelector("figcaption").textContent = value.caption || "";
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
}
draw();
watch("value", draw);
