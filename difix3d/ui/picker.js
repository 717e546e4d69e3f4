// Photos to choose references from. props.value: {photos: [{name, url, note}], chosen: [names in order], most}.
// A press adds the photo as the next reference, or takes it out; the value's `chosen` follows at once, without a server.
const root = element.querySelector(".dx-picker");
let chosen = [], shown = "";
function mark() {
  for (const button of root.querySelectorAll("button")) {
    const place = chosen.indexOf(button.dataset.name);
    button.setAttribute("aria-pressed", place >= 0);
    button.querySelector("b").textContent = place >= 0 ? place + 1 : "";
  }
}
function press(name) {
  const most = props.value.most;
  if (chosen.includes(name)) chosen = chosen.filter((other) => other !== name);
  else chosen = [...chosen, name].slice(-Math.max(1, most));
  mark();
  props.value = { ...props.value, chosen };
}
function draw() {
  const value = props.value;
  root.hidden = !value;
  if (!value) return;
  chosen = [...value.chosen];
  const photos = JSON.stringify(value.photos);
  if (photos === shown) { mark(); return; }
  shown = photos;
  root.replaceChildren(...value.photos.map((photo) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = photo.name;
    button.title = `${photo.name}: ${photo.note}`;
    const image = new Image();
    image.src = photo.url;
    image.alt = `Photo ${photo.name}`;
    image.loading = "lazy";
    const note = document.createElement("small");
    note.textContent = photo.note;
    button.append(image, document.createElement("b"), note);
    button.addEventListener("click", () => press(photo.name));
    return button;
  }));
  mark();
}
draw();
watch("value", draw);
