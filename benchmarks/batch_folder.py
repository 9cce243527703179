"""How fast a folder of photos is captioned, beside a plain loop around Transformers.

    python benchmarks/batch_folder.py [--images 200] [--rounds 4] [--workers 1] [--exports FOLDER]

It makes photos of real sizes (0.3 to 12 megapixels, JPEG), and a model of GIT-base's size with
random weights. Each round takes the next part of the photos: first a plain loop around Transformers
(open, process, generate, decode, one image at a time, float32), then `git-model batch` in float32,
in bfloat16 where the processor computes in it, and with exported int8 graphs. It prints medians
over the rounds, ratios, and the share of the time in which the model was busy. FOLDER keeps the
exported graphs for the next time. Needs the `test` extra.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from exports import exports
from PIL import Image
from results import Table
from versus_transformers import write_checkpoint

from git_model import Captioner, DecodingOptions
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.loop import BatchOptions
from git_model.batch.run import caption_dataset
from git_model.batch.sinks import find_sink
from git_model.utils.devices import dtype_of

SIZES = ((640, 480), (1024, 768), (2048, 1536), (4032, 3024))  # the web's, and a phone's
NEW_TOKENS = 20
TRANSFORMERS = "Transformers, float32"


def write_photos(folder: Path, n: int) -> None:
    """Images with large shapes and fine grain, so that their files are as large as photos'."""
    rng = np.random.default_rng(0)
    for number in range(n):
        width, height = SIZES[number % len(SIZES)]
        coarse = rng.integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (height, width, 1))
        pixels = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.jpg", quality=90)


class TransformersLoop:
    """The loop that Transformers' documentation shows, over the files of a folder."""

    def __init__(self, model: Path) -> None:
        from transformers import BertTokenizerFast, CLIPImageProcessor, GitForCausalLM

        self.model = GitForCausalLM.from_pretrained(model).eval()
        self.tokenizer = BertTokenizerFast(str(model / "vocab.txt"))
        self.processor = CLIPImageProcessor()

    def __call__(self, folder: Path) -> None:
        """Write a text file beside each image."""
        for path in sorted(folder.glob("*.jpg")):
            pixels = self.processor(Image.open(path).convert("RGB"), return_tensors="pt")
            with torch.inference_mode():
                tokens = self.model.generate(**pixels, max_new_tokens=NEW_TOKENS)
            text = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)[0]
            path.with_suffix(".transformers").write_text(text)


def run_batch(captioner: Captioner, folder: Path, workers: int) -> dict[str, Any]:
    """Write a text file beside each image with `git-model batch`; the run's summary."""
    options = DecodingOptions(max_new_tokens=NEW_TOKENS)
    return caption_dataset(
        captioner,
        find_inputs(str(folder), InputOptions()),
        find_sink(None, None, str(folder)),
        BatchOptions(decoding=options, mode="overwrite", workers=workers),
        model={"model": "random"},
        source={},
    )


def open_captioners(model: Path, root: Path) -> dict[str, Captioner]:
    """This project's engines by name.

    Args:
        root: where the exported graphs are kept.
    """
    graphs = exports(str(model), root)
    captioners = {"float32": Captioner.from_pretrained(model)}
    if dtype_of("auto", torch.device("cpu")) is torch.bfloat16:
        captioners["bfloat16"] = Captioner.from_pretrained(model, dtype="bfloat16")
    int8 = {name: folder for name, folder in graphs.items() if name.endswith("int8")}
    return captioners | {name: Captioner.from_pretrained(path) for name, path in int8.items()}


def measure_round(
    loop: TransformersLoop, captioners: dict[str, Captioner], folder: Path, workers: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The seconds of each program on one folder, Transformers first; the busy share of each model
    of this project."""
    n_images = len(list(folder.iterdir()))
    start = time.perf_counter()
    loop(folder)
    seconds, busy = {TRANSFORMERS: time.perf_counter() - start}, {}
    for name, captioner in captioners.items():
        start = time.perf_counter()
        summary = run_batch(captioner, folder, workers)
        seconds[name] = time.perf_counter() - start
        busy[name] = summary["model_busy"]
        if summary["written"] != n_images:
            raise SystemExit(f"only {summary['written']} of {n_images} were written")
    return seconds, busy


@click.command()
@click.option("--images", default=200, show_default=True)
@click.option("--rounds", default=4, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--exports", "root", type=click.Path(path_type=Path), help="Keep the graphs here.")
def main(images: int, rounds: int, workers: int, root: Path | None) -> None:
    """Measure, print and save the table."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        write_checkpoint(temporary)
        model = temporary / "model"
        captioners = open_captioners(model, root or temporary / "exports")
        loop = TransformersLoop(model)
        for number in range(rounds):
            folder = temporary / f"photos{number}"
            folder.mkdir()
            write_photos(folder, images // rounds)
            results.append(measure_round(loop, captioners, folder, workers))
            click.echo(f"round {number + 1}: {results[-1]}", err=True)
    table = Table("batch_folder", ("program", "images a second", "ratio", "model busy"))
    for name in (TRANSFORMERS, *captioners):
        rate = statistics.median(images / rounds / seconds[name] for seconds, _ in results)
        if name == TRANSFORMERS:
            table.add(name, f"{rate:.2f}", "", "")
            continue
        ratio = statistics.median(seconds[TRANSFORMERS] / seconds[name] for seconds, _ in results)
        busy_share = f"{100 * statistics.median(busy[name] for _, busy in results):.0f} %"
        table.add(f"`git-model batch`, {name}", f"{rate:.2f}", f"{ratio:.1f} x", busy_share)
    table.save()


if __name__ == "__main__":
    main()
