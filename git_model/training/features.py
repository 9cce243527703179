"""The tokens of a frozen encoder, computed once for each image and kept in a file.

If the encoder is frozen and no augmentation changes an image, its tokens are the same in every
epoch. Each image is encoded alone, so its tokens do not depend on the other images of its first
batch, and a resumed run has the same bits.
"""

import shutil
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from git_model.data.collation import Batch
from git_model.evaluation.run import evaluation_mode
from git_model.model.git import GIT
from git_model.utils.errors import GITError

FEATURES = "features"  # a folder in that of the run
N_CHECK = 4  # bytes of the checksum after each record


class FeatureCache:
    """The encoder's tokens (I, D) of each example, in float32: a record for each index.

    A record that was never written, or only in part, fails its checksum and is computed again.

    Args:
        folder: made when the first tokens are written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokens.bin"
        self._file: BinaryIO | None = None
        self._shape: torch.Size | None = None

    @torch.no_grad()
    def with_features(self, model: GIT, batch: Batch) -> Batch:
        """The batch with the encoder's tokens of its images, on the batch's device.

        Raises:
            GITError: the batch has clips or images of another size, or the file cannot be written.
        """
        if batch.pixels.ndim != 4 or len(batch.indices) != len(batch.pixels):
            return batch  # of a process that has fewer batches than another
        pairs = zip(batch.indices, batch.pixels, strict=True)
        rows = [self._tokens(model, index, pixels) for index, pixels in pairs]
        features = torch.stack(rows).to(batch.pixels.device)
        return Batch(batch.pixels, batch.tokens, batch.mask, batch.indices, features)

    def _tokens(self, model: GIT, index: int, pixels: Tensor) -> Tensor:
        stored = self._read(index)
        if stored is None:
            with evaluation_mode(model):
                stored = model.encode(pixels[None])[0].float().cpu()
            self._write(index, stored)
        return stored

    def _read(self, index: int) -> Tensor | None:
        if self._shape is None:
            return None
        n_bytes = 4 * self._shape.numel()
        self._opened().seek(index * (n_bytes + N_CHECK))
        record = self._opened().read(n_bytes + N_CHECK)
        if len(record) < n_bytes + N_CHECK or _checksum(record[:n_bytes]) != record[n_bytes:]:
            return None
        values = np.frombuffer(record, np.float32, self._shape.numel()).copy()
        return torch.from_numpy(values).view(self._shape)

    def _write(self, index: int, tokens: Tensor) -> None:
        if self._shape is None:
            self._shape = tokens.shape
        if tokens.shape != self._shape:
            raise GITError(
                f"cache_features: example {index} has {tuple(tokens.shape)} image tokens, expected "
                f"{tuple(self._shape)} as others: leave cache_features out for images of many sizes"
            )
        data = tokens.contiguous().numpy().tobytes()
        try:
            file = self._opened()
            file.seek(index * (len(data) + N_CHECK))
            file.write(data + _checksum(data))
            file.flush()
        except OSError as error:
            raise GITError(f"{self._path}: cannot be written: {error.strerror}") from None

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
        GITError: it has temporal embeddings, or dropout in the encoder.
    """
    if model.temporal_embedding is not None:
        raise GITError(
            "cache_features is for models without temporal embeddings: set frames = 0, or leave "
            "cache_features out"
        )
    rates = [
        getattr(module, name, 0.0)
        for module in model.encoder.modules()
        for name in ("p", "dropout")
    ]
    if any(isinstance(rate, float) and rate > 0 for rate in rates):
        raise GITError("cache_features is for encoders without dropout, expected dropout 0")


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(N_CHECK, "little")
