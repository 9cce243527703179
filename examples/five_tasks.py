"""The built-in model's five tasks on held-out pictures and clips, each answer above the truth.

    python examples/five_tasks.py

Every file is read once, for its caption and for all questions about it.
"""

import itertools
import json
from pathlib import Path

from git_model import Captioner
from git_model.captioner import PictureScene
from git_model.shapes.texts import class_names

IMAGES = Path(__file__).parent / "images"  # examples/make_images.py wrote them
NAMES = {"captions": "caption", "classes": "class", "clips": "caption of the clip"}


def main() -> None:
    """Print what the model says about each file."""
    git = Captioner.from_pretrained("demo")
    truth = json.loads((IMAGES / "truth.json").read_text(encoding="utf-8"))
    right = 0
    for file, group in itertools.groupby(truth, key=lambda entry: entry["file"]):
        entries, scene = list(group), git.see(IMAGES / file)
        titles = [entry["question"] or NAMES[entry["task"]] for entry in entries]
        width = max(map(len, titles))
        print(f"{file}\n{'-' * len(file)}")
        for entry, title in zip(entries, titles, strict=True):
            said = answer(git, scene, entry)
            right += said == entry["answer"]
            print(f"{title:<{width}}  {said}\n{'(truth)':>{width}}  {entry['answer']}")
        print()
    print(f"{right} of {len(truth)} answers are right")


def answer(git: Captioner, scene: PictureScene, entry: dict[str, str | None]) -> str:
    """What the model says where the truth says `entry`."""
    if entry["task"] == "classes":
        return git.classify(scene, class_names())[0].label
    if entry["question"] is None:
        return git.caption(scene).text
    return git.ask(scene, entry["question"]).text


if __name__ == "__main__":
    main()
