"""Figures of checks: deliberate mistakes in the model, and a training run."""

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from drawing.theme import IMAGE, OTHER, TEXT, Drawing, bare
from git_model.evaluation.metrics import bleu, cider_d_scores
from git_model.shapes.source import ShapesData
from git_model.shapes.texts import describe
from git_model.shapes.world import draw, make_world
from weights_convert.verification import distance

TESTS = Path(__file__).parent.parent.parent / "tests"
# Written by `git-model train configs/train/quick.toml --out runs/quick`, in ten minutes.
LOG = Path(__file__).parent / "quick_log.jsonl"
FLOOR = 1e-14  # a smaller value has no position on the logarithmic axis and is drawn here


def mistakes() -> Drawing:
    """How far each deliberate mistake of the parity tests moves the logits."""
    tests = _mistake_tests()
    distances = {
        "initial weights, N(0, 0.02)": [_distance(tests, m, usual=True) for m in tests.MISTAKES],
        "weights that bite": [_distance(tests, m, usual=False) for m in tests.MISTAKES],
    }
    names = [_spelled(mistake.__name__) for mistake in tests.MISTAKES]
    figure = Figure(figsize=(8.4, 1.2 + 0.2 * len(names)), layout="constrained")
    axes = figure.subplots()
    for (label, values), colour, marker in zip(distances.items(), (TEXT, IMAGE), "os", strict=True):
        axes.plot([max(v, FLOOR) for v in values], names, marker, color=colour, label=label)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.grid(axis="y", color="#dddddd")
    axes.axvline(1e-4, color="#555555", linestyle="--", label="tolerance in float32, 1e-4")
    axes.axvline(1e-10, color="#555555", linestyle=":", label="tolerance in float64, 1e-10")
    axes.set_xlabel("largest difference of the logits / largest logit (far left: no difference)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.12), ncols=2, frameon=False)
    log10 = {
        label: [round(math.log10(max(v, FLOOR)), 1) for v in values]
        for label, values in distances.items()
    }
    return Drawing(figure, {"log10": log10, "names": names})


def _spelled(name: str) -> str:
    """A function's name as words."""
    words = name.replace("_", " ").replace("gelu", "GELU")
    return re.sub(r"s eps$", "'s eps", words)


def _mistake_tests() -> ModuleType:
    """The module tests/parity/test_mistakes.py."""
    for folder in (TESTS, TESTS / "parity"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    import test_mistakes

    return test_mistakes


def _distance(tests: ModuleType, mistake: Callable[[Any], torch.Tensor], *, usual: bool) -> float:
    """The largest difference of the logits that a mistake makes, over the largest logit."""
    pair = tests.pair.__wrapped__()
    if usual:
        torch.manual_seed(0)
        pair.ours.initialize()
    with torch.no_grad():
        right = pair.ours(pair.pixels, pair.tokens)
    return distance(mistake(pair), right)


REFERENCE = "a large blue circle to the left of a small green cross"
CANDIDATES = {
    "right": REFERENCE,
    "wrong colour": REFERENCE.replace("blue", "red"),
    "other order": "to the left of a small green cross a large blue circle",
    "cut": "a large blue circle",
    "no shapes": "a small to the left of a small to the left of",
}


def metrics() -> Drawing:
    """What BLEU and CIDEr-D give five candidates for one caption; the words as in chapter 12."""
    source = ShapesData(tasks=("captions",), split="held_out", size=199).open()
    others = [source[n].annotations[0].texts[0].split() for n in range(199)]
    references = [[REFERENCE.split()], *([text] for text in others)]
    scores: dict[str, list[float]] = {"BLEU-1": [], "BLEU-4": [], "CIDEr-D / 10": []}
    for text in CANDIDATES.values():
        words = text.split()
        bleu_scores = bleu([words], [[REFERENCE.split()]])
        cider = cider_d_scores([words, *others], references)[0] / 10
        for values, score in zip(
            scores.values(), (bleu_scores[0], bleu_scores[3], cider), strict=True
        ):
            values.append(round(score, 3))
    figure = Figure(figsize=(8.4, 2.8), layout="constrained")
    axes = figure.subplots()
    for n, (name, colour) in enumerate(zip(scores, ("#999999", TEXT, IMAGE), strict=True)):
        bars = axes.bar(
            [x + 0.27 * (n - 1) for x in range(5)], scores[name], 0.25, color=colour, label=name
        )
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(5), list(CANDIDATES))
    axes.set_ylim(0, 1.15)
    axes.legend(frameon=False)
    return Drawing(figure, {"scores": scores})


def training() -> Drawing:
    """Some of the world, and a run that learns it."""
    log = [json.loads(line) for line in LOG.read_text().splitlines()]
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    exact = [(e["step"], e["captions exact"]) for e in log if "captions exact" in e]
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    captions = _worlds(upper)
    left, right = lower.subplots(1, 2)
    left.plot(*zip(*losses, strict=True), color=IMAGE)
    left.set_yscale("log")
    left.set_ylabel("training loss")
    left.set_title("training")
    _exact_curve(right, exact)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.set_xlim(0, 3150)
    return Drawing(figure, {"captions": captions, "losses": losses, "exact": exact})


def _worlds(figure: SubFigure) -> list[str]:
    """Draw eight images with their captions, and return the captions."""
    captions = []
    for number, axes in enumerate(figure.subplots(2, 4).flat):
        world = make_world(Random(number))
        captions.append(describe(world))
        axes.imshow(draw(world))
        axes.set_title(_wrapped(captions[-1]), fontsize=8)
        bare(axes)
    return captions


def _wrapped(text: str) -> str:
    """The text on two lines, if one would be too wide."""
    words = text.split()
    half = (len(words) + 1) // 2
    return text if len(text) < 30 else " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _exact_curve(axes: Axes, exact: list[tuple[int, float]]) -> None:
    """The validations: per cent of captions that are exactly right."""
    steps, shares = zip(*exact, strict=True)
    axes.plot(steps, shares, "o-", color=OTHER)
    for step, share in exact:
        axes.annotate(
            f"{share:.1f} %", (step, share), (0, -14), textcoords="offset points", ha="center"
        )
    axes.set_ylim(0, 108)
    axes.set_title("validation")
    axes.set_ylabel("held-out captions\nexactly right, %")
