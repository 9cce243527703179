"""The drawn world beside real pictures: the same network and recipe, other pictures and texts.

python examples/real_pictures/stamps.py data/stamps
git-model data vocab data/stamps/train --out data/stamps/vocabulary --size 1000
python examples/real_pictures/emoji.py data/emoji
git-model data vocab data/emoji/train --out data/emoji/vocabulary --size 2000
"""

from dataclasses import replace
from pathlib import Path

from study import OpenData, recipe_data

from git_model import GIT
from git_model.data.example import Source
from git_model.data.folder import FolderData
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import initial_model
from git_model.training.loop import Initializer
from git_model.training.recipe import Recipe

DATA = Path("data")
HELD_OUT = {"stamps": "held_out", "emoji": "other_vendor"}  # the folder of the test


def real_pictures(name: str) -> tuple[Initializer, OpenData]:
    """What an arm trains on the pictures in `data/NAME`: a model with their vocabulary, and the
    pictures of training and test."""

    def initializer(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        return initial_model(replace(recipe, tokenizer=str(DATA / name / "vocabulary")))

    def open_data(recipe: Recipe) -> tuple[Source, Source]:
        train, test = (
            FolderData(path=str(DATA / name / split)) for split in ("train", HELD_OUT[name])
        )
        return recipe_data(replace(recipe, data=train, validation=test))

    return initializer, open_data
