// 3D Gaussian splats in WebGL2 (Kerbl et al. 2023; EWA splatting, Zwicker et al. 2001), drawn back to front.
// props.value: {url of a .splat, position, target, width, height, focal} (world z up, focal in the photo's pixels), or null.
// Draws only when something changed, so that it rests when nobody looks.
const root = element.querySelector(".dx-viewer");
const canvas = root.querySelector("canvas");
const note = root.querySelector(".dx-viewer-note");
const TEXELS = 3, PER_ROW = 1024, RECORD = 32;

const VERTEX = `#version 300 es
precision highp float; precision highp int; precision highp usampler2D;
uniform usampler2D splats; uniform mat4 view; uniform vec2 focal, viewport;
in vec2 corner; in uint id;
out vec4 colour; out vec2 at;
void main() {
  ivec2 cell = ivec2(int(id % ${PER_ROW}u) * ${TEXELS}, int(id / ${PER_ROW}u));
  uvec4 a = texelFetch(splats, cell, 0), b = texelFetch(splats, cell + ivec2(1, 0), 0), c = texelFetch(splats, cell + ivec2(2, 0), 0);
  vec3 cam = (view * vec4(uintBitsToFloat(a.xyz), 1.0)).xyz;
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  if (cam.z < 0.02) return;
  vec4 v = uintBitsToFloat(b); vec2 w = uintBitsToFloat(c.xy);
  mat3 covariance = mat3(v.x, v.y, v.z, v.y, v.w, w.x, v.z, w.x, w.y);
  vec2 limit = 1.3 * 0.5 * viewport / focal;
  vec2 slope = clamp(cam.xy / cam.z, -limit, limit);
  mat3 J = mat3(focal.x / cam.z, 0.0, 0.0, 0.0, focal.y / cam.z, 0.0, -focal * slope / cam.z, 0.0);
  mat3 T = J * mat3(view);
  mat3 S = T * covariance * transpose(T);
  float xx = S[0][0] + 0.3, xy = S[0][1], yy = S[1][1] + 0.3;
  float mid = 0.5 * (xx + yy), spread = length(vec2(0.5 * (xx - yy), xy));
  float large = mid + spread, small = max(mid - spread, 0.1);
  vec2 axis = spread < 1e-6 ? vec2(1.0, 0.0) : normalize(vec2(xy, large - xx) + vec2(abs(xy) < 1e-9 && xx > yy ? 1.0 : 0.0, 0.0));
  vec2 offset = corner.x * min(sqrt(2.0 * large), 2048.0) * axis + corner.y * min(sqrt(2.0 * small), 2048.0) * vec2(axis.y, -axis.x);
  vec2 pixel = focal * cam.xy / cam.z + offset;
  at = corner;
  colour = vec4(a.w & 255u, (a.w >> 8) & 255u, (a.w >> 16) & 255u, a.w >> 24) / 255.0;
  gl_Position = vec4(2.0 * pixel.x / viewport.x, -2.0 * pixel.y / viewport.y, 0.0, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec4 colour; in vec2 at; out vec4 shown;
void main() {
  float r = dot(at, at);
  if (r > 4.0) discard;
  float alpha = colour.a * exp(-r);
  shown = vec4(colour.rgb * alpha, alpha);
}`;

let gl = null, program = null, texture = null, idBuffer = null, where = {};
let count = 0, means = null, order = null, home = null, eye = null, asked = "", dirty = false;

function setUp() {
  gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
  if (!gl) return false;
  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, source);
    gl.compileShader(made);
    if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) console.error(gl.getShaderInfoLog(made));
    return made;
  };
  program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, VERTEX));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, FRAGMENT));
  gl.linkProgram(program);
  gl.useProgram(program);
  for (const name of ["splats", "view", "focal", "viewport"]) where[name] = gl.getUniformLocation(program, name);
  const corners = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, corners);
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-2, -2, 2, -2, 2, 2, -2, 2]), gl.STATIC_DRAW);
  const corner = gl.getAttribLocation(program, "corner");
  gl.enableVertexAttribArray(corner);
  gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
  idBuffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, idBuffer);
  const id = gl.getAttribLocation(program, "id");
  gl.enableVertexAttribArray(id);
  gl.vertexAttribIPointer(id, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(id, 1);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  texture = gl.createTexture();
  return true;
}

