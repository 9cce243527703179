"""Objects of a user's, which recipes of tests name."""

import torch
from torch import Tensor

from git_model.data.collation import Batch
from git_model.data.example import Example
from git_model.model.git import GIT
from git_model.shapes.source import ShapesData
from git_model.training.loss import LossOutput, batch_loss


class Source:
    """Some shapes."""

    def __init__(self, size: int = 16) -> None:
        self._source = ShapesData(tasks=("captions",), size=size).open()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return self._source[index]


def scaled(model: GIT, batch: Batch, scale: float = 2.0) -> Tensor:
    """Cross-entropy, and a little noise that follows from torch's random numbers."""
    return batch_loss(model, batch) * (scale + torch.rand(()))


def squared(model: GIT, batch: Batch, scale: float = 1.0) -> Tensor:
    """A loss that is no cross-entropy."""
    return scale * model.see(batch.pixels).layers[0].key.square().sum()


class PerImage:
    """A loss with a unit of its own."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def units(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch.pixels)

    def __call__(self, model: GIT, batch: Batch) -> LossOutput:
        """`squared`, and the number of images."""
        total = squared(model, batch, self.scale)
        return LossOutput(total, {"images": torch.tensor(float(len(batch.pixels)))})


def no_source() -> int:
    """What is no source."""
    return 3
