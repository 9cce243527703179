"""How fast a folder of photos is captioned, beside a plain loop around Transformers.

    python benchmarks/batch_folder.py [--images 200] [--rounds 4] [--workers 1]

Photos of real sizes (0.3 to 12 megapixels, JPEG) are made once, and a model of GIT-base's size with
random weights. Each round takes the next part of the folder: first the loop that one writes with
Transformers (open, process, generate, decode, one picture at a time, float32), then `git-model
batch` in float32, then in bfloat16. Prints medians over the rounds, ratios, and how much of the
time our model was busy. Needs the `test` extra.
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
from versus_transformers import write_checkpoint

from git_model import Captioner, DecodingOptions
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.loop import BatchOptions
from git_model.batch.run import write_about
from git_model.batch.sinks import find_target

SIZES = ((640, 480), (1024, 768), (2048, 1536), (4032, 3024))  # the web's, and a phone's
NEW = 20


def write_photos(folder: Path, n: int) -> None:
    """Pictures with large shapes and fine grain, so that their files are as large as photos'."""
    draw = np.random.default_rng(0)
    for number in range(n):
        width, height = SIZES[number % len(SIZES)]
        coarse = draw.integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = draw.normal(0, 6, (height, width, 1))
        pixels = (np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.jpg", quality=90)


class Theirs:
    """The loop around Transformers that its documentation shows, over the files of a folder."""

    def __init__(self, model: Path) -> None:
        from transformers import BertTokenizerFast, CLIPImageProcessor, GitForCausalLM

        self.model = GitForCausalLM.from_pretrained(model).eval()
        self.tokenizer = BertTokenizerFast(str(model / "vocab.txt"))
        self.processor = CLIPImageProcessor()

    def __call__(self, folder: Path) -> None:
        """A text file beside each picture."""
        for path in sorted(folder.glob("*.jpg")):
            pixels = self.processor(Image.open(path).convert("RGB"), return_tensors="pt")
            with torch.inference_mode():
                tokens = self.model.generate(**pixels, max_new_tokens=NEW)
            text = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)[0]
            path.with_suffix(".theirs").write_text(text)


def ours(git: Captioner, folder: Path, workers: int) -> dict[str, Any]:
    """The same by a run of ours."""
    options = DecodingOptions(max_new_tokens=NEW)
    return write_about(
        git,
        find_inputs(str(folder), InputOptions()),
        find_target(None, None, str(folder)),
        BatchOptions(decoding=options, mode="overwrite", workers=workers),
        model={"model": "random"},
        source={},
    )


@click.command()
@click.option("--images", default=200, show_default=True)
@click.option("--rounds", default=4, show_default=True)
@click.option("--workers", default=1, show_default=True)
def main(images: int, rounds: int, workers: int) -> None:
    """Measure, and print a table."""
    seconds: dict[str, list[float]] = {"theirs": [], "float32": [], "bfloat16": []}
    busy: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_checkpoint(root)
        models = {dtype: Captioner.from_pretrained(root / "model", dtype=dtype) for dtype in busy}
        theirs = Theirs(root / "model")
        for number in range(rounds):
            folder = root / f"photos{number}"
            folder.mkdir()
            write_photos(folder, images // rounds)
            start = time.perf_counter()
            theirs(folder)
            seconds["theirs"].append(time.perf_counter() - start)
            for dtype, git in models.items():
                start = time.perf_counter()
                done = ours(git, folder, workers)
                seconds[dtype].append(time.perf_counter() - start)
                busy[dtype].append(done["model_busy"])
                if done["written"] != images // rounds:
                    raise SystemExit(f"only {done['written']} of {images // rounds} were written")
            click.echo(f"round {number + 1}: {seconds}", err=True)
    base = statistics.median(seconds["theirs"])
    click.echo(f"Transformers, float32   {images / rounds / base:5.2f} images/s")
    for dtype, shares in busy.items():
        ours_seconds = statistics.median(seconds[dtype])
        ratio = statistics.median(
            a / b for a, b in zip(seconds["theirs"], seconds[dtype], strict=True)
        )
        click.echo(
            f"this project, {dtype:9} {images / rounds / ours_seconds:5.2f} images/s"
            f"  {ratio:.1f} x  model busy {statistics.median(shares):.0%}"
        )


if __name__ == "__main__":
    main()
