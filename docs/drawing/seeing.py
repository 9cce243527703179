"""Figures of the image side: patches, encoder, mask."""

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torch import Tensor

from drawing.style import (
    AMOUNT,
    IMAGE,
    IMAGES,
    INK,
    PALE,
    SIGNED,
    TEXT,
    Drawing,
    bare,
    demo,
    grid_lines,
    rounded,
)
from git_model.model.attention import prefix_mask
from git_model.model.encoder import EncoderBlock

PICTURE = IMAGES / "two_shapes.png"
TOKENS = ["class", *map(str, range(1, 10))]


def patches() -> Drawing:
    """The picture, its nine patches, and the tokens they become."""
    git = demo()
    encoder, side = git.model.encoder, git.model.config.encoder.patch_size
    picture = Image.open(PICTURE).convert("RGB")
    vectors = encoder.patch_embedding(git.preprocess([picture])).flatten(2)[0].detach()  # (128, 9)
    tokens = torch.cat([encoder.class_token.detach()[:, None], vectors], dim=1)
    figure = Figure(figsize=(8.4, 3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.8))
    axes = left.subplots()
    axes.imshow(picture, extent=(0, 64, 64, 0))
    for n in range(9):
        row, column = divmod(n, 3)
        place = column * side, row * side
        axes.add_patch(Rectangle(place, side, side, fill=False, edgecolor="white", linewidth=1.5))
        axes.text(place[0] + 1.2, place[1] + 4.2, str(n + 1), color="white", fontsize=8)
    axes.set_title("64 x 64 pixels, nine patches of 21 x 21", y=-0.1)
    bare(axes)
    pairs = right.subplots(2, 10, height_ratios=(1, 2))
    for n, (small, large) in enumerate(pairs.T):
        if n:
            row, column = divmod(n - 1, 3)
            box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
            small.imshow(picture.crop(box))
        large.set_title(TOKENS[n])
        large.imshow(tokens[:, n].view(16, 8), cmap=SIGNED, vmin=-1, vmax=1)
        bare(small)
        bare(large)
    right.supxlabel("ten tokens of 128 numbers each: orange below 0, purple above", fontsize=10)
    return Drawing(figure, {"tokens": rounded(tokens.norm(dim=0))})


def encoder() -> Drawing:
    """Where each image token looks, layer by layer, all heads together."""
    maps = _encoder_attention()
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    for number, (axes, weights) in enumerate(zip(figure.subplots(1, 4), maps, strict=True), 1):
        shown = axes.imshow(weights, cmap=AMOUNT, vmin=0, vmax=0.8)
        axes.set_title(f"layer {number}")
        axes.set_xticks(range(10), TOKENS, rotation=90)
        axes.set_yticks(range(10), TOKENS if number == 1 else [""] * 10)
        axes.set_xlabel("is looked at")
        grid_lines(axes, 10, 10)
        if number == 1:
            axes.set_ylabel("looks")
    figure.colorbar(shown, ax=figure.axes, label="share of its looks", shrink=0.75, pad=0.01)
    return Drawing(figure, {"attention": rounded(torch.stack(maps))})


@torch.no_grad()
def _encoder_attention() -> list[Tensor]:
    """(10, 10) for each layer, the mean of its heads."""
    git, maps = demo(), []
    encoder = git.model.encoder
    hooks = [
        block.register_forward_pre_hook(lambda one, args: maps.append(_weights(one, args[0])))
        for block in encoder.blocks
    ]
    encoder(git.preprocess([PICTURE]))
    for hook in hooks:
        hook.remove()
    return maps


def _weights(block: EncoderBlock, x: Tensor) -> Tensor:
    joined = block.attn.qkv(block.attn_norm(x)).unflatten(-1, (3, block.attn.heads, -1))
    query, key, _ = joined.unbind(2)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
    return scores.softmax(-1)[0].mean(0)


def mask() -> Drawing:
    """Who may look at whom, for the picture and its caption."""
    git = demo()
    scene = git.see(PICTURE)
    caption = git.caption(scene)
    words = ["[CLS]", *git.tokenizer.tokens(caption.tokens)[:-1]]  # the end token looks no more
    n_image, n_text = scene.n_tokens, len(words)
    visible = prefix_mask(n_image, n_text).int()
    kinds = visible.clone()
    kinds[:, n_image:] *= 2  # 0: nothing, 1: looks at the image, 2: at text
    names = [f"image {name}" for name in TOKENS] + words
    figure = Figure(figsize=(6.4, 6.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(kinds, cmap=ListedColormap([PALE, IMAGE, TEXT]), vmin=0, vmax=2)
    grid_lines(axes, len(names), len(names))
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("is looked at", weight="bold")
    axes.set_ylabel("looks", weight="bold")
    for line in (axes.axhline, axes.axvline):
        line(n_image - 0.5, color=INK, linewidth=1.5)
    axes.legend(
        handles=[
            Patch(color=IMAGE, label="looks at the image"),
            Patch(color=TEXT, label="looks at text"),
            Patch(color=PALE, label="may not look"),
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=3,
        frameon=False,
    )
    return Drawing(figure, {"mask": visible.tolist(), "names": names})
