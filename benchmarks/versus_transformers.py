"""How fast this project is beside Transformers: same weights, same machine, same threads.

    python benchmarks/versus_transformers.py [--only greedy] [--runs 5] [--device cpu] [--memory]

A model of GIT-base's size with random weights is written once and opened by both. Each line runs
the two in turn, so that a busy machine is busy for both, and prints medians and their ratio; with
--memory also the most memory that a process of either's own took. Needs the `test` extra.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor

from git_model import GIT, Captioner, DecodingOptions, generate
from git_model.generation.generate import score_texts

NEW = 20
QUESTION = list(range(2000, 2007))  # with the start token eight tokens
LABELS = 1000
THEIR_LABELS = 32  # theirs takes minutes for all; it is linear in their number
THEIR_BATCH = 16

Work = tuple[Callable[[], object], Callable[[], object], float]  # ours, theirs, theirs' multiple


@dataclass(frozen=True)
class Pair:
    """One checkpoint, opened by each project when it is first asked for."""

    folder: Path
    device: str
    dtype: str

    @cached_property
    def ours(self) -> GIT:
        """This project's model."""
        return Captioner.from_pretrained(self.model, dtype=self.dtype, device=self.device).model

    @cached_property
    def theirs(self) -> Any:
        """Transformers' model."""
        from transformers import GitForCausalLM

        found = GitForCausalLM.from_pretrained(self.model, dtype=getattr(torch, self.dtype))
        return found.eval().to(self.device)

    @property
    def model(self) -> str:
        """The checkpoint's folder."""
        return str(self.folder / "model")

    def pixels(self, n: int) -> Tensor:
        """n random images."""
        draw = torch.Generator().manual_seed(0)
        pixels = torch.randn(n, 3, 224, 224, generator=draw)
        return pixels.to(self.device, getattr(torch, self.dtype))


def write_checkpoint(folder: Path) -> None:
    """A random model that never ends a text, so that both always write as many tokens."""
    from transformers import GitConfig, GitForCausalLM

    torch.manual_seed(0)
    theirs = GitForCausalLM(GitConfig())
    with torch.no_grad():
        theirs.output.bias[102] = -1e4
    theirs.save_pretrained(folder / "model")
    words = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{n}" for n in range(30522 - len(words))]
    (folder / "model" / "vocab.txt").write_text("\n".join(words))
    Image.effect_noise((640, 480), 80).convert("RGB").save(folder / "photo.jpg")


def captions(pair: Pair, images: int, beams: int) -> Work:
    """20 new tokens for each image."""
    pixels = pair.pixels(images)
    options = DecodingOptions(max_new_tokens=NEW, num_beams=beams)
    start = torch.full((images, 1), 101, device=pixels.device)

    def ours() -> object:
        return generate(pair.ours, pair.ours.see(pixels), [[101]] * images, options)

    def theirs() -> object:
        return pair.theirs.generate(
            input_ids=start, pixel_values=pixels, max_new_tokens=NEW, num_beams=beams,
            do_sample=False,
        )  # fmt: skip

    return ours, theirs, 1.0


def questions(pair: Pair) -> Work:
    """8 questions of 8 tokens on one image, 4 new tokens each; theirs repeats the image."""
    pixels = pair.pixels(1)
    prompts = [[101, *QUESTION[:6], 3000 + n] for n in range(8)]

    def ours() -> object:
        return generate(
            pair.ours, pair.ours.see(pixels), prompts, DecodingOptions(max_new_tokens=4)
        )

    def theirs() -> object:
        return pair.theirs.generate(
            input_ids=torch.tensor(prompts, device=pixels.device),
            pixel_values=pixels.repeat(8, 1, 1, 1), max_new_tokens=4, do_sample=False,
        )  # fmt: skip

    return ours, theirs, 1.0


def class_names() -> list[list[int]]:
    """1,000 names of one to four tokens, some with common beginnings, and their end."""
    draw = torch.Generator().manual_seed(0)
    names: dict[tuple[int, ...], None] = {}
    while len(names) < LABELS:
        length = int(torch.randint(1, 5, (), generator=draw))
        first = int(torch.randint(2000, 2700, (), generator=draw))
        rest = torch.randint(3000, 9000, (length - 1,), generator=draw).tolist()
        names[(first, *rest, 102)] = None
    return [list(name) for name in names]


