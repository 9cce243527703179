"""What `evaluate` prints: scores, their intervals, and the comparison of two prediction files."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from git_model.evaluation.scores import (
    METRICS,
    WITHOUT_TEXT_SCORES,
    best_tokenizer,
    score,
    tasks_of,
)
from git_model.utils.errors import GITError

if TYPE_CHECKING:
    from git_model.evaluation.intervals import Interval
    from git_model.evaluation.predictions import Prediction

NAMES = {
    "exact": "exact match",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "cider_plain": "CIDEr, plain",
    "meteor": "METEOR",
    "spice": "SPICE",
    "vqa": "VQA accuracy",
    "top_1": "top-1",
    "top_5": "top-5",
} | {f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)}
Items = Sequence["Prediction"]


def report(
    header: dict[str, Any], predictions: Items, metrics: Sequence[str], *, intervals: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Score predictions and print the scores.

    Args:
        header: the first fields of the JSON output.
        intervals: print the interval of each score, too.
    """
    tokenizer = best_tokenizer()
    scores = score(predictions, metrics, tokenizer)
    _name_unscored(predictions, metrics)
    if scores.get("captions", {}).keys() - {"count", "exact"}:  # these two need no words
        header["tokenizer"] = tokenizer.name
    ranges: dict[str, dict[str, Interval]] = {}
    if intervals:
        ranges = {task: _intervals(_of(predictions, task), metrics) for task in scores}
        header["intervals"] = ranges
    if as_json:
        click.echo(json.dumps(header | scores, ensure_ascii=False, allow_nan=False))
        return
    for task, values in scores.items():
        _print_head(int(values.pop("count")), task, header)
        for name, value in values.items():
            interval = ranges.get(task, {}).get(name)
            suffix = f"  [{interval.low:.2f}, {interval.high:.2f}]" if interval else ""
            click.echo(f"  {NAMES[name]:13} {value:6.2f}{suffix}")


def report_versus(
    header: dict[str, Any], predictions: Items, others: Items, metrics: Sequence[str], as_json: bool
) -> None:
    """Print the scores of two sets of predictions for the same texts, their difference, and its
    interval by a paired bootstrap.

    Args:
        metrics: not only METEOR and SPICE, which have no scores of single texts.

    Raises:
        GITError: the two are about different texts, or have different references.
    """
    import numpy as np

    from git_model.evaluation.intervals import bootstrap
    from git_model.evaluation.text_scores import text_scores

    others = _aligned(predictions, others)
    metrics = [name for name in metrics if name not in WITHOUT_TEXT_SCORES]
    _name_unscored(predictions, metrics)
    tokenizer = best_tokenizer()
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for task in tasks_of(predictions, metrics):
        pair = [
            text_scores(_of(items, task), metrics, tokenizer) for items in (predictions, others)
        ]
        n = len(_of(predictions, task))
        tables[task] = {}
        for name in pair[0].columns:
            first, second = (table.metric(name) for table in pair)
            everything = np.arange(n)
            tables[task][name] = {
                "score": first(everything),
                "versus": second(everything),
                "difference": first(everything) - second(everything),
                "interval": bootstrap(n, _difference(first, second)),
            }
    if as_json:
        click.echo(json.dumps(header | tables, ensure_ascii=False, allow_nan=False))
        return
    for name, table in tables.items():
        header["tokenizer"] = tokenizer.name
        _print_head(len(_of(predictions, name)), name, header)
        click.echo(f"  {'':13}  score  versus  difference, 95 % interval")
        for metric, row in table.items():
            low, high = row["interval"]
            click.echo(
                f"  {NAMES[metric]:13} {row['score']:6.2f}  {row['versus']:6.2f}  "
                f"{row['difference']:+6.2f}  [{low:+.2f}, {high:+.2f}]"
            )


