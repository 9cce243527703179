"""Writes what the explorer runs on: the built-in model, its world, and the terms of the field.

`python docs/explorer/build.py` writes weights.js, world.js and terms.js beside this file; a test
holds that they are current.
They are scripts, not data files, because a page that is opened from the file system may load the
former only. The weights are stored in float16, in which the built-in model is published.
"""

import base64
import io
import json
import re
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
# Seeds of held-out scenes whose captions and questions the model answers rightly, as a test checks.
# The caption of the fourth changes most under another mask: the tour shows it.
EXAMPLES = (2238, 22, 11, 17, 33)
CLOSE_UP = 3  # the seed of a held-out close-up
TERMS = {  # what the page explains, and the entry of docs/glossary.md
    "logit": "Logit",
    "logit lens": "Logit lens",
    "softmax": "Softmax",
    "LayerNorm": "LayerNorm",
    "residual connection": "Residual connection",
    "MLP": "Feed-forward network",
    "self-attention": "Self-attention",
    "head": "Heads",
    "query": "Query",
    "key": "Key",
    "prefix": "Prefix language model",
    "KV cache": "KV cache",
    "hidden state": "Hidden states",
    "temperature": "Temperature",
    "greedy": "Greedy search",
    "sampling": "Sampling",
    "beam search": "Beam search",
    "label smoothing": "Label smoothing",
    "class token": "Class token",
    "[SEP]": "[SEP]",
    "WordPiece": "WordPiece",
}
MORE_TERMS = {
    "top-k": "Only the k most probable tokens may be drawn; all others get the probability 0.",
    "log-probability": "The logarithm of a probability: 0 for 100 %, negative for less; those of a "
    "text's tokens add up.",
}


def main() -> None:
    """Write the files."""
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"{FOLDER / name}: {len(text) / 1e6:.1f} MB")


def files() -> dict[str, str]:
    """The files' names and texts."""
    weights = _weights(Captioner.from_pretrained("demo"))
    return {"weights.js": weights, "world.js": _world(), "terms.js": _terms()}


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
    lines = "\n".join(numbers[start : start + 120] for start in range(0, len(numbers), 120))
    return (
        "// The built-in model's weights in float16, written by build.py.\n"
        f"const GIT_WEIGHTS = {json.dumps(header)};\n"
        f"GIT_WEIGHTS.base64 = `\n{lines}\n`;\n"
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


def _terms() -> str:
    """A script that defines TERMS: a sentence for each term, from the glossary of the pages."""
    glossary = (FOLDER.parent / "glossary.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^## (.+)\n\n(.+)$", glossary, re.MULTILINE))
    terms = {name: _plain(entries[title]) for name, title in TERMS.items()} | MORE_TERMS
    text = json.dumps(terms, indent=1, ensure_ascii=False)
    return (
        "// Terms that the page explains, from docs/glossary.md, written by build.py.\n"
        f"const TERMS = {text};\n"
    )


def _plain(entry: str) -> str:
    """An entry of the glossary without other names, marks and its link to a chapter."""
    sentences = re.sub(r"\s*\[Chapter [^]]*\]\([^)]*\)", "", entry).replace("`", "")
    return re.sub(r"^Also [^.]*\. ", "", sentences)  # another name


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
