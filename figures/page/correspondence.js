// Shows what is like the patch at the pointer, and what matches.
"use strict";
(() => {
  const { images, heat, SCALES, rowOf, columnOf, place, share, compare, nearest } = model;
  const byId = (id) => document.getElementById(id);
  const area = byId("images");
  const overlay = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const CAPTION = 26; // pixels below a picture
  const NEAR = 24; // pixels from the pointer to a match that is meant
  const HINT = byId("shown").textContent;
  let source = null; // {image, patch}: what all is compared with
  let pinned = false;
  let probe = null; // {image, patch}: what is pointed at while another is pinned
  let bare = false; // pictures without heat maps
  let matching = false;
  let all = []; // matches of the chosen images, best first: {a, b, xa, ya, xb, yb, score, inlier, colour, ends}
  let matches = []; // those of them that are shown
  let chosen = []; // those of these that are pointed at
  let speaking = null;

  function element(name, attributes = {}, text = null) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function shape(name, attributes = {}) {
    const made = document.createElementNS(overlay.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const same = (one, other) => one === other || Boolean(one && other && one.image === other.image && one.patch === other.patch);
  const cosineText = (value) => value.toFixed(2).replace("-", "−");
  const placeText = ([x, y]) => `(${Math.round(x)}, ${Math.round(y)})`;

  // --- the elements of each image

  const parts = images.map((image, i) => {
    const made = {
      figure: element("figure"),
      view: element("div", {
        class: "view", tabindex: 0, role: "application", "aria-roledescription": "image", "aria-describedby": "keys", "data-image": i,
        "aria-label": `${image.name}, image ${i + 1} of ${images.length}, ${image.grid[0]} by ${image.grid[1]} patches`,
      }),
      canvas: element("canvas"),
      small: element("canvas", { width: image.grid[1] + 2, height: image.grid[0] + 2 }),
      marks: Object.fromEntries(["source", "best", "probe"].map((kind) => [kind, element("div", { class: `mark ${kind}`, hidden: "" })])),
      said: element("span"),
      width: 0, // as it was last drawn: to ask for it after each change of a mark would be slow
      last: null, // the patch that was last pointed at
    };
    made.marks.best.append(element("span"));
    if (image.picture) {
      const picture = element("img", { src: image.picture, alt: "", draggable: "false" });
      picture.classList.toggle("coarse", Math.max(image.width, image.height) < 100);
      made.view.append(picture);
    }
    made.view.append(made.canvas, ...Object.values(made.marks));
    const caption = element("figcaption");
    caption.append(element("bdi", { title: image.name }, image.name), made.said);
    made.figure.append(made.view, caption);
    area.append(made.figure);
    return made;
  });
  overlay.id = "overlay";
  overlay.setAttribute("aria-hidden", "true");
  area.append(overlay);

  // --- drawing

  // The heat map, one pixel a patch, with a border that repeats the outermost patches: smoothing has something to go to there.
  function paint(i, toShare) {
    const { grid: [rows, columns], usable, cosines } = images[i];
    const pixels = new ImageData(columns + 2, rows + 2);
    const bytes = pixels.data;
    for (let y = 0; y < rows + 2; y += 1) {
      for (let x = 0; x < columns + 2; x += 1) {
        const patch = Math.min(rows - 1, Math.max(0, y - 1)) * columns + Math.min(columns - 1, Math.max(0, x - 1));
        if (!usable[patch]) continue; // transparent
        const at = 4 * (y * (columns + 2) + x);
        const part = Math.min(1, Math.max(0, toShare(cosines[patch])));
        const colour = 3 * Math.round(part * (heat.length / 3 - 1));
        bytes[at] = heat[colour];
        bytes[at + 1] = heat[colour + 1];
        bytes[at + 2] = heat[colour + 2];
        bytes[at + 3] = Math.round(235 * part ** 0.75);
      }
    }
    parts[i].small.getContext("2d").putImageData(pixels, 0, 0);
  }

  // What the encoder did not see, or was told to leave out, is dark; under a heat map or matches the rest is darkened, too.
  function drawImage(i, toShare) {
    const [image, { canvas, view, small }] = [images[i], parts[i]];
    const { origin, step, box: [left, top, right, bottom] } = image;
    parts[i].width = view.clientWidth;
    const density = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(parts[i].width * density), Math.round(view.clientHeight * density)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(width / image.width, 0, 0, height / image.height, 0, 0); // pixels of the original, from its corner
    context.fillStyle = "rgb(0 0 0 / .72)";
    context.beginPath();
    context.rect(0, 0, image.width, image.height);
    context.rect(left, top, right - left, bottom - top);
    context.fill("evenodd");
    const edges = (patch, axis) => {
      const [at, last] = [axis ? rowOf(image, patch) : columnOf(image, patch), image.grid[1 - axis] - 1];
      const begin = origin[axis] + 0.5 + (at - 0.5) * step[axis];
      return [at === 0 ? image.box[axis] : begin, at === last ? image.box[axis + 2] : begin + step[axis]];
    };
    image.usable.forEach((used, patch) => {
      if (used) return;
      const [[x0, x1], [y0, y1]] = [edges(patch, 0), edges(patch, 1)];
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
    });
    if (!toShare && !matching) return;
    context.fillStyle = matching ? "rgb(0 0 0 / .3)" : "rgb(0 0 0 / .5)";
    context.fillRect(left, top, right - left, bottom - top);
    if (!toShare) return;
    paint(i, toShare);
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    context.imageSmoothingEnabled = byId("smooth").checked;
    context.drawImage(small, origin[0] + 0.5 - 1.5 * step[0], origin[1] + 0.5 - 1.5 * step[1], small.width * step[0], small.height * step[1]);
    context.restore();
  }

  function put(kind, i, patch) {
    const [image, { width, marks: { [kind]: mark } }] = [images[i], parts[i]];
    mark.hidden = patch === null;
    if (patch === null) return;
    const xy = place(image, patch);
    const [x, y] = share(image, xy);
    mark.style.left = `${100 * x}%`;
    mark.style.top = `${100 * y}%`;
    Object.assign(mark.dataset, { x: xy[0], y: xy[1], row: rowOf(image, patch), column: columnOf(image, patch) });
    if (kind === "best") {
      mark.classList.toggle("left", (1 - x) * width < 62);
    } else {
      mark.style.width = `${(200 * image.reach[0]) / image.width}%`;
      mark.style.height = `${(200 * image.reach[1]) / image.height}%`;
    }
  }

  // --- what is shown

  function show() {
    const heated = source && !matching && !bare;
    const toShares = heated ? model.scales(source, byId("scale").value, Number(byId("sharpness").value) / 100, byId("joint").checked) : null;
    images.forEach((_, i) => drawImage(i, toShares && toShares[i]));
    showMarks();
  }

  function showMarks() {
    const found = source && !matching;
    images.forEach((image, i) => {
      const { view, marks, said } = parts[i];
      const own = Boolean(found && source.image === i);
      const best = found && !own ? nearest(source.image, source.patch, i) : null;
      const probed = found && probe && probe.image === i;
      put("source", i, own ? source.patch : null);
      put("best", i, best ? best.patch : null);
      put("probe", i, probed ? probe.patch : null);
      view.classList.toggle("source", own);
      view.classList.toggle("pinned", own && pinned);
      if (best) {
        marks.best.dataset.cosine = best.cosine;
        marks.best.firstChild.textContent = cosineText(best.cosine);
      }
      said.textContent = probed ? `here ≈ ${cosineText(image.cosines[probe.patch])}` :
        own ? `${placeText(place(image, source.patch))}${pinned ? ", pinned" : ""}` :
        best ? `${cosineText(best.cosine)} at ${placeText(place(image, best.patch))}` : "";
    });
    byId("release").style.visibility = found && pinned ? "visible" : "hidden"; // keeps its room: nothing jumps
    const words = matching ? matchWords() : found ? sourceWords() : HINT;
    byId("shown").textContent = words;
    clearTimeout(speaking); // a screen reader hears where the pointer rests, not all that it passes
    speaking = setTimeout(() => { byId("live").textContent = words; }, 250);
  }

  function sourceWords() {
    const image = images[source.image];
    const found = images.flatMap((other, b) => {
      const there = b === source.image ? null : nearest(source.image, source.patch, b);
      return there ? [{ name: other.name, cosine: there.cosine, at: placeText(place(other, there.patch)) }] : [];
    }).sort((one, other) => other.cosine - one.cosine);
    const told = found.slice(0, 3).map(({ name, cosine, at }) => `${name} ${cosineText(cosine)} at ${at}`).join("; ");
    const more = found.length > 3 ? `; and in ${found.length - 3} more` : "";
    const here = probe ? ` At the pointer in ${images[probe.image].name}: about ${cosineText(images[probe.image].cosines[probe.patch])}.` : "";
    return `${image.name}, row ${rowOf(image, source.patch)}, column ${columnOf(image, source.patch)}, at ${placeText(place(image, source.patch))}` +
      `${pinned ? ", pinned" : ""}. ${found.length ? `Nearest: ${told}${more}.` : "No other image has a patch to compare with."}${here}`;
  }

  function setSource(next) {
    if (same(source, next)) return;
    source = next;
    probe = null;
    if (source) compare(source);
    show();
  }

  function setProbe(next) {
    if (same(probe, next)) return;
    probe = next;
    showMarks();
  }

  function pin(next) {
    pinned = !(pinned && same(source, next)); // once more releases
    probe = null;
    if (same(source, next)) show();
    else setSource(next);
  }

  function release() {
    if (matching) choose([]);
    else if (!pinned) setSource(null);
    else { pinned = false; probe = null; show(); }
  }

  // --- matches

  function offerPartners() {
    const [of, before] = [Number(byId("of").value), byId("with").value];
    const options = images.flatMap(({ name }, b) => b === of ? [] : [element("option", { value: b }, name)]);
    if (images.length > 2) options.unshift(element("option", { value: "all" }, "all others"));
    byId("with").replaceChildren(...options);
    if (options.some(({ value }) => value === before)) byId("with").value = before;
    loadMatches();
  }

  function loadMatches() {
    const a = Number(byId("of").value);
    const others = byId("with").value === "all" ? images.map((_, b) => b).filter((b) => b !== a) : [Number(byId("with").value)];
    all = others.flatMap((b) => model.matchesOf(a, b)).sort((one, other) => other.score - one.score);
    all.forEach((match) => { match.colour = model.positionColour(images[a], [match.xa, match.ya]); });
    const least = byId("least");
    least.min = all.length ? Math.floor(100 * all[all.length - 1].score) / 100 : 0;
    least.max = all.length ? Math.ceil(100 * all[0].score) / 100 : 1;
    least.value = least.min;
    const kinds = [...new Set(others.map((b) => model.pairOf(a, b)?.geometry).filter(Boolean))];
    byId("inliers-label").hidden = kinds.length === 0;
    byId("inliers-label").lastElementChild.textContent = `only inliers of the ${kinds.join(" or ")}`;
    if (kinds.length === 0) byId("inliers").checked = false;
    filterMatches();
  }

  function filterMatches() {
    const least = Number(byId("least").value);
    matches = all.filter(({ score, inlier }) => score >= least - 1e-6 && (inlier || !byId("inliers").checked));
    byId("least-value").textContent = cosineText(least);
    byId("count").textContent = `${matches.length === all.length ? "" : `${matches.length} of `}${all.length} ${all.length === 1 ? "match" : "matches"}`;
    chosen = [];
    drawMatches();
    show();
  }

  // Over all images, the best last, on top.
  function drawMatches() {
    const boxes = parts.map(({ figure, view }) => [figure.offsetLeft, figure.offsetTop, view.clientWidth, view.clientHeight]);
    const onArea = (image, xy) => share(images[image], xy).map((part, axis) => boxes[image][axis] + part * boxes[image][2 + axis]);
    const withLines = byId("lines").checked;
    const radius = matches.length > 400 ? 2.6 : 3.6;
    overlay.classList.toggle("many", matches.length > 200);
    overlay.classList.toggle("some", chosen.length > 0);
    const drawn = !matching ? [] : matches.map((match, k) => {
      const { a, b, xa, ya, xb, yb, score, colour } = match;
      match.ends = [onArea(a, [xa, ya]), onArea(b, [xb, yb])];
      const group = shape("g", { class: "match", "data-a": a, "data-b": b, "data-xa": xa, "data-ya": ya, "data-xb": xb, "data-yb": yb, "data-score": score, "data-number": k });
      const [[x1, y1], [x2, y2]] = match.ends;
      const here = chosen.includes(match);
      if (withLines || here) group.append(shape("line", { class: "under", x1, y1, x2, y2 }), shape("line", { class: "over", x1, y1, x2, y2, stroke: colour }));
      group.append(...match.ends.map(([cx, cy]) => shape("circle", { cx, cy, r: radius, fill: colour })));
      group.classList.toggle("chosen", here);
      return group;
    });
    const top = drawn.filter((_, k) => chosen.includes(matches[k]));
    overlay.replaceChildren(...drawn.reverse(), ...top);
  }

  function choose(next) {
    if (next.length === chosen.length && next.every((match) => chosen.includes(match))) return;
    chosen = next;
    drawMatches();
    showMarks();
  }

  // The matches whose end in this image is nearest to the pointer: where all have one end, a patch may have several.
  function matchesAt(i, event) {
    const box = area.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const off = ({ a, b, ends }) => Math.min(...ends.map(([u, v], end) => [a, b][end] === i ? Math.hypot(u - x, v - y) : Infinity));
    const least = Math.min(NEAR, ...matches.map(off));
    return least < NEAR ? matches.filter((match) => off(match) <= least + 0.01) : [];
  }

  function matchWords() {
    const [first] = chosen;
    const of = images[Number(byId("of").value)].name;
    if (!first) return `Point at a match, or go through them with the arrow keys, to see its partner. Colours are those of the positions in ${of}.`;
    const ends = chosen.map(({ b, xb, yb, score }) => `${placeText([xb, yb])} in ${images[b].name}, cosine ${cosineText(score)}`).join("; ");
    return `Match ${matches.indexOf(first) + 1} of ${matches.length}: ${placeText([first.xa, first.ya])} in ${images[first.a].name} and ${ends}.`;
  }

  function toggleMatches() {
    matching = !matching;
    byId("matches").setAttribute("aria-pressed", String(matching));
    byId("of-pair").hidden = !matching;
    byId("similarity").hidden = matching;
    if (matching && source) byId("of").value = source.image;
    if (matching) offerPartners();
    else chosen = [];
    fit();
  }

  // --- pointer, touch and keys

  function pointed(i, event) {
    const box = parts[i].view.getBoundingClientRect();
    const { width, height } = images[i];
    const patch = model.patchAt(images[i], [((event.clientX - box.left) / box.width) * width - 0.5, ((event.clientY - box.top) / box.height) * height - 0.5]);
    return patch < 0 ? null : { image: i, patch };
  }

  parts.forEach((part, i) => {
    const { view } = part;
    // With a patch pinned in another image, this one is only looked at.
    const goTo = (next) => {
      part.last = next.patch;
      if (pinned && source.image !== i) setProbe(next);
      else setSource(next);
    };
    const cursor = () => {
      const patch = source && source.image === i ? source.patch : probe && probe.image === i ? probe.patch : part.last ?? model.middle(images[i]);
      return patch < 0 ? null : { image: i, patch };
    };
    view.addEventListener("pointermove", (event) => {
      const finger = event.pointerType === "touch";
      if (matching) {
        if (!finger) choose(matchesAt(i, event));
        return;
      }
      const next = pointed(i, event);
      if (finger) {
        if (next && pinned && source.image === i) goTo(next);
      } else if (next && !pinned) {
        goTo(next);
      } else {
        setProbe(same(source, next) ? null : next);
      }
    });
    view.addEventListener("pointerleave", () => setProbe(null));
    view.addEventListener("click", (event) => {
      if (matching) {
        choose(matchesAt(i, event));
        return;
      }
      const next = pointed(i, event);
      if (!next) return;
      part.last = next.patch;
      pin(next);
    });
    view.addEventListener("focus", () => {
      if (matching || !view.matches(":focus-visible")) return; // a click says itself what it means
      const here = cursor();
      if (here) goTo(here);
    });
    view.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const way = { ArrowRight: [0, 1], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowUp: [-1, 0] }[event.key];
      const here = cursor();
      if (way) event.preventDefault();
      if (way && matching) {
        if (!matches.length) return;
        const step = way[0] + way[1];
        const at = chosen.length ? matches.indexOf(chosen[0]) + step : step > 0 ? 0 : -1;
        choose([matches[(at + matches.length) % matches.length]]);
      } else if (way && here) {
        goTo({ image: i, patch: model.stepFrom(images[i], here.patch, way, event.shiftKey ? 5 : 1) });
      } else if ((event.key === "Enter" || event.key === " ") && !matching && here) {
        event.preventDefault();
        pin(here);
      }
    });
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") release();
    if (event.target.closest("select")) return; // letters choose there
    if (event.key.toLowerCase() === "m") toggleMatches();
    if (event.key.toLowerCase() === "h") { bare = !bare; show(); }
  });

  // --- layout: rows of one height, as high as lets all images be seen at once, but not so low that a patch cannot be hit

  function fit() {
    const width = area.clientWidth;
    const gap = parseFloat(getComputedStyle(area).columnGap);
    const widths = (height) => images.map((image) => Math.floor(Math.min(width, (height * image.width) / image.height)));
    const rowsAt = (height) => widths(height).reduce(([rows, used], wide) => used + gap + wide > width ? [rows + 1, wide] : [rows, used + gap + wide], [0, Infinity])[0];
    const room = Math.max(220, window.innerHeight - area.offsetTop - 16);
    const fits = (height) => rowsAt(height) * (height + CAPTION + gap) <= room;
    const [most, least] = [900, width < 600 ? 125 : 170];
    let height = most;
    while (height > least && !fits(height)) height -= 2;
    if (!fits(height)) { // too many for the window: as large as makes no row more
      const rows = rowsAt(height);
      while (height < most && rowsAt(height + 1) === rows && widths(height + 1).every((wide) => wide < width)) height += 1;
    }
    widths(height).forEach((wide, i) => {
      parts[i].figure.style.width = `${wide}px`;
      parts[i].view.style.aspectRatio = `${images[i].width} / ${images[i].height}`;
    });
    drawMatches();
    show();
  }

  // --- controls

  function showScale() {
    const { words } = SCALES[byId("scale").value];
    byId("sharpness-label").hidden = byId("scale").value === "cosine";
    byId("sharpness-value").textContent = words(Number(byId("sharpness").value) / 100);
    show();
  }

  const bar = byId("bar").getContext("2d");
  for (let k = 0; k < heat.length / 3; k += 1) {
    bar.fillStyle = `rgb(${heat[3 * k]} ${heat[3 * k + 1]} ${heat[3 * k + 2]})`;
    bar.fillRect(k, 0, 1, 1);
  }
  byId("of").append(...images.map(({ name }, i) => element("option", { value: i }, name)));
  byId("lines").checked = images.length === 2;
  for (const [id, kind, act] of [
    ["scale", "change", showScale], ["sharpness", "input", showScale], ["joint", "change", show], ["smooth", "change", show], ["matches", "click", toggleMatches],
    ["of", "change", offerPartners], ["with", "change", loadMatches], ["least", "input", filterMatches], ["inliers", "change", filterMatches],
    ["lines", "change", drawMatches], ["release", "click", release],
  ]) byId(id).addEventListener(kind, act);
  let before = "";
  new ResizeObserver(() => {
    const now = `${area.clientWidth} ${window.innerHeight} ${window.devicePixelRatio}`;
    if (now !== before) fit();
    before = now;
  }).observe(document.documentElement);
  showScale();
})();
