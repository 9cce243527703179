"use strict";
/*
 * GIT, the Generative Image-to-text Transformer (Wang et al. 2022), in plain JavaScript.
 *
 * The file is in the order in which a picture becomes words:
 *
 *   pixels → patches → encoder → projector → decoder → logits → a token, and again
 *
 * GIT is a prefix language model whose prefix is an image. Image tokens never attend to text, so an
 * image is read once: `see` keeps the decoder's keys and values of it (the image prefix), and every
 * word, question and beam continues from there.
 *
 * A matrix is a Float32Array, row by row. The letters in comments: I image tokens, T text tokens,
 * D width, H heads, d = D / H width of a head, V vocabulary. Results equal the PyTorch model's.
 */

// ---------------------------------------------------------------------------------------------
// 1. Numbers
// ---------------------------------------------------------------------------------------------

/**
 * x (n, inputs) → x · weightᵀ + bias (n, outputs), where most of the time goes.
 *
 * Four outputs of two rows are computed at a time, so each number that is fetched is used two or
 * four times. The number of outputs is a multiple of 4 here, always.
 */
function linear(x, { weight, bias }) {
  const outputs = weight.shape[0];
  const inputs = weight.data.length / outputs;
  const rows = x.length / inputs;
  const w = weight.data;
  const y = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row += 2) {
    const single = row + 1 === rows;
    const x0 = row * inputs;
    const x1 = single ? x0 : x0 + inputs;
    for (let out = 0; out < outputs; out += 4) {
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      let w0 = out * inputs, w1 = w0 + inputs, w2 = w1 + inputs, w3 = w2 + inputs;
      if (single) {
        for (let i = 0; i < inputs; i++) {
          const p = x[x0 + i];
          a0 += p * w[w0++];
          a1 += p * w[w1++];
          a2 += p * w[w2++];
          a3 += p * w[w3++];
        }
      } else {
        for (let i = 0; i < inputs; i++) {
          const p = x[x0 + i], q = x[x1 + i];
          const u0 = w[w0++], u1 = w[w1++], u2 = w[w2++], u3 = w[w3++];
          a0 += p * u0; a1 += p * u1; a2 += p * u2; a3 += p * u3;
          b0 += q * u0; b1 += q * u1; b2 += q * u2; b3 += q * u3;
        }
      }
      const at = row * outputs + out;
      y[at] = a0; y[at + 1] = a1; y[at + 2] = a2; y[at + 3] = a3;
      if (!single) {
        y[at + outputs] = b0; y[at + outputs + 1] = b1;
        y[at + outputs + 2] = b2; y[at + outputs + 3] = b3;
      }
    }
  }
  if (bias) for (let i = 0; i < y.length; i++) y[i] += bias.data[i % outputs];
  return y;
}

/** Each row of x (n, D) with mean 0 and variance 1, then scaled and shifted. */
function layerNorm(x, { weight, bias }, eps) {
  const width = weight.data.length;
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let sum = 0, squares = 0;
    for (let i = start; i < start + width; i++) sum += x[i];
    const mean = sum / width;
    for (let i = start; i < start + width; i++) squares += (x[i] - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / width + eps);
    for (let i = 0; i < width; i++) {
      y[start + i] = (x[start + i] - mean) * scale * weight.data[i] + bias.data[i];
    }
  }
  return y;
}

/** x + y: a residual connection. */
function add(x, y) {
  return x.map((value, i) => value + y[i]);
}

/** In place: scores become positive numbers whose sum is 1. */
function softmax(scores) {
  let max = -Infinity, sum = 0;
  for (const score of scores) if (score > max) max = score;
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - max);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
  return scores;
}

/** The logarithm of the softmax, in a new array. */
function logSoftmax(logits) {
  let max = -Infinity, sum = 0;
  for (const logit of logits) if (logit > max) max = logit;
  for (const logit of logits) sum += Math.exp(logit - max);
  const norm = max + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - norm);
}

