"""Figures of the image side: patches, encoder, mask."""

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torch import Tensor

from drawing.theme import (
    DIVERGING,
    IMAGE,
    IMAGES,
    INK,
    PALE,
    SEQUENTIAL,
    TEXT,
    Drawing,
    bare,
    demo,
    grid_lines,
    rounded,
)
from git_model.explain.attention_maps import head_average, record_attention
from git_model.model.attention import prefix_mask

IMAGE_PATH = IMAGES / "two_shapes.png"
TOKENS = ["class", *map(str, range(1, 10))]


@torch.no_grad()
def patches() -> Drawing:
    """The image, its nine patches, and the ten tokens that the encoder gets."""
    captioner = demo()
    encoder, side = captioner.model.encoder, captioner.model.config.encoder.patch_size
    image = Image.open(IMAGE_PATH).convert("RGB")
    vectors = encoder.patch_embedding(captioner.preprocess([image])).flatten(2)[0]  # (128, 9)
    tokens = torch.cat([encoder.class_token[:, None], vectors], dim=1)
    figure = Figure(figsize=(8.6, 3), layout=ConstrainedLayoutEngine(w_pad=0.1))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.8))
    _image_with_grid(left.subplots(), image, side)
    _token_columns(right, image, side, tokens)
    return Drawing(figure, {"tokens": rounded(tokens.norm(dim=0))})


def _image_with_grid(axes: Axes, image: Image.Image, side: int) -> None:
    """The image, with a numbered square around each patch."""
    axes.imshow(image, extent=(0, 64, 64, 0))
    for n in range(9):
        row, column = divmod(n, 3)
        x, y = column * side, row * side
        axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor="white", linewidth=1.5))
        axes.text(x + 1.2, y + 4.2, str(n + 1), color="white", fontsize=8)
    axes.set_title("64 x 64 pixels, nine patches of 21 x 21", y=-0.1)
    bare(axes)


def _token_columns(figure: SubFigure, image: Image.Image, side: int, tokens: Tensor) -> None:
    """Each patch above its token (128 numbers, drawn as 16 x 8)."""
    pairs = figure.subplots(2, 10, height_ratios=(1, 2))
    for n, (small, large) in enumerate(pairs.T):
        if n:
            row, column = divmod(n - 1, 3)
            box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
            small.imshow(image.crop(box))
        large.set_title(TOKENS[n])
        large.imshow(tokens[:, n].view(16, 8).numpy(), cmap=DIVERGING, vmin=-1, vmax=1)
        bare(small)
        bare(large)
    figure.supxlabel("ten tokens of 128 numbers: orange negative, purple positive", fontsize=10)


@torch.no_grad()
def encoder() -> Drawing:
    """The encoder's attention, layer by layer, averaged over heads."""
    captioner = demo()
    with record_attention(captioner.model.encoder, head_average) as layers:
        captioner.model.encoder(captioner.preprocess([Image.open(IMAGE_PATH)]))
    maps = torch.cat(layers)  # (layers, 10, 10)
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    for number, (axes, weights) in enumerate(zip(figure.subplots(1, 4), maps, strict=True), 1):
        mesh = axes.imshow(weights.numpy(), cmap=SEQUENTIAL, vmin=0, vmax=0.8)
        axes.set_title(f"layer {number}")
        axes.set_xticks(range(10), TOKENS, rotation=90)
        axes.set_yticks(range(10), TOKENS if number == 1 else [""] * 10)
        axes.set_xlabel("key")
        grid_lines(axes, 10, 10)
        if number == 1:
            axes.set_ylabel("query")
    figure.colorbar(mesh, ax=figure.axes, label="attention weight", shrink=0.75, pad=0.01)
    return Drawing(figure, {"attention": rounded(maps)})


def mask() -> Drawing:
    """The prefix mask of the image and its caption."""
    captioner = demo()
    scene = captioner.see(IMAGE_PATH)
    caption = captioner.caption(scene)
    words = ["[CLS]", *captioner.tokenizer.tokens(caption.tokens)[:-1]]  # [SEP] is only predicted
    n_image, n_text = scene.n_tokens, len(words)
    visible = prefix_mask(n_image, n_text).int()
    kinds = visible.clone()
    kinds[:, n_image:] *= 2  # 0: masked, 1: attends to the image, 2: to text
    names = [f"image {name}" for name in TOKENS] + words
    figure = Figure(figsize=(6.4, 6.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(kinds.numpy(), cmap=ListedColormap([PALE, IMAGE, TEXT]), vmin=0, vmax=2)
    grid_lines(axes, len(names), len(names))
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("key", weight="bold")
    axes.set_ylabel("query", weight="bold")
    for line in (axes.axhline, axes.axvline):
        line(n_image - 0.5, color=INK, linewidth=1.5)
    handles = [
        Patch(color=IMAGE, label="attends to the image"),
        Patch(color=TEXT, label="attends to text"),
        Patch(color=PALE, label="masked"),
    ]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False
    )
    return Drawing(figure, {"mask": visible.tolist(), "names": names})
