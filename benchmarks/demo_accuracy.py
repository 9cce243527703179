"""How often the built-in model is exactly right on scenes it has never seen, task by task.

    python benchmarks/demo_accuracy.py [--model demo] [--count 2000]

Each task has its own held-out examples. The last two lines are about colours and shapes that
training never showed together, such as a red star.
"""

import click

from git_model import Captioner
from git_model.evaluation.run import predict, group, writes
from git_model.evaluation.scores import PYTHON, score
from git_model.shapes.source import TASKS, ShapesData, Task
from git_model.shapes.texts import class_names
from git_model.shapes.world import Split

CASES: list[tuple[Task, Split]] = [
    *((task, "held_out") for task in TASKS),
    ("captions", "recombination"),
    ("classes", "recombination"),
]


def accuracy(git: Captioner, task: Task, split: Split, count: int) -> float:
    """The share of `count` texts, times 100, that are exactly right."""
    data = ShapesData(tasks=(task,), split=split, size=count, questions=1)
    say = ranks(git, class_names()) if task == "classes" else writes(git)
    metric = "top_1" if task == "classes" else "exact"
    found = predict(git, data.open(), say, batch_size=100)
    [values] = score(found, [metric], PYTHON).values()
    return values[metric]


@click.command()
@click.option("--model", default="demo", show_default=True)
@click.option("--count", default=2000, show_default=True, type=click.IntRange(min=1))
def main(model: str, count: int) -> None:
    """Print the table."""
    git = Captioner.from_pretrained(model)
    print(f"| task | scenes | right of {count:,} |\n|---|---|---|")
    for task, split in CASES:
        name = {"clips": "clip captions"}.get(task, task.replace("_", " "))
        scenes = "held out" if split == "held_out" else "new pairs of colour and shape"
        print(f"| {name} | {scenes} | {accuracy(git, task, split, count):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
