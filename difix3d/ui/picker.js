// Photos to choose references from, each with a bar of how much of the frame it covers.
// props.value: {photos: [{name, url, covered, angle}], chosen: [names in order], most, asked: [scene, trajectory, index,
// fixer], live, visitor, began}. url: "" where there is no small picture. A press adds the photo as the next reference, or
// takes it out; `chosen` follows at once, and where `live` the server is asked for the fix, which is shown in the wipe. A
// newer press ends an older request. Of two questions to the server the older may be answered last (its photos took
// longer to rank): the newer answer stays.
const root = element.querySelector(".dx-picker");
const group = root.querySelector(".dx-photos");
const said = root.querySelector(".dx-picker-said");
const page = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());
let chosen = [], shown = "", asked = "", following = false, turn = 0, waiting = null, late = null, newest = null;

const wipe = () => document.querySelector("#dx-fix-wipe .dx-wipe");
const frameOf = (value) => JSON.stringify(value.asked.slice(0, 3));
const percent = (share) => `${Math.round(100 * share)}%`;
const short = (name) => name.replace(/\.[^.]*$/, "");
function say(text) { if (said.textContent !== text) said.textContent = text; }

function mark() {
  for (const button of group.children) {
    const place = chosen.indexOf(button.dataset.name);
    button.setAttribute("aria-pressed", place >= 0);
    button.setAttribute("aria-label", button.dataset.label + (place >= 0 ? `, chosen, number ${place + 1}` : ""));
    button.querySelector("b").textContent = place >= 0 ? place + 1 : "";
  }
}
function press(name) {
  const most = props.value.most;
  if (chosen.includes(name)) chosen = chosen.filter((other) => other !== name);
  else chosen = [...chosen, name].slice(-Math.max(1, most));
  mark();
  newest = props.value = { ...props.value, chosen };
  if (props.value.live) follow();
  else say(`${chosen.length} of at most ${most} chosen. Press the button to fix the frame.`);
}
function stop() {
  turn += 1;
  if (waiting) waiting.abort();
  waiting = null;
  clearTimeout(late);
  busy(false);
}
function busy(on) {
  root.toggleAttribute("data-busy", on);
  const picture = wipe();
  if (picture) { picture.toggleAttribute("data-busy", on); picture.setAttribute("aria-busy", on); }
}
async function follow() {
  stop();
  following = true;
  const mine = turn;
  const value = props.value;
  const [scene, trajectory, index, fixer] = value.asked;
  waiting = new AbortController();
  late = setTimeout(() => { busy(true); say("Fixing with the photos you chose…"); }, 120);
  let answer, problem = "";
  try {
    const response = await fetch("fix/preview", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Visitor": value.visitor },
      body: JSON.stringify({ scene, trajectory, index, fixer, chosen, page, turn: mine }),
      signal: waiting.signal,
    });
    answer = await response.json();
    if (!response.ok) problem = answer.error || "The fix could not be made.";
  } catch (error) {
    problem = "The server does not answer. Press a photo to try again.";
  }
  if (mine !== turn) return;
  stop();
  say(problem || answer.said);
  if (problem) return;
  const picture = wipe();
  if (picture) picture.dispatchEvent(new CustomEvent("dx-show", { detail: answer }));
}
function card(photo) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.name = photo.name;
  const known = photo.covered !== null && photo.covered !== undefined;
  const covers = known ? percent(photo.covered) : "";
  button.dataset.label = `Photo ${short(photo.name)}, ${known ? `covers ${covers} of the frame, ` : ""}${photo.angle}° away`;
  button.title = button.dataset.label;
  const image = photo.url ? new Image() : document.createElement("em");
  if (photo.url) Object.assign(image, { src: photo.url, alt: "", loading: "lazy" });
  else image.textContent = short(photo.name);
  button.append(image, document.createElement("b"));
  if (known) {
    const bar = document.createElement("span");
    bar.className = "dx-covers";
    bar.append(document.createElement("i"));
    bar.firstChild.style.width = `${100 * photo.covered}%`;
    button.append(bar);
  }
  const note = document.createElement("small");
  note.textContent = known ? `${covers} · ${photo.angle}°` : `${photo.angle}° away`;
  button.append(note);
  button.addEventListener("click", () => press(photo.name));
  return button;
}
function draw() {
  const value = props.value;
  if (value && newest && value.began < newest.began) { props.value = newest; return; }
  newest = value;
  root.hidden = !value || !value.photos.length;
  if (!value) { stop(); following = false; asked = ""; return; }
  const before = chosen.join();
  chosen = [...value.chosen];
  const photos = JSON.stringify(value.photos);
  if (photos !== shown) {
    shown = photos;
    group.replaceChildren(...value.photos.map(card));
  }
  mark();
  const now = JSON.stringify(value.asked);
  const [newQuestion, oldFrame] = [now !== asked, asked && JSON.stringify(JSON.parse(asked).slice(0, 3))];
  asked = now;
  if (oldFrame !== frameOf(value)) { stop(); following = false; say(""); return; }
  // The same frame with another fixer, or the photos chosen anew: who was watching goes on watching.
  if (!newQuestion && before === chosen.join()) return;
  if (following && value.live) follow();
  else { stop(); say(""); }
}
// Arrow keys go from photo to photo, as the eye does; Tab and Space work as for all buttons.
group.addEventListener("keydown", (event) => {
  const buttons = [...group.children];
  const at = buttons.indexOf(document.activeElement);
  if (at < 0) return;
  const columns = buttons.filter((each) => each.offsetTop === buttons[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const next = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : step && at + step;
  if (next === undefined || !buttons[next]) return;
  event.preventDefault();
  buttons[next].focus();
});
// What the server draws by itself, a kept fix or another frame, is newer than any preview on its way.
document.addEventListener("dx-drawn", (event) => {
  if (!event.target.closest("#dx-fix-wipe")) return;
  if (waiting || following) { stop(); say(""); }
});
draw();
watch("value", draw);
