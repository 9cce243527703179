"""How fast a folder of photos is captioned, beside a plain loop around Transformers.

    python benchmarks/batch_folder.py [--images 200] [--rounds 4] [--workers 1]

It makes photos of real sizes (0.3 to 12 megapixels, JPEG), and a model of GIT-base's size with
random weights. Each round takes the next part of the photos: first a plain loop around Transformers
(open, process, generate, decode, one image at a time, float32), then `git-model batch` in float32,
then in bfloat16. It prints medians over the rounds, ratios, and the share of the time in which our
model was busy. Needs the `test` extra.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from results import Table
from versus_transformers import write_checkpoint

from git_model import Captioner, DecodingOptions
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.loop import BatchOptions
from git_model.batch.run import caption_dataset
from git_model.batch.sinks import find_sink

SIZES = ((640, 480), (1024, 768), (2048, 1536), (4032, 3024))  # the web's, and a phone's
NEW_TOKENS = 20


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
    """The same by `git-model batch`."""
    options = DecodingOptions(max_new_tokens=NEW_TOKENS)
    return caption_dataset(
        captioner,
        find_inputs(str(folder), InputOptions()),
        find_sink(None, None, str(folder)),
        BatchOptions(decoding=options, mode="overwrite", workers=workers),
        model={"model": "random"},
        source={},
    )


@click.command()
@click.option("--images", default=200, show_default=True)
@click.option("--rounds", default=4, show_default=True)
@click.option("--workers", default=1, show_default=True)
def main(images: int, rounds: int, workers: int) -> None:
    """Measure, print and save the table."""
    seconds: dict[str, list[float]] = {"transformers": [], "float32": [], "bfloat16": []}
    busy: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_checkpoint(root)
        models = {dtype: Captioner.from_pretrained(root / "model", dtype=dtype) for dtype in busy}
        loop = TransformersLoop(root / "model")
        for number in range(rounds):
            folder = root / f"photos{number}"
            folder.mkdir()
            write_photos(folder, images // rounds)
            start = time.perf_counter()
            loop(folder)
            seconds["transformers"].append(time.perf_counter() - start)
            for dtype, captioner in models.items():
                start = time.perf_counter()
                summary = run_batch(captioner, folder, workers)
                seconds[dtype].append(time.perf_counter() - start)
                busy[dtype].append(summary["model_busy"])
                if summary["written"] != images // rounds:
                    raise SystemExit(
                        f"only {summary['written']} of {images // rounds} were written"
                    )
            click.echo(f"round {number + 1}: {seconds}", err=True)
    base = statistics.median(seconds["transformers"])
    table = Table("batch_folder", ("program", "images a second", "ratio", "model busy"))
    table.add("Transformers, float32", f"{images / rounds / base:.2f}", "", "")
    for dtype, shares in busy.items():
        median = statistics.median(seconds[dtype])
        ratio = statistics.median(
            a / b for a, b in zip(seconds["transformers"], seconds[dtype], strict=True)
        )
        rate, share = images / rounds / median, statistics.median(shares)
        table.add(f"`git-model batch`, {dtype}", f"{rate:.2f}", f"{ratio:.1f} x", f"{share:.0%}")
    table.save()


if __name__ == "__main__":
    main()
