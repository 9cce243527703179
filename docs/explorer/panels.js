"use strict";
/* The views inside the model. Each is a function of `state` and `result` that fills the panel. */

const PANELS = {
  stages: ["Pixels to words", showStages],
  attention: ["Attention", showAttention],
  lens: ["Logit lens", showLens],
  beams: ["Beams", showBeams, "slow"],
  masks: ["Mask", showMasks, "slow"],
  blank: ["Blank a patch", showBlank, "slow"],
};

// How many of 300 held-out pictures get exactly the right caption under each mask; a test counts.
const RIGHT = { prefix: 292, causal_image: 259, isolated_image: 162, image_sees_text: 283 };

/** Show the open panel; the slow ones wait until the picture is at rest. */
function showPanel(settled) {
  const names = Object.keys(PANELS);
  fill(
    $("tabs"),
    names,
    () => h("button", { type: "button", role: "tab" }),
    (tab, name, i) => {
      say(tab, PANELS[name][0]);
      set(tab, {
        id: `tab-${name}`,
        "data-term": { lens: "logit lens", beams: "beam search" }[name] ?? null,
        "aria-selected": name === state.panel,
        "aria-controls": "panel",
        tabindex: name === state.panel ? 0 : -1,
        onclick: () => openPanel(name),
        onkeydown: (event) => {
          const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (by) openPanel(names[(i + by + names.length) % names.length], true);
        },
      });
    },
  );
  set($("panel"), { "aria-labelledby": `tab-${state.panel}`, "data-panel": state.panel });
  const [, show, pace] = PANELS[state.panel];
  if (pace !== "slow" || settled || $("panel").dataset.shown !== state.panel) {
    keepFocus($("panel"), () => show($("panel")));
  }
  $("panel").dataset.shown = state.panel;
}

function openPanel(name, focus = false) {
  state.panel = name;
  showPanel(true);
  if (focus) $(`tab-${name}`).focus();
}

/** Fill a panel anew; what had the focus gets it again, by its place among the buttons. */
function keepFocus(panel, show) {
  const controls = () => [...panel.querySelectorAll("button, select, input")];
  const index = controls().indexOf(document.activeElement);
  const scrolled = [...panel.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
  show();
  panel.querySelectorAll(".scroll").forEach((part, i) => (part.scrollLeft = scrolled[i] ?? 0));
  if (index >= 0) controls()[index]?.focus({ preventScroll: true });
}

function view(values) {
  Object.assign(state, values);
  showPanel(true);
}

/** The words written so far, to choose one: the position whose prediction is shown. */
function wordPicker() {
  const row = h("div", { class: "row words", role: "group", "aria-label": "Word" });
  result.tokens.forEach(({ id }, step) =>
    row.append(
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": step === result.step,
          onclick: () => change({ step }),
        },
        word(id),
      ),
    ),
  );
  return row;
}

/** The tokens of the text that the decoder has read: [CLS], the question, and the words. */
function textTokens() {
  return result.sequence.ids.map(word);
}

/** The position in the text whose query predicts the selected word. */
function queryPosition() {
  return Math.min(result.prompt.length - 1 + result.step, result.sequence.ids.length - 1);
}

// ---------------------------------------------------------------------------------------------
// Pixels to words
// ---------------------------------------------------------------------------------------------

const STAGES = [
  ["Pixels", () => "3 × 64 × 64", stagePixels],
  ["Patches", () => `${model.nImage - 1} × 1323`, stagePatches],
  ["Patch embedding", () => `${model.nImage} × 128`, stageEmbedding],
  ["Encoder, 4 layers", () => `${model.nImage} × 128`, stageEncoder],
  ["Projector", () => `${model.nImage} × 128`, stageProjector],
  ["Text tokens", () => `${result.sequence.ids.length} × 128`, stageText],
  ["Decoder, 3 layers", () => `${result.sequence.ids.length} × 128`, stageDecoder],
  ["Logits and softmax", () => "164", stageLogits],
];

