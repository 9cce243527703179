"use strict";
/* Small parts that the page is made of: elements, lists that keep the focus, heat maps. */

/** An element: h("button", { class: "quiet", onclick }, "Delete"). SVG if `svg:` precedes the tag. */
function h(tag, attributes = {}, ...children) {
  const svg = tag.startsWith("svg:");
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  set(element, attributes);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Give an element attributes; functions are listeners, false and null take an attribute away. */
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element[name] = value;
    else if (value === false || value === null || value === undefined)
      element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  return element;
}

/** Make the children of `parent` fit `items`, reusing those there: the focus stays where it is. */
function fill(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, i) => {
    const child = parent.children[i] ?? parent.appendChild(make(i));
    update(child, item, i);
  });
}

/** A row of buttons of which one is pressed. */
function segmented(parent, options, value, choose) {
  fill(
    parent,
    options,
    () => h("button", { type: "button" }),
    (button, [key, label, title]) => {
      button.textContent = label;
      set(button, { "aria-pressed": key === value, title, onclick: () => choose(key) });
    },
  );
  return parent;
}

/** Text, if it is not there already. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The numbers red, green, blue of one of the page's colours. */
function cssColour(name) {
  const probe = h("span", { style: `color: var(${name})` });
  document.body.append(probe);
  const numbers = getComputedStyle(probe)
    .color.match(/[\d.]+/g)
    .slice(0, 3)
    .map(Number);
  probe.remove();
  return numbers;
}

/** Paint a matrix of numbers, each a cell: positive in the accent colour, negative in grey. */
function paintMatrix(canvas, rows, scale) {
  const width = rows[0].length;
  set(canvas, { width, height: rows.length });
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, rows.length);
  const accent = cssColour("--accent"),
    ink = cssColour("--cold");
  rows.forEach((row, y) =>
    row.forEach((value, x) => {
      const colour = value >= 0 ? accent : ink;
      image.data.set([...colour, 255 * Math.min(1, Math.abs(value) / scale)], (y * width + x) * 4);
    }),
  );
  pen.putImageData(image, 0, 0);
}

/** Flat numbers as rows of `width`. */
function rowsOf(flat, width) {
  return Array.from({ length: flat.length / width }, (_, i) =>
    flat.subarray(i * width, (i + 1) * width),
  );
}

/** A matrix (n, D) with a label a row; a click on a label shows the row's first numbers. */
function heat(rows, labels, selected, choose) {
  const canvas = h("canvas", {
    class: "cells",
    role: "img",
    "aria-label": `${rows.length} × ${rows[0].length} numbers`,
  });
  const squares = rows.reduce((sum, row) => sum + row.reduce((s, v) => s + v * v, 0), 0);
  paintMatrix(canvas, rows, 2 * Math.sqrt(squares / (rows.length * rows[0].length)));
  const index = Math.min(selected, rows.length - 1);
  const names = h("div", { class: "heat-labels" });
  labels.forEach((label, i) =>
    names.append(
      h("button", { type: "button", "aria-pressed": i === index, onclick: () => choose(i) }, label),
    ),
  );
  return h(
    "div",
    { class: "heat" },
    h("div", { class: "heat-body", style: `--rows: ${rows.length}` }, names, canvas),
    h("p", { class: "numbers" }, h("b", {}, labels[index]), ` = [${numbers(rows[index], 6)}, …]`),
  );
}

/** The first few numbers of a vector, of equal width. */
function numbers(vector, count, digits = 2) {
  return Array.from(vector.slice(0, count), (value) => signed(value, digits)).join(", ");
}

/** -1.25 with a true minus sign. */
function signed(value, digits = 2) {
  return value.toFixed(digits).replace("-", "−");
}

function percent(probability) {
  if (probability < 0.0005) return "0 %";
  if (probability >= 0.9995) return "100 %";
  return `${(100 * probability).toFixed(probability < 0.0995 ? 1 : 0)} %`;
}

/**
 * The picture with its patches, each a button if `choose` is there: `describe(patch)`
 * gives { shade, label, title, pressed, strong }. Shade 1 is dark; the label stands in the patch, a strong one in the accent colour.
 */
function patchMap(rgb, grid, describe, choose) {
  const canvas = h("canvas", { width: WORLD.side, height: WORLD.side, "aria-hidden": "true" });
  showPixels(canvas, rgb);
  const buttons = h("div", { class: "patches", style: `--grid: ${grid}` });
  for (let patch = 0; patch < grid ** 2; patch++) {
    const { shade = 0, label = "", title, pressed = false, strong = false } = describe(patch);
    buttons.append(
      h(
        choose ? "button" : "div",
        {
          ...(choose
            ? { type: "button", "aria-pressed": pressed, onclick: () => choose(patch) }
            : {}),
          "aria-label": title,
          title,
          style: `--shade: ${shade.toFixed(3)}`,
        },
        h("span", { class: strong ? "strong" : null }, label),
      ),
    );
  }
  return h("div", { class: "patch-map" }, canvas, buttons);
}

/** A text as nodes, in which the first mention of each term is a button that explains it. */
function explained(text) {
  const names = Object.keys(TERMS).sort((a, b) => b.length - a.length); // `logit lens` before `logit`
  const escaped = names.map((name) => name.replace(/[[\]]/g, "\\$&").replace(/y$/, "(?:y|ie)"));
  const pattern = new RegExp(
    `(?<![\\w-])(?:${escaped.map((e) => `(${e})`).join("|")})s?(?![\\w-])`,
    "gi",
  );
  const nodes = [],
    mentioned = new Set();
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    const name = names[match.slice(1).findIndex(Boolean)];
    if (mentioned.has(name)) continue;
    mentioned.add(name);
    const button = h("button", { type: "button", class: "term", "data-term": name }, match[0]);
    nodes.push(text.slice(end, match.index), button);
    end = match.index + match[0].length;
  }
  return [...nodes, text.slice(end)];
}

/** Show what a term means, beside the element that names it, when it is pointed at or focused. */
function explainTerms(note) {
  const hide = () => {
    note.hidden = true;
  };
  const show = ({ target }) => {
    const part = target.closest?.("[data-term]");
    if (!part) return hide();
    note.replaceChildren(h("b", {}, part.dataset.term), ` ${TERMS[part.dataset.term]}`);
    note.hidden = false;
    set(part, { "aria-describedby": note.id });
    const box = part.getBoundingClientRect();
    const below = box.bottom + 8 + note.offsetHeight < innerHeight;
    const left = Math.min(Math.max(8, box.left), innerWidth - note.offsetWidth - 8);
    const top = below ? box.bottom + 8 : Math.max(8, box.top - 8 - note.offsetHeight);
    set(note, { style: `left: ${left}px; top: ${top}px` });
  };
  for (const event of ["pointerover", "focusin", "click"]) document.addEventListener(event, show);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
}
