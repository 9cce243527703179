"""The models that are used if none is named, and what the released models were made for.

This module does not import torch, so that `--help` shows the table at once.
"""

from pathlib import Path
from typing import Literal, NamedTuple

DEMO = "demo"  # the model inside this package
DEMO_PURPOSE = "images and clips of drawn shapes, at most 64 x 64 pixels"
MODEL_CARD = Path(__file__).parents[1] / DEMO / "README.md"
MODEL_HELP = f"Hub id, folder, or {DEMO}: {DEMO_PURPOSE} (MIT licence; its model card: below)."

Task = Literal["caption", "ask", "classify", "score"]


class DefaultModel(NamedTuple):
    """Hub ids: for images, and for videos where every input is one."""

    image: str
    video: str


# The models that are used if none is named. With a question every task is "ask".
DEFAULT_MODELS: dict[Task, DefaultModel] = {
    "caption": DefaultModel("microsoft/git-base-coco", "microsoft/git-base-vatex"),
    "ask": DefaultModel("microsoft/git-base-vqav2", "microsoft/git-base-msrvtt-qa"),
    "classify": DefaultModel("microsoft/git-base", "microsoft/git-base-vatex"),
    "score": DefaultModel("microsoft/git-base-coco", "microsoft/git-base-vatex"),
}

DEFAULT_MODEL = DEFAULT_MODELS["caption"].image  # if no task is named either

# The released checkpoints, by what follows their size in their name.
_PURPOSES = {
    "": "texts about images of the web; trained on these only",
    "-coco": "captions of photos (COCO)",
    "-textcaps": "captions of photos with writing in them (TextCaps)",
    "-vqav2": "answers to questions about photos (VQAv2)",
    "-textvqa": "answers to questions about writing in photos (TextVQA)",
    "-vatex": "captions of short videos (VATEX)",
    "-msrvtt-qa": "answers to questions about short videos (MSRVTT-QA)",
}
_LARGE_R = ("", "-coco", "-textcaps")  # all that was released of git-large-r

# What a released checkpoint was made for, by its hub id.
PURPOSES: dict[str, str] = {
    f"microsoft/git-{size}{suffix}": purpose
    for size, suffixes in (("base", _PURPOSES), ("large", _PURPOSES), ("large-r", _LARGE_R))
    for suffix, purpose in _PURPOSES.items()
    if suffix in suffixes
}


def default_model(task: Task, *, videos: bool = False) -> str:
    """The hub id of the released model that fits a task.

    Args:
        videos: whether every input is a video.
    """
    model = DEFAULT_MODELS[task]
    return model.video if videos else model.image


def model_help(task: Task) -> str:
    """The help text of the option `--model`, for a command with this default task."""
    image, video = DEFAULT_MODELS[task]
    return (
        f"{MODEL_HELP}  [default: {image}: {PURPOSES[image]}; for videos {video}: "
        f"{PURPOSES[video]}]"
    )
