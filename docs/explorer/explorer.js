"use strict";
/* The page: what is on the picture, what the model says, and what happens when one touches either. */

const $ = (id) => document.getElementById(id);
const model = new GIT(GIT_WEIGHTS);
const PATCH_NAMES = [
  "top left",
  "top",
  "top right",
  "left",
  "middle",
  "right",
  "bottom left",
  "bottom",
  "bottom right",
];
const TOKEN_NAMES = ["class token", ...PATCH_NAMES];
const MAX_THINGS = 9;
const SETTLED = 140; // milliseconds without a change, after which slow panels follow
const LAST_LAYER = model.weights.decoder.blocks.length;

const state = {
  scene: sceneOf(WORLD.examples[0]),
  photo: null, // (64, 64, 3), shown instead of the scene
  selected: null, // index of a thing
  colour: "red", // of the next thing
  blank: new Set(), // patches painted over
  question: "",
  mask: "prefix",
  method: "greedy",
  temperature: 1,
  topK: 0,
  seed: 1,
  beams: 4,
  lengthPenalty: 1,
  forced: new Map(), // step → id
  step: null, // the selected word; null: the first one that names a colour
  panel: "stages",
  stage: 0,
  stageLayer: 0,
  token: 5, // the selected image token
  tower: "decoder",
  layer: LAST_LAYER - 1,
  head: 0,
};
let result = null; // what the model made of the state
const times = { seeing: [], writing: [] }; // milliseconds of the last runs
let frame = 0,
  settling = 0;

// ---------------------------------------------------------------------------------------------
// From the state to the result
// ---------------------------------------------------------------------------------------------

function sceneOf({ background, things }) {
  return { background, things: things.map((thing) => ({ ...thing })) };
}

/** The picture before anything is painted over. */
function picture() {
  return state.photo ?? drawScene(state.scene);
}

/** The picture with these patches painted over. */
function blankedPicture(patches) {
  const background = state.photo ? null : state.scene.background;
  return blanked(picture(), patches, model.config.encoder.patch_size, model.grid, background);
}

/** A number from 0 to 1, the same for the same seed and step (mulberry32). */
function random(seed, step) {
  let t = (seed * 0x9e3779b1 + step * 0x6d2b79f5) | 0;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

/** Write a text with the method that is set. */
function write(prefix, prompt) {
  const { forced, seed } = state;
  if (state.method === "beam") {
    const { beams, lengthPenalty } = state;
    const search = beamSearch(model, prefix, prompt, { beams, lengthPenalty });
    const ids = new Map(idsOf(search.ended[0]).map((id, step) => [step, id]));
    const text = generate(model, prefix, prompt, { forced: ids });
    text.tokens.forEach((token) => (token.forced = false));
    return text;
  }
  const choose =
    state.method === "sample"
      ? (logits, step) => sample(logits, state, random(seed, step))
      : greedy;
  return generate(model, prefix, prompt, { choose, forced });
}

/** Run the model on the state. */
function compute() {
  const rgb = state.blank.size ? blankedPicture(state.blank) : picture();
  const before = performance.now();
  const prefix = model.see(model.preprocess(rgb), state.mask);
  const seen = performance.now();
  const prompt = promptOf(model, state.question);
  const { sequence, tokens } = write(prefix, prompt);
  const done = performance.now();
  const usual = state.mask === "prefix" ? null : usualIds(rgb, prompt);
  const step = Math.min(state.step ?? firstColour(tokens), tokens.length - 1);
  return {
    rgb,
    prefix,
    prompt,
    sequence,
    tokens,
    usual,
    step,
    text: model.tokenizer.decode(tokens.map(({ id }) => id)),
    logprob: tokens.reduce((sum, token) => sum + token.logprob, 0),
    seeing: seen - before,
    writing: done - seen,
  };
}

/** What would be written under the prefix mask, to mark the words that differ. */
function usualIds(rgb, prompt) {
  return write(model.see(model.preprocess(rgb)), prompt).tokens.map(({ id }) => id);
}

function firstColour(tokens) {
  return Math.max(
    0,
    tokens.findIndex(({ id }) => model.tokenizer.vocabulary[id] in WORLD.colours),
  );
}

/** The token as the vocabulary has it. */
function word(id) {
  return model.tokenizer.vocabulary[id];
}

/** Compute and show anew, once a frame. */
function update() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    result = compute();
    showPicture();
    showCaption();
    showBadges();
    showPanel(false);
    clearTimeout(settling);
    settling = setTimeout(() => {
      settling = 0;
      say($("spoken"), `${state.question ? "Answer" : "Caption"}: ${result.text}`);
      showPanel(true);
    }, SETTLED);
  });
}

