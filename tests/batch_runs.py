"""Runs of `batch` with a tiny model, for tests."""

import errno
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from test_captioner import exact_captioner

from git_model import Captioner, DecodingOptions
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.loop import BatchOptions
from git_model.batch.run import caption_dataset
from git_model.batch.sinks import Sink, find_sink, make_sink_folder
from git_model.utils.errors import GITError

SHORT = DecodingOptions(max_new_tokens=3, min_new_tokens=2)  # so that none is empty
MODEL = {"model": "tiny", "revision": "1"}


def tiny_captioner() -> Captioner:
    exact = exact_captioner()
    return Captioner(exact.model.float(), exact.tokenizer)


def fill(folder: Path, n: int, first: int = 0) -> Path:
    """Images of noise, which a random model captions differently, some in a folder within."""
    for number in range(first, first + n):
        path = folder / ("inner" if number % 3 else "") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (20, 20, 3), generator=rng).to(torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    return folder


def run(
    captioner: Captioner,
    source: Path,
    sink: Sink,
    search: dict[str, Any] | None = None,
    **values: Any,
) -> dict[str, Any]:
    return run_sources(captioner, [source], sink, search, **values)


def run_sources(
    captioner: Captioner,
    sources: Sequence[object],
    sink: Sink,
    search: dict[str, Any] | None = None,
    **values: Any,
) -> dict[str, Any]:
    control = {name: values.pop(name) for name in ("group", "stop") if name in values}
    options = BatchOptions(**{"decoding": SHORT, "batch_size": 4, "workers": 0} | values)
    inputs = find_inputs(list(map(str, sources)), InputOptions(**search or {}))
    make_sink_folder(sink)
    about = {"source": list(map(str, sources))}
    return caption_dataset(captioner, inputs, sink, options, model=MODEL, source=about, **control)


def print_run(images: str, out: str, *broken: str) -> None:
    """A run in a child: how many texts it wrote, or its error; how many processes it left."""
    sink = find_sink(out, None, images)

    def refuse(*_: object) -> None:
        raise RuntimeError("not a full disk, but a mistake")

    if broken:
        type(sink).write = type(sink).finish = refuse  # type: ignore[method-assign]
    try:
        print(run(tiny_captioner(), Path(images), sink, workers=2, batch_size=4)["written"])
    except (GITError, RuntimeError) as error:
        print(type(error).__name__, error)
    print(len(multiprocessing.active_children()), "processes")


def print_run_with_short_files(images: str, out: str, size: str) -> None:
    """A run in a child whose files cannot grow beyond a size in bytes, as on a disk that fills."""
    import resource  # Windows has none

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
    print_run(images, out)


def print_run_with_few_files(images: str, out: str, n_syncs: str) -> None:
    """A run in a child in which no file reaches the disk any more after some did."""
    sync, n_left = os.fsync, int(n_syncs)

    def sync_or_refuse(descriptor: int) -> None:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    os.fsync = sync_or_refuse
    print_run(images, out)


def table(path: Path) -> Sink:
    return find_sink(str(path), None, "unused")


def beside(folder: Path) -> Sink:
    return find_sink(None, None, str(folder))


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text().strip() for path in folder.rglob("*.txt")
    }
