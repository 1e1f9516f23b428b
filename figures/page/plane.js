// Draws an episode and shows the image that is pointed at. All numbers come with the page; nothing here decides anything.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { classes, images, settings, shots } = data;
  const byId = (id) => document.getElementById(id);
  const plot = byId("plot");
  const MARGIN = 30; // pixels from the outermost points to the edge of the plot
  const NEAR = { mouse: 18, pen: 22, touch: 30 }; // pixels from the pointer to a point that is meant
  let setting = settings.find((s) => s.shots === data.start.shots && s.center === data.start.center);
  let selected = null; // number of the image that is shown
  let view = null;

  function element(name, attributes = {}, text = null) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function shape(name, attributes = {}) {
    const made = document.createElementNS(plot.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function coloured(made, way) {
    for (const [key, value] of Object.entries(classes[way])) if (key !== "name") made.style.setProperty(`--${key}`, value);
    return made;
  }

  // --- marks, as in the figure: a disc, a lozenge, a cross, a star

  const closed = (corners) => "M" + corners.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L") + "Z";
  const around = (count, radius) =>
    closed(Array.from({ length: count }, (_, i) => {
      const angle = (2 * Math.PI * i) / count - Math.PI / 2;
      return [radius(i) * Math.cos(angle), radius(i) * Math.sin(angle)];
    }));
  const OUTLINES = {
    support: (r) => `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`,
    right: (r) => around(4, () => 1.2 * r),
    wrong: (r) => {
      const [a, b] = [1.35 * r, 0.65 * r];
      return closed([[0, -b], [a - b, -a], [a, b - a], [b, 0], [a, a - b], [a - b, a], [0, b], [b - a, a], [-a, a - b], [-b, 0], [-a, b - a], [b - a, -a]]);
    },
    mean: (r) => around(10, (i) => (i % 2 ? 0.85 : 2.1) * r),
  };

  function mark(kind, radius, colour, edge) {
    const width = { support: 1, right: 1, wrong: 1.6, mean: 1.2 }[kind];
    return shape("path", { class: `mark ${kind}`, d: OUTLINES[kind](radius), fill: colour, stroke: edge, "stroke-width": width });
  }

  const kindOf = (i) => images[i].role === "support" ? "support" : setting.predicted[i] === images[i].way ? "right" : "wrong";
  const shown = () => images.map((_, i) => i).filter((i) => setting.places[i] !== null);

  // --- the plot

  const layers = Object.fromEntries(["regions", "lines", "supports", "queries", "means", "names", "ring"].map((name) => {
    const layer = shape("g", { "data-layer": name });
    plot.append(layer);
    return [name, layer];
  }));
  const ring = shape("circle", { class: "ring outline" });
  const raised = shape("g", { class: "ring" }); // what is shown, once more, on top of what covers it
  layers.ring.append(raised, ring);
  const points = images.map((image, i) => {
    const point = coloured(shape("g", { class: "point", role: "img", tabindex: -1, "data-image": i }), image.way);
    layers[image.role === "support" ? "supports" : "queries"].append(point);
    return point;
  });

  function fit() {
    // The page's style keeps width and height within a factor of two, for which the regions reach far enough.
    const [width, height] = [plot.clientWidth || 600, plot.clientHeight || 450];
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const used = [...setting.means, ...setting.places.filter((place) => place !== null)];
    const [xs, ys] = [0, 1].map((axis) => used.map((place) => place[axis]));
    const [left, right, bottom, top] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = Math.min((width - 2 * MARGIN) / (right - left), (height - 2 * MARGIN) / (top - bottom));
    view = {
      width, height,
      scale: Number.isFinite(scale) ? scale : 1,
      middle: [(left + right) / 2, (bottom + top) / 2],
      radius: 6.5 * Math.min(1, Math.max(0.6, (40 / used.length) ** 0.25)) * (width < 480 ? 0.85 : 1),
    };
    view.side = Math.round(5.4 * view.radius);
  }

  const onPlot = ([x, y]) => [
    view.width / 2 + (x - view.middle[0]) * view.scale,
    view.height / 2 - (y - view.middle[1]) * view.scale,
  ];
  const moveTo = (made, [x, y]) => { made.style.transform = `translate(${x.toFixed(2)}px, ${y.toFixed(2)}px)`; };

  function draw() {
    fit();
    const asPictures = byId("pictures").checked;
    byId("about-pictures").hidden = !asPictures;
    layers.regions.replaceChildren(...setting.regions.flatMap((corners, way) => corners.length === 0 ? [] :
      [shape("path", { class: "region", "data-class": way, d: closed(corners.map(onPlot)), fill: classes[way].colour })]));
    images.forEach((image, i) => {
      const [point, place] = [points[i], setting.places[i]];
      point.style.display = place === null ? "none" : "";
      if (place === null) return;
      point.setAttribute("data-kind", kindOf(i));
      point.setAttribute("aria-label", spoken(i));
      point.replaceChildren(...(asPictures && image.picture ? framed(image, kindOf(i)) :
        [mark(kindOf(i), view.radius, classes[image.way].colour, kindOf(i) === "wrong" ? "#000000" : classes[image.way].edge)]));
      moveTo(point, onPlot(place));
    });
    // Wrong queries lie on top.
    shown().filter((i) => kindOf(i) === "wrong" && points[i] !== document.activeElement).forEach((i) => layers.queries.append(points[i]));
    layers.means.replaceChildren(...setting.means.map((mean, way) => {
      const star = mark("mean", view.radius, classes[way].colour, "#222222");
      star.setAttribute("data-class", way);
      moveTo(star, onPlot(mean));
      return star;
    }));
    // A single support lies on its mean: the star shows behind it.
    if (setting.shots === 1) plot.insertBefore(layers.means, layers.supports);
    else plot.insertBefore(layers.means, layers.names);
    nameMeans();
    drawScale();
    if (selected !== null && setting.places[selected] === null) selected = null;
    showSelected();
  }

  function framed(image, kind) {
    const side = view.side * (kind === "support" ? 0.85 : 1);
    const share = side / Math.max(image.width, image.height);
    const [width, height] = [image.width * share, image.height * share];
    const frame = { x: -width / 2, y: -height / 2, width, height };
    const picture = shape("image", { ...frame, href: image.picture, preserveAspectRatio: "none" });
    if (Math.max(image.width, image.height) < 64) picture.style.imageRendering = "pixelated";
    const edge = shape("rect", { ...frame, class: "picture", stroke: classes[image.way].colour });
    return kind === "wrong" ? [shape("rect", { ...frame, class: "picture wrong" }), edge, picture] : [edge, picture];
  }

  // Each name goes where it covers the fewest points and no other name, near its mean.
  function nameMeans() {
    layers.names.replaceChildren();
    const marks = [...setting.means, ...setting.places.filter((place) => place !== null)].map(onPlot);
    const taken = [];
    setting.means.forEach((mean, way) => {
      const name = classes[way].name;
      const text = coloured(shape("text", { class: "class-name", "text-anchor": "middle", "data-class": way }), way);
      text.textContent = name.length > 18 ? name.slice(0, 17) + "…" : name;
      layers.names.append(text);
      const [width, height] = [text.getComputedTextLength() + 4, 17];
      const [x, y] = onPlot(mean);
      let best = null;
      for (const away of [2.2, 3.4, 5]) {
        for (let turn = 0; turn < 8; turn += 1) {
          const [dx, dy] = [Math.cos(turn * Math.PI / 4), -Math.sin(turn * Math.PI / 4)];
          const centre = [x + dx * (away * view.radius + width / 2), y + dy * (away * view.radius + height / 2)];
          const box = [centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2];
          const grown = view.radius;
          const covered = marks.filter(([u, v]) => u > box[0] - grown && u < box[2] + grown && v > box[1] - grown && v < box[3] + grown).length;
          const clashes = taken.filter((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3]).length;
          const outside = box[0] < 0 || box[1] < 0 || box[2] > view.width || box[3] > view.height;
          const cost = covered + 20 * clashes + 50 * outside + 0.2 * away;
          if (best === null || cost < best.cost) best = { cost, box };
        }
      }
      taken.push(best.box);
      text.setAttribute("x", (best.box[0] + best.box[2]) / 2);
      text.setAttribute("y", best.box[3] - 4);
    });
  }

  // A length in the unit of the distances.
  function drawScale() {
    const wanted = 110 / view.scale;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const length = power * [5, 2, 1].find((step) => step * power <= wanted);
    const [right, y] = [view.width - 10, view.height - 10];
    const left = right - length * view.scale;
    const text = shape("text", { class: "scale", x: left - 6, y: y + 3, "text-anchor": "end" });
    text.textContent = `distance ${Number(length.toPrecision(1))}`;
    layers.names.append(shape("path", { class: "scale-bar", d: `M${left} ${y - 4}V${y + 4}M${left} ${y}H${right}M${right} ${y - 4}V${y + 4}` }), text);
  }

  // --- the image that is pointed at

  const digits = (value) => value.toFixed(data.decimals);
  const chance = (i) => digits(setting.probabilities[i][setting.predicted[i]]);

  function spoken(i) {
    const image = images[i];
    const own = classes[image.way].name;
    if (image.role === "support") return `Support of ${own}, ${image.name}`;
    if (kindOf(i) === "right") return `Query of ${own}, right, probability ${chance(i)}, ${image.name}`;
    return `Query of ${own}, wrong, taken for ${classes[setting.predicted[i]].name}, probability ${chance(i)}, ${image.name}`;
  }

  function showSelected() {
    const none = selected === null;
    const home = none ? shown()[0] : selected;
    points.forEach((point, i) => point.setAttribute("tabindex", i === home ? 0 : -1));
    byId("hint").hidden = !none;
    byId("card").hidden = none;
    layers.ring.style.display = none ? "none" : "";
    layers.lines.replaceChildren();
    if (none) return;
    const [image, kind] = [images[selected], kindOf(selected)];
    const place = onPlot(setting.places[selected]);
    ring.setAttribute("r", byId("pictures").checked && image.picture ? 0.75 * view.side : 2.1 * view.radius);
    raised.replaceChildren(...Array.from(points[selected].children, (part) => part.cloneNode(true)));
    moveTo(raised, place);
    moveTo(ring, place);
    const goals = kind === "wrong" ? [setting.predicted[selected], image.way] : [image.way];
    goals.forEach((way, order) => {
      const [x, y] = onPlot(setting.means[way]);
      layers.lines.append(shape("line", { class: order ? "line true" : "line", x1: place[0], y1: place[1], x2: x, y2: y }));
    });
    showPicture(image);
    byId("name").firstElementChild.textContent = image.name;
    const own = classes[image.way].name;
    const words = kind === "support" ? [["", `support of ${own}`]] :
      kind === "right" ? [["", `query of ${own}`], ["right", "✔ right"]] :
      [["", `query of ${own}`], ["wrong", `✘ taken for ${classes[setting.predicted[selected]].name}`]];
    byId("verdict").replaceChildren(...words.map(([name, text]) => element("span", { class: name }, text)));
    byId("own-mean").hidden = kind !== "support";
    showNumbers(selected);
  }

  function showPicture(image) {
    const picture = byId("picture");
    picture.hidden = !image.picture;
    byId("no-picture").hidden = Boolean(image.picture);
    if (!image.picture) {
      picture.removeAttribute("src");
      return;
    }
    picture.src = image.picture;
    picture.alt = image.name;
    picture.width = Math.round((160 * image.width) / image.height);
    picture.classList.toggle("coarse", Math.max(image.width, image.height) < 64);
  }

  function showNumbers(i) {
    const [chances, distances] = [setting.probabilities[i], setting.distances[i]];
    const given = images[i].role === "query" ? setting.predicted[i] : null;
    byId("numbers").tBodies[0].replaceChildren(...classes.map(({ name }, way) => {
      const row = coloured(element("tr", { class: way === given ? "given" : "" }), way);
      const heading = element("th", { scope: "row", title: name });
      heading.append(element("span", { class: "swatch" }), name);
      const [cell, bar, filled] = [element("td"), element("div", { class: "bar" }), element("div")];
      filled.style.width = `${100 * chances[way]}%`;
      bar.append(filled);
      cell.append(bar);
      row.append(heading, cell, element("td", { class: "chance" }, digits(chances[way])), element("td", {}, digits(distances[way])));
      return row;
    }));
  }

  function select(i) {
    if (i === selected) return;
    selected = i;
    plot.classList.remove("moving");
    showSelected();
  }

  function nearest(event) {
    const box = plot.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [found, least] = [null, NEAR[event.pointerType] ?? NEAR.mouse];
    // Later marks lie on top of earlier ones.
    for (const i of shown()) {
      const [u, v] = onPlot(setting.places[i]);
      const off = Math.hypot(u - x, v - y);
      if (off <= least) [found, least] = [i, off];
    }
    return found;
  }

  plot.addEventListener("pointermove", (event) => {
    const i = nearest(event);
    if (event.pointerType !== "touch" && i !== null) select(i);
  });
  plot.addEventListener("pointerdown", (event) => {
    const i = nearest(event);
    select(i);
    if (i === null) return;
    event.preventDefault(); // else the focus goes to what lies under the pointer
    points[i].focus({ preventScroll: true });
  });
  // Not on the plot itself: an SVG element that listens for the focus would get it, too.
  byId("plot-area").addEventListener("focusin", (event) => {
    const point = event.target.closest(".point");
    if (point) select(Number(point.dataset.image));
  });
  plot.addEventListener("keydown", (event) => {
    const order = shown();
    const at = order.indexOf(selected ?? Number(event.target.dataset.image));
    const next = {
      ArrowRight: (at + 1) % order.length,
      ArrowDown: (at + 1) % order.length,
      ArrowLeft: (at - 1 + order.length) % order.length,
      ArrowUp: (at - 1 + order.length) % order.length,
      Home: 0,
      End: order.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    points[order[next]].focus();
    select(order[next]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") select(null);
  });

  // --- settings

  function change(to) {
    setting = to;
    plot.classList.add("moving");
    showSetting();
  }

  function showSetting() {
    byId("score").textContent = `${setting.score}.`;
    byId("words").textContent = setting.words;
    byId("classes").replaceChildren(...classes.map(({ name }, way) => {
      const item = coloured(element("li"), way);
      const count = images.filter((image) => image.role === "query" && image.way === way).length;
      item.append(element("span", { class: "swatch" }), element("bdi", {}, name), element("span", { class: "small" }, ` ${setting.right[way]} of ${count}`));
      return item;
    }));
    draw();
  }

  function offerSettings() {
    const table = byId("settings");
    const head = element("tr");
    head.append(element("th", { scope: "col" }, "centre"), ...shots.map((k) => element("th", { scope: "col" }, k)));
    table.tHead.append(head);
    const cells = data.centers.map((center) => shots.map((k) => {
      const here = settings.find((s) => s.shots === k && s.center === center);
      const label = element("label");
      const input = element("input", { type: "radio", name: "setting", value: `${k} ${center}` });
      const words = `centre ${center}, ${k} ${k === 1 ? "shot" : "shots"}`;
      const right = here.reason === undefined ? here.right.reduce((sum, count) => sum + count, 0) : null;
      input.setAttribute("aria-label", right === null ? `${words}: not possible, ${here.reason}` : `${words}: ${right} right`);
      input.disabled = right === null;
      label.title = right === null ? `not possible: ${here.reason}` : words;
      input.checked = here === setting;
      input.addEventListener("change", () => change(here));
      label.append(input, right === null ? "–" : String(right));
      return { label, input };
    }));
    table.tBodies[0].append(...cells.map((row, n) => {
      const line = element("tr");
      const star = settings.some((s) => s.center === data.centers[n] && s.transductive);
      if (star) byId("transductive").hidden = false;
      line.append(element("th", { scope: "row" }, data.centers[n] + (star ? " *" : "")), ...row.map(({ label }) => {
        const cell = element("td");
        cell.append(label);
        return cell;
      }));
      return line;
    }));
    // Arrow keys go where they point, not merely to the next.
    table.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      let line = cells.findIndex((row) => row.some(({ input }) => input === event.target));
      if (!step || line < 0) return;
      event.preventDefault();
      let column = cells[line].findIndex(({ input }) => input === event.target);
      do {
        [line, column] = [line + step[0], column + step[1]];
      } while (cells[line]?.[column]?.input.disabled);
      const goal = cells[line]?.[column]?.input;
      if (goal) {
        goal.focus();
        goal.click();
      }
    });
  }

  function explainMarks() {
    byId("marks").append(...[["mean", "class mean"], ["support", "support"], ["right", "query, right"], ["wrong", "query, wrong"]].map(([kind, text]) => {
      const item = element("li");
      const icon = shape("svg", { class: "icon", viewBox: "-10 -10 20 20", "aria-hidden": "true" });
      icon.append(mark(kind, kind === "mean" ? 4.4 : 6, "#bdbdbd", kind === "wrong" ? "#000000" : "#5f5f5f"));
      item.append(icon, text);
      return item;
    }));
  }

  byId("as-pictures").hidden = !images.some((image) => image.picture);
  byId("pictures").addEventListener("change", draw);
  new ResizeObserver(() => {
    if (view === null || (plot.clientWidth === view.width && plot.clientHeight === view.height)) return;
    plot.classList.remove("moving");
    draw();
  }).observe(plot);
  offerSettings();
  explainMarks();
  showSetting();
})();
