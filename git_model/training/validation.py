"""The scores of a checkpoint on the validation data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch

from git_model.captioner import Captioner
from git_model.data.collation import Batch, Collator
from git_model.data.example import Annotation, BrokenExamples, Source, Stream
from git_model.evaluation.predictions import Prediction
from git_model.evaluation.run import evaluation_mode, open_examples, predict, text_predictor
from git_model.evaluation.scores import PYTHON, score
from git_model.evaluation.vqa import MIN_ANSWERS
from git_model.training.loss import batch_loss
from git_model.training.own_source import require_example
from git_model.training.recipe import Recipe
from git_model.training.selection import LOSS
from git_model.utils.errors import ConfigError, GITError

BATCH_SIZE = 32  # images that are encoded together


@dataclass(frozen=True)
class Validation:
    """The result of a check: the model's texts, and its mean loss per token (None: no
    reference)."""

    predictions: list[Prediction]
    loss: float | None

    def scores(self, metric: str | None = None) -> dict[str, float]:
        """By name: `check_scores`, and the loss."""
        scores = check_scores(self.predictions, metric)
        return scores if self.loss is None else scores | {LOSS: self.loss}


def validate(
    folder: Path, source: Source | Stream, recipe: Recipe, device: torch.device
) -> Validation:
    """A checkpoint's texts for the first examples of the validation data, and its loss there."""
    base, adapter = (folder, None) if recipe.adapter is None else (str(recipe.checkpoint), folder)
    captioner = Captioner.from_pretrained(base, adapter=adapter, device=device)
    broken = BrokenExamples(recipe.loader.broken_limit)
    limit = recipe.reports.check_examples
    predictions = predict(
        captioner,
        source,
        text_predictor(captioner),
        limit=limit,
        batch_size=BATCH_SIZE,
        broken=broken,
    )
    return Validation(predictions, validation_loss(captioner, source, recipe))


def validation_loss(captioner: Captioner, source: Source | Stream, recipe: Recipe) -> float | None:
    """The mean cross-entropy per token, without label smoothing, of the first examples; None if
    none has a reference."""
    model, total, n_tokens = captioner.model, 0.0, 0
    with torch.inference_mode(), evaluation_mode(model):
        for batch in _batches(captioner, source, recipe):
            total += batch_loss(model, batch.to(model.device)).item()
            n_tokens += batch.n_predicted
    return total / n_tokens if n_tokens else None


def _batches(captioner: Captioner, source: Source | Stream, recipe: Recipe) -> Iterator[Batch]:
    """The first examples as batches, without augmentation. Examples that cannot be used are left
    out, as in training."""
    collator = Collator(
        tokenizer=captioner.tokenizer,
        config=captioner.model.config,
        max_tokens=recipe.loader.max_tokens,
    )
    examples = enumerate(islice(open_examples(source), recipe.reports.check_examples))
    while chunk := list(islice(examples, BATCH_SIZE)):
        samples = []
        for index, open_example in chunk:
            try:
                rng = Random(index)  # noqa: S311  (draws an answer)
                samples.append(collator.sample(open_example(), rng))
            except GITError:
                continue  # `predict` counts those that are broken
        yield from collator.batches(samples)


def check_scores(predictions: Sequence[Prediction], metric: str | None = None) -> dict[str, float]:
    """Exact match, and CIDEr-D if captions have several references; times 100.

    Args:
        metric: one more metric to compute, such as "captions bleu_4".
    """
    several = any(item.task == "captions" and len(item.answers) > 1 for item in predictions)
    names = ["exact", *(["cider_d"] if several else [])]
    _, _, extra = (metric or "").partition(" ")
    if metric not in (None, LOSS) and extra not in names:
        names.append("bleu" if extra.startswith("bleu") else extra)
    scores = score(predictions, names, PYTHON)
    return {
        f"{task} {name}": value
        for task, values in scores.items()
        for name, value in values.items()
        if name != "count"
    }


def require_validation(recipe: Recipe, source: Source | Stream) -> None:
    """Refuse, before training, validation data that would end the run at its first check, and a
    metric that the data do not allow. Opens the examples of a check.

    Raises:
        GITError: more than `broken_limit` examples are broken, none has an annotation, or an
            annotation has no reference; or the data do not fit the metric, and the message says
            what they hold.
    """
    notes = _annotations(source, recipe)
    if not notes:
        raise ConfigError(
            "validation: no example has a caption or a question, expected at least one"
        )
    if recipe.selection.metric is not None:
        _require_metric(recipe.selection.metric, notes)


def _require_metric(metric: str, notes: Sequence[Annotation]) -> None:
    captions = any(note.question is None for note in notes)
    questions = [note for note in notes if note.question is not None]
    several = all(len(note.texts) >= MIN_ANSWERS for note in questions)
    task = metric.partition(" ")[0]
    possible = {"captions": captions, "questions": bool(questions)}.get(task, True)
    if possible and (metric != "questions vqa" or several):
        return
    content = [
        *(["captions"] if captions else []),
        *(["questions with fewer than 4 answers" if not several else "questions"]
          if questions else []),
    ]  # fmt: skip
    raise ConfigError(
        f"selection: metric is {metric!r}, but the validation data has {' and '.join(content)}"
    )


def _annotations(source: Source | Stream, recipe: Recipe) -> list[Annotation]:
    """Those of the first examples; each has a reference. Broken examples are left out."""
    broken = BrokenExamples(recipe.loader.broken_limit)
    notes: list[Annotation] = []
    for open_example in islice(open_examples(source), recipe.reports.check_examples):
        try:
            example = open_example()
        except GITError as error:
            broken.add(str(error))
            continue
        for note in require_example(example, "validation: an example").annotations:
            if not note.texts:
                text = "caption" if note.question is None else f"answer to {note.question!r}"
                raise ConfigError(
                    f"validation: {example.key} has no {text}, expected at least one, with which "
                    "the model's text is compared: add it, or leave the example out"
                )
        notes += example.annotations
    return notes
