"""Figures of the text side: clip, layers, cache, loss."""

from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from drawing.theme import (
    DIVERGING,
    IMAGE,
    IMAGES,
    SEQUENTIAL,
    TEXT,
    Drawing,
    bare,
    demo,
    grid_lines,
    rounded,
)
from drawing.vision import IMAGE_PATH
from git_model import Frames
from git_model.model.attention import KVCache, prefix_mask
from git_model.preprocessing.video import read_media

CLIP_PATH = IMAGES / "one_acts_twice.gif"


def clip() -> Drawing:
    """A clip forwards and backwards with its captions, and the temporal embeddings."""
    captioner = demo()
    frames = list(read_media(CLIP_PATH, captioner.model.config.frames).frames)
    orders = [frames, frames[::-1]]
    captions = [captioner.caption(Frames(order)).text for order in orders]
    temporal = captioner.model.temporal_embedding.detach()
    similarity = F.cosine_similarity(temporal[:, None], temporal[None], dim=-1)
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.2, 1))
    for half, order, caption in zip(left.subfigures(2, 1), orders, captions, strict=True):
        half.suptitle(f"“{caption}”", fontsize=10)
        for axes, frame in zip(half.subplots(1, len(order)), order, strict=True):
            axes.imshow(frame)
            bare(axes)
    axes = right.subplots()
    mesh = axes.imshow(similarity.numpy(), cmap=DIVERGING, vmin=-1, vmax=1)
    numbers = range(1, len(frames) + 1)
    axes.set_xticks(range(len(frames)), numbers)
    axes.set_yticks(range(len(frames)), numbers)
    axes.set_xlabel("frame")
    axes.set_title("temporal embeddings,\ncosine similarity")
    grid_lines(axes, len(frames), len(frames))
    right.colorbar(mesh, ax=axes, shrink=0.7, ticks=(-1, 0, 1))
    return Drawing(figure, {"captions": captions, "similarity": rounded(similarity)})


@torch.no_grad()
def layers() -> Drawing:
    """The logit lens: what the output layer predicts from the hidden states of every layer."""
    captioner = demo()
    tokens = captioner.caption(IMAGE_PATH).tokens
    words, spell = captioner.tokenizer.tokens(tokens), captioner.tokenizer.tokens
    probs = _logit_lens(tokens)  # (1 + layers, T, V)
    right = probs[:, range(len(tokens)), tokens]
    predictions = [spell(row.tolist()) for row in probs.argmax(-1)]
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    axes = figure.subplots()
    mesh = axes.imshow(right.numpy(), cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    for row, predicted in enumerate(predictions):
        for column, word in enumerate(predicted):
            colour = "white" if right[row, column] > 0.5 else "black"
            axes.text(column, row, word, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(words)), words)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(probs)), ["embedding", *(f"layer {n}" for n in range(1, 4))])
    axes.set_title("right next token", loc="left", weight="bold")
    grid_lines(axes, len(probs), len(words))
    figure.colorbar(mesh, ax=axes, label="its probability", pad=0.01)
    return Drawing(figure, {"probabilities": rounded(right), "predictions": predictions})


def _logit_lens(tokens: list[int]) -> Tensor:
    """The probabilities (1 + layers, T, V) of each next token, from the embeddings and from the
    output of each decoder block."""
    captioner = demo()
    decoder, scene = captioner.model.decoder, captioner.see(IMAGE_PATH)
    mask = prefix_mask(scene.n_tokens, len(tokens), first_query=scene.n_tokens)
    x = decoder.embed(torch.tensor([[captioner.model.config.bos_id, *tokens[:-1]]]))
    states = [x]
    for block, image in zip(decoder.blocks, scene.layers, strict=True):
        states.append(block(states[-1], [image], mask)[0])
    return decoder.lm_head(torch.cat(states)).softmax(-1)


@torch.no_grad()
def cache() -> Drawing:
    """The tokens that each step of a caption computes, with and without a KV cache."""
    captioner = demo()
    tokens = captioner.caption(IMAGE_PATH).tokens
    text = [captioner.model.config.bos_id, *tokens]
    counts = {
        "no cache": _token_counts(text, cache_image=False, cache_text=False),
        "image cached": _token_counts(text, cache_image=True, cache_text=False),
        "image and text cached": _token_counts(text, cache_image=True, cache_text=True),
    }
    figure = Figure(figsize=(7.2, 3), layout="constrained")
    axes = figure.subplots()
    steps = torch.arange(1, len(tokens) + 1)
    for shift, colour, (name, step_counts) in zip(
        (-0.27, 0, 0.27), ("#999999", TEXT, IMAGE), counts.items(), strict=True
    ):
        label = f"{name}: {sum(step_counts)} in all"
        axes.bar(steps + shift, step_counts, 0.26, color=colour, label=label)
    axes.set_xticks(steps, captioner.tokenizer.tokens(tokens), rotation=35, ha="right")
    axes.set_xlabel("token that the step predicts")
    axes.set_ylabel("tokens computed")
    axes.legend(frameon=False)
    return Drawing(figure, {"counts": counts})


def _token_counts(text: list[int], *, cache_image: bool, cache_text: bool) -> list[int]:
    """Tokens through the decoder's first block at each step of generating this text."""
    model, counts = demo().model, []
    pixels = demo().load(IMAGE_PATH).pixels[None]
    hook = model.decoder.blocks[0].register_forward_pre_hook(
        lambda _block, args: counts.append(args[0].shape[1])
    )
    scene, kv_cache, steps = None, KVCache(len(model.decoder.blocks)), []
    for length in range(1, len(text)):
        if scene is None or not cache_image:
            scene = model.see(pixels)
        tokens = text[length - 1 : length] if cache_text else text[:length]
        model.decoder(torch.tensor([tokens]), scene.layers, kv_cache if cache_text else None)
        steps.append(sum(counts))
        counts.clear()
    hook.remove()
    return steps


def loss() -> Drawing:
    """The cross-entropy of each token of the right caption, and of one with a wrong colour."""
    captioner = demo()
    scene = captioner.see(IMAGE_PATH)
    right = captioner.caption(scene).text
    texts = [right, right.replace("blue", "red", 1)]
    captions = captioner.score(scene, texts)
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharey=True)
    upper.set_ylim(0, 8.5)
    titles = ("the right caption", "the caption with a wrong colour")
    for axes, title, caption, colour in zip(
        (upper, lower), titles, captions, (IMAGE, TEXT), strict=True
    ):
        mean = -sum(caption.token_logprobs) / len(caption.token_logprobs)
        axes.set_title(f"{title}: mean {mean:.2f}", weight="bold")
        words = ["[CLS]", *captioner.tokenizer.tokens(caption.tokens)]
        _loss_bars(axes, words, caption.token_logprobs, colour)
    losses = [rounded(-torch.tensor(caption.token_logprobs)) for caption in captions]
    return Drawing(figure, {"texts": texts, "losses": losses})


def _loss_bars(axes: Axes, words: list[str], logprobs: list[float], colour: str) -> None:
    """A bar for each input token, as high as the loss of the token that it predicts."""
    columns = range(len(logprobs))
    axes.bar(columns, [-value for value in logprobs], color=colour)
    for column, value in zip(columns, logprobs, strict=True):
        axes.text(column, -value + 0.1, f"{-value:.1f}", ha="center", fontsize=8)
    labels = [f"{word}\n↓\n{next_word}" for word, next_word in pairwise(words)]
    axes.set_xticks(columns, labels)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("cross-entropy, nats")
