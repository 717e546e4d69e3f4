// References: small ones beside the pictures, one of them large over the pictures when it is asked for.
function drawReferences(pair) {
  const list = $(".dx-references");
  list.replaceChildren(...pair.references.map((reference, index) => {
    const button = document.createElement("button"), image = document.createElement("img");
    button.type = "button";
    button.title = "Look at this photo (R)";
    image.src = reference.small;
    image.alt = `Reference photo ${index + 1}`;
    button.append(image);
    button.addEventListener("click", () => look($(".dx-look").hidden || $(".dx-look img").dataset.of !== reference.whole ? reference : null));
    return button;
  }));
  list.dataset.count = pair.references.length;
}
function look(reference) {
  $(".dx-look").hidden = !reference;
  if (!reference) return;
  const image = $(".dx-look img"), photos = current?.references ?? [];
  $(".dx-look span").textContent = `Photo taken nearby, ${photos.indexOf(reference) + 1} of ${photos.length}`;
  image.dataset.of = reference.whole;
  image.src = reference.whole;
}
// The next photo, and after the last one the pictures again.
function lookOn() {
  const photos = current?.references ?? [], at = photos.findIndex((photo) => photo.whole === $(".dx-look img").dataset.of);
  look($(".dx-look").hidden ? photos[0] ?? null : photos[at + 1] ?? null);
}
$(".dx-look").addEventListener("click", lookOn);
