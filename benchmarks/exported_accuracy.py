"""What an exported model costs and gains: the built-in model in each engine, on held-out scenes.

    python benchmarks/exported_accuracy.py [--exports FOLDER] [--count 2000] [--runs 30]

The share of texts that are exactly right in each of the five tasks, the size of the files, and the
processor time of one caption, by one thread, over PyTorch's. FOLDER keeps the exported graphs for
the next time.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click
import torch
from demo_accuracy import accuracy
from exports import exports, megabytes
from results import Table

from git_model import Captioner
from git_model.checkpoints.native import folder_of
from git_model.shapes.source import TASKS, ShapesData

SOURCE = "PyTorch, float32"
TASK_NAMES = {"clips": "clip captions", "clip_questions": "clip questions"}


def caption_times(captioners: Mapping[str, Captioner], runs: int) -> dict[str, float]:
    """Median seconds of processor time for a caption of one image; the engines take turns."""
    examples = ShapesData(tasks=("captions",), split="held_out", size=runs).open()
    seconds: dict[str, list[float]] = {name: [] for name in captioners}
    for number in range(-1, runs):  # the first one warms up
        for name, captioner in captioners.items():
            image = captioner.load(examples[max(number, 0)].media)
            start = time.process_time()
            captioner.caption(captioner.see_batch([image]))
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(row[1:]) for name, row in seconds.items()}


@click.command()
@click.option("--exports", "root", type=click.Path(path_type=Path), help="Keep the graphs here.")
@click.option("--count", default=2000, show_default=True, type=click.IntRange(min=1))
@click.option("--runs", default=30, show_default=True, type=click.IntRange(min=1))
def main(root: Path | None, count: int, runs: int) -> None:
    """Measure, print and save the table."""
    torch.set_num_threads(1)  # so that processor time is the time of a caption
    with tempfile.TemporaryDirectory() as temporary:
        folders = {SOURCE: folder_of("demo"), **exports("demo", root or Path(temporary))}
        captioners = {name: Captioner.from_pretrained(path) for name, path in folders.items()}
        seconds = caption_times(captioners, runs)
        tasks = [TASK_NAMES.get(task, task) for task in TASKS]
        table = Table("exported_accuracy", ("engine", *tasks, "files", "time"))
        for name, captioner in captioners.items():
            shares = [f"{accuracy(captioner, task, 'held_out', count):.1f} %" for task in TASKS]
            ratio = f"{seconds[name] / seconds[SOURCE]:.2f} x"
            table.add(name, *shares, f"{megabytes(folders[name]):.1f} MB", ratio)
    table.save()


if __name__ == "__main__":
    main()
