"""The checkpoint format: a folder of config.json, model.safetensors, tokenizer.json, SHA256SUMS.

Reading is strict, and an error names the wrong tensor. Writing fills a temporary folder and renames
it, so that no reader finds half a checkpoint. Nothing is executed or unpickled. SHA256SUMS has the
form of the program `sha256sum`, so `sha256sum --check SHA256SUMS` checks the other files without
this package.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from git_model.config import GITConfig
from git_model.preprocessing import tokenizer_files
from git_model.utils.atomic import new_folder
from git_model.utils.errors import CheckpointError, ConfigError
from git_model.utils.serialize import (
    MAX_FILE_BYTES,
    from_dict,
    is_file,
    is_folder,
    read_mapping,
    read_text,
    short_repr,
    to_dict,
)

FORMAT = "git_model 2"
OLD_FORMAT = "git_model 1"  # of versions before 0.2
EXPORT_FORMAT = "git_model export 2"  # of another engine: see git_model/export
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", tokenizer_files.JSON
DIGESTS = "SHA256SUMS"
FILES = (CONFIG, WEIGHTS, *tokenizer_files.FILES)  # that are read where they exist
DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *]([\w.-]+)")  # a plain name: no way out of the folder


def folder_of(name: str | Path) -> Path:
    """The folder that a model's name stands for; `demo` is the one inside this package."""
    return Path(__file__).parents[1] / "demo" if name == "demo" else Path(name)


def is_checkpoint(folder: Path) -> bool:
    """Whether config.json says that this folder has this project's format, in any version."""
    try:
        return read_mapping(folder / CONFIG).get("format") in (FORMAT, OLD_FORMAT)
    except ConfigError:
        return False


def is_exported(folder: Path) -> bool:
    """Whether config.json says that `git-model export` wrote this folder, in any version."""
    try:
        name = read_mapping(folder / CONFIG).get("format")
    except ConfigError:
        return False
    return isinstance(name, str) and name.startswith(EXPORT_FORMAT.rstrip("0123456789"))


def refuse_exported(folder: Path, task: str) -> None:
    """Refuse a folder that `git-model export` wrote, for a task that needs the weights."""
    if is_exported(folder):
        raise CheckpointError(
            f"{folder}: an exported model cannot be {task}: name the checkpoint that it was "
            "exported from"
        )


def read_checkpoint(
    folder: Path, *, dtype: torch.dtype | None = torch.float32, integrity: bool = False
) -> tuple[GITConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a folder that `write_checkpoint` wrote.

    Args:
        dtype: of the tensors; None: as they are stored.
        integrity: compare every file with its digest in SHA256SUMS first.

    Raises:
        CheckpointError: a file is missing, damaged, or not of this project's format.
    """
    try:
        if not is_folder(folder):
            raise CheckpointError(f"{folder}: no such folder")
        settings = read_mapping(folder / CONFIG)
        require_format(folder, settings.pop("format", None))
        if integrity:
            require_digests(folder)
        config = from_dict(GITConfig, settings, str(folder / CONFIG))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return config, dict(read_tensors(folder / WEIGHTS, dtype=dtype))


def require_format(folder: Path, version: object) -> None:
    """Refuse a folder whose config.json names another format than the present one.

    Raises:
        CheckpointError: the message says what to do.
    """
    if version == OLD_FORMAT:
        raise CheckpointError(
            f"{folder / CONFIG}: a checkpoint of git-model 0.1, expected format {FORMAT!r}: "
            "convert its source again, or export it with git-model 0.1 (convert --to hf) and "
            "convert that"
        )
    if version != FORMAT:
        raise CheckpointError(
            f"{folder / CONFIG}: not a git_model checkpoint: open a Hugging Face or an original "
            "checkpoint with `Captioner.from_pretrained`, or convert it with `git-model convert`"
        )


def read_tensors(path: Path, *, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a .safetensors file, one after the other, memory-mapped where dtype fits.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    require_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (a safe_open handle is not a mapping)
                tensor = file.get_tensor(name)
                yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None


def require_header(path: Path) -> None:
    """Refuse a .safetensors file with an impossible header, before a reader takes memory for it.

    Raises:
        CheckpointError: the file is missing, or its first 8 bytes, the header's length, claim more
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
    limit = min(max(size - 8, 0), MAX_FILE_BYTES)
    if not 0 < claimed <= limit:
        raise CheckpointError(
            f"{path}: not a readable safetensors file: its header claims {claimed:,} bytes, "
            f"expected at most {limit:,}"
        )


def write_checkpoint(
    folder: Path,
    config: GITConfig,
    state: Mapping[str, Tensor],
    files: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder in one step, with the digest of every file.

    Args:
        files: more text files for the folder, such as tokenizer.json, by name.
        overwrite: replace a checkpoint that exists.

    Raises:
        GITError: the folder holds other files than those that may be replaced, or cannot be
            written.
    """
    settings = {"format": FORMAT, **to_dict(config)}
    names = (CONFIG, WEIGHTS, TOKENIZER, DIGESTS, *(files or {}))
    with new_folder(folder, replaces=names if overwrite else ()) as temporary:
        (temporary / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for name, text in (files or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
        tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_digests(temporary)


def write_digests(folder: Path) -> None:
    """Write SHA256SUMS, with the digest of every other file in a folder."""
    lines = [f"{digest}  {name}\n" for name, digest in digests_of(folder).items()]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")


def digests_of(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder except SHA256SUMS, by name.

    Raises:
        CheckpointError: a file cannot be read.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if is_file(path) and path.name != DIGESTS)
        return {path.name: sha256_of(path) for path in paths}
    except OSError as error:
        raise CheckpointError(f"{error.filename or folder}: {error.strerror or error}") from None


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def read_digests(folder: Path) -> dict[str, str]:
    """The digests in SHA256SUMS, by the file's name.

    Raises:
        ConfigError: the file is missing or of another form.
    """
    digests = {}
    for line in read_text(folder / DIGESTS).splitlines():
        match = DIGEST_LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{folder / DIGESTS}: {short_repr(line)}, expected a sha256 and a file's name"
            )
        digests[match[2]] = match[1]
    return digests


def require_digests(
    folder: Path, files: Collection[str] = FILES, remedy: str = "convert the checkpoint"
) -> None:
    """Refuse a folder in which a file differs from the one that this project wrote.

    Args:
        files: names of the files that are read where they exist.
        remedy: what makes the folder anew.

    Raises:
        CheckpointError: a file that is read differs from its digest or has none, or a file with a
            digest is missing; the message names the file.
    """
    if not is_file(folder / DIGESTS):
        raise CheckpointError(
            f"{folder}: no {DIGESTS}, so its files cannot be checked: {remedy} again, or open it "
            "without --integrity"
        )
    stored, actual = read_digests(folder), digests_of(folder)
    for name in sorted({*stored, *(actual.keys() & set(files))}):
        if name not in actual:
            raise CheckpointError(f"{folder / name}: missing, but {DIGESTS} lists it")
        if name not in stored:
            raise CheckpointError(f"{folder / name}: not in {DIGESTS}, so it was added later")
        if stored[name] != actual[name]:
            raise CheckpointError(
                f"{folder / name}: its sha256 is {actual[name][:12]}…, expected "
                f"{stored[name][:12]}… by {DIGESTS}: the file was changed or damaged"
            )
