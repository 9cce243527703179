"""Caption an image with an exported model, without torch and without this project.

    git-model export MODEL exported && python examples/onnx_caption.py exported photo.jpg

Needs onnxruntime, pillow, tokenizers, numpy. Greedy search; docs/deploy.md has the graphs' inputs.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, ImageOps
from tokenizers import Tokenizer


def pixels_of(path: str, settings: dict) -> np.ndarray:
    """(1, 3, height, width): resized by the short side, cropped in the centre, normalised."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    short, (height, width) = settings["short_side"], settings["crop"]
    scale = [max(short, int(short * side / min(image.size))) for side in image.size]
    image = image.resize(scale, Image.Resampling[settings["resample"].upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image, np.float32) * settings["rescale"]
    values = (values - np.float32(settings["mean"])) / np.float32(settings["std"])
    return np.float32(values.transpose(2, 0, 1))[None]


folder, image_file = Path(sys.argv[1]), sys.argv[2]
config = json.loads((folder / "config.json").read_text())
see, step = (InferenceSession(folder / f"{name}.onnx") for name in ("see", "step"))
[image] = see.run(None, {"pixels": pixels_of(image_file, config["preprocess"])})
layers, two, images, heads, _, width = image.shape
past = np.zeros((layers, two, images, 1, heads, 0, width), np.float32)
token, tokens = config["bos_id"], []
while token not in config["eos_ids"] and len(tokens) < config["decoding"]["max_new_tokens"]:
    mask = np.ones((images, 1, len(tokens) + 1), bool)
    inputs = {"tokens": np.array([[[token]]]), "token_mask": mask, "image": image, "past": past}
    logits, past = step.run(None, inputs)
    token = int(logits[0, 0].argmax())
    tokens.append(token)
print(Tokenizer.from_file(str(folder / "tokenizer.json")).decode(tokens))
