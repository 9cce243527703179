"""Run a model on a data set: predictions for every image, which scores.py can score.

An image is encoded once for all its questions. Images of one shape form a batch.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch

from git_model.captioner import BatchScene, Captioner, warning_line
from git_model.config import DecodingOptions
from git_model.data.example import (
    Annotation,
    BrokenExamples,
    Example,
    OpenExample,
    Source,
    Stream,
)
from git_model.evaluation.predictions import Prediction
from git_model.model.git import GIT
from git_model.preprocessing.inputs import Frames, LoadedImage
from git_model.utils.errors import GITError
from git_model.utils.progress import ProgressBar

N_TOP = 5  # labels that a prediction keeps

# From a scene and the example of each of its images to the predictions for each image.
Predictor = Callable[[BatchScene, Sequence[Example]], list[list[Prediction]]]


@dataclass(frozen=True)
class _LoadedExample:
    """An example, its position in the source, and its image."""

    position: int
    example: Example
    image: LoadedImage


def predict(
    captioner: Captioner,
    source: Source | Stream,
    predictor: Predictor,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    broken: BrokenExamples | None = None,
    progress: bool = False,
) -> list[Prediction]:
    """A model's predictions for a data set, in its order.

    Args:
        predictor: `text_predictor(captioner)` or `label_predictor(captioner, labels)`.
        limit: use this many of the first examples.
        batch_size: images of one shape that are encoded together.
        broken: collects the examples that cannot be used and are left out; by default the first
            such example is an error.
        progress: draw a bar on stderr, if it is a terminal.

    Raises:
        GITError: too many examples are broken, or there is none.

    Warns:
        UserWarning: see `Captioner.image_warning`.
    """
    broken = broken or BrokenExamples(limit=0)
    predictions: dict[int, list[Prediction]] = {}
    total = None if isinstance(source, Stream) else min(len(source), limit or len(source))
    image_warnings: dict[int, str | None] = {}
    bar = ProgressBar(total=total, unit="image", disable=None if progress else True)
    with bar, evaluation_mode(captioner.model):
        examples = islice(open_examples(source), limit)
        for group in _groups(captioner, examples, batch_size, broken):
            scene = captioner.see_batch([item.image for item in group])
            rows = predictor(scene, [item.example for item in group])
            predictions |= {item.position: row for item, row in zip(group, rows, strict=True)}
            image_warnings |= {item.position: captioner.image_warning(item.image) for item in group}
            bar.update(len(group))
    if (line := warning_line(image_warnings[n] for n in sorted(image_warnings))) is not None:
        warnings.warn(line, stacklevel=2)
    if not predictions:
        raise GITError("there is no example that can be used, expected at least one")
    return [prediction for position in sorted(predictions) for prediction in predictions[position]]


def text_predictor(captioner: Captioner, options: DecodingOptions | None = None) -> Predictor:
    """A predictor that generates captions, answers to questions, or both, as an example's
    annotations require.

    Args:
        options: by default those of the checkpoint.
    """

    def predict_texts(scene: BatchScene, examples: Sequence[Example]) -> list[list[Prediction]]:
        questions = [[note.question for note in example.annotations] for example in examples]
        texts = captioner.generate(scene, questions, options)
        return [
            [
                _prediction(example, annotation, best.text, best.logprob)
                for annotation, (best, *_) in zip(example.annotations, row, strict=True)
            ]
            for example, row in zip(examples, texts, strict=True)
        ]

    return predict_texts


def label_predictor(captioner: Captioner, labels: Sequence[str], template: str = "{}") -> Predictor:
    """A predictor that scores all labels for each annotation and keeps the most probable ones.

    Args:
        template: the text that is made of a label.
    """

    def predict_labels(scene: BatchScene, examples: Sequence[Example]) -> list[list[Prediction]]:
        predictions: list[list[Prediction]] = [[] for _ in examples]
        notes = [(note, image) for image, item in enumerate(examples) for note in item.annotations]
        for question in dict.fromkeys(note.question for note, _ in notes):
            group = [(note, image) for note, image in notes if note.question == question]
            part = scene.select([image for _, image in group])
            rankings = captioner.classify(part, list(labels), template=template, question=question)
            for (note, image), row in zip(group, rankings, strict=True):
                top = tuple(label.label for label in row[:N_TOP])
                predictions[image].append(
                    _prediction(examples[image], note, top[0], row[0].logprob, top)
                )
        return predictions

    return predict_labels


def open_examples(source: Source | Stream) -> Iterator[OpenExample]:
    """All examples in order, as functions that open an example when they are called."""
    if isinstance(source, Stream):
        return source.stream(epoch=0, seed=0, reader=0, n_readers=1)
    return (partial(source.__getitem__, index) for index in range(len(source)))


def _groups(
    captioner: Captioner,
    examples: Iterable[OpenExample],
    batch_size: int,
    broken: BrokenExamples,
) -> Iterator[list[_LoadedExample]]:
    """Examples whose pixels have one shape, `batch_size` of them; at the end the rest."""
    groups: dict[torch.Size, list[_LoadedExample]] = {}
    for position, open_example in enumerate(examples):
        try:
            item = _load(captioner, position, open_example())
        except GITError as error:
            broken.add(str(error))
            continue
        shape = item.image.pixels.shape
        groups.setdefault(shape, []).append(item)
        if len(groups[shape]) == batch_size:
            yield groups.pop(shape)
    yield from groups.values()


def _load(captioner: Captioner, position: int, example: Example) -> _LoadedExample:
    """An example with its image; every question is checked first."""
    try:
        for annotation in example.annotations:
            captioner.prompt(annotation.question)
        media = example.media
        image = captioner.load(Frames(media) if isinstance(media, list) else media)
        return _LoadedExample(position, example, image)
    except GITError as error:
        raise GITError(f"{example.key}: {error}") from None


def _prediction(
    example: Example,
    annotation: Annotation,
    text: str,
    logprob: float,
    top: tuple[str, ...] = (),
) -> Prediction:
    return Prediction(
        key=example.key,
        text=text,
        question=annotation.question,
        question_key=annotation.key,
        logprob=logprob,
        top=top,
        answers=annotation.texts,
    )


@contextmanager
def evaluation_mode(model: GIT) -> Iterator[None]:
    """Set evaluation mode, without dropout; restore the mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
