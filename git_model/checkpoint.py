"""A folder (config.json, model.safetensors, tokenizer.json) <-> configuration, tensors, vocabulary.

Reading is strict and says which tensor is wrong; writing builds the folder beside its place and
renames it, so that nobody ever sees half a checkpoint. Nothing here is executed or unpickled.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from git_model.config import GITConfig
from git_model.settings import (
    LARGEST_FILE,
    ConfigError,
    GITError,
    from_dict,
    is_file,
    is_folder,
    read_mapping,
    to_dict,
)

FORMAT = "git_model 1"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


class CheckpointError(GITError):
    """A checkpoint that cannot be read or written; the message names the file and the tensor."""


def folder_of(name: str | Path) -> Path:
    """The folder that a model's name stands for; `demo` is the one inside this package."""
    return Path(__file__).parent / "demo" if name == "demo" else Path(name)


def is_checkpoint(folder: Path) -> bool:
    """Whether this is a folder of our own form, as far as its config.json tells."""
    try:
        return read_mapping(folder / CONFIG).get("format") == FORMAT
    except ConfigError:
        return False


def read_checkpoint(
    folder: Path, *, dtype: torch.dtype | None = torch.float32
) -> tuple[GITConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a folder that `write_checkpoint` wrote.

    Args:
        dtype: of the tensors; None: as they are stored.

    Raises:
        CheckpointError: a file is missing, damaged, or not of this project's format.
    """
    try:
        if not is_folder(folder):
            raise CheckpointError(f"{folder}: no such folder")
        settings = read_mapping(folder / CONFIG)
        if settings.pop("format", None) != FORMAT:
            raise CheckpointError(
                f"{folder / CONFIG}: not a git_model checkpoint; bring a Hugging Face or an "
                "original one into this form with `git-model convert`"
            )
        config = from_dict(GITConfig, settings, str(folder / CONFIG))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return config, dict(read_tensors(folder / WEIGHTS, dtype=dtype))


def read_tensors(path: Path, *, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a .safetensors file, one after the other, memory-mapped where dtype fits.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    require_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (a safe_open handle is not a mapping)
                yield name, file.get_tensor(name).to(dtype)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None


def require_header(path: Path) -> None:
    """Refuse a .safetensors file whose header cannot be, before a reader takes memory for it.

    Raises:
        CheckpointError: there is no file, or its first 8 bytes, the header's length, claim more
            than the file has or than a model needs.
    """
    if not is_file(path):
        raise CheckpointError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            claimed = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    most = min(max(size - 8, 0), LARGEST_FILE)
    if not 0 < claimed <= most:
        raise CheckpointError(
            f"{path}: not a readable safetensors file: its header claims {claimed:,} bytes, "
            f"expected at most {most:,}"
        )


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Give the model these tensors themselves, not copies; it may stand on the meta device.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape; it is named.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    for names, what in ((missing, "is missing"), (extra, "is not part of this model")):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f"{where}: tensor {names[0]} {what}{others}")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise CheckpointError(
                f"{where}: tensor {name} has shape {tuple(state[name].shape)}, expected {shape} "
                "from the configuration"
            )
    model.load_state_dict(dict(state), assign=True)


def write_checkpoint(
    folder: Path,
    config: GITConfig,
    state: Mapping[str, Tensor],
    files: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder in one step.

    Args:
        files: more text files for the folder, such as tokenizer.json, by name.
        overwrite: replace a checkpoint that is already there.

    Raises:
        CheckpointError: the folder exists and is not empty, or cannot be written.
    """
    settings = {"format": FORMAT, **to_dict(config)}
    ours = (CONFIG, WEIGHTS, TOKENIZER, *(files or {}))
    with new_folder(folder, replaces=ours if overwrite else ()) as beside:
        (beside / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for name, text in (files or {}).items():
            (beside / name).write_text(text, encoding="utf-8")
        tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
        save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})


@contextmanager
def new_folder(folder: Path, *, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """A folder to fill, beside `folder`; it takes that name when the block ends without an error.

    Args:
        replaces: patterns of the files that `folder` may hold already, and that then go.

    Raises:
        CheckpointError: `folder` is in the way, or the disk refuses.
    """
    beside = None
    try:
        _require_free(folder, replaces)
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        beside.chmod(0o755)
        yield beside
        for path in beside.iterdir():
            path.chmod(0o644)  # safetensors writes for its owner only
        old = beside.with_name(f"{beside.name}.old")
        if folder.exists():
            folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written: {error}") from None
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _require_free(folder: Path, replaces: Sequence[str]) -> None:
    """Refuse what is in the way of a new folder; what would be lost is named."""
    if folder.is_dir():
        for path in folder.iterdir():
            if not any(fnmatch(path.name, pattern) for pattern in replaces) or path.is_dir():
                lost = f" and holds {path.name}" if replaces else ""
                raise CheckpointError(f"{folder}: already exists{lost}; name a new folder")
    elif folder.exists():
        raise CheckpointError(f"{folder}: already exists; name a new folder")