function showStages(panel) {
  const list = h("ol", { class: "stage-list" });
  STAGES.forEach(([name, shape], i) =>
    list.append(
      h(
        "li",
        {},
        h(
          "button",
          {
            type: "button",
            "aria-pressed": i === state.stage,
            onclick: () => view({ stage: i, stageLayer: 0 }),
          },
          h("span", {}, name),
          h("span", { class: "tag" }, shape()),
        ),
      ),
    ),
  );
  const detail = h("div", { class: "stage-detail" });
  STAGES[state.stage][2](detail);
  const move = (by) =>
    h(
      "button",
      {
        type: "button",
        class: "quiet",
        disabled: !STAGES[state.stage + by],
        onclick: () => view({ stage: state.stage + by, stageLayer: 0 }),
      },
      by < 0 ? "← Back" : "Next stage →",
    );
  panel.replaceChildren(
    h(
      "div",
      { class: "stages" },
      list,
      h(
        "div",
        { class: "stage-side" },
        detail,
        h("div", { class: "row between" }, move(-1), move(1)),
      ),
    ),
  );
}

function lead(text, equation) {
  return h(
    "div",
    { class: "lead" },
    h("p", {}, ...explained(text)),
    equation ? h("p", { class: "equation" }, equation) : null,
  );
}

function stagePixels(detail) {
  const canvas = h("canvas", {
    width: 64,
    height: 64,
    class: "pixels",
    role: "img",
    "aria-label": "The picture as the model reads it, 64 by 64 pixels",
  });
  showPixels(canvas, result.rgb);
  const [r, g, b] = [0, 1, 2].map((channel) => result.rgb[(32 * 64 + 32) * 3 + channel]);
  const normal = (v) => signed((v * model.config.preprocess.rescale - 0.78) / 0.5);
  detail.append(
    lead(
      "The picture as the model reads it. Each of its 12,288 numbers is scaled to about −1.6 to 0.4.",
      "x = (v / 255 − 0.78) / 0.5",
    ),
    canvas,
    h(
      "p",
      { class: "numbers" },
      h("b", {}, "centre pixel"),
      ` red ${r}, green ${g}, blue ${b} → ${normal(r)}, ${normal(g)}, ${normal(b)}`,
    ),
  );
}

function stagePatches(detail) {
  const { patches } = result.sequence.image.encoded;
  const patch = Math.max(state.token - 1, 0);
  const row = rowsOf(patches, patches.length / model.grid ** 2)[patch];
  const map = patchMap(
    result.rgb,
    model.grid,
    (i) => ({ title: PATCH_NAMES[i], pressed: i === patch }),
    (i) => view({ token: i + 1 }),
  );
  map.classList.add("apart");
  detail.append(
    lead(
      "The picture is cut into nine patches of 21 × 21 pixels. A patch is a list of 3 · 21 · 21 = 1323 numbers. The last row and column of pixels are left over.",
    ),
    map,
    h("p", { class: "numbers" }, h("b", {}, PATCH_NAMES[patch]), ` = [${numbers(row, 6)}, …]`),
  );
}

function imageHeat(flat) {
  return heat(rowsOf(flat, model.config.encoder.width), TOKEN_NAMES, state.token, (token) =>
    view({ token }),
  );
}

function stageEmbedding(detail) {
  detail.append(
    lead(
      "A linear layer makes 128 numbers of each patch. A learned class token comes first, every token gets its position added, and a LayerNorm follows.",
      "x = LayerNorm([class; patches · Wᵀ] + positions)",
    ),
    imageHeat(result.sequence.image.encoded.embedded),
  );
}

function layerPicker(count) {
  const layers = Array.from({ length: count }, (_, i) => [i, `Layer ${i + 1}`]);
  return segmented(
    h("div", { class: "segmented", role: "group", "aria-label": "Layer" }),
    layers,
    state.stageLayer,
    (stageLayer) => view({ stageLayer }),
  );
}

