// Shows the images, the least sure first, and lets people move points.
"use strict";
(() => {
  const { parts, skeleton, images, states } = model;
  const byId = (id) => document.getElementById(id);
  const [editor, stage, room] = [byId("editor"), byId("stage"), byId("room")];
  const SVG = "http://www.w3.org/2000/svg";
  const NEAR = { touch: 32, mouse: 18, pen: 24 }; // pixels of the window from the pointer to a point that is meant
  const ZOOM = 4; // of the magnifying glass, against the large image
  const LOW = 0.1; // so far below its part's median a score is printed bold
  let open = null; // the image that is large
  let chosen = null; // its part that is moved
  let dragged = null; // {x, y, from, kind, moved}: where the pointer and the point were when it began
  let glass = false; // the magnifying glass is shown
  let drags = 0;
  let scale = 1; // pixels of the window for one of the original
  let saved = model.csv();

  function element(name, attributes = {}, text = null) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function shape(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const say = (text) => { byId("live").textContent = text; byId("said").textContent = text; };
  const decimals = (value, digits) => value.toFixed(digits).replace("-", "−");
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
  const placeText = ({ x, y }) => `(${decimals(x, 1)}, ${decimals(y, 1)})`;

  function picture(image) {
    const made = element("img", { src: image.picture, alt: "", draggable: "false", decoding: "async" });
    made.classList.toggle("coarse", Math.max(image.width, image.height) < 100);
    return made;
  }

  // In pixels of the original, whose centres are at integers; `unit` is one pixel of the window.
  function drawPoints(svg, i, unit, radius, large) {
    const { width, height } = images[i];
    const { points } = states[i];
    svg.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
    const [drawn, top] = [[], []];
    for (const kind of ["under", "over"]) {
      for (const [a, b] of skeleton) {
        if (points[a].visible && points[b].visible) drawn.push(shape("line", { class: kind, x1: points[a].x, y1: points[a].y, x2: points[b].x, y2: points[b].y }));
      }
    }
    points.forEach(({ x, y, visible }, p) => {
      if (x === null) return;
      const now = large && p === chosen;
      const r = (now && glass ? 2 : visible ? radius : 1.25 * radius) * unit;
      const group = shape("g", { class: `point${visible ? "" : " absent"}`, "data-part": p });
      if (visible) {
        group.append(
          shape("circle", { cx: x, cy: y, r: r + 1.7 * unit, fill: "#000000" }),
          shape("circle", { cx: x, cy: y, r, fill: parts[p].colour, stroke: "#ffffff", "stroke-width": large ? "1.4px" : "1px" }),
        );
      } else {
        group.append(
          shape("circle", { class: "edge", cx: x, cy: y, r, "stroke-width": large ? "6px" : "4.6px" }),
          shape("circle", { class: "ring", cx: x, cy: y, r, "stroke-width": large ? "4.4px" : "3.4px" }),
          shape("circle", { cx: x, cy: y, r, fill: "none", stroke: parts[p].colour, "stroke-width": large ? "2.4px" : "1.8px" }),
        );
      }
      if (now) {
        group.append(
          shape("circle", { class: "edge", cx: x, cy: y, r: 14 * unit, "stroke-width": "4px" }),
          shape("circle", { class: "ring", cx: x, cy: y, r: 14 * unit, "stroke-width": "2px" }),
        );
      }
      if (now) top.push(group);
      else drawn.push(group);
    });
    svg.replaceChildren(...drawn, ...top);
  }

  // --- the contact sheet

  const tiles = images.map((image, i) => {
    const made = { button: element("button", { type: "button", class: "tile", "data-image": i }), overlay: shape("svg", { "aria-hidden": "true" }), state: element("span", { class: "state" }) };
    const head = element("span", { class: "head" });
    const name = element("b", { class: "tail", title: image.name });
    name.append(element("bdi", {}, image.name));
    head.append(name, element("span", {}, image.confidence));
    const frame = element("span", { class: "picture" });
    frame.style.aspectRatio = `${image.width} / ${image.height}`;
    frame.append(picture(image), made.overlay);
    made.button.append(head, frame, made.state);
    made.button.addEventListener("click", () => show(i));
    byId("tiles").append(made.button);
    return made;
  });

  function drawTile(i) {
    const { button, overlay, state } = tiles[i];
    drawPoints(overlay, i, images[i].width / (overlay.clientWidth || 170), 3.4, false);
    const { reviewed, points } = states[i];
    const own = points.filter((point) => point.own).length;
    button.classList.toggle("reviewed", reviewed);
    button.classList.toggle("changed", own > 0);
    state.textContent = [reviewed ? "✓ reviewed" : "", own ? `${own} changed` : ""].filter(Boolean).join(", ");
  }

  function drawProgress() {
    const reviewed = states.filter((state) => state.reviewed).length;
    const changed = images.filter((_, i) => model.changed(i)).length;
    const kept = images.filter((_, i) => model.kept(i)).length;
    byId("progress").textContent = `${reviewed} of ${images.length} reviewed, ${changed} changed`;
    const unsaved = model.csv() !== saved;
    byId("save").disabled = kept === 0;
    byId("unsaved").textContent = unsaved ? "not saved yet" : kept ? "saved" : "";
    byId("undo").disabled = model.history.length === 0;
  }

  // --- the large image

  const large = { picture: element("img", { alt: "", draggable: "false" }), overlay: shape("svg", { "aria-hidden": "true" }), label: element("div", { id: "label", "aria-hidden": "true" }), glass: element("canvas", { id: "loupe", "aria-hidden": "true" }) };
  stage.append(large.picture, large.overlay, large.label, large.glass);
  const rows = parts.map((part, p) => {
    const made = { row: element("li"), button: element("button", { type: "button", "data-part": p }), score: element("span", { class: "score" }), visible: element("input", { type: "checkbox", tabindex: -1, title: "visible (V)" }) };
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = part.colour;
    made.button.append(swatch, element("bdi", { title: part.name }, part.name), made.score);
    made.visible.setAttribute("aria-label", `${part.name} is visible`);
    made.button.addEventListener("focus", () => choose(p));
    made.button.addEventListener("click", () => choose(p));
    made.visible.addEventListener("change", () => {
      const visible = made.visible.checked; // choosing draws anew, as it was
      choose(p);
      toggle(visible);
    });
    made.row.append(made.button, made.visible);
    byId("parts").append(made.row);
    const item = element("li");
    item.append(swatch.cloneNode(), element("bdi", {}, part.name));
    item.firstChild.style.background = part.colour;
    byId("legend").append(item);
    return made;
  });

  function fit() {
    if (open === null) return;
    const { width, height } = images[open];
    const free = room.getBoundingClientRect();
    scale = Math.min(free.width / width, free.height / height);
    stage.style.width = `${width * scale}px`;
    stage.style.height = `${height * scale}px`;
    draw();
  }

  function draw() {
    const image = images[open];
    const { points, reviewed } = states[open];
    drawPoints(large.overlay, open, 1 / scale, 5.5, true);
    points.forEach(({ x, visible, score, own }, p) => {
      const { row, button, score: told, visible: box } = rows[p];
      const beyond = own || score === null || parts[p].usual === null ? null : score - parts[p].usual;
      row.classList.toggle("chosen", p === chosen);
      row.classList.toggle("absent", !visible);
      row.classList.toggle("low", beyond !== null && beyond < -LOW);
      button.setAttribute("aria-pressed", String(p === chosen));
      box.checked = visible;
      told.replaceChildren(own ? "changed" : score === null ? (x === null ? "no place" : "") : decimals(score, 2));
      if (beyond !== null) told.append(element("span", { class: "usual" }, ` (${signed(beyond)})`));
    });
    byId("reviewed").checked = reviewed;
    byId("where").textContent = `${open + 1} of ${images.length}${image.confidence === "no scores" ? "" : `, ${image.confidence}`}`;
    byId("previous").disabled = open === 0;
    byId("next").disabled = open === images.length - 1;
    drawLabel();
    drawGlass();
  }

  const onStage = ({ x, y }) => [(x + 0.5) * scale, (y + 0.5) * scale];

  // Pixels of the original for one of the window, as it is laid out: lengths there are rounded.
  function perPixel() {
    const box = stage.getBoundingClientRect();
    return [images[open].width / box.width, images[open].height / box.height];
  }

  // Beside the chosen point, clear of its ring and inside of the picture.
  function drawLabel() {
    const point = chosen === null ? null : states[open].points[chosen];
    large.label.hidden = !point || point.x === null;
    if (large.label.hidden) return;
    large.label.textContent = parts[chosen].name;
    const [x, y] = onStage(point);
    const [wide, tall] = [large.label.offsetWidth, large.label.offsetHeight];
    const right = x + 20 + wide <= stage.clientWidth || x < 20 + wide;
    large.label.style.left = `${right ? x + 20 : x - 20 - wide}px`;
    large.label.style.top = `${Math.min(stage.clientHeight - tall, Math.max(0, y - tall / 2))}px`;
  }

  // In the corner that is far from the point; a finger hides what it points at.
  function drawGlass() {
    const point = chosen === null ? null : states[open].points[chosen];
    large.glass.hidden = !glass || !point || point.x === null;
    if (large.glass.hidden) return;
    const [x, y] = onStage(point);
    const side = large.glass.offsetWidth;
    const density = window.devicePixelRatio || 1;
    large.glass.width = side * density;
    large.glass.height = side * density;
    large.glass.style.left = x < stage.clientWidth / 2 ? `${stage.clientWidth - side - 4}px` : "4px";
    large.glass.style.top = y < stage.clientHeight / 2 ? `${stage.clientHeight - side - 4}px` : "4px";
    const context = large.glass.getContext("2d");
    const { width } = images[open];
    const share = large.picture.naturalWidth / width;
    const reach = (side / 2 / scale / ZOOM) * share; // of the shown picture's pixels, from the middle
    context.imageSmoothingEnabled = scale * ZOOM < 8;
    const [cx, cy] = [(point.x + 0.5) * share, (point.y + 0.5) * (large.picture.naturalHeight / images[open].height)];
    context.drawImage(large.picture, cx - reach, cy - reach, 2 * reach, 2 * reach, 0, 0, side * density, side * density);
    const middle = (side * density) / 2;
    for (const [colour, thick] of [["rgb(0 0 0 / .8)", 3], [parts[chosen].colour, 1.4]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick * density;
      context.beginPath();
      for (const [u, v] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(middle + 5 * u * density, middle + 5 * v * density);
        context.lineTo(middle + 22 * u * density, middle + 22 * v * density);
      }
      context.stroke();
    }
  }

  function show(i) {
    open = i;
    chosen = null;
    glass = false;
    dragged = null;
    large.picture.src = images[i].picture;
    large.picture.classList.toggle("coarse", Math.max(images[i].width, images[i].height) < 100);
    byId("name").firstChild.textContent = images[i].name;
    byId("name").title = images[i].name;
    stage.setAttribute("aria-label", `${images[i].name}, image ${i + 1} of ${images.length}`);
    if (!editor.open) editor.showModal();
    stage.focus({ preventScroll: true });
    say("");
    fit();
  }

  function choose(p) {
    if (p === chosen) return;
    chosen = p;
    glass = false;
    if (p !== null) rows[p].row.scrollIntoView({ block: "nearest" });
    const point = p === null ? null : states[open].points[p];
    if (point) say(`${parts[p].name}: ${point.x === null ? "no place, click where it is" : `${placeText(point)}${point.visible ? "" : ", absent"}`}`);
    draw();
  }

  function changed() {
    drawTile(open);
    drawProgress();
    draw();
  }

  function moveTo(x, y, kind) {
    model.move(open, chosen, x, y, kind);
    glass = true;
    say(`${parts[chosen].name}: ${placeText(states[open].points[chosen])}`);
    changed();
  }

  function toggle(visible) {
    if (chosen === null) return;
    const { name } = parts[chosen];
    if (model.setVisible(open, chosen, visible)) say(`${name}: ${visible ? `visible at ${placeText(states[open].points[chosen])}` : "absent"}`);
    else say(`${name} has no place: click where it is`);
    changed();
  }

  function step(by) {
    if (images[open + by]) show(open + by);
  }

  function done() {
    model.setReviewed(open, true);
    changed();
    if (images[open + 1]) show(open + 1);
    else say("That was the last image.");
  }

  function undo() {
    const i = model.undo();
    if (i === null) return;
    drawTile(i);
    if (i !== open) show(i);
    glass = false;
    say("undone");
    changed();
  }

  // --- pointer, touch and keys

  const within = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  // The nearest point that the pointer can mean; the chosen one before others, so that it can be told from what lies on it.
  function pointAt(event) {
    const [x, y] = within(event);
    const off = states[open].points.map((point) => point.x === null ? Infinity : Math.hypot(onStage(point)[0] - x, onStage(point)[1] - y));
    const near = NEAR[event.pointerType] ?? NEAR.mouse;
    if (chosen !== null && off[chosen] <= near) return chosen;
    const least = Math.min(...off);
    return least <= near ? off.indexOf(least) : null;
  }

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || dragged) return;
    const found = pointAt(event);
    const [x, y] = within(event);
    const lost = found === null && chosen !== null && states[open].points[chosen].x === null;
    const [across, down] = perPixel();
    if (lost) moveTo(x * across - 0.5, y * down - 0.5, `drag ${drags += 1}`);
    else choose(found);
    if (chosen === null) return;
    stage.setPointerCapture(event.pointerId);
    const { x: px, y: py } = states[open].points[chosen];
    dragged = { x, y, from: [px, py], pointer: event.pointerId, kind: lost ? `drag ${drags}` : `drag ${drags += 1}`, moved: false };
    glass = true;
    draw();
  });

  stage.addEventListener("pointermove", (event) => {
    if (!dragged) {
      stage.classList.toggle("grab", pointAt(event) !== null);
      return;
    }
    if (event.pointerId !== dragged.pointer) return;
    const [x, y] = within(event);
    if (!dragged.moved && Math.hypot(x - dragged.x, y - dragged.y) < 2) return; // a click is not quite still
    dragged.moved = true;
    stage.classList.add("dragging");
    const [across, down] = perPixel();
    moveTo(dragged.from[0] + (x - dragged.x) * across, dragged.from[1] + (y - dragged.y) * down, dragged.kind);
  });

  function drop(event) {
    if (!dragged || event.pointerId !== dragged.pointer) return;
    dragged = null;
    glass = false;
    stage.classList.remove("dragging");
    draw();
  }
  stage.addEventListener("pointerup", drop);
  stage.addEventListener("pointercancel", drop);

  editor.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "z") {
      event.preventDefault();
      undo();
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey || dragged) return;
    const way = { ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowUp: [0, -1] }[event.key];
    if (way && chosen !== null) {
      event.preventDefault();
      const point = states[open].points[chosen];
      const by = event.shiftKey ? 10 : 1;
      if (point.x === null) say(`${parts[chosen].name} has no place: click where it is`);
      else moveTo(point.x + by * way[0], point.y + by * way[1], "keys");
      return;
    }
    const act = { v: () => chosen !== null && toggle(!states[open].points[chosen].visible), u: undo, n: () => step(1), p: () => step(-1), r: done }[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });
  editor.addEventListener("close", () => {
    const i = open;
    open = null;
    tiles[i].button.focus();
  });

  // --- controls

  function save() {
    const text = model.csv();
    const link = element("a", { download: model.file });
    let address = null;
    try {
      address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
      link.href = address;
    } catch {
      link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(text)}`;
    }
    link.click();
    if (address) setTimeout(() => URL.revokeObjectURL(address), 60000); // some browsers read it only after asking where to
    saved = text;
    drawProgress();
    say(`Saved as ${model.file}.`);
  }

  for (const [id, act] of [["save", save], ["close", () => editor.close()], ["previous", () => step(-1)], ["next", () => step(1)], ["done", done], ["undo", undo]]) {
    byId(id).addEventListener("click", act);
  }
  byId("reviewed").addEventListener("change", (event) => { model.setReviewed(open, event.target.checked); changed(); });
  large.picture.addEventListener("load", () => { if (open !== null) drawGlass(); });
  window.addEventListener("beforeunload", (event) => {
    if (model.csv() === saved) return;
    event.preventDefault();
    event.returnValue = "";
  });
  let before = "";
  new ResizeObserver(() => {
    const now = `${byId("tiles").clientWidth} ${window.innerHeight}`;
    if (now !== before) images.forEach((_, i) => drawTile(i));
    before = now;
    fit();
  }).observe(document.documentElement);
  new ResizeObserver(fit).observe(room);
  drawProgress();
})();
