"""The scores of each text by itself. The interval of a score is computed from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from git_model.evaluation.metrics import (
    WordList,
    bleu_counts,
    bleu_of,
    cider_d_scores,
    cider_plain_scores,
    rouge_l_scores,
)
from git_model.evaluation.predictions import Prediction
from git_model.evaluation.scores import (
    PREDICTION_METRICS,
    WordTokenizer,
    best_tokenizer,
    metric_names,
    tasks_of,
    words_of,
)

# The corpus metrics that are means over texts. BLEU is not a mean, but has a value for each text.
TEXT_METRICS: dict[str, Callable[[Sequence[WordList], Sequence[Sequence[WordList]]], list[float]]]
TEXT_METRICS = {
    "rouge_l": rouge_l_scores,
    "cider_d": cider_d_scores,
    "cider_plain": cider_plain_scores,
}


@dataclass(frozen=True)
class TextScores:
    """The scores of each text of one task, and of any selection of the texts.

    Attributes:
        columns: for each metric the value of each text (n,), times 100.
        counts: the numbers that BLEU counts in each text (n, 10); empty without BLEU.
    """

    columns: dict[str, np.ndarray]
    counts: np.ndarray

    def metric(self, name: str) -> Callable[[np.ndarray], float]:
        """From the indices of texts to the metric of these texts as a corpus. CIDEr's document
        frequencies stay those of all texts."""
        if name.startswith("bleu_"):
            n = int(name.removeprefix("bleu_"))
            return lambda index: 100 * bleu_of(self.counts[index].sum(0).tolist())[n - 1]
        return lambda index: float(self.columns[name][index].mean())

    def rows(self) -> list[dict[str, float]]:
        """For each text its scores by metric."""
        columns = {name: column.tolist() for name, column in self.columns.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def score_each(
    predictions: Sequence[Prediction],
    metrics: Sequence[str] = (),
    tokenizer: WordTokenizer | None = None,
) -> list[dict[str, float]]:
    """The scores of each prediction, times 100: a row by metric for each, in their order.

    METEOR and SPICE have no scores of single texts. The mean of BLEU over texts is not the BLEU of
    the corpus; the mean of any other metric is its score of the corpus.

    Args:
        metrics, tokenizer: as in `score`.

    Raises:
        GITError: as in `score`.
    """
    rows: list[dict[str, float]] = [{} for _ in predictions]
    for task in tasks_of(predictions, metrics):
        index = [number for number, item in enumerate(predictions) if item.task == task]
        scores = text_scores([predictions[number] for number in index], metrics, tokenizer)
        for number, row in zip(index, scores.rows(), strict=True):
            rows[number] = row
    return rows


def text_scores(
    predictions: Sequence[Prediction],
    metrics: Sequence[str] = (),
    tokenizer: WordTokenizer | None = None,
) -> TextScores:
    """The scores of each prediction of one task; arguments and errors as in `score_each`."""
    task = predictions[0].task
    names = metric_names(task, predictions, metrics)
    columns = {
        name: [float(PREDICTION_METRICS[name](item)) for item in predictions]
        for name in names
        if name in PREDICTION_METRICS
    }
    counts: list[list[int]] = []
    if {"bleu", *TEXT_METRICS} & set(names):
        words = words_of(predictions, tokenizer or best_tokenizer())
        counts = bleu_counts(*words) if "bleu" in names else []
        bleus = zip(*map(bleu_of, counts), strict=True)
        columns |= {f"bleu_{n}": list(values) for n, values in enumerate(bleus, start=1)}
        columns |= {name: TEXT_METRICS[name](*words) for name in names if name in TEXT_METRICS}
    arrays = {name: 100 * np.array(values) for name, values in columns.items()}
    return TextScores(arrays, np.array(counts))
