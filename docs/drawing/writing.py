"""Figures of the text side: clips, layers, cache, loss."""

from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import functional as F

from drawing.seeing import PICTURE
from drawing.style import (
    AMOUNT,
    IMAGE,
    IMAGES,
    SIGNED,
    TEXT,
    Drawing,
    bare,
    demo,
    grid_lines,
    rounded,
)
from git_model.model.attention import KVCache, prefix_mask
from git_model.preprocessing.video import read_media

CLIP = IMAGES / "one_acts_twice.gif"


def clip() -> Drawing:
    """A clip and its reverse with their captions, and the temporal embeddings."""
    git = demo()
    frames = list(read_media(CLIP, git.model.config.frames, "uniform").frames)
    ways = [frames, frames[::-1]]
    captions = [git.caption(way).text for way in ways]
    temporal = git.model.temporal_embedding.detach()
    alike = F.cosine_similarity(temporal[:, None], temporal[None], dim=-1)
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.2, 1))
    for half, way, caption in zip(left.subfigures(2, 1), ways, captions, strict=True):
        half.suptitle(f"“{caption}”", fontsize=10)
        for axes, frame in zip(half.subplots(1, len(way)), way, strict=True):
            axes.imshow(frame)
            bare(axes)
    axes = right.subplots()
    shown = axes.imshow(alike, cmap=SIGNED, vmin=-1, vmax=1)
    numbers = range(1, len(frames) + 1)
    axes.set_xticks(range(len(frames)), numbers)
    axes.set_yticks(range(len(frames)), numbers)
    axes.set_xlabel("frame")
    axes.set_title("temporal embeddings,\ncosine of their angle")
    grid_lines(axes, len(frames), len(frames))
    right.colorbar(shown, ax=axes, shrink=0.7, ticks=(-1, 0, 1))
    return Drawing(figure, {"captions": captions, "alike": rounded(alike)})


@torch.no_grad()
def layers() -> Drawing:
    """What each layer's state gives the words of a caption, through the output layer."""
    git = demo()
    decoder, scene = git.model.decoder, git.see(PICTURE)
    said = git.caption(scene).tokens
    tokens = torch.tensor([[git.model.config.bos_id, *said[:-1]]])
    mask = prefix_mask(scene.n_tokens, len(said), first_query=scene.n_tokens)
    states = [decoder.embed(tokens, 0, None)]
    for block, image in zip(decoder.blocks, scene.layers, strict=True):
        states.append(block(states[-1], [image], mask)[0])
    chances = decoder.lm_head(torch.cat(states)).softmax(-1)  # (1 + layers, T, V)
    right = chances[:, range(len(said)), said]
    guesses = [git.tokenizer.tokens(row.tolist()) for row in chances.argmax(-1)]
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(right, cmap=AMOUNT, vmin=0, vmax=1, aspect="auto")
    for row, words in enumerate(guesses):
        for column, word in enumerate(words):
            colour = "white" if right[row, column] > 0.5 else "black"
            axes.text(column, row, word, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(said)), git.tokenizer.tokens(said))
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(states)), ["embedding", *(f"layer {n}" for n in range(1, 4))])
    axes.set_title("the word that comes", loc="left", weight="bold")
    grid_lines(axes, len(states), len(said))
    figure.colorbar(shown, ax=axes, label="its chance", pad=0.01)
    return Drawing(figure, {"chances": rounded(right), "guesses": guesses})


@torch.no_grad()
def cache() -> Drawing:
    """Tokens that run through the decoder at each step of a caption, counted."""
    git = demo()
    said = git.caption(PICTURE).tokens
    text = [git.model.config.bos_id, *said]
    counts = {
        "all anew": _counted(text, read_once=False, cached=False),
        "picture read once": _counted(text, read_once=True, cached=False),
        "and text cached": _counted(text, read_once=True, cached=True),
    }
    figure = Figure(figsize=(7.2, 3), layout="constrained")
    axes = figure.subplots()
    steps = torch.arange(1, len(said) + 1)
    for shift, colour, (name, steps_of) in zip(
        (-0.27, 0, 0.27), ("#999999", TEXT, IMAGE), counts.items(), strict=True
    ):
        label = f"{name}: {sum(steps_of)} in all"
        axes.bar(steps + shift, steps_of, 0.26, color=colour, label=label)
    axes.set_xticks(steps, git.tokenizer.tokens(said), rotation=35, ha="right")
    axes.set_xlabel("the word that a step finds")
    axes.set_ylabel("tokens computed")
    axes.legend(frameon=False)
    return Drawing(figure, {"counts": counts})


def _counted(text: list[int], *, read_once: bool, cached: bool) -> list[int]:
    """Tokens through the decoder's first block at each step of writing this text."""
    model, counts = demo().model, []
    pixels = demo().preprocess([PICTURE])
    hook = model.decoder.blocks[0].register_forward_pre_hook(
        lambda _block, args: counts.append(args[0].shape[1])
    )
    scene, store, steps = None, KVCache(len(model.decoder.blocks)), []
    for length in range(1, len(text)):
        if scene is None or not read_once:
            scene = model.see(pixels)
        known = text[length - 1 : length] if cached else text[:length]
        model.decoder(torch.tensor([known]), scene.layers, store if cached else None)
        steps.append(sum(counts))
        counts.clear()
    hook.remove()
    return steps


def loss() -> Drawing:
    """The loss of each token of a true caption, and of one with a wrong colour."""
    git = demo()
    scene = git.see(PICTURE)
    true = git.caption(scene).text
    texts = [true, true.replace("blue", "red", 1)]
    scored = git.score(scene, texts)
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharey=True)
    upper.set_ylim(0, 8.5)
    for axes, one, colour in zip((upper, lower), scored, (IMAGE, TEXT), strict=True):
        _loss_bars(axes, ["[CLS]", *git.tokenizer.tokens(one.tokens)], one.token_logprobs, colour)
    losses = [rounded(-torch.tensor(one.token_logprobs)) for one in scored]
    return Drawing(figure, {"texts": texts, "losses": losses})


def _loss_bars(axes: Axes, words: list[str], logprobs: list[float], colour: str) -> None:
    """A bar for each token that was read, as high as the loss of the one it was to predict."""
    places = range(len(logprobs))
    axes.bar(places, [-value for value in logprobs], color=colour)
    for place, value in zip(places, logprobs, strict=True):
        axes.text(place, -value + 0.1, f"{-value:.1f}", ha="center", fontsize=8)
    pairs = [f"{read}\n↓\n{next_}" for read, next_ in pairwise(words)]
    axes.set_xticks(places, pairs)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("loss")
