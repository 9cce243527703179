// Draws the maps of a word, for all layers and heads together or for one of each.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [rows, columns] = data.grid;
const patches = rows * columns, perWord = data.frames * patches, nWords = data.words.length;
const DARK = 0.12; // the light that is left where the model did not look, as in heat.py
const pictures = [...document.querySelectorAll(".cut img")];
const buttons = [...document.querySelectorAll("#words button")];
const byId = (id) => document.getElementById(id);
const percent = (share) => (share > 0 && share < 0.0005 ? "<\u00a00.1" : (100 * share).toFixed(1)) + "\u00a0%";
const unpacked = (text) => {
  const view = new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true) / 65535);
};
const [maps, rollout, text, classes] = [data.maps, data.rollout, data.text, data.classes].map(unpacked);
const all = null; // in place of a layer or a head: all of them, averaged
let word = 0, layer = all, head = all;

// Which of n to average: one of them, or all.
const range = (n, one) => (one === all ? [...Array(n).keys()] : [one]);

// `size` numbers of a word out of (layer, head, word, size), averaged.
function average(values, size, word, layer, head) {
  const found = new Float64Array(size);
  const layers = range(data.layers, layer), heads = range(data.heads, head);
  for (const l of layers) for (const h of heads) {
    const first = ((l * data.heads + h) * nWords + word) * size;
    for (let i = 0; i < size; i++) found[i] += values[first + i];
  }
  return found.map((value) => value / (layers.length * heads.length));
}

// The frames, three side by side, dark where the map is low. `side`: pixels of a frame's longer side.
function draw(canvas, map, side) {
  const patch = Math.max(1, Math.round(side / Math.max(rows, columns)));
  const width = patch * columns, height = patch * rows, gap = data.frames > 1 ? 2 : 0;
  const across = Math.min(data.frames, 3), down = Math.ceil(data.frames / 3);
  canvas.width = across * (width + gap) - gap;
  canvas.height = down * (height + gap) - gap;
  const context = canvas.getContext("2d", { willReadFrequently: true }), most = Math.max(...map, 1e-12);
  context.imageSmoothingEnabled = pictures[0].naturalWidth > width;
  pictures.forEach((picture, frame) => {
    const left = (frame % 3) * (width + gap), top = Math.floor(frame / 3) * (height + gap);
    context.drawImage(picture, left, top, width, height);
    for (let i = 0; i < patches; i++) {
      const light = DARK + ((1 - DARK) * map[frame * patches + i]) / most;
      context.fillStyle = `rgba(0, 0, 0, ${1 - light})`;
      context.fillRect(left + (i % columns) * patch, top + Math.floor(i / columns) * patch, patch, patch);
    }
  });
}

function element(tag, content, parent) {
  const made = document.createElement(tag);
  made.textContent = content;
  parent.append(made);
  return made;
}

function showBars() {
  const others = byId("others");
  others.replaceChildren();
  for (const [name, share] of data.words[word].others) {
    const row = element("tr", "", others);
    element("td", name, row);
    const bar = element("td", percent(share), row);
    bar.className = "bar";
    bar.style.setProperty("--share", share);
  }
  const forming = byId("forming");
  forming.replaceChildren();
  data.words[word].layers.forEach((guesses, n) => {
    const row = element("tr", "", forming);
    element("th", `layer ${n + 1}`, row).scope = "row";
    element("td", guesses.map(([name, share]) => `${name}\u00a0${percent(share)}`).join(", "), row);
  });
}

function showText() {
  const shares = average(text, data.tokens.length, word, layer, head);
  const said = byId("said"), most = Math.max(...shares, 1e-12);
  said.replaceChildren();
  data.tokens.forEach((token, n) => {
    if (n > data.tokens.length - nWords + word) return; // it comes later
    const one = element("span", token, said);
    one.style.setProperty("--share", shares[n] / most);
    element("small", percent(shares[n]), one);
  });
}

function showLarge() {
  const map = average(maps, perWord, word, layer, head);
  draw(byId("raw"), map, data.frames > 1 ? 160 : 420);
  const part = [
    layer === all ? "all layers" : `layer ${layer + 1}`, head === all ? "all heads" : `head ${head + 1}`,
  ].join(", ");
  const toPatches = map.reduce((sum, one) => sum + one, 0);
  const toClasses = average(classes, 1, word, layer, head)[0];
  byId("raw-note").textContent = `Attention: ${part}. ${percent(toPatches)} went to patches, ` +
    `${percent(toClasses)} to class tokens, the rest to text. The brightest patch has ${percent(Math.max(...map))}.`;
  byId("raw").setAttribute("aria-label", `Attention map: ${part}`);
  for (const button of byId("heads").querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.dataset.at === `${layer},${head}`));
  showText();
}

// The table of all layers and heads: made once, drawn anew for each word.
function makeHeads() {
  const table = byId("heads"), top = element("tr", "", table);
  element("td", "", top);
  for (const h of [all, ...range(data.heads, all)])
    element("th", h === all ? "all" : `head ${h + 1}`, top).scope = "col";
  for (const l of [all, ...range(data.layers, all)]) {
    const row = element("tr", "", table);
    element("th", l === all ? "all" : `layer ${l + 1}`, row).scope = "row";
    for (const h of [all, ...range(data.heads, all)]) {
      const button = element("button", "", element("td", "", row));
      button.type = "button";
      button.dataset.at = `${l},${h}`;
      button.setAttribute("aria-label", `${l === all ? "all layers" : `layer ${l + 1}`}, ${h === all ? "all heads" : `head ${h + 1}`}`);
      button.append(document.createElement("canvas"));
      button.addEventListener("click", () => { layer = l; head = h; showLarge(); });
    }
  }
}

function drawHeads() {
  for (const button of byId("heads").querySelectorAll("button")) {
    const [l, h] = button.dataset.at.split(",").map((one) => (one === "null" ? all : Number(one)));
    draw(button.firstChild, average(maps, perWord, word, l, h), data.frames > 1 ? 30 : 64);
  }
}

function show(chosen) {
  word = chosen;
  buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(n === word)));
  byId("heading").textContent = `“${data.words[word].text}”: probability ${percent(data.words[word].probability)}`;
  draw(byId("rolled"), rollout.subarray(word * perWord, (word + 1) * perWord), data.frames > 1 ? 160 : 420);
  showBars();
  showLarge();
  drawHeads();
}

buttons.forEach((button, n) => {
  button.addEventListener("click", () => show(n));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !buttons[n + step]) return;
    event.preventDefault();
    buttons[n + step].focus();
    show(n + step);
  });
});
makeHeads();
byId("word").hidden = false;
Promise.all(pictures.map((picture) => picture.decode())).then(() => show(0));
