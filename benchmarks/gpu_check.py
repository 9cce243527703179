"""What a machine with a GPU can prove about this project, in at most six minutes.

    python benchmarks/gpu_check.py [--device cuda] [--small]

Six sections, each with a table: parity with Transformers in three number formats, speed beside
Transformers on the same device, what `--compile` gains, a training step, `git-model batch` on a
folder of photos, and FSDP2 with one process. A section that fails is one line, the others go on,
and the exit code is 1. The model has GIT-base's size and random weights; with --small it is tiny,
which shows on any machine that the program itself works. Needs the `test` extra.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import batch_folder
import click
import torch
import torch.distributed as dist
import training
import versus_transformers
from parity_table import make_pair, their_logits
from torch import Tensor

from git_model import GIT, Captioner, DecodingOptions, generate
from git_model.data.collation import Batch
from git_model.generation.compiled import CompiledGIT, StaticSteps
from git_model.training.loss import CrossEntropy, LossModule
from git_model.training.parallel import shard
from git_model.utils.devices import usable_device
from git_model.utils.distance import distance
from git_model.utils.errors import GITError

# The largest relative distance of logits from those in float64, on weights that bite.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2, "float16": 0.02}
SHARDED_TOLERANCE = 1e-5
NEW_TOKENS = 20
START, FIRST_WORD = 101, 104  # [CLS], and the first that is not a special token
SEARCHES = (
    DecodingOptions(max_new_tokens=8),
    DecodingOptions(max_new_tokens=8, num_beams=3, num_return_sequences=3),
)

Rows = Iterator[tuple[str, ...]]


@dataclass(frozen=True)
class Check:
    """What the sections share: a device, and a checkpoint in `folder`/model."""

    device: torch.device
    folder: Path
    small: bool

    @property
    def model(self) -> Path:
        """The checkpoint."""
        return self.folder / "model"

    @property
    def vocab_size(self) -> int:
        """The tokens of the checkpoint."""
        return len((self.model / "vocab.txt").read_text().splitlines())

    def count(self, full: int, small: int) -> int:
        """How much is done: at full size, or with --small."""
        return small if self.small else full

    def ours(self, dtype: str) -> Captioner:
        """This project's model."""
        return Captioner.from_pretrained(self.model, dtype=dtype, device=self.device)

    def theirs(self, dtype: str) -> Any:
        """Transformers' model."""
        from transformers import GitForCausalLM

        model = GitForCausalLM.from_pretrained(self.model, dtype=getattr(torch, dtype))
        return model.eval().to(self.device)

    def seconds(self, run: Callable[[], object]) -> float:
        """The time of a run, with what it left to the device."""
        start = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def compare(self, *runs: Callable[[], object], n: int) -> tuple[str, ...]:
        """Median times of two programs that take turns, and their ratio; a first turn is not
        counted."""
        turns = [[self.seconds(run) for run in runs] for _ in range(n + 1)][1:]
        ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
        return f"{ours * 1000:.1f} ms", f"{theirs * 1000:.1f} ms", f"{theirs / ours:.1f} x"


def write_small_checkpoint(folder: Path) -> None:
    """A tiny `write_endless_model` that reads images of the usual size."""
    from transformers import GitConfig

    size = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2}
    vision = size | {"num_hidden_layers": 1, "patch_size": 56}
    config = GitConfig(vision_config=vision, vocab_size=144, num_hidden_layers=2, **size)
    versus_transformers.write_endless_model(folder / "model", config)


@torch.inference_mode()
def check_parity(check: Check) -> Rows:
    """Random small models with weights that bite, images and clips, beside Transformers in float64
    on the CPU. In half precision the weights are rounded first, on both sides."""
    yield "number format", "models", "logits, relative distance", "equal tokens, greedy and beams"
    for name, tolerance in TOLERANCE.items():
        distances, equal = zip(*_parity_of(check, name), strict=True)
        share = sum(equal) / len(equal)
        yield name, str(len(equal)), f"{max(distances):.1e} (at most {tolerance})", f"{share:.1%}"
        if not max(distances) <= tolerance or (name == "float32" and share < 1):
            raise GITError(f"{name}: the results differ from Transformers'")


def _parity_of(check: Check, dtype_name: str) -> Iterator[tuple[float, float]]:
    """For each model the distance of its logits, and the share of equal tokens."""
    dtype = getattr(torch, dtype_name)
    for seed in range(check.count(12, 2)):
        pair = make_pair(seed)
        pair.theirs.to(dtype).double()
        pair.pixels = pair.pixels.to(dtype).double()
        reference = deepcopy(pair.ours).to(dtype).double()
        model = pair.ours.to(check.device, dtype)
        pixels = pair.pixels.to(check.device, dtype)
        logits = model(pixels, pair.tokens.to(check.device)).cpu().double()
        # theirs and ours in float64 are equal, as tests/parity shows
        texts = _texts(model, pixels), _texts(reference, pair.pixels)
        n_equal = sum(a == b for a, b in zip(*texts, strict=True))
        yield distance(logits, their_logits(pair, pair.pixels)), n_equal / len(texts[0])


