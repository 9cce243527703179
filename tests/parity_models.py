"""Random small models in Transformers' implementation and in this one.

Their weights bite (see `tiny.bite`), and every setting is away from its default (each eps, dropout,
head count, activation), so a setting that is ignored shows.
"""

import random
from dataclasses import dataclass

import torch
from tiny import bite
from torch import Tensor
from transformers import GitConfig, GitForCausalLM

from git_model import GIT
from weights_convert.huggingface import read_config, read_state


@dataclass
class ModelPair:
    """The same weights in Transformers' model and in ours, in float64, with inputs."""

    theirs: GitForCausalLM
    ours: GIT
    pixels: Tensor
    tokens: Tensor


def config_of(seed: int, **changes: object) -> GitConfig:
    """A small random configuration in Transformers' form."""
    draw = random.Random(seed)
    patch = draw.choice([4, 7, 8])
    heads = draw.choice([1, 2, 3, 4])
    vision_heads = draw.choice([1, 2, 4])
    vision = {
        "hidden_size": vision_heads * draw.choice([8, 12, 16]),
        "num_attention_heads": vision_heads,
        "intermediate_size": draw.choice([24, 40, 64]),
        "num_hidden_layers": draw.choice([1, 2, 3]),
        "image_size": patch * draw.choice([2, 3, 4]),
        "patch_size": patch,
        "hidden_act": draw.choice(["quick_gelu", "gelu", "gelu_pytorch_tanh", "relu", "silu"]),
        "layer_norm_eps": draw.choice([0.003, 0.01, 0.03]),
        "attention_dropout": draw.choice([0.15, 0.3]),
    }
    text = {
        "vocab_size": draw.choice([50, 97, 130]),
        "hidden_size": heads * draw.choice([8, 12, 16]),
        "num_attention_heads": heads,
        "intermediate_size": draw.choice([24, 40, 64]),
        "num_hidden_layers": draw.choice([1, 2, 3, 4]),
        "max_position_embeddings": draw.choice([48, 53, 60]),
        "hidden_act": draw.choice(["gelu", "quick_gelu", "gelu_new", "relu", "silu"]),
        "layer_norm_eps": draw.choice([0.002, 0.02, 0.05]),
        "hidden_dropout_prob": draw.choice([0.2, 0.35]),
        "attention_probs_dropout_prob": draw.choice([0.25, 0.4]),
        "tie_word_embeddings": draw.random() < 0.3,
        "num_image_with_embedding": draw.choice([None, None, 2, 6]),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    for key, value in changes.items():
        tower = vision if key.startswith("vision_") else text
        tower[key.removeprefix("vision_")] = value
    return GitConfig(vision_config=vision, attn_implementation="eager", **text)


def make_pair(seed: int, *, rows: int = 2, length: int = 7, **changes: object) -> ModelPair:
    """A random small model in both forms; clips have as many frames as temporal embeddings."""
    config = config_of(seed, **changes)
    theirs = bite(GitForCausalLM(config).double(), seed).eval()
    # The eager attention of their encoder rounds to float32 in between; this one does not.
    theirs.config.vision_config._attn_implementation = "sdpa"
    state = {name: tensor.detach().clone() for name, tensor in theirs.state_dict().items()}
    ours_config = read_config(config.to_dict())
    ours = GIT.from_state(ours_config, read_state(state, ours_config), "the pair")
    generator = torch.Generator().manual_seed(seed)
    size = config.vision_config.image_size
    frames = config.num_image_with_embedding
    shape = (rows, 3, size, size) if frames is None else (rows, frames, 3, size, size)
    pixels = torch.randn(shape, generator=generator, dtype=torch.float64)
    tokens = torch.randint(3, config.vocab_size, (rows, length), generator=generator)
    return ModelPair(theirs, ours, pixels, tokens)
