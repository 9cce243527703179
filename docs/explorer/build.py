"""Writes what the explorer runs on: weights.js (the built-in model) and world.js (its world).

`python docs/explorer/build.py` writes both beside this file; a test holds that they are current.
They are scripts, not data files, because a page that is opened from the file system may load the
former only. The weights are stored in float16, in which the built-in model is published.
"""

import base64
import io
import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch

from git_model.captioner import Captioner
from git_model.shapes.texts import describe
from git_model.shapes.world import (
    BACKGROUNDS,
    CLOSE_UP_RADII,
    COLOURS,
    IMAGE_SIZE,
    OUTLINES,
    SIZES,
    World,
    draw,
    make_close_up,
    make_world,
)

FOLDER = Path(__file__).parent
USED = {  # the settings that git.js reads
    "encoder": ("image_size", "patch_size", "width", "heads", "activation", "norm_eps"),
    "decoder": ("positions", "width", "heads", "activation", "norm_eps", "embedding_norm_eps"),
    "preprocess": ("rescale", "mean", "std"),
    "decoding": ("max_new_tokens",),
}
EXAMPLES = (2238, 22, 11, 24, 33)  # seeds of held-out scenes
CLOSE_UP = 3  # the seed of a held-out close-up


def main() -> None:
    """Write both files."""
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"{FOLDER / name}: {len(text) / 1e6:.1f} MB")


def files() -> dict[str, str]:
    """The files' names and texts."""
    return {"weights.js": _weights(Captioner.from_pretrained("demo")), "world.js": _world()}


def _weights(captioner: Captioner) -> str:
    """A script that defines GIT_WEIGHTS: config, vocabulary, tensors and their numbers."""
    # The explorer shows still images, so it leaves the temporal embedding out.
    state = {k: v for k, v in captioner.model.tensors().items() if k != "temporal_embedding"}
    words = captioner.tokenizer.vocabulary()
    header = {
        "config": _config(asdict(captioner.model.config)),
        "vocabulary": sorted(words, key=words.__getitem__),
        "tensors": [[key, list(tensor.shape)] for key, tensor in state.items()],
    }
    numbers = base64.b64encode(b"".join(map(_float16, state.values()))).decode()
    return (
        "// The built-in model's weights in float16, written by build.py.\n"
        f"const GIT_WEIGHTS = {json.dumps(header)};\n"
        f"GIT_WEIGHTS.base64 = `\n{textwrap.fill(numbers, 120)}\n`;\n"
    )


def _config(config: dict[str, Any]) -> dict[str, Any]:
    parts = {part: {name: config[part][name] for name in names} for part, names in USED.items()}
    return {**parts, "bos_id": config["bos_id"], "eos_id": config["eos_ids"][0]}


def _float16(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor, little-endian.

    Raises:
        ValueError: a number is not one of float16.
    """
    half = tensor.half()
    if not torch.equal(half.float(), tensor.float()):
        raise ValueError("the built-in model's weights are not in float16, expected that they are")
    return half.contiguous().numpy().astype("<f2").tobytes()


def _world() -> str:
    """A script that defines WORLD: the shapes' outlines and colours, and example scenes."""
    worlds = [make_world(Random(seed), "held_out") for seed in EXAMPLES]
    worlds.append(make_close_up(Random(CLOSE_UP), "held_out"))
    radii = {**SIZES, "close-up": CLOSE_UP_RADII}
    world = {
        "side": IMAGE_SIZE,
        "backgrounds": BACKGROUNDS,
        "colours": COLOURS,
        "outlines": OUTLINES,
        "radii": {name: sum(ends) / 2 for name, ends in radii.items()},
        "examples": [_example(world) for world in worlds],
    }
    return (
        "// The world that the built-in model was trained on, written by build.py.\n"
        f"const WORLD = {json.dumps(world)};\n"
    )


def _example(world: World) -> dict[str, Any]:
    """A scene as numbers, as a sentence, and as Pillow draws it."""
    file = io.BytesIO()
    draw(world).save(file, "PNG")
    return {
        "background": world.background,
        "things": [
            {
                "shape": thing.shape,
                "colour": thing.colour,
                "x": thing.x,
                "y": thing.y,
                "radius": thing.radius,
                "tint": thing.tint,
            }
            for thing in world.things
        ],
        "caption": describe(world),
        "png": base64.b64encode(file.getvalue()).decode(),
    }


if __name__ == "__main__":
    main()