/** The error function, to 1.2e-7 (Numerical Recipes, section 6.2). JavaScript has none. */
function erf(x) {
  const t = 1 / (1 + Math.abs(x) / 2);
  const series = [
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806,
    0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277,
  ].reduceRight((sum, coefficient) => coefficient + t * sum, 0);
  const tail = t * Math.exp(-x * x + series);
  return x < 0 ? tail - 1 : 1 - tail;
}

const ACTIVATIONS = {
  gelu: (x) => (x / 2) * (1 + erf(x * Math.SQRT1_2)), // BERT's: the decoder
  quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)), // CLIP's: the encoder
};

/** The feed-forward network of a block: up to 4 D numbers a token, an activation, down again. */
function feedForward(x, mlp, activation) {
  return linear(linear(x, mlp.up).map(ACTIVATIONS[activation]), mlp.down);
}

// ---------------------------------------------------------------------------------------------
// 2. Self-attention
// ---------------------------------------------------------------------------------------------

/**
 * Which keys a query may attend to. Positions 0 to nImage - 1 are image tokens, then comes text.
 * GIT is trained with `prefix`: image tokens see each other, text sees the image and its own past.
 * The others are mistakes that one can make.
 */
const MASKS = {
  prefix: (query, key, nImage) => key < nImage || key <= query,
  causal_image: (query, key) => key <= query,
  isolated_image: (query, key, nImage) =>
    query < nImage ? key === query : key < nImage || key <= query,
  image_sees_text: (query, key, nImage) => query < nImage || key < nImage || key <= query,
};

/** A layer's keys and values so far: for each token one array of D numbers. */
const emptyCache = () => ({ keys: [], values: [] });

/**
 * Multi-head self-attention: softmax(Q Kᵀ / √d) V, in each head on its own.
 *
 * The rows of x (n, D) are the queries; they stand behind the tokens of the cache, and their own
 * keys and values are added to it. Returns what they read (n, D), and for each query its weights:
 * an array (H, keys).
 */
function attend(x, attn, heads, cache, visible) {
  const qkv = linear(x, attn.qkv); // (n, 3 D)
  const width = attn.out.weight.shape[0];
  const n = x.length / width, d = width / heads, scale = 1 / Math.sqrt(d);
  const first = cache.keys.length;
  for (let at = 0; at < qkv.length; at += 3 * width) {
    cache.keys.push(qkv.subarray(at + width, at + 2 * width));
    cache.values.push(qkv.subarray(at + 2 * width, at + 3 * width));
  }
  const nKeys = cache.keys.length;
  const mixed = new Float32Array(n * width);
  const weights = [];
  for (let query = 0; query < n; query++) {
    const rows = new Float32Array(heads * nKeys);
    for (let head = 0; head < heads; head++) {
      const scores = rows.subarray(head * nKeys, (head + 1) * nKeys);
      const offset = head * d, q = query * 3 * width + offset;
      for (let key = 0; key < nKeys; key++) {
        let dot = 0;
        const k = cache.keys[key];
        for (let i = 0; i < d; i++) dot += qkv[q + i] * k[offset + i];
        scores[key] = visible(first + query, key) ? dot * scale : -Infinity;
      }
      softmax(scores);
      for (let key = 0; key < nKeys; key++) {
        const value = cache.values[key];
        for (let i = 0; i < d; i++) {
          mixed[query * width + offset + i] += scores[key] * value[offset + i];
        }
      }
    }
    weights.push(rows);
  }
  return { output: linear(mixed, attn.out), weights };
}

/** A block of the encoder, pre-norm as in CLIP: normalise, transform, add. */
function encoderBlock(x, block, config) {
  const normed = layerNorm(x, block.attn_norm, config.norm_eps);
  const { output, weights } = attend(normed, block.attn, config.heads, emptyCache(), () => true);
  x = add(x, output);
  const hidden = layerNorm(x, block.mlp_norm, config.norm_eps);
  return { x: add(x, feedForward(hidden, block.mlp, config.activation)), weights };
}

