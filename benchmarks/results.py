"""Where measured figures live: a file for each benchmark, and the tables that quote it.

    python benchmarks/results.py     # write every quoted table and figure in README.md and docs/

A benchmark adds rows to a `Table` and saves it as benchmarks/results/NAME.json, with the command,
the date, the machine and the versions. A page quotes it behind a comment `<!-- results: NAME -->`,
and single figures in the sentences listed here; a few of these come from other files of the
repository. A test fails where a page differs from the files (tests/docs/test_results.py).
"""

import datetime
import json
import math
import platform
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CARD = ROOT / "git_model" / "demo" / "README.md"  # the built-in model's
FOLDER = ROOT / "benchmarks" / "results"
QUOTED = re.compile(r"<!-- results: (\w+) -->\n\n((?:\|.*\n)*)")


def read(name: str) -> dict[str, Any]:
    """What a benchmark saved."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def cell(name: str, row: str, column: str) -> str:
    """A cell, by the start of its row's text and its column."""
    content = read(name)
    (cells,) = [cells for cells in content["rows"] if " | ".join(cells).startswith(row)]
    return cells[content["columns"].index(column)]


def constant(path: str, pattern: str) -> str:
    """A whole number in a program of this repository: the only match of a pattern's group."""
    [number] = re.findall(pattern, (ROOT / path).read_text())
    return f"{int(number):,}"


def parameters() -> str:
    """The number of parameters of the built-in model, in millions."""
    from safetensors import safe_open

    with safe_open(CARD.with_name("model.safetensors"), framework="numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return f"{sum(map(math.prod, shapes)) / 1e6:.1f}"


def scenes() -> str:
    """How many scenes of a task `demo_accuracy.py` draws; `exported_accuracy.py` draws as many."""
    return constant("benchmarks/demo_accuracy.py", r'"--count", default=(\d+)')


def seen_captions() -> str:
    """The share of held-out captions that training showed, in per cent (docs/measure.py)."""
    memory = json.loads((ROOT / "docs" / "measurements.json").read_text())["memory"]
    return f"{100 * memory['seen'] / memory['captions']:.0f}"


CHAPTER_11 = "docs/walkthrough/11-training.md"
DEMO = "git_model/demo/README.md"

# A sentence of a page, and the cell that its figure comes from (file, start of the row, column) or
# a function that finds it.
SENTENCES: list[tuple[str, str, tuple[str, str, str] | Callable[[], str]]] = [
    ("README.md", "logits differ from Transformers' by {} in float64, over 60 random models",
     ("parity_table", "Transformers | logits, 60 random models", "float64")),
    ("README.md", "and by {} in the cases recorded from the paper's code",
     ("parity_table", "original, recorded | logits, 3 cases", "float64")),
    ("README.md", "beam search with 4 beams is {} times as fast as in Transformers",
     ("versus_transformers", "beam 4, 1 image", "this project, float32")),
    ("README.md", "8 questions on one image {} times",
     ("versus_transformers", "8 questions on 1 image", "this project, float32")),
    ("README.md", "from the start of the process, {} times as fast",
     ("versus_transformers", "whole process, examples/onnx_caption.py", "ONNX Runtime, int8")),
    ("README.md", "a step with 5 captions an image is {} times as fast",
     ("training", "2 images x 5 captions", "ratio")),
    ("README.md", "a test kills it {} times",
     lambda: constant("tests/batch/test_run.py", r"MANY_KILLS = (\d+)")),
    ("README.md", "**Teaches**: {} tested",
     lambda: str(len(list((ROOT / "docs" / "walkthrough").glob("*.md"))))),
    ("README.md", "The built-in model, {} M parameters", parameters),
    ("README.md", "exactly right texts among {} held-out scenes", scenes),
    ("docs/deploy.md", "The built-in model, {} held-out scenes for each task", scenes),
    ("docs/adapters.md", "A step of LoRA takes {} times as long as a full one",
     ("adapters", "LoRA, rank 8, every attention", "of the first row's")),
    ("docs/adapters.md", "The weights themselves, {} MB,", ("adapters", "all | ", "checkpoint")),
    (CHAPTER_11, "{} % of 2,000 held-out captions are exactly right",
     ("demo_accuracy", "captions | held out", "right of 2,000")),
    (CHAPTER_11, "and {} % of the captions of 2,000 images",
     ("demo_accuracy", "captions | new pairs", "right of 2,000")),
    (CHAPTER_11, "So {} % right on held-out close-ups",
     ("demo_accuracy", "classes | held out", "right of 2,000")),
    (CHAPTER_11, "The close-ups with new pairs do show it: {} % are right",
     ("demo_accuracy", "classes | new pairs", "right of 2,000")),
    (DEMO, "A GIT of {} million parameters", parameters),
    (DEMO, "Exact match on {} scenes per task", scenes),
    (DEMO, "Of 300 held-out captions {} % occur", seen_captions),
]  # fmt: skip


class Table:
    """A table that is printed row by row, and saved.

    Args:
        name: of the file.
        columns: their heads.
    """

    def __init__(self, name: str, columns: tuple[str, ...]) -> None:
        self.name = name
        self.columns = columns
        self.rows: list[list[str]] = []
        print(_line(columns), _line(["---"] * len(columns)), sep="\n", flush=True)

    def add(self, *cells: str) -> None:
        """Print a row and keep it."""
        self.rows.append(list(cells))
        print(_line(cells), flush=True)

    def save(self) -> None:
        """Write the file."""
        import torch

        program, *options = sys.argv
        options = [Path(text).name if Path(text).is_absolute() else text for text in options]
        content = {
            "command": shlex.join(["python", program, *options]),  # without this machine's folders
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "machine": f"{_processor()}, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "columns": self.columns,
            "rows": self.rows,
        }
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{self.name}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"saved {path.relative_to(ROOT)}; python benchmarks/results.py quotes it in the docs")


def figure(source: tuple[str, str, str] | Callable[[], str]) -> str:
    """A cell's ratio, or its number without a unit, or the whole cell if it has neither."""
    text = source() if callable(source) else cell(*source)
    ratio = re.search(r"([\d.]+) x", text) or re.fullmatch(r"([\d.,]+) (?:%|s|MB)", text)
    return ratio[1] if ratio else text


def sentence_pattern(sentence: str) -> re.Pattern[str]:
    """Matches the sentence wherever its lines break; its groups are around the figure."""
    before, after = (r"\s+".join(map(re.escape, part.split())) for part in sentence.split("{}"))
    return re.compile(rf"({before}\s+)(\S+)(\s+{after})")


def quoted(page: Path) -> str:
    """A page with every quoted table and figure as the files have them now."""
    text = QUOTED.sub(
        lambda match: f"<!-- results: {match[1]} -->\n\n{markdown(match[1])}", page.read_text()
    )
    for name, sentence, source in SENTENCES:
        if page == ROOT / name:
            text = sentence_pattern(sentence).sub(rf"\g<1>{figure(source)}\g<3>", text)
    return text


def markdown(name: str) -> str:
    """A saved table."""
    content = read(name)
    lines = [content["columns"], ["---"] * len(content["columns"]), *content["rows"]]
    return "".join(_line(cells) + "\n" for cells in lines)


def pages() -> list[Path]:
    """Every page that may quote a table."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), CARD]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |" if set(cells) != {"---"} else "|" + "---|" * len(cells)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    units = [name for name in ("avx512f", "avx512_bf16", "amx_tile") if name in flags]
    return " ".join([next(iter(names), platform.processor() or platform.machine()), *units])


if __name__ == "__main__":
    for page in pages():
        page.write_text(quoted(page))
