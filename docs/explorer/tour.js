"use strict";
/* Seven steps for somebody who never saw a transformer. Each points at a part and sets the state. */

const TOUR = [
  {
    title: "A picture becomes a sentence",
    text: "Drag the red circle to another corner. The sentence on the page is written anew, word by word, while you drag. Everything happens in this page.",
    target: "picture",
    aim: "#stage",
    panel: "stages",
    stage: 0,
  },
  {
    title: "The picture becomes ten tokens",
    text: "The model cuts the picture into nine patches and makes a list of 128 numbers of each: an image token. A tenth, the class token, stands for the whole.",
    target: "panel",
    aim: ".stage-detail",
    panel: "stages",
    stage: 2,
  },
  {
    title: "Image tokens attend to each other",
    text: "In each of the encoder’s layers every image token gathers from the others what it needs. That is self-attention; it runs in four heads at once. Choose another head.",
    target: "panel",
    aim: ".heads",
    panel: "attention",
    tower: "encoder",
    layer: 0,
    head: 0,
  },
  {
    title: "A word attends to the picture",
    text: "The decoder writes one word at a time. To find the colour, it attends to the image tokens: bright is what it reads. The image never attends to the words, so it is read only once.",
    target: "panel",
    aim: ".attention .patch-map",
    panel: "attention",
    tower: "decoder",
    layer: 2,
    head: 0,
  },
  {
    title: "A word is a choice",
    text: "For the next word each of 164 tokens gets a probability. Here “blue” is forced, and the rest of the sentence goes on as if it were true. Force another word.",
    target: "candidates",
    aim: "#caption",
    panel: "lens",
    force: "blue",
  },
  {
    title: "Who may attend to whom",
    text: "Now image tokens see only themselves in the decoder. The caption was right; the marked words are what became of it. The model was trained under another mask: the prefix mask makes GIT a prefix language model.",
    example: 3, // its caption changes most
    target: "panel",
    aim: ".mask-card[aria-pressed=true]",
    panel: "masks",
    mask: "isolated_image",
  },
  {
    title: "Is the attention true?",
    text: "The patch that holds the circle is painted over, and “red” falls. Click other patches: most change nothing. From here on, everything is yours.",
    target: "panel",
    aim: ".blanking",
    panel: "blank",
    blank: true,
  },
];
let tourStep = -1;

/** Where the tour's first thing is, among the patches. */
function patchOfFirst() {
  const { x, y } = state.scene.things[0],
    side = model.config.encoder.patch_size;
  return Math.min(2, Math.floor(y / side)) * model.grid + Math.min(2, Math.floor(x / side));
}

function enterStep(index) {
  const step = TOUR[index];
  tourStep = index;
  const fresh = {
    question: "",
    method: "greedy",
    mask: step.mask ?? "prefix",
    forced: new Map(),
    blank: new Set(),
    step: null,
    selected: null,
    scene: sceneOf(WORLD.examples[step.example ?? 0]), // whatever was dragged in an earlier step
    photo: null,
  };
  for (const name of ["panel", "stage", "tower", "layer", "head"])
    if (name in step) fresh[name] = step[name];
  $("question").value = "";
  Object.assign(state, fresh);
  if (step.blank) state.blank = new Set([patchOfFirst()]);
  if (step.force) {
    result = compute();
    const { ids } = model.tokenizer;
    const free = word(result.tokens[result.step].id);
    state.forced = new Map([[result.step, ids.get(free === step.force ? "red" : step.force)]]);
    state.step = result.step;
  }
  update();
  requestAnimationFrame(showTour); // after the page shows the new state
}

function showTour() {
  const card = $("tour");
  document.querySelectorAll(".pointed").forEach((part) => part.classList.remove("pointed"));
  card.hidden = tourStep < 0;
  document.body.classList.toggle("touring", tourStep >= 0);
  if (tourStep < 0) return;
  const { title, text, target, aim } = TOUR[tourStep];
  const last = tourStep === TOUR.length - 1;
  const part = target === "panel" ? document.querySelector(".inside") : $(target);
  part.classList.add("pointed");
  const smooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const narrow = innerWidth <= 860; // there the card covers the lower half
  const inView = narrow ? document.querySelector(aim) : part;
  const bar = part.querySelector(".now")?.offsetHeight ?? 0; // it sticks to the top
  inView.style.scrollMarginBlock = `${20 + (narrow && bar ? bar + 24 : 0)}px`;
  inView.scrollIntoView({
    block: narrow || target !== "candidates" ? "start" : "center",
    behavior: smooth ? "smooth" : "auto",
  });
  const dots = TOUR.map((_, i) =>
    h("button", {
      type: "button",
      "aria-label": `Step ${i + 1}`,
      "aria-current": i === tourStep ? "step" : null,
      onclick: () => enterStep(i),
    }),
  );
  card.replaceChildren(
    h(
      "div",
      { class: "row between" },
      h("span", { class: "eyebrow" }, `Step ${tourStep + 1} of ${TOUR.length}`),
      h(
        "button",
        { type: "button", class: "quiet icon", "aria-label": "End the tour", onclick: endTour },
        "×",
      ),
    ),
    h("h2", { id: "tour-title", tabindex: -1 }, title),
    h("p", {}, text),
    h(
      "div",
      { class: "row between" },
      h("div", { class: "dots" }, ...dots),
      h(
        "div",
        { class: "row" },
        h(
          "button",
          {
            type: "button",
            class: "quiet",
            disabled: tourStep === 0,
            onclick: () => enterStep(tourStep - 1),
          },
          "Back",
        ),
        h(
          "button",
          {
            type: "button",
            class: "primary",
            onclick: () => (last ? endTour() : enterStep(tourStep + 1)),
          },
          last ? "Play" : "Next",
        ),
      ),
    ),
  );
  $("tour-title").focus({ preventScroll: true });
}

function endTour() {
  const { example = 0 } = TOUR[tourStep];
  tourStep = -1;
  showTour();
  const scene = example ? { scene: sceneOf(WORLD.examples[0]) } : {};
  change({ ...scene, mask: "prefix", blank: new Set(), forced: new Map() });
  $("start-tour").focus({ preventScroll: true });
}

$("start-tour").onclick = () => enterStep(0);
document.addEventListener("keydown", (event) => {
  if (tourStep >= 0 && event.key === "Escape") endTour();
});