function stageEncoder(detail) {
  const { layers } = result.sequence.image.encoded;
  detail.append(
    lead(
      "Image tokens exchange what they know: self-attention in four heads, then a feed-forward network (MLP), each behind a LayerNorm and beside a residual connection.",
      "x ← x + attention(norm(x)),  x ← x + MLP(norm(x))",
    ),
    layerPicker(layers.length),
    imageHeat(layers[state.stageLayer].x),
  );
}

function stageProjector(detail) {
  detail.append(
    lead(
      "A linear layer and a LayerNorm bring the image tokens into the decoder’s space. The decoder keeps a key and a value of each in each of its three layers: the image prefix, 10 × 2 × 128 × 3 = 7,680 numbers, computed once a picture.",
      "v = LayerNorm(x · Wᵀ + b)",
    ),
    imageHeat(result.sequence.image.projected),
  );
}

/** Hidden states of the text tokens after a layer. */
function textHeat(layer) {
  const rows = result.sequence.hidden[layer].slice(model.nImage);
  const first = result.prompt.length - 1;
  return heat(rows, textTokens(), queryPosition(), (i) => change({ step: Math.max(0, i - first) }));
}

function stageText(detail) {
  const pairs = result.sequence.ids
    .slice(0, 5)
    .map((id) => `${word(id)} = ${id}`)
    .join(", ");
  detail.append(
    lead(
      `A WordPiece tokenizer splits text into tokens; the vocabulary has ${model.tokenizer.vocabulary.length}. Each id fetches a row of a table, a position is added, and a LayerNorm follows. Ids: ${pairs}, …`,
      "x = LayerNorm(token embedding + position embedding)",
    ),
    textHeat(0),
  );
}

function stageDecoder(detail) {
  const { ids } = result.sequence;
  detail.append(
    lead(
      `Each token attends to the image prefix and to the text before it. Keys and values stay in the KV cache, which now holds ${model.nImage} image and ${ids.length} text tokens, so a new word costs one row.`,
      "x ← norm(x + attention(x)),  x ← norm(x + MLP(x))",
    ),
    layerPicker(LAST_LAYER),
    textHeat(state.stageLayer + 1),
  );
}

function stageLogits(detail) {
  const { logits, id: chosen } = result.tokens[result.step];
  const probabilities = softmax(Float64Array.from(logits));
  const table = h(
    "table",
    { class: "logits" },
    h(
      "thead",
      {},
      h("tr", {}, h("th", {}, "token"), h("th", {}, "logit"), h("th", {}, "probability")),
    ),
  );
  const body = table.appendChild(h("tbody"));
  for (const id of ranked(logits).slice(0, 8)) {
    body.append(
      h(
        "tr",
        { class: id === chosen ? "chosen" : null, style: `--p: ${probabilities[id].toFixed(4)}` },
        h("td", {}, word(id)),
        h("td", {}, signed(logits[id])),
        h("td", { class: "bar" }, h("span", {}, percent(probabilities[id]))),
      ),
    );
  }
  detail.append(
    lead(
      "The last hidden state becomes a logit for each of 164 tokens; the softmax makes probabilities of them (here without temperature and top-k). A word that the model is sure of gets about 90 %, not 100: label smoothing in training kept 10 % for the others.",
      "p = softmax(h · Wᵀ + b)",
    ),
    wordPicker(),
    table,
  );
}

// ---------------------------------------------------------------------------------------------
// Attention
// ---------------------------------------------------------------------------------------------

/** What the queries of a tower are, and the weights of a layer and head: rows (queries, keys). */
function attentionOf(tower, layer, head) {
  const rows =
    tower === "encoder"
      ? result.sequence.image.encoded.layers[layer].weights
      : result.sequence.weights[layer];
  const heads = model.config[tower].heads;
  return rows.map((row) =>
    row.subarray((head * row.length) / heads, ((head + 1) * row.length) / heads),
  );
}

