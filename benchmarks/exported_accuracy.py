"""What an exported model costs in accuracy: the built-in model, task by task, on held-out scenes.

    python benchmarks/exported_accuracy.py exported-float32 exported-int8 [--count 2000]

Each FOLDER is what `git-model export demo FOLDER --dtype …` wrote; the first column is the source.
"""

from pathlib import Path

import click
from demo_accuracy import accuracy

from git_model import Captioner
from git_model.shapes.source import TASKS


@click.command()
@click.argument("folders", nargs=-1, required=True)
@click.option("--count", default=2000, show_default=True, type=click.IntRange(min=1))
def main(folders: tuple[str, ...], count: int) -> None:
    """Print the table."""
    captioners = {name: Captioner.from_pretrained(name) for name in ("demo", *folders)}
    print(f"| task | {' | '.join(Path(name).name for name in captioners)} |")
    print(f"|---{'|---' * len(captioners)}|")
    for task in TASKS:
        shares = (accuracy(model, task, "held_out", count) for model in captioners.values())
        print(f"| {task} | {' | '.join(f'{share:.1f} %' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
