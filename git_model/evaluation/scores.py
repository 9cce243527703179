"""Scores of predictions: the metrics of each task, and all of them at once.

Scores are times 100, as papers print them: an accuracy of 72.7, a CIDEr of 131.4.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import NamedTuple

from git_model.evaluation import coco_tools
from git_model.evaluation.metrics import (
    WordList,
    bleu,
    cider_d,
    cider_plain,
    exact,
    rouge_l,
    split_words,
)
from git_model.evaluation.predictions import Prediction, Task
from git_model.evaluation.vqa import MIN_ANSWERS, vqa_accuracy
from git_model.utils.errors import GITError

METRICS: dict[Task, tuple[str, ...]] = {
    "captions": ("exact", "bleu", "rouge_l", "cider_d", "cider_plain", "meteor", "spice"),
    "questions": ("exact", "vqa"),
    "labels": ("top_1", "top_5"),
}
# Metrics that are a mean over predictions, and metrics of a corpus of candidates and references.
PREDICTION_METRICS: dict[str, Callable[[Prediction], float]] = {
    "exact": lambda item: exact(item.text, item.answers),
    "vqa": lambda item: vqa_accuracy(item.text, item.answers),
    "top_1": lambda item: exact(item.top[0], item.answers),
    "top_5": lambda item: any(exact(label, item.answers) for label in item.top[:5]),
}
CORPUS_METRICS: dict[str, Callable[[Sequence[WordList], Sequence[Sequence[WordList]]], float]] = {
    "rouge_l": rouge_l,
    "cider_d": cider_d,
    "cider_plain": cider_plain,
    "meteor": coco_tools.meteor,
    "spice": coco_tools.spice,
}
WITHOUT_TEXT_SCORES = ("meteor", "spice")  # of which `text_scores` gives no score of a single text


class WordTokenizer(NamedTuple):
    """A function from texts to words, and its name in outputs."""

    name: str
    split: Callable[[Sequence[str]], list[list[str]]]


PYTHON = WordTokenizer("python, not PTB", split_words)
PTB = WordTokenizer("ptb", coco_tools.ptb_words)


def best_tokenizer() -> WordTokenizer:
    """The Penn Treebank's if Java can run, else Python's."""
    return PTB if coco_tools.missing_requirement() is None else PYTHON


def check_metrics(metrics: Collection[str]) -> None:
    """Refuse metrics that cannot be computed here, before a model runs.

    Raises:
        GITError: there is no such metric, or a program that it needs is missing.
    """
    names = [name for task_metrics in METRICS.values() for name in task_metrics]
    for name in metrics:
        if name not in names:
            raise GITError(f"there is no metric {name!r}, expected one of {', '.join(names)}")
    if "meteor" in metrics:
        coco_tools.require("METEOR")
    if "spice" in metrics:
        coco_tools.prepare_spice()


def score(
    predictions: Sequence[Prediction],
    metrics: Sequence[str] = (),
    tokenizer: WordTokenizer | None = None,
) -> dict[Task, dict[str, float]]:
    """The scores of predictions, for each task among them: `count`, and metrics times 100.

    Args:
        metrics: some of `METRICS`; by default all that can be computed without a download. A task
            to which none of them applies is left out.
        tokenizer: for captions; by default `best_tokenizer()`.

    Raises:
        GITError: there is no prediction, one has no reference, a metric does not fit, or as in
            `check_metrics`.
    """
    groups = {
        task: [item for item in predictions if item.task == task]
        for task in tasks_of(predictions, metrics)
    }
    return {
        task: {"count": len(items)} | _task_scores(task, items, metrics, tokenizer)
        for task, items in groups.items()
    }


def tasks_of(predictions: Sequence[Prediction], metrics: Sequence[str]) -> list[Task]:
    """The tasks of the predictions to which the metrics apply; without metrics all tasks.

    Raises:
        GITError: as in `score`.
    """
    if not predictions:
        raise GITError("there is no prediction to score, expected at least one")
    check_metrics(metrics)
    tasks = [task for task in METRICS if any(item.task == task for item in predictions)]
    for name in metrics:
        if not any(name in METRICS[task] for task in tasks):
            raise GITError(f"{name} is no metric for {' and '.join(tasks)}")
    return [task for task in tasks if not metrics or set(metrics) & set(METRICS[task])]


def metric_names(
    task: Task, predictions: Sequence[Prediction], metrics: Sequence[str]
) -> list[str]:
    """The metrics to compute, in the order of `METRICS`.

    Raises:
        GITError: a prediction has no reference, or too few.
    """
    for item in predictions:
        if not item.answers:
            raise GITError(f"{item.name!r} has no reference to be compared with")
    names = [name for name in METRICS[task] if name in (metrics or _default(task, predictions))]
    if "vqa" in names:
        _require_several_answers(predictions)
    return names


def _task_scores(
    task: Task,
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    tokenizer: WordTokenizer | None,
) -> dict[str, float]:
    """The scores of one task, in the order of `METRICS`."""
    names = metric_names(task, predictions, metrics)
    scores = {
        name: sum(map(PREDICTION_METRICS[name], predictions)) / len(predictions)
        for name in names
        if name in PREDICTION_METRICS
    }
    corpus_metrics = [name for name in names if name not in PREDICTION_METRICS]
    if corpus_metrics:
        candidates, references = words_of(predictions, tokenizer or best_tokenizer())
        for name in corpus_metrics:
            if name == "bleu":
                values = enumerate(bleu(candidates, references), start=1)
                scores |= {f"bleu_{n}": value for n, value in values}
            else:
                scores[name] = CORPUS_METRICS[name](candidates, references)
    return {name: 100 * value for name, value in scores.items()}


def _default(task: Task, predictions: Sequence[Prediction]) -> list[str]:
    """The metrics of a task that can be computed here and are meaningful."""
    unavailable = {
        "meteor": coco_tools.missing_requirement() is not None,
        "spice": not coco_tools.has_spice_models(),
        "vqa": any(len(item.answers) < MIN_ANSWERS for item in predictions),
    }
    return [name for name in METRICS[task] if not unavailable.get(name)]


def _require_several_answers(predictions: Sequence[Prediction]) -> None:
    for item in predictions:
        if len(item.answers) < MIN_ANSWERS:
            raise GITError(
                f"vqa compares with the answers of at least {MIN_ANSWERS} people, but "
                f"{item.name!r} has {len(item.answers)}: use exact"
            )


def words_of(
    predictions: Sequence[Prediction], tokenizer: WordTokenizer
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """The words of each text, and of its references."""
    texts = [text for item in predictions for text in (item.text, *item.answers)]
    lines = iter(tokenizer.split(texts))
    candidates, references = [], []
    for item in predictions:
        candidates.append(next(lines))
        references.append(list(islice(lines, len(item.answers))))
    return candidates, references
