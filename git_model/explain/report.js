// Draws the attention maps of a token, for one layer and head or averaged over all.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [rows, columns] = data.grid;
const patches = rows * columns, mapSize = data.frames * patches, nGenerated = data.generated.length;
const MIN_BRIGHTNESS = 0.12; // of a patch without attention, as in drawings.py
const frameImages = [...document.querySelectorAll(".patches img")];
const buttons = [...document.querySelectorAll("#tokens button")];
const byId = (id) => document.getElementById(id);
const percent = (share) => (share > 0 && share < 0.0005 ? "<\u00a00.1" : (100 * share).toFixed(1)) + "\u00a0%";
const unpacked = (base64) => {
  const view = new DataView(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);
  return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true) / 65535);
};
const patchAttention = unpacked(data.patch_attention), rollout = unpacked(data.rollout);
const occlusion = data.occlusion && unpacked(data.occlusion);
const textAttention = unpacked(data.text_attention), classAttention = unpacked(data.class_attention);
const ALL = null; // in place of a layer or head: the average over all
let token = 0, layer = ALL, head = ALL;

const range = (n) => [...Array(n).keys()];
const layerName = (index) => (index === ALL ? "all layers" : `layer ${index + 1}`);
const headName = (index) => (index === ALL ? "all heads" : `head ${index + 1}`);

// The `size` numbers of a token out of (layer, head, token, size), averaged over layers and heads.
function average(values, size, token, layer, head) {
  const sum = new Float64Array(size);
  const layers = layer === ALL ? range(data.layers) : [layer];
  const heads = head === ALL ? range(data.heads) : [head];
  for (const l of layers) for (const h of heads) {
    const start = ((l * data.heads + h) * nGenerated + token) * size;
    for (let i = 0; i < size; i++) sum[i] += values[start + i];
  }
  return sum.map((value) => value / (layers.length * heads.length));
}

// Draw the frames, three in a row, dimmed where the map is low. `size`: pixels of a frame's longer side.
function draw(canvas, map, size) {
  const patch = Math.max(1, Math.round(size / Math.max(rows, columns)));
  const width = patch * columns, height = patch * rows, gap = data.frames > 1 ? 2 : 0;
  const nColumns = Math.min(data.frames, 3), nRows = Math.ceil(data.frames / 3);
  canvas.width = nColumns * (width + gap) - gap;
  canvas.height = nRows * (height + gap) - gap;
  const context = canvas.getContext("2d", { willReadFrequently: true }), max = Math.max(...map, 1e-12);
  context.imageSmoothingEnabled = frameImages[0].naturalWidth > width;
  frameImages.forEach((frame, index) => {
    const left = (index % 3) * (width + gap), top = Math.floor(index / 3) * (height + gap);
    context.drawImage(frame, left, top, width, height);
    for (let i = 0; i < patches; i++) {
      const brightness = MIN_BRIGHTNESS + ((1 - MIN_BRIGHTNESS) * map[index * patches + i]) / max;
      context.fillStyle = `rgba(0, 0, 0, ${1 - brightness})`;
      context.fillRect(left + (i % columns) * patch, top + Math.floor(i / columns) * patch, patch, patch);
    }
  });
}

function append(tag, text, parent) {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.append(element);
  return element;
}

function showDistributions() {
  const alternatives = byId("alternatives");
  alternatives.replaceChildren();
  for (const [text, probability] of data.generated[token].alternatives) {
    const row = append("tr", "", alternatives);
    append("bdi", text, append("td", "", row));
    const bar = append("td", percent(probability), row);
    bar.className = "bar";
    bar.style.setProperty("--share", probability);
  }
  const lens = byId("logit-lens");
  lens.replaceChildren();
  data.generated[token].logit_lens.forEach((top, index) => {
    const row = append("tr", "", lens);
    append("th", layerName(index), row).scope = "row";
    const cell = append("td", "", row);
    top.forEach(([text, probability], n) => {
      if (n) cell.append(", ");
      append("bdi", text, cell);
      cell.append(`\u00a0${percent(probability)}`);
    });
  });
}