// The covariance R S S R^T of each record, and all of it into one texture.
function upload(buffer) {
  count = Math.floor(buffer.byteLength / RECORD);
  const floats = new Float32Array(buffer), bytes = new Uint8Array(buffer), words = new Uint32Array(buffer);
  const rows = Math.max(1, Math.ceil(count / PER_ROW));
  const packed = new Uint32Array(rows * PER_ROW * TEXELS * 4), values = new Float32Array(packed.buffer);
  means = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    const from = 8 * i, to = 4 * TEXELS * i;
    let [w, x, y, z] = [28, 29, 30, 31].map((k) => (bytes[RECORD * i + k] - 128) / 128);
    const length = Math.hypot(w, x, y, z) || 1;
    w /= length; x /= length; y /= length; z /= length;
    const [s0, s1, s2] = [floats[from + 3] ** 2, floats[from + 4] ** 2, floats[from + 5] ** 2];
    const r = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)];
    const covariance = (i0, j0) => r[3 * i0] * r[3 * j0] * s0 + r[3 * i0 + 1] * r[3 * j0 + 1] * s1 + r[3 * i0 + 2] * r[3 * j0 + 2] * s2;
    for (let k = 0; k < 3; k++) means[3 * i + k] = values[to + k] = floats[from + k];
    packed[to + 3] = words[from + 6];
    values[to + 4] = covariance(0, 0); values[to + 5] = covariance(0, 1); values[to + 6] = covariance(0, 2);
    values[to + 7] = covariance(1, 1); values[to + 8] = covariance(1, 2); values[to + 9] = covariance(2, 2);
  }
  order = new Uint32Array(count);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, PER_ROW * TEXELS, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, packed);
}

const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => { const n = Math.hypot(...a) || 1; return a.map((v) => v / n); };

// Rows of cam_from_world: right, down, forward.
function axes() {
  const { azimuth, elevation, radius, target } = eye;
  const out = [Math.cos(elevation) * Math.cos(azimuth), Math.cos(elevation) * Math.sin(azimuth), Math.sin(elevation)];
  const forward = out.map((v) => -v);
  const right = unit(cross(forward, [0, 0, 1]));
  return { position: target.map((v, k) => v + radius * out[k]), rows: [right, cross(forward, right), forward] };
}

// Counting sort by depth, farthest first.
function sort(forward) {
  let low = Infinity, high = -Infinity;
  const depths = new Float32Array(count), bins = new Uint32Array(65537);
  for (let i = 0; i < count; i++) {
    const d = means[3 * i] * forward[0] + means[3 * i + 1] * forward[1] + means[3 * i + 2] * forward[2];
    depths[i] = d;
    if (d < low) low = d;
    if (d > high) high = d;
  }
  const scale = 65535 / Math.max(high - low, 1e-9);
  for (let i = 0; i < count; i++) bins[1 + (65535 - ((depths[i] - low) * scale) | 0)]++;
  for (let k = 1; k < 65537; k++) bins[k] += bins[k - 1];
  for (let i = 0; i < count; i++) order[bins[(65535 - ((depths[i] - low) * scale) | 0)]++] = i;
}