function showAttention(panel) {
  const { tower } = state;
  const layers = tower === "encoder" ? model.weights.encoder.blocks.length : LAST_LAYER;
  const layer = Math.min(state.layer, layers - 1),
    head = state.head;
  const labels = tower === "encoder" ? TOKEN_NAMES : [...TOKEN_NAMES, ...textTokens()];
  const query = tower === "encoder" ? state.token : model.nImage + queryPosition();
  const rows = attentionOf(tower, layer, head);
  const choose = (index) =>
    index < model.nImage
      ? view({ token: index, tower: "encoder", layer: Math.min(layer, 3) })
      : change({ step: Math.max(0, index - model.nImage - result.prompt.length + 1) });
  panel.replaceChildren(
    h(
      "div",
      { class: "row between" },
      segmented(
        h("div", { class: "segmented", role: "group", "aria-label": "Tower" }),
        [
          ["encoder", "Encoder"],
          ["decoder", "Decoder"],
        ],
        tower,
        (tower) => view({ tower }),
      ),
      h(
        "p",
        { class: "hint" },
        `${layers} layers of ${model.config[tower].heads} heads. Bright patches are attended to.`,
      ),
    ),
    tower === "encoder" ? tokenPicker() : wordPicker(),
    h(
      "div",
      { class: "attention" },
      headPicker(tower, layers, layer, head, query),
      attentionMap(rows[query], tower, query, layer, head),
      attentionMatrix(rows, labels, query, choose, tower),
      strongestKeys(rows[query], labels),
    ),
  );
}

function tokenPicker() {
  const row = h("div", { class: "row words", role: "group", "aria-label": "Query: image token" });
  TOKEN_NAMES.forEach((name, token) =>
    row.append(
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": token === state.token,
          onclick: () => view({ token }),
        },
        name,
      ),
    ),
  );
  return row;
}

/** A small map of every head, to choose one. */
function headPicker(tower, layers, layer, head, query) {
  const heads = model.config[tower].heads;
  const grid = h("div", {
    class: "heads",
    style: `--heads: ${heads}`,
    role: "group",
    "aria-label": "Head",
  });
  grid.append(
    h("span"),
    ...Array.from({ length: heads }, (_, i) => h("span", { class: "hint" }, `head ${i + 1}`)),
  );
  for (let l = 0; l < layers; l++) {
    grid.append(h("span", { class: "hint" }, `layer ${l + 1}`));
    for (let i = 0; i < heads; i++) {
      const weights = attentionOf(tower, l, i)[query].subarray(1, model.nImage);
      const cells = Array.from(weights, (weight) =>
        h("i", { style: `--w: ${shadeOf(weight, weights).toFixed(3)}` }),
      );
      grid.append(
        h(
          "button",
          {
            type: "button",
            class: "head",
            "aria-pressed": l === layer && i === head,
            "aria-label": `Layer ${l + 1}, head ${i + 1}`,
            onclick: () => view({ layer: l, head: i }),
          },
          ...cells,
        ),
      );
    }
  }
  return h("figure", {}, h("figcaption", {}, "Every head, over the nine patches"), grid);
}

/** A weight beside the largest of all. */
function shadeOf(weight, weights) {
  return weight / Math.max(...weights, 1e-9);
}