function showTextAttention() {
  const shares = average(textAttention, data.input_tokens.length, token, layer, head);
  const list = byId("text-attention"), max = Math.max(...shares, 1e-12);
  list.replaceChildren();
  data.input_tokens.forEach((text, index) => {
    if (index > data.input_tokens.length - nGenerated + token) return; // a later token
    const item = append("span", "", list);
    append("bdi", text, item);
    item.style.setProperty("--share", shares[index] / max);
    append("small", percent(shares[index]), item);
  });
}

function showSelected() {
  const map = average(patchAttention, mapSize, token, layer, head);
  draw(byId("attention-map"), map, data.frames > 1 ? 160 : 420);
  const name = `${layerName(layer)}, ${headName(head)}`;
  const toPatches = map.reduce((sum, weight) => sum + weight, 0);
  const toClasses = average(classAttention, 1, token, layer, head)[0];
  byId("attention-note").textContent = `Attention: ${name}. ${percent(toPatches)} to patches, ` +
    `${percent(toClasses)} to class tokens, the rest to text. The brightest patch gets ${percent(Math.max(...map))}.`;
  byId("attention-map").setAttribute("aria-label", `Attention map: ${name}`);
  for (const { button, l, h } of headButtons)
    button.setAttribute("aria-pressed", String(l === layer && h === head));
  showTextAttention();
}

// The table of all layers and heads: built once, drawn again for each token.
function buildHeads() {
  const table = byId("heads"), top = append("tr", "", table), built = [];
  append("td", "", top);
  for (const h of [ALL, ...range(data.heads)])
    append("th", h === ALL ? "all" : headName(h), top).scope = "col";
  for (const l of [ALL, ...range(data.layers)]) {
    const row = append("tr", "", table);
    append("th", l === ALL ? "all" : layerName(l), row).scope = "row";
    for (const h of [ALL, ...range(data.heads)]) {
      const button = append("button", "", append("td", "", row));
      button.type = "button";
      button.setAttribute("aria-label", `${layerName(l)}, ${headName(h)}`);
      button.append(document.createElement("canvas"));
      button.addEventListener("click", () => { layer = l; head = h; showSelected(); });
      built.push({ button, l, h });
    }
  }
  return built;
}

function drawHeads() {
  for (const { button, l, h } of headButtons)
    draw(button.firstChild, average(patchAttention, mapSize, token, l, h), data.frames > 1 ? 30 : 64);
}

function select(index) {
  token = index;
  buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(n === token)));
  byId("heading").textContent = `“\u2068${data.generated[token].text}\u2069”: probability ${percent(data.generated[token].probability)}`;
  draw(byId("rollout-map"), rollout.subarray(token * mapSize, (token + 1) * mapSize), data.frames > 1 ? 160 : 420);
  showOcclusion();
  showDistributions();
  showSelected();
  drawHeads();
  showCuts();
}

// The patches without which the token is less probable.
function showOcclusion() {
  if (!occlusion) return;
  const drops = occlusion.subarray(token * mapSize, (token + 1) * mapSize);
  byId("occlusion").hidden = false;
  draw(byId("occlusion-map"), drops, data.frames > 1 ? 160 : 420);
  const most = Math.max(...drops) * data.max_drop;
  byId("occlusion-note").textContent = `The brightest patch costs ${most.toFixed(1)} nats: ` +
    `the token becomes ${Math.exp(most).toPrecision(2)} times less probable.`;
}

// Fade an edge behind which there is more, and say so.
function showCuts() {
  for (const element of document.querySelectorAll(".wide")) {
    const rest = element.scrollWidth - element.clientWidth - element.scrollLeft;
    const cuts = [element.scrollLeft > 1 ? "left" : "", rest > 1 ? "right" : ""].filter(Boolean);
    element.dataset.cut = cuts.join(" ");
    let note = element.previousElementSibling;
    if (!note?.classList.contains("cut-note")) {
      note = document.createElement("p");
      note.className = "cut-note";
      element.before(note);
    }
    note.textContent = rest > 1 ? "more to the right →" : "";
  }
}

buttons.forEach((button, index) => {
  button.addEventListener("click", () => select(index));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !buttons[index + step]) return;
    event.preventDefault();
    buttons[index + step].focus();
    select(index + step);
  });
});
const headButtons = buildHeads();
document.querySelectorAll(".wide").forEach((element) => element.addEventListener("scroll", showCuts));
addEventListener("resize", showCuts);
byId("details").hidden = false;
Promise.all(frameImages.map((frame) => frame.decode())).then(() => select(0));
