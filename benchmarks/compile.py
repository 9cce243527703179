"""When `--compile` pays: the same work uncompiled and compiled, and what the first call costs.

    python benchmarks/compile.py [--runs 5] [--only base]

Times are processor seconds of one thread, compilers that torch starts included, so other work on
the machine hardly changes them. The first call of a process is measured twice, with an empty cache
of compiled code and with a full one; then uncompiled and compiled calls take turns in one process.
The models are the built-in one, and one of GIT-base's size with random weights.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import torch
from results import FOLDER, Table, read

from git_model import GIT, Captioner, DecodingOptions, GITConfig, generate
from git_model.generation.compiled import CompiledGIT

NEW = 20
IMAGES = {  # of each work
    "GIT-base's size, greedy, 1 image": 1,
    "GIT-base's size, greedy, 8 images": 8,
    "built-in model, greedy, 1 image": 1,
}
WHOLE = "built-in model, 1 caption, whole process"
COLUMNS = (
    "work", "uncompiled", "compiled", "ratio", "first call on a machine", "first call later",
    "pays after images, first / later",
)  # fmt: skip


def processor_seconds() -> float:
    """Processor seconds of this process and of its child processes that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def seconds_of(run: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    start = processor_seconds()
    run()
    return processor_seconds() - start


def models(name: str) -> tuple[GIT, CompiledGIT]:
    """A model, and a copy of it with compiled parts."""
    if name.startswith("built-in"):
        model = Captioner.from_pretrained("demo").model
    else:
        torch.manual_seed(0)
        model = GIT(GITConfig()).eval()
    compiled = CompiledGIT.from_state(model.config, model.tensors(), name)
    compiled.compile_parts()
    return model, compiled


def measure(name: str, runs: int) -> dict[str, float]:
    """The first compiled call; and if there are runs, medians of both models, which take turns."""
    torch.set_num_threads(1)
    n_images = IMAGES[name]
    plain, compiled = models(name)
    size = plain.config.encoder.image_size
    pixels = torch.randn(n_images, 3, size, size)
    options = DecodingOptions(max_new_tokens=NEW, min_new_tokens=NEW - 1)
    prompts = [[plain.config.bos_id]] * n_images

    @torch.inference_mode()
    def caption(model: GIT) -> None:
        generate(model, model.see(pixels), prompts, options)

    values = {"first": seconds_of(lambda: caption(compiled))}
    caption(plain)
    turns = [
        [seconds_of(partial(caption, model)) for model in (plain, compiled)] for _ in range(runs)
    ]
    for key, column in zip(("uncompiled", "compiled"), zip(*turns, strict=True), strict=False):
        values[key] = statistics.median(column)
    return values


def environment(cache: str) -> dict[str, str]:
    """One thread, one process for all compiling, and this cache of compiled code."""
    variables = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return {**os.environ, **variables, "OMP_NUM_THREADS": "1"}


def in_process(name: str, runs: int, cache: str) -> dict[str, float]:
    """`measure`, in a process of its own with this cache of compiled code."""
    command = [sys.executable, __file__, "--measure", name, "--runs", str(runs)]
    output = subprocess.run(
        command, env=environment(cache), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    values: dict[str, float] = json.loads(output.splitlines()[-1])
    return values


def row(name: str, runs: int) -> Iterator[str]:
    """The cells of a work, as in COLUMNS."""
    with tempfile.TemporaryDirectory() as cache:
        first, later = in_process(name, 0, cache), in_process(name, runs, cache)
    n_images, uncompiled, compiled = IMAGES[name], later["uncompiled"], later["compiled"]
    yield from (name, _text(uncompiled), _text(compiled), f"{uncompiled / compiled:.2f} x")
    yield from (_text(first["first"]), _text(later["first"]))
    gain = (uncompiled - compiled) / n_images
    costs = [measured["first"] - compiled for measured in (first, later)]
    yield " / ".join(f"{math.ceil(cost / gain):,}" if gain > 0 else "never" for cost in costs)


def whole_process() -> list[str]:
    """One caption by the command, from the start of Python to its end; each is measured once."""
    from git_model.shapes.source import ShapesData

    with tempfile.TemporaryDirectory() as name:
        image = Path(name, "scene.png")
        ShapesData(tasks=("captions",), split="held_out", size=1).open()[0].media.save(image)
        cache = str(Path(name, "cache"))
        variables = environment(cache)

        def run(*options: str) -> float:
            caption = ["caption", str(image), "--model", "demo", *options]
            command = [sys.executable, "-m", "git_model", *caption]
            return seconds_of(
                lambda: subprocess.run(command, env=variables, check=True, capture_output=True)
            )

        first, uncompiled, compiled = run("--compile"), run(), run("--compile")
    before, after, *calls = map(_text, (uncompiled, compiled, first, compiled))
    return [WHOLE, before, after, f"{uncompiled / compiled:.2f} x", *calls, ""]


def rows_of_file() -> list[list[str]]:
    """What was measured before."""
    return read("compile")["rows"] if (FOLDER / "compile.json").exists() else []


def _text(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


@click.command()
@click.option("--runs", default=5, show_default=True, type=click.IntRange(min=0))
@click.option("--only", default="", help="Works whose name contains this.")
@click.option("--measure", "measured", type=click.Choice(list(IMAGES)), hidden=True)
def main(runs: int, only: str, measured: str | None) -> None:
    """Print the table, and save each row when it is measured; other rows of the file stay."""
    torch.set_num_threads(1)
    if measured is not None:
        print(json.dumps(measure(measured, runs)))
        return
    table = Table("compile", COLUMNS)
    works = (*IMAGES, WHOLE)
    for name in (name for name in works if only in name):
        table.add(*(whole_process() if name == WHOLE else row(name, runs)))
        rows = {cells[0]: cells for cells in (*rows_of_file(), *table.rows)}
        table.rows = [rows[work] for work in works if work in rows]
        table.save()


if __name__ == "__main__":
    main()