function attentionMap(row, tower, query, layer, head) {
  const patches = row.subarray(1, model.nImage);
  const sum = (part) => part.reduce((total, weight) => total + weight, 0);
  const map = patchMap(
    result.rgb,
    model.grid,
    (i) => ({
      shade: 0.82 * (1 - shadeOf(patches[i], patches)),
      label: patches[i] < 0.005 ? "" : percent(patches[i]),
      title: `${PATCH_NAMES[i]}: ${percent(patches[i])}`,
      pressed: tower === "encoder" && query === i + 1,
    }),
    tower === "encoder" ? (i) => view({ token: i + 1 }) : null,
  );
  const shares = [
    ["patches", sum(patches)],
    ["class token", row[0]],
  ];
  if (tower === "decoder") shares.push(["text", sum(row.subarray(model.nImage))]);
  const bar = h(
    "div",
    { class: "shares" },
    ...shares.map(([name, share]) =>
      h("span", { style: `--p: ${share.toFixed(3)}` }, `${name} ${percent(share)}`),
    ),
  );
  const name = tower === "encoder" ? TOKEN_NAMES[query] : word(result.tokens[result.step].id);
  const what =
    tower === "encoder" ? `What “${name}” attends to` : `What “${name}” is predicted from`;
  return h(
    "figure",
    {},
    h("figcaption", {}, `${what}: layer ${layer + 1}, head ${head + 1}`),
    map,
    bar,
  );
}

/** The keys that a query reads most, as bars. */
function strongestKeys(row, labels) {
  const body = h("tbody");
  for (const key of ranked(row).slice(0, 8)) {
    const side = key < model.nImage ? "image" : "text";
    body.append(
      h(
        "tr",
        {},
        h("td", {}, labels[key]),
        h("td", { class: "hint" }, side),
        h(
          "td",
          { class: "bar", style: `--p: ${row[key].toFixed(4)}` },
          h("span", {}, percent(row[key])),
        ),
      ),
    );
  }
  return h("figure", {}, h("figcaption", {}, "The keys with most weight"), h("table", {}, body));
}

/** Queries down, keys across; the row of the query is framed, and what the mask hides is hatched. */
function attentionMatrix(rows, labels, query, choose, tower) {
  const n = labels.length;
  const visible = (q, k) => tower === "encoder" || MASKS[state.mask](q, k, model.nImage);
  const svg = h("svg:svg", {
    viewBox: `0 0 ${n} ${n}`,
    class: "matrix",
    role: "img",
    "aria-label": `Attention weights, ${n} queries by ${n} keys`,
  });
  const readout = h("p", { class: "numbers" });
  const tell = (q, k) =>
    say(
      readout,
      `${labels[q]} → ${labels[k]}: ${!visible(q, k) ? "hidden by the mask" : percent(rows[q][k] ?? 0)}`,
    );
  for (let q = 0; q < n; q++) {
    for (let k = 0; k < n; k++) {
      const hidden = !visible(q, k);
      svg.append(
        h("svg:rect", {
          x: k,
          y: q,
          width: 1,
          height: 1,
          class: hidden ? "masked" : "weight",
          "fill-opacity": hidden ? null : (rows[q][k] ?? 0).toFixed(3),
        }),
      );
    }
  }
  if (tower === "decoder")
    svg.append(
      h("svg:path", { class: "divide", d: `M${model.nImage} 0V${n}M0 ${model.nImage}H${n}` }),
    );
  svg.append(h("svg:rect", { class: "query", x: 0, y: query, width: n, height: 1 }));
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map(
      (share) => Math.min(n - 1, Math.max(0, Math.floor(share * n))),
    );
  };
  svg.onpointermove = (event) => tell(...at(event));
  svg.onclick = (event) => choose(at(event)[0]);
  const strongest = rows[query].indexOf(Math.max(...rows[query]));
  tell(query, strongest);
  const axis = tower === "decoder" ? "image tokens, then text" : "image tokens";
  return h(
    "figure",
    {},
    h("figcaption", {}, ...explained(`Queries ↓ keys → (${axis})`)),
    svg,
    readout,
  );
}

// ---------------------------------------------------------------------------------------------
// Logit lens
// ---------------------------------------------------------------------------------------------

