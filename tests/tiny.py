"""A tiny model with random weights, for tests that need any model at all."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

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