function paint() {
  dirty = false;
  const box = canvas.getBoundingClientRect();
  if (!count || !eye || !box.width) return;
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const { position, rows } = axes();
  sort(rows[2]);
  gl.viewport(0, 0, width, height);
  gl.clearColor(0.09, 0.09, 0.1, 1);
  gl.clear(gl.COLOR_BUFFER_BIT);
  const view = new Float32Array(16);
  rows.forEach((row, i) => { for (let k = 0; k < 3; k++) view[4 * k + i] = row[k]; view[12 + i] = -dot(row, position); });
  view[15] = 1;
  // The whole photo fits in at first, whatever the shape of the page's box.
  const focal = props.value.focal * Math.min(width / props.value.width, height / props.value.height);
  gl.uniformMatrix4fv(where.view, false, view);
  gl.uniform2f(where.focal, focal, focal);
  gl.uniform2f(where.viewport, width, height);
  gl.bindBuffer(gl.ARRAY_BUFFER, idBuffer);
  gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
  gl.drawArraysInstanced(gl.TRIANGLE_FAN, 0, 4, count);
  canvas.dataset.drawn = count;
}
function redraw() {
  if (!dirty) { dirty = true; requestAnimationFrame(paint); }
}
function goHome() { eye = structuredClone(home); redraw(); }

const pointers = new Map();
let span = 0;
function pan(dx, dy) {
  const { rows } = axes();
  const step = eye.radius / canvas.clientHeight;
  eye.target = eye.target.map((v, k) => v - step * (dx * rows[0][k] + dy * rows[1][k]));
}
function turn(dx, dy) {
  eye.azimuth -= 0.006 * dx;
  eye.elevation = Math.min(1.55, Math.max(-1.55, eye.elevation + 0.006 * dy));
}
const zoom = (factor) => { eye.radius = Math.min(20, Math.max(0.05, eye.radius * factor)); };
canvas.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); });
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => { pointers.delete(event.pointerId); span = 0; });
canvas.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  if (!last || !eye) return;
  const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
  pointers.set(event.pointerId, event);
  if (pointers.size === 2) {
    const [a, b] = [...pointers.values()];
    const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    if (span) zoom(span / now);
    span = now;
    pan(dx / 2, dy / 2);
  } else if (event.shiftKey || event.buttons === 2) pan(dx, dy);
  else turn(dx, dy);
  redraw();
});
canvas.addEventListener("wheel", (event) => { event.preventDefault(); if (eye) { zoom(Math.exp(event.deltaY / 600)); redraw(); } }, { passive: false });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("dblclick", goHome);
canvas.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-20, 0], ArrowRight: [20, 0], ArrowUp: [0, 20], ArrowDown: [0, -20] };
  if (!eye) return;
  if (steps[event.key]) turn(...steps[event.key]);
  else if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 0.9 : 1.1);
  else return;
  event.preventDefault();
  redraw();
});
const full = root.querySelector(".dx-full");
full.hidden = !root.requestFullscreen;  // iPhones have it for videos alone
full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()));
root.querySelector(".dx-home").addEventListener("click", goHome);
new ResizeObserver(redraw).observe(canvas);

function startFrom(value) {
  const offset = minus(value.position, value.target);
  const radius = Math.hypot(...offset) || 1;
  home = { azimuth: Math.atan2(offset[1], offset[0]), elevation: Math.asin(Math.min(1, Math.max(-1, offset[2] / radius))), radius, target: [...value.target] };
  home.elevation = Math.min(1.55, Math.max(-1.55, home.elevation));
  eye = structuredClone(home);
}
async function draw() {
  const value = props.value;
  root.hidden = !value;
  if (!value) { asked = ""; return; }
  if (value.url === asked) return;
  asked = value.url;
  if (!gl && !setUp()) {
    note.textContent = "This browser cannot draw 3D (WebGL2). The path's video and the .ply below show the same.";
    return;
  }
  note.textContent = "Loading";
  try {
    const answer = await fetch(value.url);
    if (!answer.ok) throw new Error(answer.status);
    const buffer = await answer.arrayBuffer();
    if (asked !== value.url) return;
    upload(buffer);
    startFrom(value);
    note.textContent = "";
    redraw();
  } catch (error) {
    console.error(error);
    note.textContent = "The splats could not be loaded. Reload the page to try again.";
  }
}
// Phones take a page's context away while it is out of sight.
canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); gl = null; count = 0; });
canvas.addEventListener("webglcontextrestored", () => { asked = ""; const seen = eye; draw().then(() => { if (seen) { eye = seen; redraw(); } }); });
draw();
watch("value", draw);
