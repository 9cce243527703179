"""Where a run starts: random weights or a checkpoint, with its own vocabulary or a new one.

The paper starts from a CLIP tower and a random decoder: write such a checkpoint with
`git-model convert --from open_clip`, and give the recipe its folder.
"""

import dataclasses

import torch
from torch import Tensor, nn

from git_model.checkpoints.loading import open_model
from git_model.config import GITConfig, named_config
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import CLS, PAD, SEP, Tokenizer
from git_model.shapes.texts import vocabulary
from git_model.training.recipe import Recipe
from git_model.utils.errors import GITError

SPECIAL = {"bos_id": CLS, "eos_id": SEP, "pad_id": PAD}
BY_TOKEN = (
    "decoder.token_embedding.weight",
    "decoder.lm_head.weight",
    "decoder.lm_head.bias",
)  # (V, …)


def start_of(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """The model before its first step, on the CPU, and its vocabulary. Draws from torch's numbers.

    Raises:
        GITError: a name or a folder is wrong, or there is no vocabulary.
    """
    model, words = _start_of(recipe)
    return model if recipe.frames is None else with_frames(model, recipe.frames), words


def _start_of(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    if recipe.checkpoint is None:
        words = named_tokenizer(str(recipe.tokenizer))  # there is one, the recipe has checked
        return random_model(recipe, words), words
    model, own = open_model(recipe.checkpoint, style=recipe.style)
    if recipe.tokenizer is not None:
        words = named_tokenizer(recipe.tokenizer)
        return with_vocabulary(model, own, words), words
    if own is None:
        raise GITError(f"{recipe.checkpoint}: no vocabulary; name a folder with one as tokenizer")
    return model, own


def named_tokenizer(name: str) -> Tokenizer:
    """The vocabulary in a folder; `shapes` is that of the shapes world."""
    return Tokenizer.from_vocab(vocabulary()) if name == "shapes" else Tokenizer.from_folder(name)


def random_model(recipe: Recipe, words: Tokenizer) -> GIT:
    """A model of a named size with random weights, for this vocabulary."""
    config = named_config(str(recipe.model))
    if recipe.style is not None:
        config = config.with_style(recipe.style)
    ids = {name: words.token_id(token) for name, token in SPECIAL.items()}
    model = GIT(resized(config, len(words), ids))
    if recipe.initial == "by_width":
        initialize_by_width(model)
    return model


@torch.no_grad()
def initialize_by_width(model: GIT) -> None:
    """First weights for a model much narrower than BERT, in place of its N(0, 0.02).

    N(0, 1 / inputs) keeps what passes through a layer at its size, as 0.02 does for about 2,500
    inputs; with 128 the model hardly notices its own layers. Positions get the size of what the
    patches bring, and temporal embeddings a size that is noticed beside it. Without this the
    demo's loss is twice as high after 400 steps.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.decoder.lm_head:
            module.weight.normal_(std=module.in_features**-0.5)
    model.encoder.position_embedding.normal_(std=1.0)
    if model.temporal_embedding is not None:
        model.temporal_embedding.normal_(std=0.3)


def with_frames(model: GIT, frames: int) -> GIT:
    """The model with this many temporal embeddings; those that it lacks start at 0."""
    config, state = dataclasses.replace(model.config, frames=frames), model.tensors()
    own = state.pop("temporal_embedding", None)
    if frames:
        state["temporal_embedding"] = model.encoder.position_embedding.new_zeros(
            frames, config.encoder.width
        )
    if frames and own is not None:
        state["temporal_embedding"][: len(own)] = own[:frames]
    return GIT.from_state(config, state, f"the model with {frames} temporal embeddings")


def with_vocabulary(model: GIT, own: Tokenizer | None, words: Tokenizer) -> GIT:
    """The model with another vocabulary.

    Tokens that both know keep their embeddings and their rows of the output layer, wherever they
    stand; those of new ones are drawn as in `GIT.initialize`. A checkpoint that has no vocabulary
    of its own gets this one as it is if it fits, else all its tokens are new.

    Args:
        own: the vocabulary that the model has learned, if it is known.

    Raises:
        GITError: the new vocabulary lacks a token that the model needs.
    """
    config, state = model.config, model.tensors()
    if own is None and len(words) == config.decoder.vocab_size:
        words.check_fit(config)
        return model
    old_ids = {} if own is None else own.vocabulary()
    pairs = [(old_ids[token], new) for token, new in words.vocabulary().items() if token in old_ids]
    names = {old: token for token, old in old_ids.items()}
    ids = {
        name: words.token_id(names.get(getattr(config, name), token))
        for name, token in SPECIAL.items()
    }
    suppress = tuple(new for old, new in pairs if old in config.decoding.suppress_tokens)
    new_config = resized(config, len(words), ids, suppress)
    fresh = GIT(new_config).to(model.dtype).tensors()
    for name in fresh.keys() & set(BY_TOKEN):
        state[name] = _moved(state[name], fresh[name], pairs)
    return GIT.from_state(new_config, state, "the model with another vocabulary")


def _moved(old: Tensor, fresh: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """The fresh rows, except that for each pair (from, to) there is the old one."""
    if pairs:
        sources, targets = zip(*pairs, strict=True)
        fresh[list(targets)] = old[list(sources)]
    return fresh


def resized(
    config: GITConfig, size: int, ids: dict[str, int], suppress: tuple[int, ...] = ()
) -> GITConfig:
    """A configuration for another number of tokens, with these special ones."""
    return dataclasses.replace(
        config,
        decoder=dataclasses.replace(config.decoder, vocab_size=size),
        decoding=dataclasses.replace(config.decoding, suppress_tokens=suppress),
        bos_id=ids["bos_id"],
        eos_ids=(ids["eos_id"],),
        pad_id=ids["pad_id"],
    )
