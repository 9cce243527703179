"""From predictions to scores: which metrics there are for which task, and all of them at once.

Scores are times 100, as papers print them: an accuracy of 72.7, a CIDEr of 131.4.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from git_model.evaluation import coco_tools
from git_model.evaluation.metrics import Words, bleu, cider, exact, rouge_l
from git_model.evaluation.predictions import Prediction, Task
from git_model.evaluation.vqa import LEAST, vqa_accuracy
from git_model.evaluation.words import split_words
from git_model.utils.errors import GITError

METRICS: dict[Task, tuple[str, ...]] = {
    "captions": ("exact", "bleu", "rouge_l", "cider_d", "cider_plain", "meteor", "spice"),
    "questions": ("exact", "vqa"),
    "labels": ("top_1", "top_5"),
}
# Those whose score is a mean over predictions, and those of a corpus: candidates and references.
OF_ONE: dict[str, Callable[[Prediction], float]] = {
    "exact": lambda one: exact(one.text, one.answers),
    "vqa": lambda one: vqa_accuracy(one.text, one.answers),
    "top_1": lambda one: exact(one.top[0], one.answers),
    "top_5": lambda one: any(exact(label, one.answers) for label in one.top[:5]),
}
OF_CORPUS: dict[str, Callable[[Sequence[Words], Sequence[Sequence[Words]]], float]] = {
    "rouge_l": rouge_l,
    "cider_d": cider,
    "cider_plain": partial(cider, defended=False),
    "meteor": coco_tools.meteor,
    "spice": coco_tools.spice,
}


class Splitter(NamedTuple):
    """A way to make words of texts, and what outputs call it."""

    name: str
    split: Callable[[Sequence[str]], list[list[str]]]


PYTHON = Splitter("python, not PTB", split_words)
PTB = Splitter("ptb", coco_tools.ptb_words)


def best_splitter() -> Splitter:
    """The Penn Treebank's if Java is there."""
    return PTB if coco_tools.lacking() is None else PYTHON


def check_metrics(metrics: Collection[str]) -> None:
    """Refuse metrics that cannot be computed here, before there is anything to lose.

    Raises:
        GITError: there is no such metric, or a program that it needs is missing.
    """
    known = [name for names in METRICS.values() for name in names]
    for name in metrics:
        if name not in known:
            raise GITError(f"there is no metric {name!r}, expected one of {', '.join(known)}")
    if "meteor" in metrics:
        coco_tools.require("METEOR")
    if "spice" in metrics:
        coco_tools.prepare_spice()


def score(
    predictions: Sequence[Prediction],
    metrics: Sequence[str] = (),
    splitter: Splitter | None = None,
) -> dict[Task, dict[str, float]]:
    """How good the predictions are, for each task among them: `count`, and metrics times 100.

    Args:
        metrics: some of `METRICS`; by default all that can be computed without fetching anything.
        splitter: what makes words of captions; by default `best_splitter()`.

    Raises:
        GITError: there is no prediction, one has no right answer, a metric does not fit, or as
            `check_metrics`.
    """
    if not predictions:
        raise GITError("there is no prediction to score, expected at least one")
    check_metrics(metrics)
    tasks = {task: [one for one in predictions if one.task == task] for task in METRICS}
    found = {task: rows for task, rows in tasks.items() if rows}
    for name in metrics:
        if not any(name in METRICS[task] for task in found):
            raise GITError(f"{name} is no metric for {' and '.join(found)}")
    return {
        task: {"count": len(rows)} | _scores(task, rows, metrics, splitter)
        for task, rows in found.items()
    }


def _scores(
    task: Task, rows: Sequence[Prediction], metrics: Sequence[str], splitter: Splitter | None
) -> dict[str, float]:
    """The scores of one task, in the order of `METRICS`."""
    for one in rows:
        if not one.answers:
            raise GITError(f"{one.name!r} has no right answer to be compared with")
    names = [name for name in METRICS[task] if name in (metrics or _usual(task, rows))]
    found = {name: sum(map(OF_ONE[name], rows)) / len(rows) for name in names if name in OF_ONE}
    if "vqa" in names:
        _require_several_answers(rows)
    of_corpus = [name for name in names if name not in OF_ONE]
    if of_corpus:
        candidates, references = _words(rows, splitter or best_splitter())
        for name in of_corpus:
            if name == "bleu":
                values = enumerate(bleu(candidates, references), start=1)
                found |= {f"bleu_{n}": value for n, value in values}
            else:
                found[name] = OF_CORPUS[name](candidates, references)
    return {name: 100 * value for name, value in found.items()}


def _usual(task: Task, rows: Sequence[Prediction]) -> list[str]:
    """The metrics of a task that can be computed here and mean something."""
    without = {
        "meteor": coco_tools.lacking() is not None,
        "spice": not coco_tools.has_parser(),
        "vqa": any(len(one.answers) < LEAST for one in rows),
    }
    return [name for name in METRICS[task] if not without.get(name)]


def _require_several_answers(rows: Sequence[Prediction]) -> None:
    for one in rows:
        if len(one.answers) < LEAST:
            raise GITError(
                f"vqa compares with what at least {LEAST} people answered, but {one.name!r} has "
                f"{len(one.answers)}: use exact"
            )


def _words(
    rows: Sequence[Prediction], splitter: Splitter
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """The words of what was said, and of the answers to each."""
    texts = [text for one in rows for text in (one.text, *one.answers)]
    lines = iter(splitter.split(texts))
    candidates, references = [], []
    for one in rows:
        candidates.append(next(lines))
        references.append(list(islice(lines, len(one.answers))))
    return candidates, references