def _texts(model: GIT, pixels: Tensor) -> list[int]:
    """The tokens of all searches."""
    scene = model.see(pixels)
    results = [generate(model, scene, [[1]] * len(scene), options) for options in SEARCHES]
    return [
        token
        for result in results
        for row in result
        for text in row
        for token in (*text.tokens, *[-1] * (8 - len(text.tokens)))
    ]


@torch.inference_mode()
def check_speed(check: Check) -> Rows:
    """20 new tokens for images, and 4 for questions about one image, whose pixels Transformers
    repeats."""
    yield "work", "number format", "this project", "Transformers", "ratio"
    n = check.count(5, 1)
    for dtype in TOLERANCE:
        ours, theirs = check.ours(dtype).model, check.theirs(dtype)
        for work, images, prompts, options in _works(check.count(NEW_TOKENS, 3)):
            pixels = torch.randn(images, 3, 224, 224).to(check.device, ours.dtype)
            runs = _pair_of_runs(ours, theirs, pixels, prompts, options)
            yield work, dtype, *check.compare(*runs, n=n)


def _works(n_tokens: int) -> Iterable[tuple[str, int, list[list[int]], DecodingOptions]]:
    """Name, images, prompts, and options."""
    greedy = DecodingOptions(max_new_tokens=n_tokens)
    beams = DecodingOptions(max_new_tokens=n_tokens, num_beams=4)
    short = DecodingOptions(max_new_tokens=min(4, n_tokens))
    questions = [[START, *range(FIRST_WORD, FIRST_WORD + 6), FIRST_WORD + 8 + n] for n in range(8)]
    return [
        ("greedy, 1 image", 1, [[START]], greedy),
        ("beam 4, 1 image", 1, [[START]], beams),
        ("greedy, 8 images", 8, [[START]] * 8, greedy),
        ("8 questions on 1 image", 1, questions, short),
    ]


