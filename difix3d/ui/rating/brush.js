// Marks where a picture is bad. Strokes are kept as lines in the picture's own pixels, so one can be taken back.
function makeBrush(stage, onChange) {
  const sides = ["left", "right"];
  const canvases = stage.panes.map((pane) => pane.querySelector(".dx-marks"));
  let strokes = [], current = null, size = 0.03, on = false;

  function paint(index) {
    const canvas = canvases[index], image = stage.images[index];
    if (canvas.width !== image.naturalWidth || canvas.height !== image.naturalHeight) {
      canvas.width = image.naturalWidth || 1;
      canvas.height = image.naturalHeight || 1;
    }
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = "#fff";
    for (const stroke of strokes) {
      if (stroke.side !== sides[index]) continue;
      context.lineWidth = stroke.width;
      context.beginPath();
      // A press without a move is a dot.
      context.moveTo(...stroke.points[0]);
      for (const point of stroke.points) context.lineTo(...point);
      context.stroke();
    }
  }
  const redraw = () => { paint(0); paint(1); onChange(); };
  const tool = {
    start(pane, x, y) {
      const index = stage.panes.indexOf(pane), image = stage.images[index];
      // Two pixels at least: a thinner line covers none by half, and would mark nothing.
      const width = Math.max(2, size * Math.max(image.naturalWidth, image.naturalHeight));
      current = { side: sides[index], width, points: [[x, y]] };
      strokes.push(current);
      redraw();
    },
    move(x, y) {
      if (!current) return;
      current.points.push([x, y]);
      paint(sides.indexOf(current.side));
    },
    end() { current = null; redraw(); },
    // A second finger came down: this was to be a pinch, and no mark.
    cancel() { if (current) { strokes.pop(); current = null; redraw(); } },
  };

  return {
    get on() { return on; },
    get count() { return strokes.length; },
    get size() { return size; },
    get strokes() { return strokes; },
    setSize(value) { size = value; onChange(); },
    toggle(wanted = !on) { on = wanted; if (on && stage.mode === "difference") stage.setMode("pair"); stage.use(on ? tool : null); onChange(); },
    undo() { strokes.pop(); redraw(); },
    clear() { strokes = []; redraw(); },
    restore(given) { strokes = given ?? []; current = null; redraw(); },
    // {left, right}: PNG at the picture's own size in base64, "" where there is no mark.
    marks() {
      return Object.fromEntries(sides.map((side, index) => [
        side,
        strokes.some((stroke) => stroke.side === side) ? canvases[index].toDataURL("image/png").split(",")[1] : "",
      ]));
    },
  };
}