/** A block of the decoder, post-norm as in BERT: transform, add, normalise. */
function decoderBlock(x, block, config, cache, visible) {
  const { output, weights } = attend(x, block.attn, config.heads, cache, visible);
  x = layerNorm(add(x, output), block.attn_norm, config.norm_eps);
  const hidden = feedForward(x, block.mlp, config.activation);
  return { x: layerNorm(add(x, hidden), block.mlp_norm, config.norm_eps), weights };
}

// ---------------------------------------------------------------------------------------------
// 3. The model
// ---------------------------------------------------------------------------------------------

class GIT {
  /** `bundle` is what build.py writes: config, vocabulary, and every tensor in float16. */
  constructor(bundle) {
    this.config = bundle.config;
    this.tokenizer = new Tokenizer(bundle.vocabulary);
    this.weights = unpack(bundle);
    const { image_size: side, patch_size: patch } = this.config.encoder;
    this.grid = Math.floor(side / patch); // patches in a row and in a column
    this.nImage = 1 + this.grid ** 2; // the class token, then one token a patch
  }

  /** Red, green, blue from 0 to 255 (height, width, 3) → pixels (3, height, width). */
  preprocess(rgb) {
    const { mean, std, rescale } = this.config.preprocess;
    const area = rgb.length / 3;
    const pixels = new Float32Array(rgb.length);
    for (let i = 0; i < rgb.length; i++) {
      const channel = i % 3;
      const value = (rgb[i] * rescale - mean[channel]) / std[channel];
      pixels[channel * area + (i - channel) / 3] = value;
    }
    return pixels;
  }

  /** Pixels (3, height, width) → patches (N, 3 · patch²). The last row and column are left over. */
  patches(pixels) {
    const { image_size: side, patch_size: patch } = this.config.encoder;
    const patches = new Float32Array(this.grid ** 2 * 3 * patch ** 2);
    let at = 0;
    for (let index = 0; index < this.grid ** 2; index++) {
      const top = Math.floor(index / this.grid) * patch, left = (index % this.grid) * patch;
      for (let channel = 0; channel < 3; channel++) {
        for (let y = top; y < top + patch; y++) {
          const start = (channel * side + y) * side + left;
          patches.set(pixels.subarray(start, start + patch), at);
          at += patch;
        }
      }
    }
    return patches;
  }

  /**
   * The image encoder: pixels → image tokens (I, D).
   *
   * Returns every stage: `patches`, the embedding `embedded`, each layer's `x` and attention
   * `weights`, and `tokens`, which are the last x after a LayerNorm.
   */
  encode(pixels) {
    const { encoder } = this.weights;
    const config = this.config.encoder, width = config.width;
    const patches = this.patches(pixels);
    const embedded = new Float32Array(this.nImage * width);
    embedded.set(encoder.class_token.data);
    embedded.set(linear(patches, encoder.patch_embedding), width);
    const layers = [];
    let x = add(embedded, encoder.position_embedding.data);
    x = layerNorm(x, encoder.pre_norm, config.norm_eps);
    const first = x;
    for (const block of encoder.blocks) {
      layers.push(encoderBlock(x, block, config));
      x = layers.at(-1).x;
    }
    const tokens = layerNorm(x, encoder.post_norm, config.norm_eps);
    return { patches, embedded: first, layers, tokens };
  }

  /** Image tokens in the encoder's width → in the decoder's: a linear layer and a LayerNorm. */
  project(tokens) {
    const { linear: layer, norm } = this.weights.projector;
    return layerNorm(linear(tokens, layer), norm, this.config.encoder.norm_eps);
  }

  /** Read an image once: the sequence that every text about it continues. */
  see(pixels, mask = "prefix") {
    const encoded = this.encode(pixels);
    return new Sequence(this, { encoded, projected: this.project(encoded.tokens) }, mask);
  }