def _pair_of_runs(
    ours: GIT, theirs: Any, pixels: Tensor, prompts: list[list[int]], options: DecodingOptions
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same work in both projects."""
    tokens = torch.tensor(prompts, device=pixels.device)
    repeated = pixels.repeat(len(prompts) // len(pixels), 1, 1, 1)
    return (
        lambda: generate(ours, ours.see(pixels), prompts, options),
        lambda: theirs.generate(
            input_ids=tokens, pixel_values=repeated, max_new_tokens=options.max_new_tokens,
            num_beams=options.num_beams, do_sample=False,
        ),
    )  # fmt: skip


@torch.inference_mode()
def check_compiled(check: Check) -> Rows:
    """The encoder and the decoder's steps compiled, these as CUDA graphs, beside the same model
    uncompiled, in bfloat16. With --small the steps have their fixed shapes only: to compile them
    takes minutes on a CPU."""
    yield "work", "compiled", "uncompiled", "ratio", "first call", "equal tokens"
    model = check.ours("bfloat16").model
    compiled = CompiledGIT.from_state(model.config, model.tensors(), str(check.model))
    if check.small:
        compiled.steps = StaticSteps(compiled.decoder)
    else:
        compiled.compile_parts()
    for work, images, prompts, options in _works(check.count(NEW_TOKENS, 3)):
        pixels = torch.randn(images, 3, 224, 224).to(check.device, model.dtype)
        runs = [partial(_tokens, net, pixels, prompts, options) for net in (compiled, model)]
        first = check.seconds(runs[0])
        ours, theirs = (run() for run in runs)
        share = sum(map(int.__eq__, ours, theirs)) / len(theirs)
        yield work, *check.compare(*runs, n=check.count(5, 1)), f"{first:.1f} s", f"{share:.1%}"


def _tokens(
    model: GIT, pixels: Tensor, prompts: list[list[int]], options: DecodingOptions
) -> list[int]:
    """The tokens of all texts."""
    results = generate(model, model.see(pixels), prompts, options)
    return [token for row in results for text in row for token in text.tokens]


def check_training(check: Check) -> Rows:
    """Complete steps: forward, backward, clipping, AdamW, in float32."""
    yield "step", "this project", "Transformers", "ratio"
    images, captions = check.count(16, 2), 5
    batch = training.random_batch(images, captions, 16, check.vocab_size)
    steps = [
        make(check.model, batch, check.device) for make in (training.our_step, training.their_step)
    ]
    name = f"{images} images x {captions} captions of 16 tokens"
    yield name, *check.compare(*steps, n=check.count(5, 1))


def check_batch(check: Check) -> Rows:
    """`git-model batch` on JPEG files of real sizes. A text is written beside each file."""
    yield "number format", "images a second", "model busy", "texts equal to one image at a time"
    n = check.count(64, 2)
    photos = check.folder / "photos"
    photos.mkdir()
    batch_folder.write_photos(photos, n)
    for dtype in TOLERANCE:
        captioner = check.ours(dtype)
        if not check.small:
            captioner.caption(photos / "0000.jpg")  # the first work on a device is slow
        start = time.perf_counter()
        summary = batch_folder.run_batch(captioner, photos, workers=check.count(8, 1))
        seconds = time.perf_counter() - start
        if summary["written"] != n:
            raise GITError(f"{dtype}: {summary['written']} of {n} images have a text")
        options = DecodingOptions(max_new_tokens=batch_folder.NEW_TOKENS)
        alone = {
            path: captioner.caption(path, options).text for path in sorted(photos.glob("*.jpg"))[:8]
        }
        n_equal = sum(path.with_suffix(".txt").read_text().strip() == alone[path] for path in alone)
        rate, busy = f"{n / seconds:.1f}", f"{summary['model_busy']:.0%}"
        yield dtype, rate, busy, f"{n_equal} of {len(alone)}"


def check_fsdp(check: Check) -> Rows:
    """A step of SGD on a sharded model, beside the same step without sharding."""
    yield "FSDP2, 1 process", "relative distance"
    batch = training.random_batch(2, 3, 12, check.vocab_size)
    whole = check.ours("float32").model  # in eval mode: no dropout
    sharded = deepcopy(whole)
    with _one_process(check.device):
        module = LossModule(sharded, CrossEntropy())
        shard(module)
        expected = _sgd_step(LossModule(whole, CrossEntropy()), batch, check.device)
        results = _sgd_step(module, batch, check.device)
    distances = {name: distance(results[name], expected[name]) for name in expected}
    yield "loss", f"{distances.pop('loss'):.1e}"
    largest = max(distances, key=distances.__getitem__)
    yield "weights after a step", f"{distances[largest]:.1e}"
    if not distances[largest] <= SHARDED_TOLERANCE:
        raise GITError(f"sharding changes {largest}")


def _sgd_step(module: LossModule, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The loss, and every weight after the step."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    total = module(batch.to(device)).total
    total.backward()
    optimizer.step()
    weights = {
        name: (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach().cpu()
        for name, weight in module.named_parameters()
    }
    return {"loss": total.detach().cpu(), **weights}


@contextmanager
def _one_process(device: torch.device) -> Iterator[None]:
    """A process group of this process alone."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


SECTIONS: dict[str, Callable[[Check], Rows]] = {
    "Parity": check_parity,
    "Speed": check_speed,
    "Compiled": check_compiled,
    "A training step": check_training,
    "A folder": check_batch,
    "FSDP2": check_fsdp,
}


def run_section(name: str, check: Check) -> bool:
    """Print a section's table as it grows; whether it succeeded."""
    print(f"\n## {name}\n", flush=True)
    start = time.perf_counter()
    try:
        for number, row in enumerate(SECTIONS[name](check)):
            print(f"| {' | '.join(row)} |", flush=True)
            if number == 0:
                print(f"|{'---|' * len(row)}", flush=True)
    except Exception as error:  # whatever it is, the other sections are still of use
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"\nFAILED: {type(error).__name__}: {line}", flush=True)
        return False
    print(f"\nok, {time.perf_counter() - start:.0f} s", flush=True)
    return True


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--small", is_flag=True, help="A tiny model: to see that this program works.")
@click.option("--only", default="", help="Sections whose name contains this.")
def main(device: str, small: bool, only: str) -> None:
    """Print a table for each section."""
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        target = usable_device(device)
    except GITError as error:
        raise click.ClickException(str(error)) from None
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32 here, in convolutions, too
    hardware = torch.cuda.get_device_name(target) if target.type == "cuda" else str(target)
    print(f"{hardware}, torch {torch.__version__}, {'tiny model' if small else 'GIT-base size'}")
    with tempfile.TemporaryDirectory() as name:
        check = Check(target, Path(name), small)
        (write_small_checkpoint if small else versus_transformers.write_checkpoint)(check.folder)
        results = [run_section(section, check) for section in SECTIONS if only in section]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
