"""Can a model name a colour and a shape that training never shows together?

The world has 9 colours and 5 shapes. Some of the 45 pairs are held out; training still shows each
colour and each shape. Linear probes on the image tokens tell where a failure lies: whether the
encoder no longer tells colour and shape, or the decoder does not name what the encoder tells.
"""

from collections.abc import Sequence
from functools import cache
from random import Random

import torch
from lab import measure
from torch import Tensor, nn
from torch.nn import functional as F

from git_model import Captioner
from git_model.data.example import Annotation, Example, Source
from git_model.preprocessing.image import preprocess_batch
from git_model.shapes.texts import describe
from git_model.shapes.world import (
    APPEARANCES,
    BACKGROUNDS,
    COLOURS,
    OUTLINES,
    Appearance,
    World,
    draw,
    pick,
    pick_several,
    random_thing,
)
from git_model.training.recipe import Recipe

N_TEST = 500
N_PROBE = 1000  # images that a probe is fitted on
PROBE_STEPS = 100  # of L-BFGS


def held_out_pairs(n: int) -> list[Appearance]:
    """n pairs, at most 36 of 45: the first ones of a fixed order in which each next pair is of the
    next colour and another shape, so that each colour keeps a shape, and each shape a colour."""
    colours, shapes = list(COLOURS), list(OUTLINES)
    order = [(colours[i % 9], shapes[(i % 9 + i // 9) % 5]) for i in range(36)]
    return order[:n]


class Scenes:
    """Images of one thing or two of certain appearances, with their captions: a `Source`."""

    def __init__(self, kinds: Sequence[Appearance], size: int, seed: int, max_things: int) -> None:
        self.kinds = kinds
        self._size, self._seed, self._max_things = size, seed, max_things

    def __len__(self) -> int:
        return self._size

    def world(self, index: int) -> World:
        """The world of an example."""
        rng = Random(f"{self._seed} {index}")
        n = pick(rng, range(1, self._max_things + 1))
        cells = sorted(pick_several(rng, range(9), n))
        kinds = pick_several(rng, self.kinds, n)
        things = tuple(
            random_thing(rng, kind, cell) for kind, cell in zip(kinds, cells, strict=True)
        )
        return World(things=things, background=pick(rng, BACKGROUNDS))

    def __getitem__(self, index: int) -> Example:
        world = self.world(index)
        return Example(str(index), draw(world), (Annotation((describe(world),)),))


class Composition:
    """The data and the scores of an arm that holds out n pairs."""

    def __init__(self, n_held_out: int) -> None:
        self.new = held_out_pairs(n_held_out)
        self.old = [kind for kind in APPEARANCES if kind not in self.new]

    def data(self, recipe: Recipe) -> tuple[Source, Source]:
        """Training scenes of the other pairs, and held-out scenes of the new ones."""
        n_train = recipe.steps * recipe.loader.batch_size
        return _training_scenes(tuple(self.old), n_train), Scenes(self.new, N_TEST, 1, 1)


@cache
def _training_scenes(kinds: tuple[Appearance, ...], size: int) -> Scenes:
    """The same object for all runs, so that they share its samples."""
    return Scenes(kinds, size, 0, 1)


def scores(captioner: Captioner, source: Source) -> dict[str, float]:
    """The scores on new pairs, and on new images of old pairs; and how often linear probes, fitted
    on old pairs, tell the colour and the shape of new ones, in per cent."""
    assert isinstance(source, Scenes)
    old = [kind for kind in APPEARANCES if kind not in source.kinds]
    familiar = Scenes(old, N_TEST, 2, 1)
    probe = Scenes(old, N_PROBE, 3, 1)
    result = measure(captioner, source)
    result["exact, old pairs"] = measure(captioner, familiar)["exact"]
    for name, names in (("colour", list(COLOURS)), ("shape", list(OUTLINES))):
        features, labels = _features(captioner, probe, name, names)
        classifier = fit_probe(features, labels, len(names))
        features, labels = _features(captioner, source, name, names)
        right = classifier(features).argmax(-1) == labels
        result[f"probe, {name}"] = 100 * right.double().mean().item()
    return result


@torch.no_grad()
def _features(
    captioner: Captioner, scenes: Scenes, attribute: str, names: list[str]
) -> tuple[Tensor, Tensor]:
    """The mean projected image token (N, D) of each scene, and the number of its thing's name."""
    model = captioner.model
    images = [scenes[index].media for index in range(len(scenes))]
    parts = []
    for first in range(0, len(images), 100):
        pixels = preprocess_batch(images[first : first + 100], model.config.preprocess)
        parts.append(model.projector(model.encode(pixels)).mean(1))
    things = [scenes.world(index).things[0] for index in range(len(scenes))]
    labels = torch.tensor([names.index(getattr(thing, attribute)) for thing in things])
    return torch.cat(parts), labels


@torch.enable_grad()
def fit_probe(features: Tensor, labels: Tensor, n_classes: int) -> nn.Linear:
    """A linear classifier by logistic regression, with a little weight decay."""
    probe = nn.Linear(features.shape[1], n_classes)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=PROBE_STEPS)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(probe(features), labels) + 1e-4 * probe.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return probe