def with_scores(predictions: Items, metrics: Sequence[str]) -> list["Prediction"]:
    """The predictions with the scores of each; those of a task without references have none."""
    from git_model.evaluation.text_scores import score_each

    result = list(predictions)
    for task in dict.fromkeys(item.task for item in predictions):
        index = [number for number, item in enumerate(predictions) if item.task == task]
        group = [predictions[number] for number in index]
        if not all(item.answers for item in group):
            continue
        names = [name for name in metrics if name in METRICS[task]]
        if metrics and not names:
            continue
        for number, row in zip(index, score_each(group, names), strict=True):
            result[number] = dataclasses.replace(predictions[number], scores=row)
    return result


def _intervals(predictions: Items, metrics: Sequence[str]) -> dict[str, "Interval"]:
    from git_model.evaluation.intervals import bootstrap
    from git_model.evaluation.text_scores import text_scores

    scores = text_scores(predictions, metrics)
    n = len(predictions)
    return {name: bootstrap(n, scores.metric(name)) for name in scores.columns}


def _aligned(predictions: Items, others: Items) -> Items:
    """The other predictions in the order of the first: by all that names them, or else, as another
    form of file has less of it, by `Prediction.name`."""
    _require_same_tasks(predictions, others)
    pairs = _paired(predictions, others, _full_name) or _paired(predictions, others, _name)
    if pairs is None:
        raise GITError(_reason_of_no_pairs(predictions, others))
    for first, second in pairs:
        if first.answers != second.answers:
            raise GITError(
                f"--versus: {first.name!r} has other references in the other file: name one file "
                "of --references for both"
            )
    return [second for _, second in pairs]


def _name(item: "Prediction") -> tuple[str, ...]:
    return item.task, item.name


def _full_name(item: "Prediction") -> tuple[str, ...]:
    return item.task, item.key, item.question_key, repr(item.question)


def _paired(
    predictions: Items, others: Items, name_of: Callable[["Prediction"], tuple[str, ...]]
) -> "list[tuple[Prediction, Prediction]] | None":
    """The pairs of equal names; None if names differ or are not unique."""
    by_name = {name_of(item): item for item in others}
    names = list(map(name_of, predictions))
    if set(names) != by_name.keys() or not len(names) == len(by_name) == len(others):
        return None
    return [(item, by_name[name]) for item, name in zip(predictions, names, strict=True)]


def _require_same_tasks(predictions: Items, others: Items) -> None:
    here, there = (
        " and ".join(task for task in METRICS if _of(items, task))
        for items in (predictions, others)
    )
    if here != there:
        raise GITError(
            f"--versus: there are predictions of {here} in the first file, and of {there} in the "
            "other: expected the same tasks"
        )


def _reason_of_no_pairs(predictions: Items, others: Items) -> str:
    here, there = (Counter(map(_name, items)) for items in (predictions, others))
    missing = sorted(here.keys() ^ there.keys())
    if missing:
        task, name = missing[0]
        return (
            f"--versus: the two files are about different texts, such as {name!r} of the {task}: "
            "expected the same"
        )
    _, name = next(name for name in here if max(here[name], there[name]) > 1)
    return (
        f"--versus: a file has two predictions of one name, {name!r}, which the other file does "
        "not tell apart: expected one"
    )


def _difference(
    first: Callable[[Any], float], second: Callable[[Any], float]
) -> Callable[[Any], float]:
    return lambda index: first(index) - second(index)


def _name_unscored(predictions: Items, metrics: Sequence[str]) -> None:
    """Say on stderr which predictions have none of the metrics."""
    tasks = tasks_of(predictions, metrics)
    for task in METRICS:
        count = len(_of(predictions, task))
        if count and task not in tasks:
            names = " and ".join(metrics)
            click.echo(f"Not scored: {count} {task}, for which {names} is no metric", err=True)


def _of(predictions: Items, task: str) -> list["Prediction"]:
    return [item for item in predictions if item.task == task]


def _print_head(count: int, task: str, header: dict[str, Any]) -> None:
    name = header.get("tokenizer") if task == "captions" else None
    click.echo(f"{count} {task}" + (f", tokenizer: {name}" if name else ""))