/** Change the state; a new picture or question sets the forced words free. */
function change(values, { keepForced = true } = {}) {
  Object.assign(state, values);
  if (!keepForced) state.forced = new Map();
  update();
}

// ---------------------------------------------------------------------------------------------
// The picture
// ---------------------------------------------------------------------------------------------

function nameOf(thing) {
  return `${sizeOf(thing)} ${looksOf(thing)}, ${PATCH_NAMES[cellOf(thing)]}`;
}

function outline({ shape, x, y, radius }) {
  return WORLD.outlines[shape]
    .map(([dx, dy]) => `${(x + radius * dx).toFixed(2)},${(y + radius * dy).toFixed(2)}`)
    .join(" ");
}

function showPicture() {
  const svg = $("canvas");
  if (!svg.firstChild) {
    svg.append(
      h(
        "svg:defs",
        {},
        h(
          "svg:pattern",
          {
            id: "hatch",
            width: 3,
            height: 3,
            patternUnits: "userSpaceOnUse",
            patternTransform: "rotate(45)",
          },
          h("svg:rect", { width: 3, height: 3 }),
          h("svg:path", { d: "M0 0V3" }),
        ),
      ),
      h("svg:rect", { width: 64, height: 64, class: "ground" }),
      h(
        "svg:foreignObject",
        { width: 64, height: 64, class: "photo" },
        h("canvas", { width: 64, height: 64 }),
      ),
      h("svg:g", { class: "things" }),
      h("svg:g", { class: "blanks" }),
      h("svg:path", { class: "grid", d: "M21 0V64M42 0V64M0 21H64M0 42H64" }),
      h("svg:rect", { class: "frame" }),
      h("svg:circle", { class: "handle", r: 1.7 }),
    );
    svg.querySelector(".ground").onpointerdown = () => select(null);
    svg.querySelector(".handle").onpointerdown = (event) => drag(event, resizeTo);
  }
  const { scene, photo, selected } = state;
  set(svg.querySelector(".ground"), {
    fill: `rgb(${scene.background} ${scene.background} ${scene.background})`,
  });
  set(svg.querySelector(".photo"), { display: photo ? null : "none" });
  if (photo) showPixels(svg.querySelector(".photo canvas"), photo);
  fill(svg.querySelector(".things"), photo ? [] : scene.things, makeThing, (shape, thing, i) =>
    set(shape, {
      points: outline(thing),
      fill: `rgb(${paintOf(thing).join(" ")})`,
      "aria-label": nameOf(thing),
      "aria-pressed": i === selected,
      class: i === selected ? "thing selected" : "thing",
    }),
  );
  const side = model.config.encoder.patch_size;
  fill(
    svg.querySelector(".blanks"),
    [...state.blank],
    () => h("svg:rect", { width: side, height: side }),
    (rect, patch) =>
      set(rect, { x: (patch % model.grid) * side, y: Math.floor(patch / model.grid) * side }),
  );
  showFrame(photo ? null : scene.things[selected]);
  showTools();
}

/** The dashed frame and the handle of the selected thing. */
function showFrame(thing) {
  const frame = $("canvas").querySelector(".frame"),
    handle = $("canvas").querySelector(".handle");
  for (const part of [frame, handle]) set(part, { display: thing ? null : "none" });
  if (!thing) return;
  const { x, y, radius } = thing,
    r = radius + 1.2;
  set(frame, { x: x - r, y: y - r, width: 2 * r, height: 2 * r, rx: 1.5 });
  set(handle, { cx: Math.min(x + r, 62), cy: Math.min(y + r, 62) });
}

