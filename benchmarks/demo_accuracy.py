"""The share of texts that the built-in model gets exactly right on held-out scenes, task by task.

    python benchmarks/demo_accuracy.py [--model demo] [--count 2000]

Each task has its own held-out examples. Scenes of the last two lines have a combination of
colour and shape that training never showed, such as a red star.
"""

import click
from results import Table

from git_model import Captioner
from git_model.evaluation.run import label_predictor, predict, text_predictor
from git_model.evaluation.scores import PYTHON, score
from git_model.shapes.source import TASKS, ShapesData, ShapesTask
from git_model.shapes.texts import class_names
from git_model.shapes.world import Split

CASES: list[tuple[ShapesTask, Split]] = [
    *((task, "held_out") for task in TASKS),
    ("captions", "recombination"),
    ("classes", "recombination"),
]


def accuracy(captioner: Captioner, task: ShapesTask, split: Split, count: int) -> float:
    """The share of `count` texts that are exactly right, times 100."""
    data = ShapesData(tasks=(task,), split=split, size=count, questions=1)
    if task == "classes":
        predictor, metric = label_predictor(captioner, class_names()), "top_1"
    else:
        predictor, metric = text_predictor(captioner), "exact"
    predictions = predict(captioner, data.open(), predictor, batch_size=100)
    [scores] = score(predictions, [metric], PYTHON).values()
    return scores[metric]


@click.command()
@click.option("--model", default="demo", show_default=True)
@click.option("--count", default=2000, show_default=True, type=click.IntRange(min=1))
def main(model: str, count: int) -> None:
    """Measure, print and save the table."""
    captioner = Captioner.from_pretrained(model)
    table = Table("demo_accuracy", ("task", "scenes", f"right of {count:,}"))
    for task, split in CASES:
        name = {"clips": "clip captions"}.get(task, task.replace("_", " "))
        scenes = "held out" if split == "held_out" else "new pairs of colour and shape"
        table.add(name, scenes, f"{accuracy(captioner, task, split, count):.1f} %")
    if model == "demo":
        table.save()


if __name__ == "__main__":
    main()
