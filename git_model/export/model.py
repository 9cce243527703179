"""An exported model that replaces a `GIT`, and its session for the searches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Never

import torch
from torch import Tensor

from git_model.config import GITConfig, Style
from git_model.export.engines import Engine, open_engine
from git_model.export.folder import ExportInfo, read_info
from git_model.export.graphs import SEE, SEE_CLIP, STEP, image_size, stacked, unstacked
from git_model.generation.session import slots_of
from git_model.model.git import GIT, Scene
from git_model.utils.errors import GITError


class ExportedGIT(GIT):
    """A GIT whose weights are in another engine: it encodes images and opens sessions.

    Its own parameters have shapes but no values, so it cannot be trained or converted, and its
    layers cannot be inspected.
    """

    def __init__(self, config: GITConfig, info: ExportInfo, engine: Engine) -> None:
        with torch.device("meta"):
            super().__init__(config)
        self.info = info
        self.engine = engine
        self.requires_grad_(requires_grad=False).eval()

    def initialize(self) -> None:
        """Draw nothing: the engine has the weights."""

    @property
    def device(self) -> torch.device:
        """Where its inputs and outputs are."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its inputs and outputs."""
        return torch.float32

    def see(self, pixels: Tensor) -> Scene:
        """As `GIT.see`; images of another size than the graph's are refused."""
        self._require_shape(pixels)
        return unstacked(self.engine.see(pixels))

    def session(self, scene: Scene | None) -> "ExportedSession":
        """Texts in progress about the images of a scene."""
        return ExportedSession(self, scene)

    def forward(self, *_: object, **__: object) -> Never:
        """Refuse: an exported model has no logits of whole texts."""
        raise self._refusal("compute the logits of whole texts")

    def tensors(self) -> Never:
        """Refuse: the weights are in the engine's files."""
        raise self._refusal("give its weights to be converted or trained")

    def to(self, *_: object, **__: object) -> Never:
        """Refuse: the engine keeps its device and its number format."""
        raise self._refusal("move or change its number format")

    def _refusal(self, task: str) -> GITError:
        return GITError(f"an exported model cannot {task}: use its source, {self.info.source}")

    def _require_shape(self, pixels: Tensor) -> None:
        frames, size = self.config.frames, image_size(self.config)
        if pixels.ndim == 5 and not 1 <= pixels.shape[1] <= frames:
            raise GITError(
                f"a clip of {pixels.shape[1]} frames, but this model has {frames} temporal "
                "embeddings: sample fewer frames, or use a video checkpoint"
            )
        if size is not None and tuple(pixels.shape[-2:]) != size:
            raise GITError(
                f"pixels are {pixels.shape[-2]} x {pixels.shape[-1]}, and this model was exported "
                f"for {size[0]} x {size[1]}"
            )


class ExportedSession:
    """Texts in progress on an exported model: a `TextSession`.

    A graph has equally many texts for each image, so an image with fewer rows left gets idle texts.
    """

    def __init__(self, model: ExportedGIT, scene: Scene | None) -> None:
        if scene is None:
            raise GITError("an exported model takes no text without an image: use its source")
        self._model = model
        self._image = stacked(scene)  # (L, 2, B, H, I, d)
        self._past = self._image[:, :, :, None, :, :0]  # (L, 2, B, N, H, S, d)
        self._mask = torch.zeros(0, 0, dtype=torch.bool)  # (B N, S)
        self._slots: list[int] = []  # of each row, among the B N texts of the graph
        self._lengths: list[int] = []  # of each row's text, without padding

    def step(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Append tokens (R, T) and return the logits (R, V) of the token after the last of them.

        Args:
            token_mask: (R, T), False for padding; for the first step only.

        Raises:
            GITError: the text is longer than the model's positions, or a later step has a mask.
        """
        if not self._slots:
            self._start(len(tokens))
        elif token_mask is not None:
            raise GITError("a token mask came after the first step, expected it at the first")
        mask = torch.ones_like(tokens, dtype=torch.bool) if token_mask is None else token_mask
        self._lengths = [
            n + new for n, new in zip(self._lengths, mask.sum(1).tolist(), strict=True)
        ]
        self._model.decoder.check_length(max(self._lengths))
        shape = self._past.shape[2:4]
        self._mask = torch.cat([self._mask, self._filled(mask)], dim=1)
        logits, self._past = self._model.engine.step(
            self._filled(tokens).unflatten(0, shape),
            self._mask.unflatten(0, shape),
            self._image,
            self._past,
        )
        return logits.flatten(0, 1)[self._slots]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken twice. An image without a row is
        dropped."""
        if list(rows) == list(range(len(self._slots))):
            return
        n_texts = self._past.shape[3]
        old_slots = [self._slots[row] for row in rows]
        images = sorted({slot // n_texts for slot in old_slots})
        image_of = [images.index(slot // n_texts) for slot in old_slots]
        self._slots, width = slots_of(image_of)
        source = [image * n_texts for image in images for _ in range(width)]  # idle: any text
        for slot, old_slot in zip(self._slots, old_slots, strict=True):
            source[slot] = old_slot
        self._lengths = [self._lengths[row] for row in rows]
        self._mask = self._mask[source]
        self._past = self._past.flatten(2, 3)[:, :, source].unflatten(2, (len(images), width))
        if len(images) < self._image.shape[2]:
            self._image = self._image[:, :, images]

    def _start(self, n_rows: int) -> None:
        n_images = self._image.shape[2]
        if n_rows % n_images:
            raise GITError(
                f"{n_rows} texts for {n_images} images: expected equally many texts for each image"
            )
        self._past = self._past.expand(-1, -1, -1, n_rows // n_images, -1, -1, -1)
        self._mask = torch.zeros(n_rows, 0, dtype=torch.bool)
        self._slots, self._lengths = list(range(n_rows)), [0] * n_rows

    def _filled(self, rows: Tensor) -> Tensor:
        """Values of the rows (R, T) for all texts of the graph. Idle texts get 0, or padding."""
        n_slots = len(self._mask)
        if self._slots == list(range(n_slots)):
            return rows
        return rows.new_zeros(n_slots, rows.shape[1]).index_copy(0, torch.tensor(self._slots), rows)


def open_exported(
    folder: Path, *, device: str = "cpu", style: Style | None = None, integrity: bool = False
) -> ExportedGIT:
    """The model in a folder that `git-model export` wrote.

    Args:
        device: the engine's name for it.
        style: the style that the model was exported with; another one is an error.
        integrity: compare every file with its digest first.

    Raises:
        GITError: the folder is incomplete, damaged or of another version; its engine or the device
            is missing; or the model was exported in another style.
    """
    info, config = read_info(folder, integrity=integrity)
    if style not in (None, config.style):
        raise GITError(
            f"{folder}: exported in style {config.style}: export the source with --style {style}"
        )
    graphs = (SEE, STEP, *((SEE_CLIP,) if config.frames else ()))
    return ExportedGIT(config, info, open_engine(folder, info, graphs, device))
