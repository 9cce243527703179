"""Sessions: R texts in progress. The searches use two methods of them, `step` and `select`."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from git_model.config import DecodingOptions
from git_model.model.attention import KeyValue, KVCache, Slots
from git_model.model.git import GIT, Scene
from git_model.utils.errors import GITError


class TextSession(Protocol):
    """R texts in progress. Searches use nothing else of a model, so they can be tested on
    hand-written toy models, and can run on a model outside PyTorch."""

    def step(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Append tokens (R, T) and return the logits (R, V) of the next token. The mask (R, T) is
        False for padding; only the first step may have one."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken twice."""


class Prompts(NamedTuple):
    """P prompts, as lists and as the tensor of a session's first step."""

    rows: Sequence[Sequence[int]]
    tokens: Tensor  # (P, T), all ending in the last column
    token_mask: Tensor | None  # (P, T), False for padding; None where there is none
    limits: Sequence[int] = ()  # maximum number of new tokens of each; empty: the options' limit

    def max_new_tokens(self, options: DecodingOptions) -> list[int]:
        """The maximum number of new tokens of each prompt."""
        limits = self.limits or [options.max_new_tokens] * len(self.rows)
        return [
            options.max_tokens_after(prompt, limit)
            for prompt, limit in zip(self.rows, limits, strict=True)
        ]


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device | None = None
) -> Prompts:
    """Prompts of different length as one tensor, so that all of them end in the last column."""
    length = max(map(len, prompts))
    rows = [[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    tokens = torch.tensor(rows, device=device)
    if all(len(prompt) == length for prompt in prompts):
        return Prompts(prompts, tokens, None)
    starts = torch.tensor([[length - len(prompt)] for prompt in prompts], device=device)
    return Prompts(prompts, tokens, torch.arange(length, device=device) >= starts)


def slots_of(image_of: Sequence[int], at_least: int = 1) -> tuple[list[int], int]:
    """The slot of each row in a batch with equally many slots per image, and that number of slots.

    Args:
        image_of: the image of each row.
        at_least: this number of slots per image, if more than half of them are needed.

    >>> slots_of([0, 1, 1])
    ([0, 2, 3], 2)
    """
    n_slots = max(Counter(image_of).values())
    if n_slots <= at_least < 2 * n_slots:
        n_slots = at_least
    n_used: Counter[int] = Counter()
    slots = []
    for image in image_of:
        slots.append(image * n_slots + n_used[image])
        n_used[image] += 1
    return slots, n_slots


@runtime_checkable
class OpensSessions(Protocol):
    """A model with sessions of its own: one that runs outside PyTorch."""

    def session(self, scene: Scene | None) -> TextSession:
        """Texts in progress about the images of a scene."""


def open_session(model: GIT, scene: Scene | None) -> TextSession:
    """A session on a model: the model's own kind of session if it has one, else a `Session`."""
    return model.session(scene) if isinstance(model, OpensSessions) else Session(model, scene)


class Session:
    """Texts in progress on a model.

    Args:
        scene: the image prefix, or None; its images get equally many consecutive rows.
    """

    def __init__(self, model: GIT, scene: Scene | None) -> None:
        self._model = model
        self._scene = scene
        self._image: tuple[KeyValue, ...] = ()
        self._image_of: list[int] = []  # the image of each row
        self._cache = KVCache(len(model.decoder.blocks))
        self._token_mask: Tensor | None = None
        self._lengths: list[int] = []  # of each row's text, without padding

    def step(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Append tokens (R, T) and return the logits (R, V) of the token after the last of them.

        Args:
            token_mask: (R, T), False for padding; for the first step only.

        Raises:
            GITError: the text is longer than the model's positions, or a later step has a mask.
        """
        n_rows, length = tokens.shape
        if self._cache.length == 0:
            self._start(n_rows, token_mask)
        elif token_mask is not None:
            raise GITError("a token mask came after the first step, expected it at the first")
        elif self._token_mask is not None:
            self._token_mask = F.pad(self._token_mask, (0, length), value=True)
        self._lengths = [n_tokens + length for n_tokens in self._lengths]
        self._model.decoder.check_length(max(self._lengths))
        hidden = self._model.decoder(tokens, self._image, self._cache, self._token_mask)
        return self._model.decoder.lm_head(hidden[:, -1])

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken twice. Other rows are no longer
        computed, and an image without a row is dropped."""
        if list(rows) == list(range(len(self._lengths))):
            return
        index = torch.tensor(rows, device=self._model.device)
        self._lengths = [self._lengths[row] for row in rows]
        self._cache.select(index)
        if self._token_mask is not None:
            self._token_mask = self._token_mask[index]
        if self._scene is not None:
            self._scene, self._image_of = self._select_images(self._scene, rows)
            self._image = self._with_slots(self._scene)

    def _start(self, n_rows: int, token_mask: Tensor | None) -> None:
        self._token_mask, self._lengths = token_mask, [0] * n_rows
        if token_mask is not None:  # padding takes no position
            self._lengths = token_mask.logical_not().sum(1).neg().tolist()
        if self._scene is not None:
            self._image = self._scene.layers_for(n_rows)
            rows_per_image = n_rows // len(self._scene)
            self._image_of = [row // rows_per_image for row in range(n_rows)]

    def _select_images(self, scene: Scene, rows: Sequence[int]) -> tuple[Scene, list[int]]:
        """The images that these rows still need, and the image of each row among them."""
        image_of = [self._image_of[row] for row in rows]
        kept = sorted(set(image_of))
        if len(kept) == len(scene):
            return scene, image_of
        return scene.select(kept), [kept.index(image) for image in image_of]

    def _with_slots(self, scene: Scene) -> tuple[KeyValue, ...]:
        """The image prefix, with the slot of each row where the images' rows differ in number."""
        index, n_slots = slots_of(self._image_of)
        if index == list(range(n_slots * len(scene))):
            return scene.layers
        slots = Slots(torch.tensor(index, device=self._model.device), n_slots * len(scene))
        return tuple(layer._replace(slots=slots) for layer in scene.layers)
