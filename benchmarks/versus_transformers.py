"""How fast this project is beside Transformers: same weights, same machine, same threads.

    python benchmarks/versus_transformers.py [--only greedy] [--runs 5] [--device cpu]

A model of GIT-base's size with random weights is made once and used by both. Each line runs the two
in turn, so that a busy machine is busy for both, and prints medians and their ratio. Needs the
`test` extra.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor
from transformers import GitConfig, GitForCausalLM, logging

from git_model import GIT, DecodingOptions, generate
from git_model.decoding import score_texts
from weights_convert.huggingface import read_config, read_state

NEW = 20
QUESTION = list(range(2000, 2007))  # with the start token eight tokens
LABELS = 1000
THEIR_LABELS = 32  # theirs takes minutes for all; it is linear in their number
THEIR_BATCH = 16


@dataclass
class Pair:
    """The same weights in both projects."""

    theirs: GitForCausalLM
    ours: GIT
    device: str

    def pixels(self, n: int) -> Tensor:
        """n random images."""
        draw = torch.Generator().manual_seed(0)
        weight = self.ours.decoder.output_bias
        return torch.randn(n, 3, 224, 224, generator=draw).to(weight.device, weight.dtype)


def make_pair(device: str) -> Pair:
    """A random model that never ends a text, so that both always write as many tokens."""
    torch.manual_seed(0)
    theirs = GitForCausalLM(GitConfig()).eval()
    with torch.no_grad():
        theirs.output.bias[102] = -1e4
    config = read_config(theirs.config.to_dict())
    state = {name: tensor.detach() for name, tensor in theirs.state_dict().items()}
    ours = GIT.from_state(config, read_state(state, config), "benchmark")
    return Pair(theirs.to(device), ours.to(device), device)


Work = tuple[Callable[[], object], Callable[[], object], float]  # ours, theirs, theirs' multiple


def captions(pair: Pair, images: int, beams: int) -> Work:
    """20 new tokens for each image."""
    pixels = pair.pixels(images)
    options = DecodingOptions(max_new_tokens=NEW, beams=beams)
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
git = Captioner.from_pretrained({model!r})
print(git.caption({image!r}).tokens)
"""
THEIRS = """
import torch; torch.set_num_threads({threads})
from PIL import Image
from transformers import CLIPImageProcessorPil, GitForCausalLM
model = GitForCausalLM.from_pretrained({model!r}).eval()
pixels = CLIPImageProcessorPil()(Image.open({image!r}), return_tensors="pt").pixel_values
print(model.generate(pixel_values=pixels, max_new_tokens=20).tolist())
"""


def whole_process(pair: Pair, folder: Path) -> Work:
    """From nothing to a caption: start Python, load the folder, read a picture, write 20 tokens."""
    from git_model.search import Generation  # noqa: F401  (warms the byte code)

    model, image = str(folder / "model"), str(folder / "photo.jpg")
    pair.theirs.save_pretrained(model)
    words = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{n}" for n in range(30522 - len(words))]
    (folder / "model" / "vocab.txt").write_text("\n".join(words))
    Image.effect_noise((640, 480), 80).convert("RGB").save(image)
    values = {"model": model, "image": image, "threads": torch.get_num_threads()}

    def run(code: str) -> Callable[[], object]:
        command = [sys.executable, "-c", code.format(**values)]
        return lambda: subprocess.run(command, check=True, capture_output=True)

    return run(OURS), run(THEIRS), 1.0


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


@click.command()
@click.option("--only", default="", help="Lines whose name contains this.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
def main(only: str, runs: int, threads: int, device: str) -> None:
    """Print the table."""
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    single, half = make_pair(device), make_pair(device)
    half.theirs.bfloat16()
    half.ours.bfloat16()
    with tempfile.TemporaryDirectory() as temporary:
        lines: list[tuple[str, Callable[[], Work]]] = [
            ("greedy, 1 image, float32", lambda: captions(single, 1, 1)),
            ("greedy, 1 image, bfloat16", lambda: captions(half, 1, 1)),
            ("beam 4, 1 image, float32", lambda: captions(single, 1, 4)),
            ("beam 4, 1 image, bfloat16", lambda: captions(half, 1, 4)),
            ("greedy, 8 images, float32", lambda: captions(single, 8, 1)),
            ("8 questions on 1 image, float32", lambda: questions(single)),
            ("log p of 1,000 class names, float32", lambda: labels(single)),
            ("whole process, folder to caption", lambda: whole_process(single, Path(temporary))),
        ]
        print("| work | this project | Transformers | ratio |\n|---|---|---|---|")
        for name, make in lines:
            if only in name:
                ours, theirs = measure(make(), runs)
                print(
                    f"| {name} | {ours:.2f} s | {theirs:.2f} s | {theirs / ours:.1f} x |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
