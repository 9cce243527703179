"""A tiny model with random weights, for tests that need any model at all."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from git_model.checkpoints.native import TOKENIZER, write_checkpoint
from git_model.config import DecoderConfig, EncoderConfig, GITConfig, PreprocessConfig
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer


def tiny_config(**changes: Any) -> GITConfig:
    """16 x 16 pixels, 4 patches, 2 layers, 40 tokens."""
    config = GITConfig(
        encoder=EncoderConfig(
            image_size=16, patch_size=8, width=16, layers=2, heads=2, mlp_width=32
        ),
        decoder=DecoderConfig(
            vocab_size=40, positions=24, width=24, layers=2, heads=3, mlp_width=32
        ),
        preprocess=PreprocessConfig(short_side=16, crop=(16, 16)),
        bos_id=1,
        eos_ids=(2,),
    )
    return dataclasses.replace(config, **changes)


@torch.no_grad()
def bite(model: nn.Module, seed: int) -> nn.Module:
    """Draw all parameters anew, far from where mistakes hide.

    On the usual N(0, 0.02) weights a wrong mask moves the logits by 3e-5 and a wrong GELU by 2e-7,
    so a comparison there is blind. These are far from it: matrices N(0, 1.5 / sqrt(fan in)), norms
    around 1 with standard deviation 0.2, biases 0.2, embeddings 1.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        is_table = (
            "embed" in name or "temporal_embedding" in name or "token" in name or "position" in name
        )
        if "norm" in name.lower() or "ln_" in name:
            noise = 0.2 * noise + (1 if name.endswith("weight") else 0)
        elif name.endswith("bias"):
            noise = 0.2 * noise
        elif not is_table or parameter.ndim == 4:
            noise = noise * 1.5 / parameter[0].numel() ** 0.5
        parameter.copy_(noise)
    return model


def tiny_model(seed: int = 0, **changes: Any) -> GIT:
    """In eval mode, in float64."""
    torch.manual_seed(seed)
    return GIT(tiny_config(**changes)).double().eval()


def tiny_checkpoint(folder: Path, words: Iterable[str], **changes: Any) -> str:
    """The tiny model in float32, in our format, with a vocabulary."""
    model = tiny_model(**changes).float()
    files = {TOKENIZER: Tokenizer.from_vocab(words).to_json()}
    write_checkpoint(folder, model.config, model.tensors(), files)
    return str(folder)
