"use strict";
/*
 * Scenes and photos as the 64 x 64 pixels that the model reads.
 *
 * A scene is { background, things }, a thing { shape, colour, x, y, radius, tint }, in pixels. It is
 * drawn as Pillow draws the training pictures, pixel for pixel: polygons with whole-numbered corners
 * on a canvas three times as large, then the mean of each 3 x 3 pixels.
 */

const FINER = 3;

/** A scene → red, green, blue from 0 to 255: a Uint8Array (side, side, 3). */
function drawScene({ background, things }) {
  const side = WORLD.side * FINER;
  const large = new Uint8Array(side * side * 3).fill(background);
  for (const thing of things) fillPolygon(large, side, cornersOf(thing), paintOf(thing));
  return reduced(large, side);
}

/** Where the outline of a thing has its corners, in pixels of the large canvas. */
function cornersOf({ shape, x, y, radius }) {
  return WORLD.outlines[shape].map(([dx, dy]) => [
    Math.trunc(FINER * (x + radius * dx)),
    Math.trunc(FINER * (y + radius * dy)),
  ]);
}

/** Red, green and blue of a thing: its colour, and what this one adds to it. */
function paintOf({ colour, tint = [0, 0, 0] }) {
  return WORLD.colours[colour].map((value, i) =>
    Math.min(Math.max(Math.round(value + tint[i]), 0), 255),
  );
}

/** Fill a polygon, its edges included; row by row, between the edges that the row meets. */
function fillPolygon(pixels, side, corners, paint) {
  const bottom = Math.max(...corners.map(([, y]) => y));
  const row = (y, from, to) => {
    if (y < 0 || y >= side) return;
    for (let x = Math.max(from, 0); x <= Math.min(to, side - 1); x++)
      pixels.set(paint, (y * side + x) * 3);
  };
  const edges = [];
  corners.forEach(([x0, y0], i) => {
    const [x1, y1] = corners[(i + 1) % corners.length];
    if (y0 === y1) row(y0, Math.min(x0, x1), Math.max(x0, x1));
    else
      edges.push({
        x0,
        y0,
        slope: (x1 - x0) / (y1 - y0),
        top: Math.min(y0, y1),
        end: Math.max(y0, y1),
      });
  });
  for (let y = Math.min(...corners.map(([, y]) => y)); y <= bottom; y++) {
    const crossings = [];
    for (const { x0, y0, slope, top, end } of edges) {
      if (y < top || y > end) continue;
      const x = x0 + (y - y0) * slope;
      crossings.push(x);
      if (y === end && y < bottom) crossings.push(x); // an edge that ends here counts twice
    }
    crossings.sort((a, b) => a - b);
    for (let i = 1; i < crossings.length; i += 2) {
      row(y, Math.floor(crossings[i - 1] + 0.5), Math.ceil(crossings[i] - 0.5));
    }
  }
}

/** The mean of each FINER x FINER pixels. */
function reduced(large, side) {
  const small = new Uint8Array(large.length / FINER ** 2);
  for (let i = 0; i < small.length; i++) {
    const channel = i % 3,
      x = Math.floor(i / 3) % WORLD.side,
      y = Math.floor(i / 3 / WORLD.side);
    let sum = 0;
    for (let dy = 0; dy < FINER; dy++) {
      for (let dx = 0; dx < FINER; dx++) {
        sum += large[((y * FINER + dy) * side + x * FINER + dx) * 3 + channel];
      }
    }
    small[i] = Math.floor(((sum + 4) * Math.floor(2 ** 24 / FINER ** 2)) / 2 ** 24); // as Pillow rounds
  }
  return small;
}

/** A photo or any drawable, scaled until its short side fits, its middle cut out: (side, side, 3). */
function drawPhoto(image) {
  const { side } = WORLD;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "white"; // behind what is transparent
  pen.fillRect(0, 0, side, side);
  const scale = side / Math.min(image.width, image.height);
  const width = image.width * scale,
    height = image.height * scale;
  pen.drawImage(image, (side - width) / 2, (side - height) / 2, width, height);
  return withoutAlpha(pen.getImageData(0, 0, side, side).data);
}

/** (side, side, 4) → (side, side, 3) */
function withoutAlpha(rgba) {
  return Uint8Array.from(
    { length: (rgba.length / 4) * 3 },
    (_, i) => rgba[Math.floor(i / 3) * 4 + (i % 3)],
  );
}

/** Paint patches over, each by its index: with the background, or a photo's mean colour. */
function blanked(rgb, patches, patchSize, grid, background) {
  const result = rgb.slice();
  const fill = background === null ? meanColour(rgb) : [background, background, background];
  for (const patch of patches) {
    const top = Math.floor(patch / grid) * patchSize,
      left = (patch % grid) * patchSize;
    for (let y = top; y < top + patchSize; y++) {
      for (let x = left; x < left + patchSize; x++) result.set(fill, (y * WORLD.side + x) * 3);
    }
  }
  return result;
}

function meanColour(rgb) {
  const sums = [0, 0, 0];
  rgb.forEach((value, i) => (sums[i % 3] += value));
  return sums.map((sum) => Math.round((sum * 3) / rgb.length));
}

/** Show (side, side, 3) on a canvas element of that size. */
function showPixels(canvas, rgb) {
  const image = new ImageData(WORLD.side, WORLD.side);
  for (let i = 0; i < rgb.length; i++) image.data[Math.floor(i / 3) * 4 + (i % 3)] = rgb[i];
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