function showLens(panel) {
  const first = result.prompt.length - 1;
  const layers = Array.from({ length: LAST_LAYER + 1 }, (_, i) => i);
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "word"),
    ...layers.map((l) => h("th", { scope: "col" }, l ? `layer ${l}` : "input")),
  );
  const body = h("tbody");
  result.tokens.forEach(({ id }, step) => {
    const row = h("tr", { class: step === result.step ? "chosen" : null });
    row.append(
      h(
        "th",
        { scope: "row" },
        h("button", { type: "button", class: "link", onclick: () => change({ step }) }, word(id)),
      ),
    );
    for (const layer of layers) {
      const logits = result.sequence.lens(
        layer,
        Math.min(first + step, result.sequence.ids.length - 1),
      );
      const best = greedy(logits);
      const p = softmax(Float64Array.from(logits))[best];
      row.append(
        h(
          "td",
          { style: `--p: ${p.toFixed(3)}`, class: best === id ? "right" : null },
          h("span", {}, word(best)),
          h("small", {}, percent(p)),
        ),
      );
    }
    body.append(row);
  });
  panel.replaceChildren(
    h(
      "p",
      { class: "lead" },
      ...explained(
        "What would the model say if the decoder stopped early? The output layer reads the hidden state after each layer. Where it already gives the word that is written, the word is bold.",
      ),
    ),
    h("table", { class: "lens" }, h("thead", {}, head), body),
  );
}

// ---------------------------------------------------------------------------------------------
// Beams
// ---------------------------------------------------------------------------------------------

function showBeams(panel) {
  const { beams, lengthPenalty } = state;
  const search = beamSearch(model, result.prefix, result.prompt, { beams, lengthPenalty });
  const best = search.ended[0];
  const list = h("ol", { class: "ended" });
  for (const node of search.ended) {
    list.append(
      h(
        "li",
        { class: node === best ? "chosen" : null },
        h("span", {}, model.tokenizer.decode(idsOf(node))),
        h("span", { class: "tag" }, signed(node.score)),
      ),
    );
  }
  const penalty = h("input", {
    type: "range",
    min: 0,
    max: 2,
    step: 0.1,
    value: lengthPenalty,
    "aria-label": "Length penalty",
    oninput: (event) => change({ lengthPenalty: Number(event.target.value) }),
  });
  panel.replaceChildren(
    h(
      "p",
      { class: "lead" },
      ...explained(
        "Beam search keeps the best few texts at every step, all of them on one image prefix. A text that ends is ranked by its log-probability, divided by its length to the power of the length penalty.",
      ),
    ),
    h(
      "div",
      { class: "row controls" },
      h("span", { class: "tool-name" }, "Beams"),
      segmented(
        h("div", { class: "segmented", role: "group", "aria-label": "Beams" }),
        [1, 2, 3, 4].map((n) => [n, String(n)]),
        beams,
        (n) => change({ beams: n }),
      ),
      h(
        "label",
        { class: "slider" },
        "Length penalty ",
        penalty,
        h("output", {}, lengthPenalty.toFixed(1)),
      ),
    ),
    h(
      "div",
      { class: "beams" },
      beamTree(search, best),
      h("div", {}, h("h3", {}, "Finished texts"), list),
    ),
  );
}

