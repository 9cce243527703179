"""The model before its first step: random weights or a checkpoint, and its vocabulary.

The paper's base and large models start from CLIP's image encoder and a random decoder. Write such a
checkpoint with `git-model convert --from open_clip`, and name its folder in the recipe.
"""

import dataclasses

import torch
from torch import Tensor, nn

from git_model.checkpoints.loading import open_model
from git_model.checkpoints.native import folder_of, refuse_exported
from git_model.config import GITConfig, named_config
from git_model.model.encoder import Encoder
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import CLS, PAD, SEP
from git_model.shapes.texts import vocabulary
from git_model.training.recipe import Recipe
from git_model.utils.errors import GITError

SPECIAL_TOKENS = {"bos_id": CLS, "eos_id": SEP, "pad_id": PAD}
PER_TOKEN = (  # tensors with a row for each token (V, …)
    "decoder.token_embedding.weight",
    "decoder.lm_head.weight",
    "decoder.lm_head.bias",
)


def initial_model(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """The model before its first step, on the CPU, and its vocabulary. Draws from torch's random
    numbers.

    Raises:
        GITError: a name or a folder is wrong, or there is no vocabulary.
    """
    model, tokenizer = _opened_or_random(recipe)
    model = model if recipe.frames is None else with_frames(model, recipe.frames)
    model.config = dataclasses.replace(
        model.config, purpose=recipe.purpose, purpose_side=recipe.purpose_side
    )
    return model, tokenizer


def _opened_or_random(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    if recipe.checkpoint is None:
        tokenizer = named_tokenizer(str(recipe.tokenizer))  # the recipe has checked that it is set
        return random_model(recipe, tokenizer), tokenizer
    refuse_exported(folder_of(recipe.checkpoint), "trained")
    model, old_tokenizer = open_model(recipe.checkpoint, style=recipe.style)
    if recipe.tokenizer is not None:
        tokenizer = named_tokenizer(recipe.tokenizer)
        return with_vocabulary(model, old_tokenizer, tokenizer), tokenizer
    if old_tokenizer is None:
        raise GITError(f"{recipe.checkpoint}: no vocabulary; name a folder with one as tokenizer")
    return model, old_tokenizer


def named_tokenizer(name: str) -> Tokenizer:
    """The vocabulary in a folder; `shapes` is that of the shapes world."""
    return Tokenizer.from_vocab(vocabulary()) if name == "shapes" else Tokenizer.from_folder(name)


def random_model(recipe: Recipe, tokenizer: Tokenizer) -> GIT:
    """A model of a named size with random weights, for this vocabulary."""
    config = named_config(str(recipe.model))
    if recipe.style is not None:
        config = config.with_style(recipe.style)
    ids = {name: tokenizer.token_id(token) for name, token in SPECIAL_TOKENS.items()}
    model = GIT(resized(config, len(tokenizer), ids))
    if recipe.initial == "by_width":
        initialize_by_width(model)
    return model


@torch.no_grad()
def initialize_by_width(model: GIT) -> None:
    """Initial weights for a model much narrower than BERT, in place of BERT's N(0, 0.02).

    A standard deviation of 1 / sqrt(fan in) keeps the size of activations from layer to layer, as
    0.02 does for a fan in of about 2,500. With 0.02 and a width of 128, the layers would add almost
    nothing to the residual connection. Position embeddings get the size of patch embeddings, and
    temporal embeddings a size that is not negligible beside it. Without this the demo's loss is
    twice as high after 400 steps.
    """
    own = [model.encoder] if isinstance(model.encoder, Encoder) else []  # others keep their weights
    for module in (m for part in (*own, model.projector, model.decoder) for m in part.modules()):
        if isinstance(module, nn.Linear) and module is not model.decoder.lm_head:
            module.weight.normal_(std=module.in_features**-0.5)
    for encoder in own:
        encoder.position_embedding.normal_(std=1.0)
    if model.temporal_embedding is not None:
        model.temporal_embedding.normal_(std=0.3)


def with_frames(model: GIT, frames: int) -> GIT:
    """The model with this many temporal embeddings; new ones start at 0."""
    config, state = dataclasses.replace(model.config, frames=frames), model.tensors()
    old = state.pop("temporal_embedding", None)
    if frames:
        state["temporal_embedding"] = torch.zeros(frames, config.encoder.width, dtype=model.dtype)
    if frames and old is not None:
        state["temporal_embedding"][: len(old)] = old[:frames]
    return GIT.from_state(config, state, f"the model with {frames} temporal embeddings")


def with_vocabulary(model: GIT, old: Tokenizer | None, new: Tokenizer) -> GIT:
    """The model with another vocabulary.

    Tokens in both vocabularies keep their embeddings and their rows of the output layer, even if
    their ids change; rows of new tokens are drawn as in `GIT.initialize`. A checkpoint without a
    vocabulary keeps all rows if the new vocabulary has as many tokens; otherwise all rows are new.

    Args:
        old: the vocabulary that the model was trained with, if there is one.

    Raises:
        GITError: the new vocabulary lacks a token that the model needs.
    """
    config, state = model.config, model.tensors()
    if old is None and len(new) == config.decoder.vocab_size:
        new.check_fit(config)
        return model
    old_ids = {} if old is None else old.vocabulary()
    pairs = [(old_ids[token], row) for token, row in new.vocabulary().items() if token in old_ids]
    old_tokens = {row: token for token, row in old_ids.items()}
    ids = {
        name: new.token_id(old_tokens.get(getattr(config, name), token))
        for name, token in SPECIAL_TOKENS.items()
    }
    suppress = tuple(
        new_id for old_id, new_id in pairs if old_id in config.decoding.suppress_tokens
    )
    new_config = resized(config, len(new), ids, suppress)
    initial = GIT(new_config).to(model.dtype).tensors()
    for name in initial.keys() & set(PER_TOKEN):
        state[name] = _copy_rows(state[name], initial[name], pairs)
    return GIT.from_state(new_config, state, "the model with another vocabulary")


def _copy_rows(source: Tensor, target: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """The target, with the source's rows copied into it: pairs of (source row, target row)."""
    if pairs:
        source_rows, target_rows = zip(*pairs, strict=True)
        target[list(target_rows)] = source[list(source_rows)]
    return target


def resized(
    config: GITConfig, size: int, ids: dict[str, int], suppress: tuple[int, ...] = ()
) -> GITConfig:
    """A configuration for another number of tokens, with these special tokens."""
    return dataclasses.replace(
        config,
        decoder=dataclasses.replace(config.decoder, vocab_size=size),
        decoding=dataclasses.replace(config.decoding, suppress_tokens=suppress),
        bos_id=ids["bos_id"],
        eos_ids=(ids["eos_id"],),
        pad_id=ids["pad_id"],
    )
