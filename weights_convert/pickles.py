"""Inspect a pickle of tensors before torch opens it: the names that it calls, and the sizes that it
claims.

`torch.load(weights_only=True)` calls nothing that could run code, but a small file can still make
it allocate a bytearray of 100 GB, unpack a compressed record of a thousand times its size, or hash
a tuple that holds an inner tuple twice, which again holds a tuple twice, and so on. A state dict
needs none of this.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from git_model.utils.serialize import MAX_FILE_BYTES
from weights_convert.rules import ConversionError

# The globals that a pickle of tensors, as torch writes it, may import: "module name".
ALLOWED_GLOBALS = re.compile(
    r"collections OrderedDict|_codecs encode|(__builtin__|builtins) set"
    r"|torch (\w+Storage|Size|device|b?float\w*|u?int\w*|bool|strided)"
    r"|torch\.storage UntypedStorage|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_(tensor(_v2)?|parameter)|torch\.nn\.parameter Parameter"
)
MARK = -1  # on a stack of sizes
MAX_TUPLE_SIZE = 1000  # values, those of nested tuples included
# In torch's older format (torch.serialization, `_legacy_save`) the file begins with five pickles:
# a magic number, a version, the machine, the tensors and their names; raw numbers follow.
N_LEGACY_PICKLES = 5


def inspect_pickles(path: Path) -> None:
    """Refuse a file, zip or of the older format, that is not what torch writes for tensors.

    Raises:
        ConversionError: the message says what the file holds instead.
        Exception: the file is damaged.
    """
    for pickle in _pickles(path):
        try:
            _inspect(pickle)
        except _NotPlainError as error:
            raise ConversionError(
                f"{path}: not a plain file of tensors, so it is not opened: {error}; save its "
                "state dict alone"
            ) from None


def require_sizes(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that claim more numbers than the file can hold, such as an expanded tensor
    that repeats one number a billion times, and tensors without numbers, as on the meta device.

    Raises:
        ConversionError: the message names the tensor.
    """
    size, claimed = path.stat().st_size, 0
    for name, tensor in tensors.items():
        if tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
            raise ConversionError(f"{path}: tensor {name} is not of plain numbers")
        claimed += tensor.numel() * tensor.element_size()
        if claimed > 2 * size:  # tied weights are stored once, and claimed twice
            raise ConversionError(
                f"{path}: up to {name} the tensors claim {claimed:,} bytes, expected at most twice "
                f"the file's {size:,}"
            )


class _NotPlainError(ValueError):
    """The pickle holds something that a state dict does not need."""


def _pickles(path: Path) -> Iterator[BinaryIO]:
    """The pickles in a file."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = io.BytesIO(file.read(MAX_FILE_BYTES))
        yield from [start] * N_LEGACY_PICKLES
        return
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:  # torch never compresses
                raise ConversionError(
                    f"{path}: {record.filename} is compressed, expected stored as it is"
                )
            if record.orig_filename.lower().endswith(".pkl"):  # torch looks in any case
                if record.file_size > MAX_FILE_BYTES:
                    raise ConversionError(
                        f"{path}: {record.filename} has {record.file_size:,} bytes, expected at "
                        f"most {MAX_FILE_BYTES:,}"
                    )
                yield io.BytesIO(archive.read(record))


def _inspect(pickle: BinaryIO) -> None:
    """Read the opcodes of a pickle to its end, without executing them."""
    sizes: list[int] = []  # of the values on the stack; MARK stands for a mark
    memo: dict[int, int] = {}
    for code, argument, _ in pickletools.genops(pickle):
        if code.name in ("GLOBAL", "STACK_GLOBAL", "INST") and not ALLOWED_GLOBALS.fullmatch(
            str(argument)
        ):
            name = str(argument).replace(" ", ".")
            raise _NotPlainError(
                f"it asks for {name}, an object or TorchScript that could run code"
            )
        if code.name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = sizes[-1]
        elif code.name in ("BINGET", "LONG_BINGET"):
            sizes.append(memo[int(argument or 0)])
        elif code.name == "MARK":
            sizes.append(MARK)
        else:
            popped = _popped(code, sizes)
            size = 1 + sum(popped) if code.name.startswith("TUPLE") else 1
            if size > MAX_TUPLE_SIZE:
                raise _NotPlainError("it holds tuples within tuples, too many to read")
            sizes += [size] * len(code.stack_after)


def _popped(code: pickletools.OpcodeInfo, sizes: list[int]) -> list[int]:
    """The sizes of the values that an opcode takes from the stack."""
    count = len(code.stack_before)
    if pickletools.markobject in code.stack_before:
        below = code.stack_before.index(pickletools.markobject)
        above = next(n for n, size in enumerate(reversed(sizes)) if size == MARK)
        count = above + 1 + below
    popped = sizes[len(sizes) - count :]
    del sizes[len(sizes) - count :]
    return [size for size in popped if size != MARK]
