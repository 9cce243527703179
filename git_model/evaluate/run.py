"""A model on a data set: what it says about every picture, for `scores.py` to judge.

A picture is read once, whatever is asked about it. Pictures of one shape are read together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from git_model.captioner import Captioner
from git_model.config import DecodingOptions
from git_model.data import Example, Source, Target
from git_model.datasets.shards import Sealed, Stream
from git_model.evaluate.predictions import Prediction
from git_model.model import GIT, Scene
from git_model.settings import GITError

TOP = 5  # labels that a prediction keeps

# From a scene and the example behind each of its pictures to what is said about each.
Saying = Callable[[Scene, Sequence[Example]], list[list[Prediction]]]


@dataclass
class BrokenSamples:
    """Samples that cannot be used: counted, and too many of them refused."""

    limit: int
    errors: list[GITError] = field(default_factory=list)

    def add(self, error: GITError) -> None:
        """Count one.

        Raises:
            GITError: it is one too many.
        """
        self.errors.append(error)
        if len(self.errors) > self.limit:
            raise GITError(
                f"{len(self.errors)} broken samples, expected at most {self.limit}; the last: "
                f"{error}"
            )


@dataclass(frozen=True)
class _Looked:
    """An example, its place in the source, and its pixels: (3, H, W), or (F, 3, H, W)."""

    place: int
    example: Example
    pixels: Tensor


def predict(
    git: Captioner,
    source: Source | Stream,
    say: Saying,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    broken: BrokenSamples | None = None,
    progress: bool = False,
) -> list[Prediction]:
    """What a model says about a data set, in its order.

    Args:
        say: what it is to say: `writes(git)` or `ranks(git, labels)`.
        limit: only so many of the first examples.
        batch_size: pictures of one shape that are read together.
        broken: counts what cannot be used and is left out; by default that is an error.
        progress: draw a bar on stderr, if it is a terminal.

    Raises:
        GITError: too many examples are broken, or there is none.
    """
    broken = broken or BrokenSamples(limit=0)
    found: dict[int, list[Prediction]] = {}
    total = None if isinstance(source, Stream) else min(len(source), limit or len(source))
    bar = tqdm(total=total, unit="picture", disable=None if progress else True)
    with bar, _evaluating(git.model):
        for group in _groups(git, islice(_sealed(source), limit), batch_size, broken):
            scene = git.see_pixels(torch.stack([one.pixels for one in group]))
            said = say(scene, [one.example for one in group])
            found |= {one.place: row for one, row in zip(group, said, strict=True)}
            bar.update(len(group))
    if not found:
        raise GITError("there is no example that can be used, expected at least one")
    return [one for place in sorted(found) for one in found[place]]


def writes(git: Captioner, options: DecodingOptions | None = None) -> Saying:
    """Captions, and answers to questions, whichever an example has targets for.

    Args:
        options: by default those of the checkpoint.
    """

    def say(scene: Scene, examples: Sequence[Example]) -> list[list[Prediction]]:
        asked = [[target.question for target in example.targets] for example in examples]
        return [
            [
                _prediction(example, target, best.text, best.logprob)
                for target, (best, *_) in zip(example.targets, row, strict=True)
            ]
            for example, row in zip(examples, git.replies(scene, asked, options), strict=True)
        ]

    return say


def ranks(git: Captioner, labels: Sequence[str], template: str = "{}") -> Saying:
    """Which of the labels fits: for each target all of them are scored, the likeliest kept.

    Args:
        template: the text that a label makes.
    """

    def say(scene: Scene, examples: Sequence[Example]) -> list[list[Prediction]]:
        found: list[list[Prediction]] = [[] for _ in examples]
        asked = [(target, place) for place, one in enumerate(examples) for target in one.targets]
        for question in dict.fromkeys(target.question for target, _ in asked):
            some = [(target, place) for target, place in asked if target.question == question]
            part = scene.part([place for _, place in some])
            rows = git.labels(part, list(labels), template=template, question=question)
            for (target, place), row in zip(some, rows, strict=True):
                top = tuple(label.label for label in row[:TOP])
                found[place].append(
                    _prediction(examples[place], target, top[0], row[0].logprob, top)
                )
        return found

    return say


def _sealed(source: Source | Stream) -> Iterator[Sealed]:
    """All examples in order, each opened by calling it."""
    if isinstance(source, Stream):
        return source.stream(epoch=0, seed=0, reader=0, n_readers=1)
    return (partial(source.__getitem__, index) for index in range(len(source)))


def _groups(
    git: Captioner, examples: Iterable[Sealed], batch_size: int, broken: BrokenSamples
) -> Iterator[list[_Looked]]:
    """Examples whose pixels have one shape, `batch_size` of them; in the end what is left."""
    waiting: dict[torch.Size, list[_Looked]] = {}
    for place, sealed in enumerate(examples):
        try:
            looked = _look(git, place, sealed())
        except GITError as error:
            broken.add(error)
            continue
        shape = looked.pixels.shape
        waiting.setdefault(shape, []).append(looked)
        if len(waiting[shape]) == batch_size:
            yield waiting.pop(shape)
    yield from waiting.values()


def _look(git: Captioner, place: int, example: Example) -> _Looked:
    """One example, once it is known that all of it can be used."""
    try:
        for target in example.targets:
            git.prompt(target.question)
        return _Looked(place, example, git.look(example.view)[0])
    except GITError as error:
        raise GITError(f"{example.key}: {error}") from None


def _prediction(
    example: Example, target: Target, text: str, logprob: float, top: tuple[str, ...] = ()
) -> Prediction:
    return Prediction(
        key=example.key,
        text=text,
        question=target.question,
        question_key=target.key,
        logprob=logprob,
        top=top,
        answers=target.answers,
    )


@contextmanager
def _evaluating(model: GIT) -> Iterator[None]:
    """Without dropout; afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
