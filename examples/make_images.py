"""Write the held-out pictures and clips in examples/images, and truth.json: what is right to say.

python examples/make_images.py [FOLDER]
"""

import json
import sys
from pathlib import Path

from PIL import Image

from git_model.data.example import Example
from git_model.shapes.source import ShapesData, Task

FOLDER = Path(__file__).parent / "images"
# Name -> which tasks, and the number of a held-out example of theirs.
EXAMPLES: dict[str, tuple[tuple[Task, ...], int]] = {
    "one_shape.png": (("captions", "questions"), 10),
    "two_shapes.png": (("captions", "questions"), 25),
    "three_shapes.png": (("captions", "questions"), 22),
    "five_shapes.png": (("captions", "questions"), 11),
    "close_up.png": (("classes",), 19),
    "one_acts_twice.gif": (("clips", "clip_questions"), 38),
    "both_act.gif": (("clips", "clip_questions"), 5),
}


def main(folder: Path = FOLDER) -> None:
    """Write them all."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = []
    for name, (tasks, number) in EXAMPLES.items():
        example = ShapesData(tasks=tasks, split="held_out", size=number + 1).open()[number]
        save(example.media, folder / name)
        truth += [{"file": name, **entry} for entry in said_of(example, tasks)]
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def said_of(example: Example, tasks: tuple[Task, ...]) -> list[dict[str, str | None]]:
    """Task, question and right answer of each target; the question is None for a caption."""
    return [
        {
            "task": tasks[0 if target.question is None else -1],
            "question": target.question,
            "answer": target.texts[0],
        }
        for target in example.annotations
    ]


def save(view: Image.Image | list[Image.Image], path: Path) -> None:
    """A picture as PNG; a clip as an animation, a frame each half second, again and again."""
    if isinstance(view, list):
        view[0].save(path, save_all=True, append_images=view[1:], duration=500, loop=0)
    else:
        view.save(path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
