"""Figures about being right: deliberate mistakes, and a training run."""

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
from matplotlib.figure import Figure

from drawing.style import IMAGE, OTHER, TEXT, Drawing, bare
from git_model.shapes.texts import describe
from git_model.shapes.world import draw, make_world
from weights_convert.verify import distance

TESTS = Path(__file__).parent.parent.parent / "tests"
# `git-model train configs/train/quick.toml --out runs/quick` wrote it, in ten minutes.
LOG = Path(__file__).parent / "quick_log.jsonl"
LEAST = 1e-14  # what has no place on a logarithmic axis is drawn here


def mistakes() -> Drawing:
    """How far each deliberate mistake of the parity tests moves the logits."""
    made = _mistakes()
    moved = {
        "usual weights, N(0, 0.02)": [_moved(made, one, usual=True) for one in made.MISTAKES],
        "weights that bite": [_moved(made, one, usual=False) for one in made.MISTAKES],
    }
    names = [_in_words(one.__name__) for one in made.MISTAKES]
    figure = Figure(figsize=(8.4, 5), layout="constrained")
    axes = figure.subplots()
    for (label, values), colour, marker in zip(moved.items(), (TEXT, IMAGE), "os", strict=True):
        axes.plot([max(v, LEAST) for v in values], names, marker, color=colour, label=label)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.grid(axis="y", color="#dddddd")
    axes.axvline(1e-4, color="#555555", linestyle="--", label="tolerance in float32, 1e-4")
    axes.axvline(1e-10, color="#555555", linestyle=":", label="tolerance in float64, 1e-10")
    axes.set_xlabel(
        "largest difference of the logits over the largest logit (far left: none at all)"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.12), ncols=2, frameon=False)
    digits = {name: [round(math.log10(max(v, LEAST)), 1) for v in m] for name, m in moved.items()}
    return Drawing(figure, {"log10": digits, "names": names})


def _in_words(name: str) -> str:
    """A function's name as one would say it."""
    said = name.replace("_", " ").replace("gelu", "GELU")
    return re.sub(r"s eps$", "'s eps", said)


def _mistakes() -> ModuleType:
    """tests/parity/test_mistakes.py"""
    for folder in (TESTS, TESTS / "parity"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    import test_mistakes

    return test_mistakes


def _moved(made: ModuleType, mistake: Callable[[Any], torch.Tensor], *, usual: bool) -> float:
    twin = made.twin.__wrapped__()
    if usual:
        torch.manual_seed(0)
        twin.ours.initialize()
    with torch.no_grad():
        right = twin.ours(twin.pixels, twin.tokens)
    return distance(mistake(twin), right)


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
    left.set_ylabel("loss of a step")
    _exact_bars(right, exact)
    for axes in (left, right):
        axes.set_xlabel("step")
    return Drawing(figure, {"captions": captions, "losses": losses, "exact": exact})


def _worlds(figure: Any) -> list[str]:
    """Eight pictures with their captions, which are returned."""
    captions = []
    for number, axes in enumerate(figure.subplots(2, 4).flat):
        world = make_world(Random(number))
        captions.append(describe(world))
        axes.imshow(draw(world))
        axes.set_title(_wrapped(captions[-1]), fontsize=8)
        bare(axes)
    return captions


def _wrapped(text: str) -> str:
    """On two lines, if one would be too wide."""
    words = text.split()
    half = (len(words) + 1) // 2
    return text if len(text) < 30 else " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _exact_bars(axes: Axes, exact: list[tuple[int, float]]) -> None:
    bars = axes.bar([str(step) for step, _ in exact], [share for _, share in exact], color=OTHER)
    axes.bar_label(bars, fmt="%.1f %%")
    axes.set_ylim(0, 112)
    axes.set_ylabel("held-out captions\nexactly right, %")