  /** Token and position embeddings, added and normalised: ids (T) → (T, D). */
  embed(ids, firstPosition) {
    const { token_embedding: token, position_embedding: position, embedding_norm: norm } =
      this.weights.decoder;
    const { width, positions, embedding_norm_eps: eps } = this.config.decoder;
    if (firstPosition + ids.length > positions) {
      throw new RangeError(`the text is longer than the ${positions} positions of this model`);
    }
    const x = new Float32Array(ids.length * width);
    ids.forEach((id, t) => {
      const row = token.weight.data.subarray(id * width, (id + 1) * width);
      const at = (firstPosition + t) * width;
      x.set(add(row, position.weight.data.subarray(at, at + width)), t * width);
    });
    return layerNorm(x, norm, eps);
  }

  /** Hidden states (T, D) → logits (T, V). */
  logits(hidden) {
    return linear(hidden, this.weights.decoder.lm_head);
  }
}

/**
 * Image tokens and then text tokens, as far as the decoder has read them.
 *
 * cache: for each layer the keys and values.
 * hidden: for each stage (0: the embedding, l: after layer l) one row of D numbers a token.
 * weights: for each layer, for each token the attention weights (H, keys) of its query.
 */
class Sequence {
  constructor(model, image, mask, ids = [], state = null) {
    Object.assign(this, { model, image, mask, ids });
    if (state) Object.assign(this, state);
    else this.read(image.projected);
  }

  /** The same sequence, to be continued on its own. The image prefix is shared. */
  fork() {
    return new Sequence(this.model, this.image, this.mask, this.ids.slice(), {
      cache: this.cache.map(({ keys, values }) => ({ keys: keys.slice(), values: values.slice() })),
      hidden: this.hidden.map((rows) => rows.slice()),
      weights: this.weights.map((rows) => rows.slice()),
    });
  }

  /** Append text tokens; the logits (V) of what follows the last of them. */
  append(ids) {
    const { model } = this;
    if (this.mask === "image_sees_text") {
      // Image tokens depend on the text now, so no key and no value stays valid: begin again.
      this.ids = [...this.ids, ...ids];
      const text = model.embed(this.ids, 0);
      const both = new Float32Array(this.image.projected.length + text.length);
      both.set(this.image.projected);
      both.set(text, this.image.projected.length);
      this.read(both, true);
    } else {
      this.read(model.embed(ids, this.ids.length));
      this.ids = [...this.ids, ...ids];
    }
    return model.logits(this.hidden.at(-1).at(-1));
  }

  /** Logits (V) at a text position, read off after any layer: the logit lens. */
  lens(layer, position) {
    return this.model.logits(this.hidden[layer][this.model.nImage + position]);
  }

  /** Run embedded tokens x (n, D) through the decoder, behind what the cache holds. */
  read(x, anew = false) {
    const { config, weights, nImage } = this.model;
    const { blocks } = weights.decoder;
    const visible = (query, key) => MASKS[this.mask](query, key, nImage);
    if (anew || !this.cache) {
      this.cache = blocks.map(emptyCache);
      this.hidden = [[], ...blocks.map(() => [])];
      this.weights = blocks.map(() => []);
    }
    const keep = (stage, rows) => {
      for (let at = 0; at < rows.length; at += config.decoder.width) {
        this.hidden[stage].push(rows.subarray(at, at + config.decoder.width));
      }
    };
    keep(0, x);
    blocks.forEach((block, layer) => {
      const result = decoderBlock(x, block, config.decoder, this.cache[layer], visible);
      x = result.x;
      this.weights[layer].push(...result.weights);
      keep(layer + 1, x);
    });
  }
}

// ---------------------------------------------------------------------------------------------
// 4. Text: WordPiece
// ---------------------------------------------------------------------------------------------

/** BERT's tokenizer, uncased. */
class Tokenizer {
  constructor(vocabulary) {
    this.vocabulary = vocabulary;
    this.ids = new Map(vocabulary.map((token, id) => [token, id]));
  }