/** Steps downwards, the beams of a step side by side; the best text's way is in the accent colour. */
function beamTree({ steps, ended }, best) {
  const width = 78,
    height = 52,
    columns = Math.max(...steps.map((step) => step.filter((node) => !node.ended).length), 1);
  const way = new Set();
  for (let node = best; node.parent; node = node.parent) way.add(node);
  const rows = Math.max(...ended.map((node) => idsOf(node).length)) - 1; // a text's end is no node
  const svg = h("svg:svg", {
    viewBox: `0 0 ${columns * width} ${Math.max(rows, 1) * height}`,
    class: "tree",
    role: "img",
    "aria-label": "The beams as a tree",
    style: `max-width: ${columns * width}px`,
  });
  const edges = svg.appendChild(h("svg:g")),
    nodes = svg.appendChild(h("svg:g"));
  const parents = new Set(ended.map((node) => node.parent));
  steps.slice(0, rows).forEach((step, depth) => {
    step
      .filter((node) => !node.ended)
      .forEach((node, column) => {
        Object.assign(node, { cx: (column + 0.5) * width, cy: depth * height + 3 });
        const { parent, cx, cy } = node;
        const chosen = way.has(node) ? "way" : "";
        if (parent.token !== null) {
          const from = parent.cy + 32,
            middle = (from + cy) / 2;
          edges.append(
            h("svg:path", {
              class: `edge ${chosen}`,
              d: `M${parent.cx} ${from}C${parent.cx} ${middle} ${cx} ${middle} ${cx} ${cy}`,
            }),
          );
        }
        nodes.append(
          h(
            "svg:g",
            { class: `node ${chosen}`, transform: `translate(${cx} ${cy})` },
            h("svg:rect", { x: -36, width: 72, height: 32, rx: 8 }),
            h("svg:text", { y: 14 }, word(node.token)),
            h(
              "svg:text",
              { y: 26, class: "small" },
              `${signed(node.total)}${parents.has(node) ? " [SEP]" : ""}`,
            ),
          ),
        );
      });
  });
  return h(
    "figure",
    {},
    h(
      "figcaption",
      {},
      ...explained(
        "Each node: a token and the log-probability of the text so far. [SEP]: a text may end here.",
      ),
    ),
    svg,
  );
}

// ---------------------------------------------------------------------------------------------
// Masks
// ---------------------------------------------------------------------------------------------

const MASK_TEXTS = {
  prefix: [
    "Prefix mask",
    "GIT’s own: image tokens attend to each other, text to the image and its past. The image prefix is computed once.",
  ],
  causal_image: [
    "Causal image",
    "An image token sees only those before it, as if a picture were a sentence.",
  ],
  isolated_image: ["No image–image attention", "In the decoder an image token sees only itself."],
  image_sees_text: [
    "Image sees text",
    "Image tokens attend to the words, so each new word changes the whole prefix: nothing can be cached, and all is recomputed for every word.",
  ],
};

function showMasks(panel) {
  const pixels = model.preprocess(result.rgb);
  const texts = {};
  for (const mask of Object.keys(MASKS)) {
    const { tokens } = generate(model, model.see(pixels, mask), result.prompt, {
      forced: state.forced,
    });
    texts[mask] = model.tokenizer.decode(tokens.map(({ id }) => id)).split(" ");
  }
  const cards = Object.keys(MASKS).map((mask) => {
    const [name, text] = MASK_TEXTS[mask];
    const words = h("p", { class: "mask-caption" });
    texts[mask].forEach((item, i) =>
      words.append(h(item === texts.prefix[i] ? "span" : "mark", {}, item), " "),
    );
    return h(
      "button",
      {
        type: "button",
        class: "mask-card",
        "aria-pressed": mask === state.mask,
        onclick: () => change({ mask }),
      },
      h(
        "div",
        { class: "mask-head" },
        maskPicture(mask),
        h("div", {}, h("b", {}, name), h("p", { class: "hint" }, text)),
      ),
      words,
      h("span", { class: "tag" }, `${RIGHT[mask]} of 300 pictures right`),
    );
  });
  panel.replaceChildren(
    h(
      "p",
      { class: "lead" },
      ...explained(
        "The mask says which key a query may attend to. The weights were trained under the prefix mask; choose another one, and the whole page uses it. Words that change are marked.",
      ),
    ),
    h("div", { class: "masks" }, ...cards),
  );
}

