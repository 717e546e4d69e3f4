// The pictures: one zoom and pan for both, side by side, under a slider, or as their difference; a flicker swaps them.
function makeStage(root, onChange) {
  const stage = root.querySelector(".dx-stage");
  const panes = [...stage.querySelectorAll(".dx-pane")];
  const images = panes.map((pane) => pane.querySelector(".dx-own"));
  const others = panes.map((pane) => pane.querySelector(".dx-other"));
  const MOST = 16;
  let zoom = 1, panX = 0, panY = 0, mode = "pair", swapped = false, at = 50;
  let tool = null; // takes one-finger drags while it is on: the brush

  // Pan is in shares of the pane, so that both move alike whatever their size.
  function place() {
    const most = (zoom - 1) / 2;
    panX = Math.min(most, Math.max(-most, panX));
    panY = Math.min(most, Math.max(-most, panY));
    for (const view of stage.querySelectorAll(".dx-view")) {
      view.style.transform = `translate(${100 * panX}%, ${100 * panY}%) scale(${zoom})`;
      view.classList.toggle("dx-near", zoom > 3);
    }
    stage.style.setProperty("--at", `${at}%`);
    stage.dataset.mode = mode;
    stage.classList.toggle("dx-swapped", swapped);
    stage.classList.toggle("dx-zoomed", zoom > 1);
    panes.forEach((pane, index) => { pane.querySelector("em").textContent = "AB"[swapped ? 1 - index : index]; });
    onChange({ zoom, mode, swapped });
  }
  function zoomBy(factor, x = 0, y = 0) {
    // (x, y), in shares of the pane from its middle, stays where it is.
    const next = Math.min(MOST, Math.max(1, zoom * factor));
    panX = x - (x - panX) * (next / zoom);
    panY = y - (y - panY) * (next / zoom);
    zoom = next;
    place();
  }
  const shareOf = (pane, x, y) => {
    const box = pane.getBoundingClientRect();
    return [(x - box.left) / box.width - 0.5, (y - box.top) / box.height - 0.5];
  };
  // A place on the screen as a pixel of the picture, which lies in its pane as large as fits.
  function pixelOf(pane, x, y) {
    const image = images[panes.indexOf(pane)], box = pane.getBoundingClientRect();
    const [shareX, shareY] = shareOf(pane, x, y);
    const fit = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    return [
      ((shareX - panX) / zoom) * (box.width / fit) + image.naturalWidth / 2,
      ((shareY - panY) / zoom) * (box.height / fit) + image.naturalHeight / 2,
    ];
  }
  const reset = () => { zoom = 1; panX = 0; panY = 0; place(); };
  const slideTo = (x) => {
    const box = panes[0].getBoundingClientRect();
    at = Math.min(100, Math.max(0, (100 * (x - box.left)) / box.width));
    place();
  };

  for (const pane of panes) {
    const pointers = new Map();
    let span = 0;
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      // Lines and pages as pixels (a mouse of Firefox counts in lines).
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      zoomBy(Math.exp(-Math.max(-240, Math.min(240, pixels)) / (event.ctrlKey ? 120 : 400)), ...shareOf(pane, event.clientX, event.clientY));
    }, { passive: false });
    pane.addEventListener("dblclick", () => { if (!tool) reset(); });
    pane.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      pointers.set(event.pointerId, event);
      pane.setPointerCapture(event.pointerId);
      if (tool && swapped) return; // the other picture is seen
      if (tool && pointers.size === 1) tool.start(pane, ...pixelOf(pane, event.clientX, event.clientY));
      else if (tool) tool.cancel();
      else if (mode === "slider" && zoom === 1) slideTo(event.clientX);
    });
    const gone = (event) => {
      if (pointers.delete(event.pointerId) && tool && !pointers.size) tool.end();
      span = 0;
    };
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) pane.addEventListener(name, gone);
    pane.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      pointers.set(event.pointerId, event);
      const box = pane.getBoundingClientRect();
      if (pointers.size === 2) {
        const [a, b] = [...pointers.values()];
        const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
        panX += (event.clientX - last.clientX) / box.width / 2;
        panY += (event.clientY - last.clientY) / box.height / 2;
        if (span) zoomBy(now / span, ...shareOf(pane, (a.clientX + b.clientX) / 2, (a.clientY + b.clientY) / 2));
        span = now;
      } else if (tool) {
        for (const each of event.getCoalescedEvents?.() ?? [event]) tool.move(...pixelOf(pane, each.clientX, each.clientY));
      } else if (mode === "slider" && zoom === 1) {
        slideTo(event.clientX);
      } else if (zoom > 1) {
        panX += (event.clientX - last.clientX) / box.width;
        panY += (event.clientY - last.clientY) / box.height;
        place();
      }
    });
  }
  const knob = stage.querySelector(".dx-divider");
  knob.addEventListener("pointerdown", (event) => { event.stopPropagation(); knob.setPointerCapture(event.pointerId); });
  knob.addEventListener("pointermove", (event) => { if (knob.hasPointerCapture(event.pointerId)) slideTo(event.clientX); });

  return {
    panes, images, reset, zoomBy,
    pan(x, y) { panX += x; panY += y; place(); },
    get mode() { return mode; },
    get zoom() { return zoom; },
    setMode(wanted) { mode = mode === wanted ? "pair" : wanted; at = 50; place(); },
    slide(by) { at = Math.min(100, Math.max(0, at + by)); place(); },
    flick(on) { if (on !== swapped) { swapped = on; place(); } },
    use(given) { tool = given; stage.classList.toggle("dx-brushing", Boolean(tool)); },
    // Resolves when both can be seen; rejects where one cannot be had.
    show(left, right) {
      swapped = false;
      at = 50;
      reset();
      [left, right].forEach((url, index) => { images[index].src = url; others[1 - index].src = url; });
      return Promise.all(images.map((image) => image.decode())).then(() => {
        stage.classList.toggle("dx-tall", images[0].naturalHeight > images[0].naturalWidth);
      });
    },
  };
}