  /** Lower case without accents; words and punctuation marks apart; each word in pieces. */
  encode(text) {
    const parts = text.split(/(\[(?:PAD|UNK|CLS|SEP|MASK)\])/); // these names are tokens
    return parts.flatMap((part, i) => (i % 2 ? this.ids.get(part) : this.words(part)));
  }

  /** Text without special tokens → ids. */
  words(text) {
    const punctuation = "\\p{P}$+<=>^`|~";
    const clean = text
      .replace(/[\t\n\r]/g, " ")
      .replace(/[\p{C}\ufffd]/gu, "")
      .replace(/\p{Script=Han}/gu, " $& ")
      .normalize("NFD")
      .replace(/\p{Mn}/gu, "")
      .toLowerCase();
    const words = clean.match(new RegExp(`[${punctuation}]|[^\\s${punctuation}]+`, "gu")) ?? [];
    return words.flatMap((word) => this.pieces(word));
  }

  /** One word as the longest pieces that the vocabulary has, from the left: `##` marks the rest. */
  pieces(word) {
    const letters = [...word];
    const unknown = [this.ids.get("[UNK]")];
    if (letters.length > 100) return unknown;
    const pieces = [];
    for (let start = 0; start < letters.length; ) {
      let end = letters.length, id;
      for (; end > start; end--) {
        id = this.ids.get((start ? "##" : "") + letters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return unknown;
      pieces.push(id);
      start = end;
    }
    return pieces;
  }

  /** Ids as a text; special tokens such as [SEP] are left out. */
  decode(ids) {
    const isSpecial = (token) => /^\[[A-Z]+\]$/.test(token);
    const tokens = ids.map((id) => this.vocabulary[id]).filter((token) => !isSpecial(token));
    return tokens.join(" ").replace(/ ##/g, "").replace(/ ([.?!,])/g, "$1");
  }
}

// ---------------------------------------------------------------------------------------------
// 5. Generation
// ---------------------------------------------------------------------------------------------

/** The start token and, for an answer, the question. */
function promptOf(model, question) {
  return [model.config.bos_id, ...model.tokenizer.encode(question)];
}

/** Token ids, the likeliest first. */
function ranked(logits) {
  return Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
}

/** The likeliest token. */
function greedy(logits) {
  return logits.reduce((best, logit, id) => (logit > logits[best] ? id : best), 0);
}

/** The softmax of logits / temperature, among the `topK` likeliest (0: all): ids, likeliest first. */
function distribution(logits, { temperature = 1, topK = 0 }) {
  const order = ranked(logits).slice(0, topK || undefined);
  const scaled = Float64Array.from(order, (id) => logits[id] / temperature);
  return { order, probabilities: softmax(scaled) };
}

/** A token drawn from this distribution. `random` is a number from 0 to 1. */
function sample(logits, options, random) {
  const { order, probabilities } = distribution(logits, options);
  let sum = 0;
  for (let i = 0; i < order.length; i++) {
    sum += probabilities[i];
    if (sum > random) return order[i];
  }
  return order.at(-1);
}

/**
 * Write one token after the other until the end token.
 *
 * choose: (logits, step) → id.
 * forced: a Map from step to the id that stands there, whatever the model would choose.
 * Returns the sequence and, for each token, its id, the logits it was chosen from and its log
 * probability.
 */
function generate(model, prefix, prompt, options = {}) {
  const { choose = greedy, forced = new Map(), maxNewTokens } = options;
  const sequence = prefix.fork();
  const limit = Math.min(
    maxNewTokens ?? model.config.decoding.max_new_tokens,
    model.config.decoder.positions - prompt.length,
  );
  const tokens = [];
  let logits = sequence.append(prompt);
  for (let step = 0; step < limit; step++) {
    const id = forced.get(step) ?? choose(logits, step);
    tokens.push({ id, logits, logprob: logSoftmax(logits)[id], forced: forced.has(step) });
    if (id === model.config.eos_id || step + 1 === limit) break;
    logits = sequence.append([id]);
  }
  return { sequence, tokens };
}

/** log p of each of these tokens behind the prompt, with the right words before it. */
function score(prefix, prompt, ids) {
  const sequence = prefix.fork();
  sequence.append([...prompt, ...ids.slice(0, -1)]);
  const last = sequence.hidden.length - 1, first = prompt.length - 1;
  return ids.map((id, t) => logSoftmax(sequence.lens(last, first + t))[id]);
}

/**
 * Beam search: keep the `beams` best texts at every step (as Transformers does it).
 *
 * A beam is a node of a tree: { token, logprob, total, parent, ended, score }. Returns `steps`, each
 * with its nodes, best first, and `ended`: the finished ones, by score = total / n^lengthPenalty.
 */
function beamSearch(model, prefix, prompt, { beams = 4, lengthPenalty = 1, maxNewTokens } = {}) {
  const limit = maxNewTokens ?? model.config.decoding.max_new_tokens;
  const sequence = prefix.fork();
  const root = { token: null, total: 0, parent: null, sequence, logits: sequence.append(prompt) };
  let live = [root];
  let bank = [];
  const steps = [];
  for (let length = 1; length <= limit; length++) {
    const norm = length ** lengthPenalty;
    const nodes = bestContinuations(live, 2 * beams);
    const going = [];
    nodes.forEach((node, rank) => {
      node.ended = node.token === model.config.eos_id || length === limit;
      if (!node.ended) going.push(node);
      else if (rank < beams) bank.push(Object.assign(node, { score: node.total / norm }));
    });
    bank = bank.sort((a, b) => b.score - a.score).slice(0, beams);
    live = going.slice(0, beams);
    steps.push(nodes.filter((node) => live.includes(node) || bank.includes(node)));
    const full = bank.length === beams;
    if (length === limit || (full && live[0].total / norm <= bank.at(-1).score)) break;
    for (const node of live) {
      node.sequence = node.parent.sequence.fork();
      node.logits = node.sequence.append([node.token]);
    }
  }
  return { steps, ended: bank };
}

/** The best `count` texts that are one token longer than these, best first. */
function bestContinuations(live, count) {
  const nodes = live.flatMap((parent) => {
    const logprobs = logSoftmax(parent.logits);
    return ranked(logprobs)
      .slice(0, count)
      .map((token) => ({ token, logprob: logprobs[token], parent }))
      .map((node) => ({ ...node, total: parent.total + node.logprob }));
  });
  return nodes.sort((a, b) => b.total - a.total).slice(0, count);
}

/** The token ids of a beam, from the root to this node. */
function idsOf(node) {
  return node.parent ? [...idsOf(node.parent), node.token] : [];
}

// ---------------------------------------------------------------------------------------------
// 6. The weights
// ---------------------------------------------------------------------------------------------

/** Base64 of float16 numbers → a tree of tensors, named as PyTorch names them. */
function unpack({ tensors, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const halves = new Uint16Array(bytes.buffer);
  const table = Float32Array.from({ length: 65536 }, (_, bits) => fromFloat16(bits));
  const tree = {};
  let at = 0;
  for (const [name, shape] of tensors) {
    const size = shape.reduce((product, side) => product * side, 1);
    const data = Float32Array.from(halves.subarray(at, at + size), (bits) => table[bits]);
    at += size;
    const path = name.split(".");
    const leaf = path.pop();
    const branch = path.reduce((node, key, depth) => {
      const isList = /^\d+$/.test(path[depth + 1] ?? "");
      return (node[key] ??= isList ? [] : {});
    }, tree);
    branch[leaf] = { data, shape };
  }
  return tree;
}

/** A float16's sign, 5 bits of exponent and 10 of fraction → its value. */
function fromFloat16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 25) * (1024 + fraction);
}
