"use strict";
/* Questions that a scene has exactly one right answer to, as the model's training asked them. */

const NUMBER_WORDS = ["none", "one", "two", "three", "four", "five"];
const IN_CELLS = [
  "at the top left",
  "at the top",
  "at the top right",
  "at the left",
  "in the middle",
  "at the right",
  "at the bottom left",
  "at the bottom",
  "at the bottom right",
];

const looksOf = ({ colour, shape }) => `${colour} ${shape}`;
const withArticle = (name) => `${/^[aeiou]/.test(name) ? "an" : "a"} ${name}`;

function cellOf({ x, y }) {
  const third = (value) => Math.min(2, Math.max(0, Math.floor((3 * value) / WORLD.side)));
  return 3 * third(y) + third(x);
}

function sizeOf({ radius }) {
  const { small, large, "close-up": close } = WORLD.radii;
  return radius < (small + large) / 2
    ? "small"
    : radius < (large + close) / 2
      ? "large"
      : "close-up";
}

/** Up to four questions, each with its answer: { text, answer }. The first are about `things[index]`. */
function questionsAbout({ things }, index) {
  const ordered = things[index] ? [things[index], ...things.filter((_, i) => i !== index)] : things;
  const unique = (key) =>
    ordered.filter((thing) => things.filter((other) => key(other) === key(thing)).length === 1);
  return [
    colourOrShape(unique),
    NUMBER_WORDS[things.length] && {
      text: "how many things are there?",
      answer: NUMBER_WORDS[things.length],
    },
    position(unique(cellOf)),
    larger(unique(looksOf)) ?? presence(ordered[0]),
  ].filter(Boolean);
}

function colourOrShape(unique) {
  const [byShape] = unique(({ shape }) => shape);
  if (byShape) return { text: `what colour is the ${byShape.shape}?`, answer: byShape.colour };
  const [byColour] = unique(({ colour }) => colour);
  return (
    byColour && { text: `what shape is the ${byColour.colour} thing?`, answer: byColour.shape }
  );
}

function position([thing]) {
  if (!thing || sizeOf(thing) === "close-up") return null;
  return { text: `what is ${IN_CELLS[cellOf(thing)]}?`, answer: withArticle(looksOf(thing)) };
}

/** The first thing beside one of the other size. */
function larger([first, ...others]) {
  const other = first && others.find((thing) => sizeOf(thing) !== sizeOf(first));
  if (!other) return null;
  const answer = first.radius > other.radius ? first : other;
  return {
    text: `which is larger, the ${looksOf(first)} or the ${looksOf(other)}?`,
    answer: `the ${looksOf(answer)}`,
  };
}

function presence(thing) {
  return thing && { text: `is there ${withArticle(looksOf(thing))}?`, answer: "yes" };
}
