// The workbench: a frame at full depth, the cells found in it, and what a person says of them.
// makeBench(root, heard) draws into the elements of `root` and calls `heard(label)` with every change.
// A label: { points: [{x, y, probability}], regions: [{inside, corners: [[x, y]]}], count, lineage, unusable, edited }; as
// it is heard also `counted`, the number that is shown, and `left`, the points that count.
const DOT = 6, NEAR = 14 /* screen pixels within which a click is of a cell */, SLICE_MS = 10, KEPT = 500 /* steps that can be undone */;
function makeBench(root, heard) {
  const at = name => root.querySelector(`[data-bench=${name}]`), canvas = at("canvas"), pen = canvas.getContext("2d");
  const shown = at("frame"); // in the contrast that was asked for; moved and zoomed by its style, which costs the page nothing
  let frame = null, view = { scale: 1, x: 0, y: 0 }, cursor = null, tool = "move", drawing = null, painting = 0, due = 0, fitted = false;
  let steps = [], now = -1, least = 0;
  const pointers = new Map(), label = () => steps[now];

  // Grey values to screen, in slices, so that nothing waits for it.
  function paint() {
    if (!frame) return;
    const { values, width, height } = frame, [low, high, gamma] = ["low", "high", "gamma"].map(name => Number(at(name).value));
    const span = Math.max(1e-9, high - low), top = frame.top, table = new Uint32Array(top + 1);
    for (let grey = 0; grey <= top; grey++) {
      const share = Math.min(1, Math.max(0, (grey / top * 1000 - low) / span)), value = Math.round(255 * share ** (1 / gamma));
      table[grey] = 0xff000000 | value << 16 | value << 8 | value;
    }
    const mine = ++painting, target = shown.getContext("2d"), rows = Math.max(1, Math.floor(2 ** 18 / width));
    (function slice(top) {
      const began = performance.now();
      while (top < height && performance.now() - began < SLICE_MS) {
        const high = Math.min(rows, height - top), pixels = new ImageData(width, high), words = new Uint32Array(pixels.data.buffer);
        for (let n = 0, from = top * width; n < words.length; n++) words[n] = table[values[from + n]];
        target.putImageData(pixels, 0, top); top += high;
      }
      if (top < height && mine === painting) requestAnimationFrame(() => slice(top));
    })(0);
  }
  const draw = () => { due ||= requestAnimationFrame(() => { due = 0; drawNow(); }); };
  const onScreen = (x, y) => [x * view.scale + view.x, y * view.scale + view.y], inFrame = (x, y) => [(x - view.x) / view.scale, (y - view.y) / view.scale];
  function drawNow() {
    const ratio = devicePixelRatio, { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0); pen.clearRect(0, 0, width, height);
    if (!frame) return;
    shown.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`; shown.style.imageRendering = view.scale < 3 ? "auto" : "pixelated";
    for (const region of [...label().regions, ...(drawing ? [drawing] : [])]) outline(region);
    if (at("dots").checked) dots(width, height, ratio);
    if (cursor && document.activeElement === canvas) cross();
  }
  function outline({ inside, corners }) {
    pen.beginPath();
    for (const [x, y] of corners) pen.lineTo(...onScreen(x, y));
    pen.closePath(); pen.fillStyle = inside ? "#4fc3c926" : "#ff9a9140"; pen.fill();
    pen.lineWidth = 2; pen.setLineDash(inside ? [] : [6, 4]); pen.strokeStyle = inside ? "#4fc3c9" : "#ff9a91"; pen.stroke(); pen.setLineDash([]);
  }
  const rings = new Map(); // pictures of rings, of two strokes, so that they are seen on black and on white
  function ring(kind, radius, ratio) {
    const key = `${kind} ${radius} ${ratio}`;
    if (!rings.has(key)) {
      const side = 2 * radius + 5, picture = Object.assign(document.createElement("canvas"), { width: side * ratio, height: side * ratio }), ink = picture.getContext("2d");
      ink.scale(ratio, ratio);
      for (const [style, wide] of [["#11171d", 3.5], [DOTS[kind], 1.75]]) {
        ink.beginPath(); ink.lineWidth = wide; ink.strokeStyle = style; ink.arc(side / 2, side / 2, radius, 0, 2 * Math.PI); ink.stroke();
      }
      rings.set(key, picture);
    }
    return rings.get(key);
  }
  function dots(width, height, ratio) {
    const radius = Math.round(Math.max(3, Math.min(DOT, 4 + view.scale))), half = radius + 2.5;
    for (const point of label().points) {
      const [x, y] = onScreen(point.x, point.y);
      if (x < -half || y < -half || x > width + half || y > height + half || point.probability < least) continue;
      const kind = counts(point) ? point.probability === undefined ? "mine" : point.probability < .5 ? "unsure" : "sure" : "out";
      pen.drawImage(ring(kind, radius, ratio), Math.round((x - half) * ratio) / ratio, Math.round((y - half) * ratio) / ratio, 2 * half, 2 * half);
    }
  }
  function cross() {
    const [x, y] = onScreen(...cursor);
    for (const [style, wide] of [["#11171d", 4], ["#fff", 1.5]]) {
      pen.beginPath(); pen.lineWidth = wide; pen.strokeStyle = style;
      pen.moveTo(x - 14, y); pen.lineTo(x + 14, y); pen.moveTo(x, y - 14); pen.lineTo(x, y + 14); pen.stroke();
    }
  }

  // What counts: within the regions that are counted, where there are any, and in none that is left out.
  const within = ({ x, y }, { corners }) => corners.reduce((inside, [x1, y1], n) => {
    const [x0, y0] = corners.at(n - 1);
    return (y1 > y) !== (y0 > y) && x < (x0 - x1) * (y - y1) / (y0 - y1) + x1 ? !inside : inside;
  }, false);
  function counts(point) {
    const { regions } = label(), asked = regions.filter(({ inside }) => inside);
    return (!asked.length || asked.some(region => within(point, region))) && !regions.some(region => !region.inside && within(point, region));
  }
  const isLeft = point => !(point.probability < least) && counts(point);

  // Every change is a step, and undoing is going back.
  function change(what, text) {
    steps = [...steps.slice(Math.max(0, now - KEPT), now + 1), { ...label(), ...what, edited: true }]; now = steps.length - 1;
    tell(text);
  }
  function go(by) {
    if (!steps[now + by]) return speak(by < 0 ? "Nothing to undo" : "Nothing to do again");
    now += by; tell(by < 0 ? "Undone" : "Done again");
  }
  const speak = text => { at("spoken").textContent = text; };
  function tell(text) {
    const left = label().points.filter(isLeft), count = label().count ?? left.length;
    speak(`${text}. ${some(round(count), "cell")}.`);
    at("count").value = round(count); at("reset").textContent = `Count the points: ${number(left.length)}`; at("undo").disabled = now < 1; at("redo").disabled = now === steps.length - 1;
    at("lineage").value = label().lineage ?? ""; at("unusable").value = label().unusable ?? "";
    at("reset").hidden = label().count == null || !label().points.length; at("regions").hidden = !label().regions.length;
    heard({ ...label(), counted: count, left }); draw();
  }
  function nearest(x, y) {
    let best = null, reach = NEAR / view.scale;
    for (const point of label().points) {
      const away = Math.hypot(point.x - x, point.y - y);
      if (away < reach && !(point.probability < least)) { best = point; reach = away; }
    }
    return best;
  }
  function toggle(x, y) {
    if (x < 0 || y < 0 || x > frame.width || y > frame.height) return;
    const there = nearest(x, y), { points } = label();
    change({ count: null, points: there ? points.filter(point => point !== there) : [...points, { x: round(x), y: round(y) }] }, there ? "Removed a cell" : "Added a cell");
  }
  const round = value => Math.round(value * 10) / 10;
  function addRegion({ inside, corners }) {
    const kept = corners.map(([x, y]) => [round(Math.min(frame.width, Math.max(0, x))), round(Math.min(frame.height, Math.max(0, y)))]);
    const area = kept.reduce((sum, [x1, y1], n) => sum + (kept.at(n - 1)[0] * y1 - x1 * kept.at(n - 1)[1]) / 2, 0);
    if (Math.abs(area) * view.scale ** 2 > 60) change({ count: null, regions: [...label().regions, { inside, corners: kept }] }, inside ? "Region to count" : "Region left out");
    else draw();
  }

  // Where one looks.
  function fit() {
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = Math.min(width / frame.width, height / frame.height) || 1;
    view = { scale, x: (width - frame.width * scale) / 2, y: (height - frame.height * scale) / 2 }; fitted = true; draw();
  }
  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const scale = Math.min(40, Math.max(.02, view.scale * factor)), grown = scale / view.scale;
    view = { scale, x: x - (x - view.x) * grown, y: y - (y - view.y) * grown }; fitted = false; draw();
  }
  function pan(x, y) {
    if (x || y) fitted = false;
    view = { ...view, x: view.x + x, y: view.y + y }; draw();
  }
  function reveal([x, y]) { // brings a place of the frame into sight
    const [left, top] = onScreen(x, y), edge = 40, { clientWidth: width, clientHeight: height } = canvas;
    pan(Math.max(0, edge - left) - Math.max(0, left - width + edge), Math.max(0, edge - top) - Math.max(0, top - height + edge));
  }
  function choose(name) {
    tool = name; canvas.dataset.tool = name;
    for (const button of root.querySelectorAll("[data-tool]")) button.ariaPressed = String(button.dataset.tool === name);
  }

  // By mouse, pen and finger: two fingers zoom, one does what the tool does.
  const where = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.onpointerdown = event => {
    if (!frame) return;
    canvas.setPointerCapture(event.pointerId); pointers.set(event.pointerId, where(event)); cursor = null; canvas.focus({ preventScroll: true });
    const [x, y] = where(event), dragging = tool === "move" || event.button === 1 || pointers.size > 1;
    drawing = !dragging && (tool === "count" || tool === "leave") ? { inside: tool === "count", corners: [inFrame(x, y)] } : null;
    canvas.dataset.began = dragging ? "" : `${x} ${y}`;
  };
  canvas.onpointermove = event => {
    const before = pointers.get(event.pointerId), here = where(event);
    if (!before) return;
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place), apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
      zoom(apart(here) / apart(before), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2); canvas.dataset.began = ""; drawing = null;
    } else if (drawing) { drawing.corners.push(inFrame(...here)); draw(); }
    else if (tool === "move" || event.buttons & 4) pan(here[0] - before[0], here[1] - before[1]);
    pointers.set(event.pointerId, here);
  };
  canvas.onpointerup = event => {
    const [x, y] = where(event), [x0, y0] = (canvas.dataset.began || "").split(" ").map(Number);
    pointers.delete(event.pointerId);
    if (drawing) { const region = drawing; drawing = null; addRegion(region); }
    else if (tool === "cells" && canvas.dataset.began && Math.hypot(x - x0, y - y0) < 6) toggle(...inFrame(x, y));
  };
  canvas.onpointercancel = event => { pointers.delete(event.pointerId); drawing = null; draw(); };
  canvas.onwheel = event => { event.preventDefault(); if (frame) zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .002)), ...where(event)); };

  // By keys alone, with what is at the cross read out.
  function moveCursor(x, y) {
    cursor = [Math.min(frame.width, Math.max(0, x)), Math.min(frame.height, Math.max(0, y))].map(round);
    if (drawing) drawing.corners = box(drawing.from, cursor);
    reveal(cursor);
    speak(`${cursor.map(Math.round).join(", ")}${nearest(...cursor) ? ": a cell" : ""}`); draw();
  }
  const box = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
  function toCell(by) { // in reading order, by bands of the frame
    const band = frame.height / 20 || 1, order = label().points.filter(point => !(point.probability < least)).sort((one, other) => Math.floor(one.y / band) - Math.floor(other.y / band) || one.x - other.x);
    if (!order.length) return speak("No cells here");
    const index = cursor ? order.findIndex(({ x, y }) => x === cursor[0] && y === cursor[1]) : -1, next = order.at((index + by + (index < 0 && by < 0 ? 1 : 0) + order.length) % order.length);
    moveCursor(next.x, next.y); cursor = [next.x, next.y];
    speak(`Cell ${order.indexOf(next) + 1} of ${order.length}${next.probability === undefined ? ", yours" : `, ${percent(next.probability)}`}`); draw();
  }
  function corner(inside) {
    if (!drawing) { drawing = { inside, from: cursor, corners: box(cursor, cursor) }; return speak("First corner; go to the other, and press the same key"); }
    const region = drawing; drawing = null; addRegion(region);
  }
  const KEYS = {
    ArrowLeft: step => moveCursor(cursor[0] - step, cursor[1]), ArrowRight: step => moveCursor(cursor[0] + step, cursor[1]),
    ArrowUp: step => moveCursor(cursor[0], cursor[1] - step), ArrowDown: step => moveCursor(cursor[0], cursor[1] + step),
    Enter: () => toggle(...cursor), " ": () => toggle(...cursor), n: () => toCell(1), p: () => toCell(-1), r: () => corner(true), x: () => corner(false),
    Escape: () => { drawing = null; draw(); }, "+": () => zoom(1.25, ...onScreen(...cursor)), "=": () => zoom(1.25, ...onScreen(...cursor)), "-": () => zoom(.8, ...onScreen(...cursor)), 0: fit,
  };
  canvas.onkeydown = event => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!frame || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, key) || (key === "Escape" && !drawing)) return;
    event.preventDefault(); event.stopPropagation();
    cursor ??= inFrame(canvas.clientWidth / 2, canvas.clientHeight / 2).map(round);
    KEYS[key]((event.shiftKey ? 40 : 8) / Math.max(.5, view.scale));
  };
  canvas.onfocus = canvas.onblur = draw;
  root.addEventListener("keydown", event => { // wherever one is in the workbench, but where one writes
    const writes = event.target.matches("input:not([type=range], [type=checkbox], [type=radio]), select, textarea"), key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y") && !writes) { event.preventDefault(); go(key === "y" || event.shiftKey ? 1 : -1); }
    else if (!writes && !event.ctrlKey && !event.metaKey && !event.altKey && TOOLS[key]) choose(TOOLS[key]);
  });
  for (const button of root.querySelectorAll("[data-tool]")) button.onclick = () => choose(button.dataset.tool);
  for (const name of ["low", "high", "gamma"]) at(name).oninput = paint;
  at("dots").onchange = draw; at("least").oninput = () => { least = Number(at("least").value); if (label()) tell("Shown by how sure they are"); };
  at("undo").onclick = () => go(-1); at("redo").onclick = () => go(1); at("fit").onclick = fit;
  at("in").onclick = () => zoom(1.5); at("out").onclick = () => zoom(1 / 1.5);
  at("count").onchange = () => { const said = at("count").valueAsNumber; if (said >= 0) change({ count: said }, "Count said"); else tell("A count is a number from 0 on"); };
  at("reset").onclick = () => change({ count: null }, "The points count again");
  at("regions").onclick = () => change({ regions: [] }, "Regions removed");
  at("lineage").onchange = () => change({ lineage: at("lineage").value || null }, "Lineage said");
  at("unusable").onchange = () => change({ unusable: at("unusable").value || null }, at("unusable").value ? "Not usable" : "Usable");
  new ResizeObserver(() => frame && fitted ? fit() : draw()).observe(canvas); // what was fitted stays so

  return {
    // `pixels`: { values, width, height }, values a typed array of whole grey values; `known`: the label to begin with.
    open(pixels, known) {
      const { values } = pixels, histogram = new Uint32Array(values instanceof Uint8Array ? 256 : 65536);
      for (let n = 0, by = Math.max(1, values.length >> 20); n < values.length; n += by) histogram[values[n]]++;
      const top = histogram.findLastIndex(Boolean), total = histogram.reduce((sum, one) => sum + one, 0);
      const percentile = share => { let sum = 0; return histogram.findIndex(one => (sum += one) >= share * total); };
      frame = { ...pixels, top: Math.max(1, histogram.length === 256 ? 255 : top) };
      shown.width = pixels.width; shown.height = pixels.height; steps = [known]; now = 0; cursor = drawing = null; least = 0; at("least").value = 0;
      const [low, high] = [percentile(.005), percentile(.995)].map(grey => grey / frame.top * 1000);
      Object.assign(at("low"), { value: low }); Object.assign(at("high"), { value: Math.max(high, low + 1) }); at("gamma").value = 1;
      choose("move"); fit(); paint(); tell("Opened");
    },
    close() { frame = null; painting++; steps = []; now = -1; shown.width = shown.height = 0; },
  };
}
const DOTS = { sure: "#ffd166", unsure: "#ff8c42", mine: "#6ef3a5", out: "#8895a3" }, TOOLS = { m: "move", c: "cells", g: "count", l: "leave" };
