// What the page of matched images knows and computes, without any drawing: patches, their nearest ones, cosines, matches.
"use strict";
const model = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const scale = new Float32Array(bytes(data.scale).buffer);

  const images = data.images.map((image) => {
    const count = image.grid[0] * image.grid[1];
    const packed = image.usable === null ? null : bytes(image.usable);
    return {
      ...image, count,
      usable: Uint8Array.from({ length: count }, (_, p) => packed === null ? 1 : (packed[p >> 3] >> (p & 7)) & 1),
      codes: new Int8Array(bytes(image.codes).buffer),
      cosines: new Float32Array(count), // with the patch that was last compared
    };
  });
  const tables = data.nearest.map((row) => row.map((entry, b) => entry && {
    index: new (images[b].count <= 65536 ? Uint16Array : Uint32Array)(bytes(entry.index).buffer),
    cosine: new Int16Array(bytes(entry.cosine).buffer),
  }));

  // --- places: pixels of the original image, centres of pixels at integers

  const rowOf = (image, patch) => Math.floor(patch / image.grid[1]);
  const columnOf = (image, patch) => patch % image.grid[1];
  const place = (image, patch) => [image.origin[0] + columnOf(image, patch) * image.step[0], image.origin[1] + rowOf(image, patch) * image.step[1]];
  const share = (image, [x, y]) => [(x + 0.5) / image.width, (y + 0.5) / image.height];

  // The patch whose centre is nearest to a pixel, or −1 where there is none.
  function patchAt(image, [x, y]) {
    const [left, top, right, bottom] = image.box;
    if (x + 0.5 < left || y + 0.5 < top || x + 0.5 > right || y + 0.5 > bottom) return -1;
    const [column, row] = [x, y].map((at, axis) =>
      Math.min(image.grid[1 - axis] - 1, Math.max(0, Math.round((at - image.origin[axis]) / image.step[axis]))));
    const patch = row * image.grid[1] + column;
    return image.usable[patch] ? patch : -1;
  }

  // So many usable patches further, or as far as there are any.
  function stepFrom(image, patch, [down, right], steps) {
    let [row, column] = [rowOf(image, patch), columnOf(image, patch)];
    let [found, left] = [patch, steps];
    while (left > 0) {
      [row, column] = [row + down, column + right];
      if (row < 0 || column < 0 || row >= image.grid[0] || column >= image.grid[1]) break;
      if (!image.usable[row * image.grid[1] + column]) continue;
      found = row * image.grid[1] + column;
      left -= 1;
    }
    return found;
  }

  // The usable patch that is nearest to the middle, or −1.
  function middle(image) {
    let [found, least] = [-1, Infinity];
    image.usable.forEach((used, patch) => {
      const off = Math.hypot(rowOf(image, patch) - (image.grid[0] - 1) / 2, columnOf(image, patch) - (image.grid[1] - 1) / 2);
      if (used && off < least) [found, least] = [patch, off];
    });
    return found;
  }

  // --- cosines, from the quantised descriptors

  function compare(source) {
    const d = scale.length;
    const own = images[source.image].codes.subarray(source.patch * d, (source.patch + 1) * d);
    const query = Float32Array.from(own, (code, k) => code * scale[k]);
    for (const { codes, cosines, count } of images) {
      for (let patch = 0, at = 0; patch < count; patch += 1) {
        let sum = 0;
        for (let k = 0; k < d; k += 1, at += 1) sum += query[k] * codes[at];
        cosines[patch] = sum;
      }
    }
    images[source.image].cosines[source.patch] = 1;
  }

  // Ways from a cosine to a share of the heat, given the cosines in order and how sharp it shall be, from 0 to 1. All rise with the cosine.
  const between = (first, last, sharpness) => first * (last / first) ** sharpness;
  const SCALES = {
    sigmoid: { // half of the heat at a quantile, all at the largest
      words: (sharpness) => `best ${(100 * between(0.5, 0.005, sharpness)).toFixed(1)} %`,
      of: (values, sharpness) => {
        const highest = values[values.length - 1];
        const quantile = values[Math.max(0, Math.min(values.length - 2, Math.floor(values.length * (1 - between(0.5, 0.005, sharpness)))))];
        const width = Math.max(1e-6, (highest - quantile) / 3);
        return (s) => (1 + Math.exp((quantile - highest) / width)) / (1 + Math.exp((quantile - s) / width));
      },
    },
    softmax: {
      words: (sharpness) => `τ = ${between(0.4, 0.01, sharpness).toFixed(3)}`,
      of: (values, sharpness) => (s) => Math.exp((s - values[values.length - 1]) / between(0.4, 0.01, sharpness)),
    },
    rank: { // the share of patches that are not more alike, to a power
      words: (sharpness) => `power ${between(1, 64, sharpness).toFixed(1)}`,
      of: (values, sharpness) => (s) => {
        let [low, high] = [0, values.length];
        while (low < high) {
          const half = (low + high) >> 1;
          if (values[half] <= s) low = half + 1;
          else high = half;
        }
        return (low / values.length) ** between(1, 64, sharpness);
      },
    },
    cosine: { words: () => "", of: () => (s) => s },
  };

  // For each image the way from a cosine to a share; the chosen patch itself, always 1, does not count.
  function scales(source, name, sharpness, joint) {
    const used = images.map((image, i) =>
      image.cosines.filter((_, patch) => image.usable[patch] && !(i === source.image && patch === source.patch)).sort());
    const made = (values) => values.length ? SCALES[name].of(values, sharpness) : () => 0;
    if (!joint) return used.map(made);
    const all = new Float32Array(used.reduce((sum, values) => sum + values.length, 0));
    used.reduce((at, values) => { all.set(values, at); return at + values.length; }, 0);
    const one = made(all.sort());
    return images.map(() => one);
  }

  // --- what comes with the page: nearest patches and matches

  function nearest(a, patch, b) {
    const table = tables[a][b];
    return table && { patch: table.index[patch], cosine: table.cosine[patch] * data.cosineStep };
  }

  // All mutual nearest patches, for a pair whose matches did not come with the page.
  function mutual(a, b) {
    const [to, back] = [tables[a][b], tables[b][a]];
    if (!to || !back) return [];
    const found = [];
    to.index.forEach((j, i) => {
      if (!images[a].usable[i] || back.index[j] !== i) return;
      const [[xa, ya], [xb, yb]] = [place(images[a], i), place(images[b], j)];
      found.push({ a, b, xa, ya, xb, yb, score: to.cosine[i] * data.cosineStep, inlier: true });
    });
    return found.sort((one, other) => other.score - one.score);
  }

  const pairOf = (a, b) => data.pairs.find((pair) => (pair.a === a && pair.b === b) || (pair.a === b && pair.b === a));

  // The matches of two images, best first.
  function matchesOf(a, b) {
    const given = pairOf(a, b);
    if (!given) return mutual(a, b);
    const rows = new Float32Array(bytes(given.rows).buffer);
    const inliers = given.inliers && new Set(given.inliers);
    return Array.from({ length: rows.length / 5 }, (_, k) => {
      const [x1, y1, x2, y2, score] = rows.subarray(5 * k, 5 * k + 5);
      const points = given.a === a ? { xa: x1, ya: y1, xb: x2, yb: y2 } : { xa: x2, ya: y2, xb: x1, yb: y1 };
      return { a, b, ...points, score, inlier: !inliers || inliers.has(k) };
    });
  }

  function positionColour(image, xy) {
    const side = Math.round(Math.sqrt(data.positions.length));
    const [column, row] = share(image, xy).map((part) => Math.min(side - 1, Math.max(0, Math.round(part * (side - 1)))));
    return data.positions[row * side + column];
  }

  return {
    images, heat: bytes(data.heat), SCALES, rowOf, columnOf, place, share, patchAt, stepFrom, middle, compare, scales, nearest, pairOf, matchesOf, positionColour,
  };
})();
