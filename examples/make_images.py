"""Write the held-out images and clips of examples/images, and truth.json: their right texts.

python examples/make_images.py [FOLDER]
"""

import json
import sys
from pathlib import Path

from git_model.data.example import Example, Media
from git_model.shapes.source import ShapesData, ShapesTask

FOLDER = Path(__file__).parent / "images"
# File name -> tasks, and the index of their held-out example.
EXAMPLES: dict[str, tuple[tuple[ShapesTask, ...], int]] = {
    "one_shape.png": (("captions", "questions"), 10),
    "two_shapes.png": (("captions", "questions"), 25),
    "three_shapes.png": (("captions", "questions"), 22),
    "five_shapes.png": (("captions", "questions"), 11),
    "close_up.png": (("classes",), 19),
    "one_acts_twice.gif": (("clips", "clip_questions"), 38),
    "both_act.gif": (("clips", "clip_questions"), 5),
}


def main(folder: Path = FOLDER) -> None:
    """Write all files."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = []
    for name, (tasks, index) in EXAMPLES.items():
        example = ShapesData(tasks=tasks, split="held_out", size=index + 1).open()[index]
        save(example.media, folder / name)
        truth += [{"file": name, **entry} for entry in truth_of(example, tasks)]
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def truth_of(example: Example, tasks: tuple[ShapesTask, ...]) -> list[dict[str, str | None]]:
    """Task, question and right answer of each annotation; the question is None for a caption."""
    return [
        {
            "task": tasks[0 if annotation.question is None else -1],
            "question": annotation.question,
            "answer": annotation.texts[0],
        }
        for annotation in example.annotations
    ]


def save(media: Media, path: Path) -> None:
    """Save an image as PNG, a clip as an endless animation of two frames a second."""
    if isinstance(media, list):
        media[0].save(path, save_all=True, append_images=media[1:], duration=500, loop=0)
    else:
        media.save(path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
