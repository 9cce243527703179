"""The tokens of a frozen encoder, computed once for each image or clip and kept in a file.

If the encoder is frozen and no augmentation changes an image, its tokens are the same in every
epoch. The temporal embeddings, which may be trained, are added later. Each image is encoded alone,
so its tokens do not depend on the other images of its first batch, and a resumed run has the same
bits.
"""

import shutil
import zlib
from math import prod
from pathlib import Path
from struct import Struct
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from git_model.data.collation import Batch
from git_model.evaluation.run import evaluation_mode
from git_model.model.git import GIT
from git_model.utils.errors import GITError

FEATURES = "features"  # a folder in that of the run
HEADER = Struct("<II")  # the number of frames, and the checksum


class FeatureCache:
    """The encoder's tokens of each example, in float32: a record for each index.

    A record is the number of frames, 0 for a still image; a checksum; and the tokens (I, D) of the
    image or of each frame. Every record takes the place of the longest clip that the model accepts;
    what it leaves is a hole in the file, which takes no space on the disk. A record that was never
    written, or only in part, fails its checksum and is computed again.

    Args:
        folder: made when the first tokens are written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokens.bin"
        self._file: BinaryIO | None = None
        self._shape: torch.Size | None = None  # (I, D)

    @torch.no_grad()
    def with_features(self, model: GIT, batch: Batch) -> Batch:
        """The batch with the `frame_tokens` of its images or clips, on the batch's device.

        Raises:
            GITError: the batch has images of another size, or the file cannot be written.
        """
        if len(batch.indices) != len(batch.pixels):
            return batch  # of a process that has fewer batches than another
        pairs = zip(batch.indices, batch.pixels, strict=True)
        rows = [self._tokens(model, index, pixels) for index, pixels in pairs]
        features = torch.stack(rows).to(batch.pixels.device)
        return Batch(batch.pixels, batch.tokens, batch.mask, batch.indices, features)

    def _tokens(self, model: GIT, index: int, pixels: Tensor) -> Tensor:
        slots = max(1, model.config.frames)
        stored = self._read(index, slots)
        if stored is None:
            with evaluation_mode(model):
                stored = model.frame_tokens(pixels[None])[0].float().cpu()
            self._write(index, stored, slots)
        return stored

    def _read(self, index: int, slots: int) -> Tensor | None:
        if self._shape is None:
            return None
        file = self._at(index, slots, self._shape)
        header = file.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        n_frames, checksum = HEADER.unpack(header)
        if n_frames > slots:
            return None
        shape = (n_frames, *self._shape) if n_frames else self._shape
        data = file.read(4 * prod(shape))
        if len(data) < 4 * prod(shape) or zlib.crc32(data) != checksum:
            return None
        return torch.from_numpy(np.frombuffer(data, np.float32).copy()).view(shape)

    def _write(self, index: int, tokens: Tensor, slots: int) -> None:
        shape = tokens.shape[-2:]
        if self._shape is None:
            self._shape = shape
        if shape != self._shape:
            raise GITError(
                f"cache_features: example {index} has {tuple(shape)} image tokens, expected "
                f"{tuple(self._shape)} as others: leave cache_features out for images of many sizes"
            )
        data = tokens.contiguous().numpy().tobytes()
        n_frames = len(tokens) if tokens.ndim == 3 else 0
        try:
            file = self._at(index, slots, shape)
            file.write(HEADER.pack(n_frames, zlib.crc32(data)) + data)
            file.flush()
        except OSError as error:
            raise GITError(f"{self._path}: cannot be written: {error.strerror}") from None

    def _at(self, index: int, slots: int, shape: torch.Size) -> BinaryIO:
        """The file, at the beginning of a record."""
        file = self._opened()
        file.seek(index * (HEADER.size + 4 * slots * prod(shape)))
        return file

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._path.parent.mkdir(exist_ok=True)
            self._path.touch()
            self._file = self._path.open("r+b")
        return self._file

    def close(self, *, remove: bool) -> None:
        """Close the file.

        Args:
            remove: delete the folder, too.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        if remove:
            shutil.rmtree(self._path.parent, ignore_errors=True)


def require_cachable(model: GIT) -> None:
    """Refuse a model whose encoder does not give the same tokens each time.

    Raises:
        GITError: it has dropout in the encoder, or accepts clips of any length.
    """
    if model.interpolate_frames:
        raise GITError("cache_features needs clips of a bounded length: no interpolate_frames")
    rates = [
        getattr(module, name, 0.0)
        for module in model.encoder.modules()
        for name in ("p", "dropout")
    ]
    if any(isinstance(rate, float) and rate > 0 for rate in rates):
        raise GITError("cache_features is for encoders without dropout, expected dropout 0")
