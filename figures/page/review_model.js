// What was found, what a person changed in it, and the file of that: no element of the page is known here.
"use strict";
const model = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { parts, skeleton, images, file } = data;
  const history = []; // {image, part, kind, points, reviewed}: an image before a change

  // placed: a person gave the place; own: a person said something of the point
  const states = images.map(({ points }) => ({
    reviewed: false,
    points: points.map(([x, y, visible, score]) => ({ x, y, visible, score, placed: x !== null && score === null, own: false })),
  }));
  const changed = (i) => states[i].points.some(({ own }) => own);
  const kept = (i) => states[i].reviewed || changed(i);

  function remember(i, part = null, kind = null) {
    const last = history[history.length - 1];
    if (kind !== null && last && last.image === i && last.part === part && last.kind === kind) return; // steps of one move are undone together
    history.push({ image: i, part, kind, points: states[i].points.map((point) => ({ ...point })), reviewed: states[i].reviewed });
  }

  const within = (value, size) => Math.min(size - 0.5, Math.max(-0.5, value)); // the picture ends half a pixel beyond the outermost centres

  // To a place in pixels of the original; a part that is moved is visible. Changes of one kind (one drag, one walk by keys) count as one.
  function move(i, p, x, y, kind) {
    const next = { x: within(x, images[i].width), y: within(y, images[i].height) };
    remember(i, p, kind);
    Object.assign(states[i].points[p], next, { visible: true, placed: true, own: true });
  }

  // Returns whether it could: what has no place cannot be visible.
  function setVisible(i, p, visible) {
    const point = states[i].points[p];
    if (point.visible === visible) return true;
    if (visible && point.x === null) return false;
    remember(i);
    Object.assign(point, { visible, own: true });
    return true;
  }

  function setReviewed(i, reviewed) {
    if (states[i].reviewed === reviewed) return;
    remember(i);
    states[i].reviewed = reviewed;
  }

  // Returns the image that is as it was before, or null.
  function undo() {
    const last = history.pop();
    if (!last) return null;
    Object.assign(states[last.image], { points: last.points, reviewed: last.reviewed });
    return last.image;
  }

  const cell = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const number = (value) => value === null ? "" : String(value); // the shortest that reads back as the same

  function csv() {
    const rows = ["image,part,x,y,visible,score"];
    const chosen = images.map((_, i) => i).filter(kept).sort((a, b) => images[a].index - images[b].index);
    for (const i of chosen) {
      states[i].points.forEach(({ x, y, visible, score, placed, own }, p) => {
        const told = visible || placed;
        const sure = own || states[i].reviewed;
        rows.push([cell(images[i].name), cell(parts[p].name), told ? number(x) : "", told ? number(y) : "", visible ? 1 : 0, sure ? "" : number(score)].join(","));
      });
    }
    return `${rows.join("\n")}\n`;
  }

  return { parts, skeleton, images, file, states, history, changed, kept, move, setVisible, setReviewed, undo, csv };
})();
