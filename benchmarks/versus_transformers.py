"""How fast each engine does GIT's work beside Transformers: same weights, machine and threads.

    python benchmarks/versus_transformers.py [--exports FOLDER] [--runs 3] [--only greedy]
        [--without OpenVINO] [--compiled] [--memory]

A model of GIT-base's size with random weights is written and opened by Transformers, by this
project, and exported by it for ONNX Runtime and OpenVINO. The engines take turns for each line, so
that other load on the machine slows down all of them. A cell is the median time, and how many times
as fast as Transformers that is. The last columns are the least time that the machine needs, from
its rates measured by limits.py. FOLDER keeps the exported graphs for the next time. Needs the
`test` extra.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from exports import VARIANTS, exports
from limits import Step, Work, measure
from PIL import Image
from results import ROOT, Table
from torch import Tensor

from git_model import GIT, Captioner, DecodingOptions, generate
from git_model.generation.generate import score_texts
from git_model.utils.devices import dtype_of

NEW = 20
QUESTION = list(range(2000, 2006))
N_QUESTIONS, N_ANSWER = 8, 4
LABELS = 1000
THEIR_LABELS = 16  # theirs takes minutes for all; its time is linear in their number
WHOLE = "whole process, folder to caption"
WITHOUT_TORCH = "whole process, examples/onnx_caption.py"
BASE = "Transformers"
SOURCE = "this project, float32"


@dataclass(frozen=True)
class Line:
    """Work in one process.

    ours, theirs: with a model of either project, and pixels (B, 3, 224, 224).
    part: the share of the work that `theirs` does.
    """

    work: Work
    ours: Callable[[GIT, Tensor], object]
    theirs: Callable[[Any, Tensor], object]
    part: float = 1.0

    @property
    def pixels(self) -> Tensor:
        """Random images."""
        rng = torch.Generator().manual_seed(0)
        return torch.randn(self.work.n_images, 3, 224, 224, generator=rng)


def captions(n_images: int, num_beams: int) -> Line:
    """20 new tokens for each image."""
    options = DecodingOptions(max_new_tokens=NEW, num_beams=num_beams)
    start = torch.full((n_images, 1), 101)
    rows = n_images * num_beams

    def ours(model: GIT, pixels: Tensor) -> object:
        return generate(model, model.see(pixels), start.tolist(), options)

    def theirs(model: Any, pixels: Tensor) -> object:
        return model.generate(
            input_ids=start.to(pixels.device), pixel_values=pixels, max_new_tokens=NEW,
            num_beams=num_beams, do_sample=False,
        )  # fmt: skip

    return Line(Work(n_images, [Step(rows, rows)] * NEW), ours, theirs)


def questions() -> Line:
    """8 questions of 8 tokens on one image, 4 new tokens each; theirs repeats the image."""
    prompts = [[101, *QUESTION, 3000 + n] for n in range(N_QUESTIONS)]
    options = DecodingOptions(max_new_tokens=N_ANSWER)

    def ours(model: GIT, pixels: Tensor) -> object:
        return generate(model, model.see(pixels), prompts, options)

    def theirs(model: Any, pixels: Tensor) -> object:
        return model.generate(
            input_ids=torch.tensor(prompts, device=pixels.device),
            pixel_values=pixels.repeat(N_QUESTIONS, 1, 1, 1), max_new_tokens=N_ANSWER,
            do_sample=False,
        )  # fmt: skip

    first = Step(N_QUESTIONS, N_QUESTIONS * len(prompts[0]))
    steps = [first, *[Step(N_QUESTIONS, N_QUESTIONS)] * (N_ANSWER - 1)]
    return Line(Work(1, steps), ours, theirs)


def class_names() -> list[list[int]]:
    """1,000 names of one to four tokens, some with common beginnings, and their end."""
    rng = torch.Generator().manual_seed(0)
    names: dict[tuple[int, ...], None] = {}
    while len(names) < LABELS:
        length = int(torch.randint(1, 5, (), generator=rng))
        first = int(torch.randint(2000, 2700, (), generator=rng))
        rest = torch.randint(3000, 9000, (length - 1,), generator=rng).tolist()
        names[(first, *rest, 102)] = None
    return [list(name) for name in names]


def labels() -> Line:
    """The exact log-probability of 1,000 class names; theirs a batch of names."""
    names = class_names()

    def ours(model: GIT, pixels: Tensor) -> object:
        return score_texts(model, model.see(pixels), [[101]], names)

    def theirs(model: Any, pixels: Tensor) -> object:
        rows = [[101, *name] for name in names[:THEIR_LABELS]]
        length = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        mask = (torch.arange(length) < torch.tensor([[len(row)] for row in rows])).long()
        tokens, mask = tokens.to(pixels.device), mask.to(pixels.device)
        logits = model(
            input_ids=tokens, attention_mask=mask,
            pixel_values=pixels.repeat(len(rows), 1, 1, 1), use_cache=False,
        ).logits  # fmt: skip
        return logits[:, -length:].log_softmax(-1).gather(2, tokens[:, 1:, None]).sum()

    # A trie: each beginning that some name continues is a row of its step.
    beginnings = [{tuple(name[:n]) for name in names if len(name) > n} for n in range(5)]
    steps = [Step(len(rows), len(rows)) for rows in beginnings if rows]
    return Line(Work(1, steps), ours, theirs, THEIR_LABELS / LABELS)


LINES: dict[str, Callable[[], Line]] = {
    "greedy, 1 image": lambda: captions(1, 1),
    "beam 4, 1 image": lambda: captions(1, 4),
    "greedy, 8 images": lambda: captions(8, 1),
    "8 questions on 1 image": questions,
    "log p of 1,000 class names": labels,
}

OURS = """
from git_model import Captioner
import torch; torch.set_num_threads({threads})
captioner = Captioner.from_pretrained({model!r}, device={device!r}, dtype={dtype!r})
print(captioner.caption({image!r}).tokens)
"""
THEIRS = """
import torch; torch.set_num_threads({threads})
from PIL import Image
from transformers import CLIPImageProcessorPil, GitForCausalLM
model = GitForCausalLM.from_pretrained({model!r}).eval().to({device!r})
pixels = CLIPImageProcessorPil()(Image.open({image!r}), return_tensors="pt").pixel_values
print(model.generate(pixel_values=pixels.to({device!r}), max_new_tokens=20).tolist())
"""
ONE_LINE = """
import sys; sys.path.insert(0, {benchmarks!r})
import versus_transformers as v
v.torch.set_num_threads({threads})
setup = v.Setup(v.Path({model!r}).parent, v.Path({model!r}), {device!r})
v.makers(setup)[{engine!r}]().seconds(v.LINES[{line!r}]())
"""
EXAMPLE = """
import runpy, sys
sys.argv = ["", {model!r}, {image!r}]
runpy.run_path({example!r})
"""
PEAK = r"""
import re  # on Linux, in kB; what `resource` reports begins with the parent's
print(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


@dataclass(frozen=True)
class Setup:
    """What every engine opens, the checkpoint and the photo in `folder`; the exported graphs."""

    folder: Path
    exports: Path
    device: str

    @property
    def model(self) -> str:
        """The checkpoint's folder."""
        return str(self.folder / "model")

    def command(self, code: str, model: str, dtype: str = "float32", **values: str) -> list[str]:
        """A process that runs this code and then prints its peak memory."""
        code = code.format(
            model=model, dtype=dtype, device=self.device, image=str(self.folder / "photo.jpg"),
            threads=torch.get_num_threads(), example=str(ROOT / "examples" / "onnx_caption.py"),
            benchmarks=str(ROOT / "benchmarks"), **values,
        )  # fmt: skip
        return [sys.executable, "-c", code + PEAK]


@dataclass(frozen=True)
class Engine:
    """An opened model.

    code: of a process of its own, from the start of Python to a caption; empty if not measured.
    """

    model: Any
    folder: str
    code: str
    device: str
    dtype: str = "float32"
    is_theirs: bool = False

    def seconds(self, line: Line) -> float:
        """The time of the whole work of a line."""
        pixels = line.pixels.to(self.device, getattr(torch, self.dtype))
        run, part = (line.theirs, line.part) if self.is_theirs else (line.ours, 1.0)
        start = time.perf_counter()
        with torch.inference_mode():
            run(self.model, pixels)
        if pixels.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / part


class LeftOutError(Exception):
    """Why an engine cannot be measured here."""


def write_checkpoint(folder: Path) -> None:
    """A model of GIT-base's size, and a photo."""
    from transformers import GitConfig

    write_endless_model(folder / "model", GitConfig())
    Image.effect_noise((640, 480), 80).convert("RGB").save(folder / "photo.jpg")


def write_endless_model(folder: Path, config: Any) -> None:
    """A random model that never ends a text, so that all engines write as many tokens.

    Args:
        config: a GitConfig of Transformers.
    """
    from transformers import GitForCausalLM

    torch.manual_seed(0)
    model = GitForCausalLM(config)
    with torch.no_grad():
        model.output.bias[config.eos_token_id] = -1e4
    model.save_pretrained(folder)
    words = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{n}" for n in range(config.vocab_size - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words))


def makers(setup: Setup) -> dict[str, Callable[[], Engine]]:
    """What opens each engine, Transformers first."""
    return {
        BASE: lambda: theirs(setup, "float32"),
        f"{BASE}, bfloat16": lambda: theirs(setup, "bfloat16"),
        f"{BASE}, compiled": lambda: compiled(setup),
        SOURCE: lambda: ours(setup, setup.model, "float32"),
        "this project, bfloat16": lambda: ours(setup, setup.model, "bfloat16"),
        **{name: partial(exported, setup, name) for name in VARIANTS},
    }


def open_engines(setup: Setup, without: tuple[str, ...]) -> dict[str, Engine]:
    """The engines by name.

    Args:
        without: leave out an engine whose name contains one of these.
    """
    engines = {}
    for name, make in makers(setup).items():
        if name in (BASE, SOURCE) or not any(part in name for part in without):
            try:
                engines[name] = make()
            except LeftOutError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
    return engines


def ours(setup: Setup, folder: str, dtype: str) -> Engine:
    """This project, with a checkpoint or an exported model."""
    require_bfloat16(setup, dtype)
    model = Captioner.from_pretrained(folder, dtype=dtype, device=setup.device).model
    return Engine(model, folder, OURS, setup.device, dtype)


def exported(setup: Setup, name: str) -> Engine:
    """This project, with exported graphs; those that are missing are written."""
    if setup.device != "cpu":
        raise LeftOutError("exported graphs are measured on the CPU only")
    return ours(setup, str(exports(setup.model, setup.exports)[name]), "float32")


def theirs(setup: Setup, dtype: str) -> Engine:
    """Transformers."""
    from transformers import GitForCausalLM

    require_bfloat16(setup, dtype)
    model = GitForCausalLM.from_pretrained(setup.model, dtype=getattr(torch, dtype))
    code = THEIRS if dtype == "float32" else ""
    model = model.eval().to(setup.device)
    return Engine(model, setup.model, code, setup.device, dtype, is_theirs=True)


def compiled(setup: Setup) -> Engine:
    """Transformers in float32, compiled by torch: minutes for the first of each line."""
    engine = replace(theirs(setup, "float32"), code="")
    engine.model.compile(dynamic=True)
    try:
        for line in LINES.values():
            engine.seconds(line())
    except Exception as error:  # of torch's compiler and of what it calls: no common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LeftOutError(reason) from None
    return engine


def require_bfloat16(setup: Setup, dtype: str) -> None:
    """Leave bfloat16 out where it is emulated."""
    native = dtype_of("auto", torch.device(setup.device)) is torch.bfloat16
    if dtype == "bfloat16" and not native:
        raise LeftOutError("the device does not compute in bfloat16")


def measure_line(line: Line, engines: dict[str, Engine], runs: int) -> dict[str, float]:
    """Median seconds by engine. They take turns; the first turn does not count."""
    rows = [[engine.seconds(line) for engine in engines.values()] for _ in range(runs + 1)]
    columns = zip(*rows[1:], strict=True)
    return dict(zip(engines, map(statistics.median, columns), strict=True))


def measure_processes(
    commands: dict[str, list[str]], runs: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds, and peak memory in GB, of processes that take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    memory = {}
    for _ in range(runs):
        for name, command in commands.items():
            start = time.perf_counter()
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds[name].append(time.perf_counter() - start)
            memory[name] = 1024 * int(output.split()[-1]) / 1e9
    return {name: statistics.median(times) for name, times in seconds.items()}, memory


def cells(seconds: dict[str, float], base: float) -> dict[str, str]:
    """Times, and how many times as fast as Transformers that is."""
    return {
        name: f"{time:.2f} s" + ("" if name == BASE else f" ({base / time:.1f} x)")
        for name, time in seconds.items()
    }


def line_memory(setup: Setup, line: str) -> dict[str, str]:
    """The peak memory of a process that does this line's work once."""
    commands = {
        name: setup.command(ONE_LINE, setup.model, engine=name, line=line)
        for name in (BASE, SOURCE)
    }
    _, memory = measure_processes(commands, 1)
    return {name: f", {gigabytes:.1f} GB" for name, gigabytes in memory.items()}


def process_rows(setup: Setup, engines: dict[str, Engine], runs: int) -> dict[str, dict[str, str]]:
    """The rows of whole processes: through this project's front door, and without torch."""
    commands = {
        (WHOLE, name): setup.command(engine.code, engine.folder, engine.dtype)
        for name, engine in engines.items()
        if engine.code
    }
    for name, engine in engines.items():
        if name.startswith("ONNX"):
            commands[WITHOUT_TORCH, name] = setup.command(EXAMPLE, engine.folder)
    seconds, memory = measure_processes(commands, runs)
    rows: dict[str, dict[str, str]] = {WHOLE: {}, WITHOUT_TORCH: {}}
    for row, name in commands:
        times = {name: seconds[row, name]}
        [text] = cells(times, seconds[WHOLE, BASE]).values()
        rows[row][name] = f"{text}, {memory[row, name]:.1f} GB"
    return rows


@dataclass(frozen=True)
class Selection:
    """What is measured: lines whose name contains `only`, in engines whose name contains nothing of
    `without`, so many `runs`; with `compiled` Transformers compiled by torch, too; with `memory`
    the peak of each line in Transformers and here."""

    only: str
    without: tuple[str, ...]
    runs: int
    compiled: bool
    memory: bool

    @property
    def is_complete(self) -> bool:
        """Whether it is the whole table."""
        return not self.only and not self.without


def measure_rows(setup: Setup, selection: Selection) -> Iterator[tuple[str, dict[str, str]]]:
    """First an empty row with every column, then each row when it is measured: its name, and its
    cells by column."""
    without = selection.without if selection.compiled else (*selection.without, "compiled")
    engines, rates = open_engines(setup, without), measure()
    limits = {dtype: f"limit, {dtype}" for dtype in rates.flop}
    yield "work", dict.fromkeys([*engines, *limits.values()], "")
    for name in (name for name in LINES if selection.only in name):
        line = LINES[name]()
        seconds = measure_line(line, engines, selection.runs)
        peaks = line_memory(setup, name) if selection.memory else {}
        row = {
            key: text + peaks.get(key, "") for key, text in cells(seconds, seconds[BASE]).items()
        }
        for dtype, column in limits.items():
            row[column] = f"{rates.seconds(engines[SOURCE].model, line.work, dtype):.2f} s"
        yield name, row
    if selection.only in WHOLE:
        yield from process_rows(setup, engines, selection.runs).items()


@click.command()
@click.option("--only", default="", help="Lines whose name contains this.")
@click.option("--without", multiple=True, help="Leave out engines whose name contains this.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--compiled", is_flag=True, help="Transformers compiled, too: many minutes more.")
@click.option("--memory", is_flag=True, help="Peak memory of each line: Transformers', and ours.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--exports", "root", type=click.Path(path_type=Path), help="Keep the graphs here.")
def main(threads: int, device: str, root: Path | None, **selected: Any) -> None:
    """Print the table, and save it if it is complete and of the CPU."""
    from transformers import logging

    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    selection = Selection(**selected)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoint(folder)
        rows = measure_rows(Setup(folder, root or folder / "exports", device), selection)
        head, columns = next(rows)
        table = Table("versus_transformers", (head, *columns))
        for name, row in rows:
            table.add(name, *({**columns, **row}.values()))
    if selection.is_complete and device == "cpu":
        table.save()


if __name__ == "__main__":
    main()
