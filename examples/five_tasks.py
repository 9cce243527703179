"""The built-in model's five tasks on held-out images and clips, each answer above the right one.

    python examples/five_tasks.py

Every file is encoded once, for its caption and for all questions about it.
"""

import itertools
import json
from pathlib import Path

from git_model import Captioner
from git_model.captioner import ImageScene
from git_model.shapes.texts import class_names

IMAGES = Path(__file__).parent / "images"  # written by examples/make_images.py
TITLES = {"captions": "caption", "classes": "class", "clips": "caption of the clip"}


def main() -> None:
    """Print the model's answers for each file."""
    captioner = Captioner.from_pretrained("demo")
    truth = json.loads((IMAGES / "truth.json").read_text(encoding="utf-8"))
    n_right = 0
    for file, group in itertools.groupby(truth, key=lambda entry: entry["file"]):
        entries, scene = list(group), captioner.see(IMAGES / file)
        titles = [entry["question"] or TITLES[entry["task"]] for entry in entries]
        width = max(map(len, titles))
        print(f"{file}\n{'-' * len(file)}")
        for entry, title in zip(entries, titles, strict=True):
            text = answer(captioner, scene, entry)
            n_right += text == entry["answer"]
            print(f"{title:<{width}}  {text}\n{'(truth)':>{width}}  {entry['answer']}")
        print()
    print(f"{n_right} of {len(truth)} answers are right")


def answer(captioner: Captioner, scene: ImageScene, entry: dict[str, str | None]) -> str:
    """The model's answer to an entry of truth.json."""
    if entry["task"] == "classes":
        return captioner.classify(scene, class_names())[0].label
    if entry["question"] is None:
        return captioner.caption(scene).text
    return captioner.ask(scene, entry["question"]).text


if __name__ == "__main__":
    main()
