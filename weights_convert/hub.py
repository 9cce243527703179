"""The folder of a checkpoint: on this machine, or downloaded by its hub id."""

import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from git_model.checkpoints.defaults import DEMO
from weights_convert.rules import ConversionError

SETTINGS = [
    "config.json", "generation_config.json", "*processor_config.json",
    "tokenizer*.json", "vocab.txt", "added_tokens.json", "special_tokens_map.json",
]  # fmt: skip
SAFETENSORS = ["model*.safetensors", "model*.safetensors.index.json"]
PICKLES = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]  # only without safetensors
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # what the hub's library obeys


def find_folder(source: str, revision: str | None = None, **options: Any) -> Path:
    """The folder `source`, or the hub repository of that name, downloaded or from the cache.

    Before a download one line on stderr names its size and its licence; a progress bar follows.

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
        commit = _announce(name, revision, patterns, options)
        if commit is not None:  # without a progress bar
            revision, options = commit, options | {"local_files_only": True}
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, **options))
    except errors.RepositoryNotFoundError:
        reason = "the hub has no such repository, or it is private"
    except errors.RevisionNotFoundError:
        reason = f"the hub's repository has no revision {revision}"
    except errors.LocalEntryNotFoundError:
        version = "it" if revision is None else f"its revision {revision}"
        reason = (
            f"the Hugging Face hub cannot be reached, and {version} is not in the cache: connect "
            "to the internet once and repeat the command"
        )
    except Exception as error:  # networks fail in many ways
        reason = f"it cannot be downloaded: {' '.join(str(error).split())}"
    raise ConversionError(f"{name}: {reason} ({_circumstances(options)})")


def _announce(
    name: str, revision: str | None, patterns: list[str], options: dict[str, Any]
) -> str | None:
    """Name the size and the licence of what will be downloaded, on stderr.

    Returns:
        the commit, if nothing of it needs to be downloaded.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    if options.get("local_files_only"):
        return None
    try:
        api = HfApi(token=options.get("token"))
        info = api.model_info(name, revision=revision, files_metadata=True)
    except Exception:  # `snapshot_download` falls back to the cache, or says what is wrong
        return None
    cache = {"cache_dir": options.get("cache_dir"), "revision": info.sha}
    sizes = [
        file.size or 0
        for file in info.siblings or []
        if any(fnmatch(file.rfilename, pattern) for pattern in patterns)
        and not isinstance(try_to_load_from_cache(name, file.rfilename, **cache), str)
    ]
    if not sizes:
        return info.sha
    licence = str(getattr(info.card_data, "license", None) or "not named")
    print(
        f"{name}: downloading {sum(sizes) / 1e6:,.0f} MB to {_cache(options)}, licence: "
        f"{licence.upper() if licence == 'mit' else licence}",
        file=sys.stderr,
        flush=True,
    )
    return None


def _cache(options: dict[str, Any]) -> Path:
    """The folder of downloads."""
    from huggingface_hub import constants

    return Path(options.get("cache_dir") or constants.HF_HUB_CACHE)


def _circumstances(options: dict[str, Any]) -> str:
    """Where downloads lie, what forbids them, and which model needs none."""
    settings = [f"{name}={os.environ[name]} is set" for name in OFFLINE if os.environ.get(name)]
    parts = (f"cache: {_cache(options)}", *settings, f"--model {DEMO} needs no download")
    return "; ".join(parts)
