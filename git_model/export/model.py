"""An exported model that replaces a `GIT`."""

from pathlib import Path
from typing import Never

import torch
from torch import Tensor

from git_model.config import GITConfig, Style
from git_model.export.engines import Engine, open_engine
from git_model.export.folder import ExportInfo, read_info
from git_model.export.graphs import image_size
from git_model.generation.padded_session import PaddedSession
from git_model.model.git import GIT, META_KINDS, Scene, wrong_pixels
from git_model.utils.errors import GITError


class ExportedGIT(GIT):
    """A GIT whose weights are in another engine: it encodes images and opens sessions.

    Its own parameters have shapes but no values, so it cannot be trained or converted, and its
    layers cannot be inspected.
    """

    def __init__(self, config: GITConfig, info: ExportInfo, engine: Engine) -> None:
        # A user's own code that builds an encoder may need values: it gets them, and they go.
        with torch.device("meta" if config.encoder.kind in META_KINDS else "cpu"):
            super().__init__(config)
        super()._apply(lambda tensor: tensor.to("meta"))
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
        return Scene(self.engine.see(pixels))

    def session(self, scene: Scene | None) -> PaddedSession:
        """Texts in progress about the images of a scene."""
        if scene is None:
            raise GITError("an exported model takes no text without an image: use its source")
        return PaddedSession(self.engine.step, scene, self.decoder.check_length)

    def forward(self, *_: object, **__: object) -> Never:
        """Refuse: an exported model has no logits of whole texts."""
        raise self._refusal("compute the logits of whole texts")

    def tensors(self) -> Never:
        """Refuse: the weights are in the engine's files."""
        raise self._refusal("give its weights to be converted or trained")

    def load_state_dict(self, *_: object, **__: object) -> Never:
        """Refuse: the weights are in the engine's files."""
        raise self._refusal("take other weights")

    def _apply(self, *_: object, **__: object) -> Never:
        """Refuse what `to`, `half`, `cuda` and their like do: the engine keeps its device and its
        number format."""
        raise self._refusal("move or change its number format")

    def _refusal(self, task: str) -> GITError:
        return GITError(f"an exported model cannot {task}: use its source, {self.info.source}")

    def _require_shape(self, pixels: Tensor) -> None:
        frames, size = self.config.frames, image_size(self.config)
        if pixels.ndim not in (4, 5) or pixels.shape[-3] != 3:
            raise wrong_pixels(pixels)
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
    return ExportedGIT(config, info, open_engine(folder, info, config, device))
