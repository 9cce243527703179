"""A small open_clip model with random weights, and its file."""

from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
TEXT = {"context_length": 7, "vocab_size": 30, "width": 16, "heads": 2, "layers": 1}


def build(*, quick_gelu: bool = False, **vision: Any) -> torch.nn.Module:
    """A small open_clip model with norms and biases far from their initial values."""
    torch.manual_seed(0)
    model = open_clip.CLIP(8, VISION | vision, TEXT, quick_gelu=quick_gelu)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif name.startswith("visual.transformer"):
                parameter.mul_(3)
    return model.eval()


def save(folder: Path, model: torch.nn.Module) -> Path:
    """Write the model's tensors; the file's path."""
    path = folder / "clip.safetensors"
    save_file({name: part.contiguous() for name, part in model.state_dict().items()}, path)
    return path
