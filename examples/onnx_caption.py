"""Caption an image with an exported model, without torch and without this project.

    git-model export MODEL exported && python examples/onnx_caption.py exported photo.jpg [QUESTION]

Needs onnxruntime, pillow, tokenizers, numpy. Greedy search without other options of config.json;
of a GIF the first frame. docs/deploy.md has the graphs' inputs.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, ImageOps
from tokenizers import Tokenizer

USUAL = {"long_side_max": None, "transparency": "white", "crop_offset": "floor", "upright": True}


def pixels_of(path: str, settings: dict) -> np.ndarray:
    """(1, 3, height, width): resized, cropped in the centre, normalised."""
    image = ImageOps.exif_transpose(Image.open(path))
    exact, short, crop = (settings[name] for name in ("exact", "short_side", "crop"))
    is_usual = settings.items() >= USUAL.items() and (exact or (short and crop))
    if not is_usual or image.mode[0] in "IF":
        sys.exit(f"Error: this example has no code for {image.mode} images or for {settings}")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    size = exact[::-1] if exact else [int(short * side / min(image.size)) for side in image.size]
    image = image.convert("RGB").resize(size, Image.Resampling[settings["resample"].upper()])
    height, width = crop or exact
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image, np.float32) * settings["rescale"]
    values = (values - np.float32(settings["mean"])) / np.float32(settings["std"])
    return np.float32(values.transpose(2, 0, 1))[None]


if len(sys.argv) < 3 or not all(Path(name).exists() for name in sys.argv[1:3]):
    sys.exit(f"Error: expected an exported folder and an image\n{__doc__}")
folder, image_file, *question = Path(sys.argv[1]), *sys.argv[2:]
config = json.loads((folder / "config.json").read_text())
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
see, step = (InferenceSession(folder / f"{name}.onnx") for name in ("see", "step"))
prefix = see.run(None, {"pixels": pixels_of(image_file, config["preprocess"])})
image = dict(zip((output.name for output in see.get_outputs()), prefix, strict=True))
_, heads, _, width = prefix[0].shape
past = np.zeros((len(prefix) // 2, 2, 1, 1, heads, 0, width), np.float32)
new = [config["bos_id"], *tokenizer.encode(" ".join(question), add_special_tokens=False).ids]
limit = min(config["decoding"]["max_new_tokens"], config["decoder"]["positions"] - len(new))
if limit < 1:
    sys.exit(f"Error: the question has {len(new) - 1} tokens: no room for an answer")
tokens, ends = [], config["eos_ids"]
while len(tokens) < limit and not (tokens and tokens[-1] in ends):
    mask = np.ones((1, 1, past.shape[5] + len(new)), bool)
    inputs = {"tokens": np.array([[new]]), "token_mask": mask, "past": past, **image}
    logits, past = step.run(None, inputs)
    new = [int(logits[0, 0].argmax())]
    tokens += new
print(tokenizer.decode(tokens))