/** Five image tokens and five of text: queries down, keys across. */
function maskPicture(mask) {
  const image = 5,
    n = 10;
  const svg = h("svg:svg", {
    viewBox: `0 0 ${n} ${n}`,
    class: "mask-picture",
    "aria-hidden": "true",
  });
  for (let q = 0; q < n; q++) {
    for (let k = 0; k < n; k++) {
      const allowed = MASKS[mask](q, k, image);
      svg.append(
        h("svg:rect", {
          x: k + 0.06,
          y: q + 0.06,
          width: 0.88,
          height: 0.88,
          rx: 0.15,
          class: allowed ? (k < image ? "to-image" : "to-text") : "masked",
        }),
      );
    }
  }
  return svg;
}

// ---------------------------------------------------------------------------------------------
// Blank a patch
// ---------------------------------------------------------------------------------------------

/** p of each word of `ids` when these patches are blanked. */
function probabilitiesWithout(patches, ids) {
  const prefix = model.see(model.preprocess(blankedPicture(patches)), state.mask);
  return score(prefix, result.prompt, ids).map(Math.exp);
}

function showBlank(panel) {
  const ids = generate(model, model.see(model.preprocess(picture()), state.mask), result.prompt, {
    forced: state.forced,
  }).tokens.map(({ id }) => id);
  const whole = probabilitiesWithout([], ids);
  const now = state.blank.size ? probabilitiesWithout(state.blank, ids) : whole;
  const singles = Array.from({ length: model.grid ** 2 }, (_, patch) =>
    probabilitiesWithout([patch], ids),
  );
  const step = Math.min(result.step, ids.length - 1);
  const fall = (patch) => Math.max(0, 1 - singles[patch][step] / whole[step]);
  const name = word(ids[step]);
  const toggle = (patch) => {
    const blank = new Set(state.blank);
    if (!blank.delete(patch)) blank.add(patch);
    change({ blank });
  };
  const map = patchMap(
    result.rgb,
    model.grid,
    (i) => ({
      label: fall(i) < 0.005 ? "0" : `−${(100 * fall(i)).toFixed(0)} %`,
      strong: fall(i) > 0.1,
      pressed: state.blank.has(i),
      title: `${state.blank.has(i) ? "Restore" : "Blank"} ${PATCH_NAMES[i]}: without it, “${name}” loses ${(100 * fall(i)).toFixed(0)} %`,
    }),
    toggle,
  );
  map.classList.add("occlusion");
  const table = h(
    "table",
    { class: "falls" },
    h(
      "thead",
      {},
      h("tr", {}, h("th", {}, "word"), h("th", {}, "whole picture"), h("th", {}, "patch blanked")),
    ),
  );
  const body = table.appendChild(h("tbody"));
  ids.forEach((id, at) =>
    body.append(
      h(
        "tr",
        { class: at === step ? "chosen" : null },
        h(
          "th",
          { scope: "row" },
          h(
            "button",
            { type: "button", class: "link", onclick: () => change({ step: at }) },
            word(id),
          ),
        ),
        h(
          "td",
          { class: "bar", style: `--p: ${whole[at].toFixed(4)}` },
          h("span", {}, percent(whole[at])),
        ),
        h(
          "td",
          {
            class: !state.blank.size ? "none" : now[at] < whole[at] / 2 ? "bar fallen" : "bar",
            style: `--p: ${now[at].toFixed(4)}`,
          },
          state.blank.size ? h("span", {}, percent(now[at])) : at ? "" : "none yet: choose one",
        ),
      ),
    ),
  );
  panel.replaceChildren(
    h(
      "p",
      { class: "lead" },
      ...explained(
        "Is the attention map true? Paint a patch over and see which word the model no longer believes. The words stay fixed; only the picture changes.",
      ),
    ),
    h(
      "div",
      { class: "blanking" },
      h(
        "figure",
        {},
        h("figcaption", {}, `Without this patch, “${name}” loses`),
        map,
        h(
          "p",
          { class: "hint" },
          "Choose a patch to blank it, or a word to see what it loses. The loss is relative to the word’s probability before: −50 % halves it, −100 % leaves nothing.",
        ),
      ),
      table,
    ),
  );
}