function makeThing(index) {
  return h("svg:polygon", {
    tabindex: 0,
    role: "button",
    "aria-roledescription": "shape",
    onfocus: () => select(index),
    onpointerdown: (event) => {
      select(index);
      const { x, y } = state.scene.things[index],
        start = pointOf(event);
      drag(event, (point) => place(x + point.x - start.x, y + point.y - start.y));
    },
    onkeydown: (event) => {
      select(index); // it may have kept the focus while another one was deleted
      steer(event);
    },
  });
}

/** Where an event is, in pixels of the picture. */
function pointOf(event) {
  const box = $("canvas").getBoundingClientRect();
  const scale = WORLD.side / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

/** Follow the pointer until it is released. */
function drag(event, move) {
  const target = event.currentTarget;
  target.setPointerCapture(event.pointerId);
  target.onpointermove = (event) => move(pointOf(event));
  target.onpointerup = target.onpointercancel = () => (target.onpointermove = null);
  event.preventDefault();
  target.focus({ preventScroll: true });
}

function select(index) {
  if (state.selected === index) return;
  state.selected = index;
  if (index !== null) state.colour = state.scene.things[index].colour;
  showPicture();
}

/** Change the selected thing. */
function alter(values) {
  const things = state.scene.things.map((thing, i) =>
    i === state.selected ? { ...thing, ...values } : thing,
  );
  change({ scene: { ...state.scene, things } });
}

function place(x, y) {
  const inside = (value) => Math.min(Math.max(value, 3), WORLD.side - 3);
  alter({ x: inside(x), y: inside(y) });
}

function resizeTo(point) {
  const { x, y } = state.scene.things[state.selected];
  resize(Math.max(point.x - x, point.y - y) - 1.2);
}

function resize(radius) {
  alter({ radius: Math.min(Math.max(radius, 3.5), 26) });
}

function steer(event) {
  const thing = state.scene.things[state.selected];
  const far = event.shiftKey ? 6 : 1.5;
  const actions = {
    ArrowLeft: () => place(thing.x - far, thing.y),
    ArrowRight: () => place(thing.x + far, thing.y),
    ArrowUp: () => place(thing.x, thing.y - far),
    ArrowDown: () => place(thing.x, thing.y + far),
    "+": () => resize(thing.radius + 0.7),
    "=": () => resize(thing.radius + 0.7),
    "-": () => resize(thing.radius - 0.7),
    Delete: remove,
    Backspace: remove,
    Escape: () => select(null),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function remove() {
  const things = state.scene.things.filter((_, i) => i !== state.selected);
  change({ scene: { ...state.scene, things }, selected: null });
}

/** A new thing in the first free cell. */
function addThing(shape) {
  if (!state.photo && state.scene.things.length >= MAX_THINGS) return; // two clicks in one frame
  const cell = WORLD.side / 3;
  const order = [4, 0, 8, 2, 6, 1, 7, 3, 5];
  const free = order.find((at) =>
    state.scene.things.every(({ x, y }) => 3 * Math.floor(y / cell) + Math.floor(x / cell) !== at),
  );
  const at = free ?? 4;
  const thing = {
    shape,
    colour: state.colour,
    radius: WORLD.radii.large,
    tint: [0, 0, 0],
    x: ((at % 3) + 0.5) * cell,
    y: (Math.floor(at / 3) + 0.5) * cell,
  };
  const things = [...state.scene.things, thing];
  change(
    { scene: { ...state.scene, things }, selected: things.length - 1, photo: null },
    { keepForced: false },
  );
}

function showTools() {
  const { scene, photo, selected, blank } = state;
  const thing = photo ? null : scene.things[selected];
  fill(
    $("add"),
    Object.keys(WORLD.outlines),
    () => h("button", { type: "button", class: "shape" }),
    (button, shape) => {
      if (!button.firstChild) {
        button.append(
          h(
            "svg:svg",
            { viewBox: "-1.3 -1.3 2.6 2.6", "aria-hidden": "true" },
            h("svg:polygon", { points: WORLD.outlines[shape].map((p) => p.join()).join(" ") }),
          ),
        );
      }
      set(button, {
        "aria-label": `Add a ${shape}`,
        title: `Add a ${shape}`,
        disabled: !photo && scene.things.length >= MAX_THINGS,
        onclick: () => addThing(shape),
      });
    },
  );
  fill(
    $("colours"),
    Object.keys(WORLD.colours),
    () => h("button", { type: "button", class: "swatch" }),
    (button, colour) =>
      set(button, {
        style: `--swatch: rgb(${WORLD.colours[colour].join(" ")})`,
        "aria-label": colour,
        title: colour,
        "aria-pressed": (thing?.colour ?? state.colour) === colour,
        onclick: () => (
          thing ? alter({ colour, tint: [0, 0, 0] }) : showPicture(),
          (state.colour = colour),
          showTools()
        ),
      }),
  );
  segmented(
    $("sizes"),
    Object.keys(WORLD.radii).map((size) => [size, size]),
    thing && sizeOf(thing),
    (size) => state.selected !== null && alter({ radius: WORLD.radii[size] }),
  );
  for (const button of $("sizes").children) set(button, { disabled: !thing });
  set($("delete"), { disabled: !thing, onclick: remove });
  fill(
    $("grounds"),
    WORLD.backgrounds,
    () => h("button", { type: "button", class: "swatch" }),
    (button, grey) =>
      set(button, {
        style: `--swatch: rgb(${grey} ${grey} ${grey})`,
        "aria-label": `Grey ${grey}`,
        title: `grey ${grey}`,
        disabled: Boolean(photo),
        "aria-pressed": scene.background === grey,
        onclick: () => change({ scene: { ...scene, background: grey } }),
      }),
  );
  showStatus(thing, photo, blank);
  const note = $("stage-note");
  note.hidden = Boolean(photo) || scene.things.length > 0;
  say(note, note.hidden ? "" : "An empty picture. The model was never shown one: add a shape.");
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

/** One line on the picture: what is selected, painted over, or foreign to the model. */
function showStatus(thing, photo, blank) {
  const status = $("picture-status");
  if (blank.size) {
    status.replaceChildren(
      `${blank.size} of ${model.grid ** 2} patches blanked. `,
      h(
        "button",
        { type: "button", class: "link", onclick: () => change({ blank: new Set() }) },
        "Restore",
      ),
    );
  } else if (photo) {
    status.replaceChildren(
      "Your picture, cut to 64 × 64 pixels. This model knows drawn shapes only. ",
      h(
        "button",
        {
          type: "button",
          class: "link",
          onclick: () => change({ photo: null }, { keepForced: false }),
        },
        "Back to shapes",
      ),
    );
  } else if (thing) say(status, `${capital(nameOf(thing))}. Arrow keys move it; + and − resize.`);
  else if (state.scene.things.length > 5)
    say(status, "Training pictures had at most five shapes: counting may fail.");
  else say(status, "Drag a shape, or tab to it and use the arrow keys.");
}

function showExamples() {
  fill(
    $("examples"),
    WORLD.examples,
    () => h("button", { type: "button" }, h("img", { alt: "" })),
    (button, example) => {
      set(button.firstChild, { src: `data:image/png;base64,${example.png}` });
      set(button, {
        "aria-label": example.caption,
        title: example.caption,
        onclick: () => openScene(example),
      });
    },
  );
}

function openScene(example) {
  change(
    { scene: sceneOf(example), photo: null, selected: null, blank: new Set(), step: null },
    { keepForced: false },
  );
}

/** A scene as training has them: up to five shapes, each in a cell of its own. */
function shuffle() {
  const pick = (list) => list[Math.floor(Math.random() * list.length)];
  const cell = WORLD.side / 3,
    cells = [0, 1, 2, 3, 4, 5, 6, 7, 8].sort(() => Math.random() - 0.5);
  const things = cells
    .slice(0, pick([1, 2, 2, 3, 3, 4, 5]))
    .sort((a, b) => a - b)
    .map((at) => ({
      shape: pick(Object.keys(WORLD.outlines)),
      colour: pick(Object.keys(WORLD.colours)),
      radius: pick([WORLD.radii.small, WORLD.radii.large]),
      tint: [0, 0, 0],
      x: ((at % 3) + 0.5) * cell,
      y: (Math.floor(at / 3) + 0.5) * cell,
    }));
  openScene({ background: pick(WORLD.backgrounds), things });
}

async function openFile(file) {
  try {
    const image = await createImageBitmap(file);
    change(
      { photo: drawPhoto(image), selected: null, blank: new Set(), step: null },
      { keepForced: false },
    );
  } catch {
    say(
      $("picture-status"),
      `${file.name} is no picture that this browser reads, expected PNG, JPEG or the like.`,
    );
  }
}

// ---------------------------------------------------------------------------------------------
// The text
// ---------------------------------------------------------------------------------------------

/** Probabilities as the words are chosen: when sampling, after temperature and top-k. */
function chances(logits) {
  const { order, probabilities } = distribution(logits, state.method === "sample" ? state : {});
  return { order, probabilities, of: (id) => probabilities[order.indexOf(id)] ?? 0 };
}

/** The words of a question: pieces joined, marks too, and what had to be split into letters. */
function wordsOf(ids) {
  const words = [];
  for (const id of ids) {
    const token = word(id),
      last = words.at(-1);
    if (last && token.startsWith("##"))
      Object.assign(last, {
        text: last.text + token.slice(2),
        name: last.name + token.slice(2),
        split: true,
      });
    else if (last && /^[.,?!]$/.test(token)) last.text += token;
    else words.push({ text: token, name: token, split: token === "[UNK]", given: true });
  }
  return words;
}

function showCaption() {
  const { tokens, prompt } = result;
  say($("caption-title"), state.question ? "Answer" : "Caption");
  say($("bar-title"), state.question ? "Answer" : "Caption");
  const words = wordsOf(prompt.slice(1));
  fill(
    $("caption"),
    [...words, ...tokens],
    () => h("button", { type: "button" }),
    (button, item, i) =>
      item.given ? showGiven(button, item) : showWord(button, item, i - words.length),
  );
  const foreign = words.filter(({ split }) => split).map(({ name }) => name);
  say(
    $("foreign"),
    foreign.length ? `not in its vocabulary, read in letters: ${foreign.join(", ")}` : "",
  );
  $("bar-caption").replaceChildren(
    ...words.map(({ text }) => h("span", {}, `${text} `)),
    ...tokens
      .filter(({ id }) => id !== model.config.eos_id)
      .map(({ id }, step) =>
        h(
          isChanged(id, step) ? "mark" : "span",
          {},
          `${step && !word(id).startsWith("##") ? " " : ""}${word(id).replace(/^##/, "")}`,
        ),
      ),
  );
  const seeing = usual("seeing", result.seeing),
    writing = usual("writing", result.writing / tokens.length);
  say($("timing"), `image ${seeing.toFixed(0)} ms · word ${writing.toFixed(1)} ms`);
  showSuggestions();
  showCandidates();
  showDecoding();
}

/** A word of the question. */
function showGiven(button, { text, name, split }) {
  say(button, text);
  set(button, {
    class: split ? "given foreign" : "given",
    tabindex: -1,
    disabled: true,
    title: split ? `“${name}” is not in the model’s vocabulary: it reads letters` : null,
    "aria-pressed": null,
    "data-forced": null,
    style: null,
    "aria-label": null,
    onclick: null,
  });
}

/** A word that the model wrote; `unsure` if a second one is more than half as probable. */
function showWord(button, { id, logits, forced }, step) {
  const { order, probabilities, of } = chances(logits);
  const end = id === model.config.eos_id;
  const unsure = !forced && order.length > 1 && probabilities[0] < 2 * probabilities[1];
  const rivals = `${word(order[0])} ${percent(probabilities[0])}, ${word(order[1] ?? order[0])} ${percent(probabilities[1] ?? 0)}`;
  const changed = isChanged(id, step);
  const piece = word(id).startsWith("##");
  say(button, word(id).replace(/^##/, ""));
  set(button, {
    class: `word${end ? " end" : ""}${piece ? " piece" : ""}${unsure ? " unsure" : ""}${changed ? " changed" : ""}`,
    tabindex: null,
    disabled: false,
    title: unsure
      ? `Unsure: ${rivals}`
      : changed
        ? "Another word than under the prefix mask"
        : null,
    "aria-pressed": step === result.step,
    "data-forced": forced || null,
    style: `--p: ${of(id).toFixed(3)}`,
    "aria-label": `${word(id)}${end ? ", the end" : ""}, probability ${percent(of(id))}${forced ? ", forced" : ""}${unsure ? `, unsure: ${rivals}` : ""}`,
    onclick: () => change({ step }),
  });
}

function isChanged(id, step) {
  return result.usual !== null && result.usual[step] !== id;
}

/** What is altered, each with a button that undoes it: by the caption, and in the bar below. */
function showBadges() {
  const { mask, blank, forced, method } = state;
  const several = (n, name) => (n === 1 ? `1 ${name}` : `${n} ${name}s`);
  const badges = [
    mask !== "prefix" && [
      `mask: ${MASK_TEXTS[mask][0].toLowerCase()}`,
      "reset",
      { mask: "prefix" },
    ],
    blank.size && [
      `${several(blank.size, "patch").replace("patchs", "patches")} blanked`,
      "reset",
      { blank: new Set() },
    ],
    forced.size &&
      method !== "beam" && [
        `${several(forced.size, "word")} forced`,
        "release",
        { forced: new Map() },
      ],
    method === "sample" && ["words are drawn at random", "back to greedy", { method: "greedy" }],
    method === "beam" && ["beam search", "back to greedy", { method: "greedy" }],
  ].filter(Boolean);
  for (const id of ["badges", "bar-badges"]) {
    fill(
      $(id),
      badges,
      () => h("button", { type: "button", class: "badge" }, h("span"), h("u")),
      (button, [what, undo, values]) => {
        say(button.firstChild, `${what} · `);
        say(button.lastChild, undo);
        set(button, { onclick: () => change(values) });
      },
    );
  }
}

/** The median of the last times. */
function usual(name, time) {
  times[name] = [...times[name], time].slice(-9);
  return times[name].slice().sort((a, b) => a - b)[Math.floor(times[name].length / 2)];
}

/** Questions that fit the picture. */
function questions() {
  const { things } = state.scene;
  if (state.photo || !things.length)
    return ["how many things are there?", "what is in the middle?"];
  return questionsAbout(state.scene, state.selected).map(({ text }) => text);
}

function showSuggestions() {
  fill(
    $("suggestions"),
    questions(),
    () => h("button", { type: "button", class: "chip" }),
    (button, question) => {
      say(button, question);
      set(button, { "aria-pressed": state.question === question, onclick: () => ask(question) });
    },
  );
  set($("clear"), { disabled: !state.question });
}

function ask(question) {
  const text = question.trim();
  if (model.tokenizer.encode(text).length > model.config.decoder.positions - 12) return;
  if ($("question").value !== question) $("question").value = question;
  change({ question: text, step: null }, { keepForced: false });
}

/** What else could stand at the selected position, with its probability. */
function showCandidates() {
  const { tokens, step, prompt } = result;
  const token = tokens[step];
  const { of } = chances(token.logits);
  const before = [...prompt.slice(1), ...tokens.slice(0, step).map(({ id }) => id)];
  let from = Math.max(0, before.length - 4);
  while (from > 0 && word(before[from]).startsWith("##")) from--; // whole words
  const order = ranked(token.logits);
  const shown = order.slice(0, 5).includes(token.id)
    ? order.slice(0, 5)
    : [...order.slice(0, 4), token.id]; // a forced one may be far down
  const text = model.tokenizer.decode(before.slice(from));
  $("candidates-title").replaceChildren(
    ...(text ? ["After ", h("q", {}, text)] : ["At the start"]),
    " the model expects",
  );
  const rest = Math.max(0, 1 - shown.reduce((sum, id) => sum + of(id), 0));
  say($("others").firstElementChild, `${token.logits.length - shown.length} others`);
  say($("others").lastElementChild, percent(rest));
  set($("others"), { style: `--p: ${rest.toFixed(4)}` });
  fill(
    $("candidate-list"),
    shown,
    () => h("button", { type: "button" }, h("span"), h("b")),
    (button, id) => {
      const label = word(id);
      say(button.firstChild, label);
      say(button.lastChild, percent(of(id)));
      set(button, {
        style: `--p: ${of(id).toFixed(4)}`,
        "aria-pressed": id === token.id,
        "aria-label": `Force ${label}, probability ${percent(of(id))}`,
        disabled: state.method === "beam",
        onclick: () => force(step, id),
      });
    },
  );
  set($("any-word"), {
    disabled: state.method === "beam",
    onchange: (event) => force(step, Number(event.target.value)),
  });
  $("any-word").value = "";
  const note = $("candidates-note");
  if (state.forced.size && state.method !== "beam") {
    note.replaceChildren(
      `${state.forced.size === 1 ? "One word is" : `${state.forced.size} words are`} forced; the rest is the model’s. `,
      h(
        "button",
        { type: "button", class: "link", onclick: () => change({ forced: new Map() }) },
        "Release",
      ),
    );
  } else if (state.method === "beam")
    say(note, "Beam search weighs whole texts; a word can be forced with the other methods.");
  else if (state.method === "sample")
    say(note, "Percentages follow the temperature and top-k. Choose a word to force it.");
  else say(note, "Choose another word to force it: what follows is written anew.");
}

/** Put this id at a step; what was forced after it is set free. */
function force(step, id) {
  const forced = new Map([...state.forced].filter(([at]) => at < step));
  const free = greedy(result.tokens[step].logits);
  if (id !== free || state.method === "sample") forced.set(step, id);
  change({ forced, step });
}

function showDecoding() {
  const { method, temperature, topK } = state;
  const methods = [
    ["greedy", "Greedy"],
    ["sample", "Sample"],
    ["beam", "Beam"],
  ];
  segmented($("method"), methods, method, (key) =>
    change(
      { method: key, panel: key === "beam" ? "beams" : state.panel },
      { keepForced: key !== "beam" },
    ),
  );
  ["greedy", "sampling", "beam search"].forEach((term, i) =>
    set($("method").children[i], { "data-term": term }),
  );
  const off = method !== "sample";
  for (const [id, value, label] of [
    ["temperature", temperature, temperature.toFixed(1)],
    ["top-k", topK, topK || "all"],
  ]) {
    const input = $(id);
    if (input.value !== String(value)) input.value = value;
    input.disabled = off;
    say($(`${id}-value`), String(label));
  }
  set($("redraw"), { disabled: off });
  $("decoding").classList.toggle("sampling", !off);
}

// ---------------------------------------------------------------------------------------------
// The page
// ---------------------------------------------------------------------------------------------

function showTheme() {
  const dark = isDark();
  $("theme").textContent = dark ? "☀" : "☾";
  set($("theme"), {
    "aria-label": `Switch to ${dark ? "light" : "dark"}`,
    title: `Switch to ${dark ? "light" : "dark"}`,
  });
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Every whole word of the vocabulary, to be forced. */
function fillWords() {
  const words = model.tokenizer.vocabulary.filter((token) => /^[a-z]{2,}$|^a$/.test(token)).sort();
  $("any-word").append(
    h("option", { value: "", disabled: "" }, "any word …"),
    ...words.map((token) => h("option", { value: model.tokenizer.ids.get(token) }, token)),
  );
}

function listen() {
  $("question").oninput = (event) => ask(event.target.value);
  $("ask").onsubmit = (event) => event.preventDefault();
  $("clear").onclick = () => {
    ask("");
    $("question").focus();
  };
  $("temperature").oninput = (event) => change({ temperature: Number(event.target.value) });
  $("top-k").oninput = (event) => change({ topK: Number(event.target.value) });
  $("redraw").onclick = () => change({ seed: state.seed + 1 });
  $("shuffle").onclick = shuffle;
  $("open").onclick = () => $("file").click();
  $("file").onchange = (event) => event.target.files[0] && openFile(event.target.files[0]);
  const stage = $("stage");
  document.ondragover = (event) => {
    event.preventDefault();
    stage.classList.add("over");
  };
  document.ondragleave = () => stage.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
  };
  explainTerms($("term-note"));
  // In the repository the pages are Markdown; the site has them as HTML.
  if (/^file:.*\/docs\/explorer\//.test(location.href)) $("docs").href = "../index.md";
  $("theme").onclick = () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
    update(); // matrices are painted in the theme's colours
  };
  matchMedia("(prefers-color-scheme: dark)").onchange = () => {
    showTheme();
    update();
  };
}

listen();
showTheme();
showExamples();
fillWords();
update();
setTimeout(update, 300); // by now the browser has compiled the model's loops: times are the usual ones