def labels(pair: Pair) -> Work:
    """The exact log-probability of 1,000 class names; theirs a batch of names at a time."""
    pixels, names = pair.pixels(1), class_names()

    def ours() -> object:
        return score_texts(pair.ours, pair.ours.see(pixels), [[101]], names)

    @torch.inference_mode()
    def theirs() -> object:
        found = []
        for first in range(0, THEIR_LABELS, THEIR_BATCH):
            rows = [[101, *name] for name in names[first : first + THEIR_BATCH]]
            length = max(map(len, rows))
            tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
            mask = (torch.arange(length) < torch.tensor([[len(row)] for row in rows])).long()
            out = pair.theirs(
                input_ids=tokens.to(pixels.device), attention_mask=mask.to(pixels.device),
                pixel_values=pixels.repeat(len(rows), 1, 1, 1), use_cache=False,
            )  # fmt: skip
            logprobs = out.logits[:, -length:].log_softmax(-1)
            found.append(logprobs.gather(2, tokens[:, 1:, None].to(pixels.device)).sum())
        return found

    return ours, theirs, LABELS / THEIR_LABELS


OURS = """
from git_model import Captioner
import torch; torch.set_num_threads({threads})
git = Captioner.from_pretrained({model!r}, device={device!r})
print(git.caption({image!r}).tokens)
"""
THEIRS = """
import torch; torch.set_num_threads({threads})
from PIL import Image
from transformers import CLIPImageProcessorPil, GitForCausalLM
model = GitForCausalLM.from_pretrained({model!r}).eval().to({device!r})
pixels = CLIPImageProcessorPil()(Image.open({image!r}), return_tensors="pt").pixel_values
print(model.generate(pixel_values=pixels.to({device!r}), max_new_tokens=20).tolist())
"""
PEAK = {  # in bytes; on Linux for the CPU (what `resource` tells begins with the parent's)
    "cpu": r"""
import re
print(1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]))
""",
    "cuda": "\nimport torch; print(torch.cuda.max_memory_allocated())",
}


def scripts(pair: Pair) -> list[str]:
    """What a process of either project's own would run, from nothing to a caption."""
    values = {"model": pair.model, "image": str(pair.folder / "photo.jpg")}
    values |= {"threads": str(torch.get_num_threads()), "device": pair.device}
    return [code.format(**values) for code in (OURS, THEIRS)]


def output_of(code: str) -> str:
    """What a Python process prints last."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()[-1]


def whole_process(pair: Pair) -> Work:
    """Start Python, load the folder, read a picture, write 20 tokens."""
    ours, theirs = scripts(pair)
    return lambda: output_of(ours), lambda: output_of(theirs), 1.0


LINES: dict[str, Callable[[Pair], Work]] = {
    "greedy, 1 image, float32": lambda pair: captions(pair, 1, 1),
    "greedy, 1 image, bfloat16": lambda pair: captions(pair, 1, 1),
    "beam 4, 1 image, float32": lambda pair: captions(pair, 1, 4),
    "beam 4, 1 image, bfloat16": lambda pair: captions(pair, 1, 4),
    "greedy, 8 images, float32": lambda pair: captions(pair, 8, 1),
    "8 questions on 1 image, float32": questions,
    "log p of 1,000 class names, float32": labels,
    "whole process, folder to caption": whole_process,
}


def measure(work: Work, runs: int) -> tuple[float, float]:
    """Median seconds of ours and theirs, run in turn after one run of each that does not count."""
    ours, theirs, multiple = work
    ours = torch.inference_mode()(ours)  # as `Captioner` does; theirs does without gradients itself
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(runs + 1):
        for taken, run in zip(seconds, (ours, theirs), strict=True):
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                taken.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1]) * multiple


def peak_of(name: str, side: int, folder: Path, device: str, threads: int) -> float:
    """Gigabytes that a process takes at most which does this line once, on one side (0: ours)."""
    if name.startswith("whole"):
        code = scripts(Pair(folder, device, "float32"))[side]
    else:
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import versus_transformers as v; v.torch.set_num_threads({threads})\n"
            f"with v.torch.inference_mode():\n"
            f"    v.work_of({name!r}, v.Path({str(folder)!r}), {device!r})[{side}]()\n"
        )
    return int(output_of(code + PEAK[torch.device(device).type])) / 1e9


def work_of(name: str, folder: Path, device: str) -> Work:
    """A line's work for both sides."""
    return LINES[name](Pair(folder, device, "bfloat16" if "bfloat16" in name else "float32"))


@click.command()
@click.option("--only", default="", help="Lines whose name contains this.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--memory", is_flag=True, help="Peak memory, too: each side in a process of its own.")
def main(only: str, runs: int, threads: int, device: str, memory: bool) -> None:
    """Print the table."""
    from transformers import logging

    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder)
        print(f"| work | this project | Transformers | ratio |{' peak memory |' * memory}")
        print(f"|---|---|---|---|{'---|' * memory}")
        for name in (name for name in LINES if only in name):
            ours, theirs = measure(work_of(name, folder, device), runs)
            line = f"| {name} | {ours:.2f} s | {theirs:.2f} s | {theirs / ours:.1f} x |"
            if memory:
                peaks = [peak_of(name, side, folder, device, threads) for side in (0, 1)]
                line += f" {peaks[0]:.1f} / {peaks[1]:.1f} GB |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
