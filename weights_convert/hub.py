"""The folder of a checkpoint: on this machine, or downloaded by its hub id."""

import re
from pathlib import Path
from typing import Any

from weights_convert.rules import ConversionError

SETTINGS = [
    "config.json", "generation_config.json", "*processor_config.json",
    "tokenizer*.json", "vocab.txt", "added_tokens.json", "special_tokens_map.json",
]  # fmt: skip
SAFETENSORS = ["model*.safetensors", "model*.safetensors.index.json"]
PICKLES = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]  # only without safetensors


def find_folder(source: str, revision: str | None = None, **options: Any) -> Path:
    """The folder `source`, or the hub repository of that name, downloaded or from the cache.

    Args:
        revision: a branch, tag or commit of the repository.
        options: `token`, `cache_dir` and `local_files_only` of `huggingface_hub`.

    Raises:
        ConversionError: neither exists, or the hub cannot be reached.
    """
    folder = Path(source)
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except OSError as error:
        raise ConversionError(f"{source}: {error.strerror}") from None
    if is_folder:
        if revision is not None:
            raise ConversionError(f"{source}: a revision is for hub ids, this is a folder")
        return folder
    if exists or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise ConversionError(f"{source}: no such folder, and not a hub id such as org/name")
    folder = _download(source, revision, SETTINGS + SAFETENSORS, options)
    if not list(folder.glob("*.safetensors")):
        folder = _download(source, revision, SETTINGS + PICKLES, options)
    return folder


def _download(
    name: str, revision: str | None, patterns: list[str], options: dict[str, Any]
) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, **options))
    except errors.RepositoryNotFoundError:
        reason = "the hub has no such repository, or it is private"
    except errors.RevisionNotFoundError:
        reason = f"the hub's repository has no revision {revision}"
    except errors.LocalEntryNotFoundError:
        version = "it" if revision is None else f"its revision {revision}"
        reason = f"the hub cannot be reached, and {version} is not in the cache"
    except Exception as error:  # networks fail in many ways
        reason = f"it cannot be downloaded: {' '.join(str(error).split())}"
    raise ConversionError(f"{name}: no such folder, and {reason}")
