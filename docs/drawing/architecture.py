"""Figures of the whole: the architecture with its shapes, and the decoder's input."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from torch import nn

from drawing.theme import IMAGE, INK, OTHER, PALE, TEXT, Drawing, bare, demo
from drawing.vision import IMAGE_PATH
from git_model import GIT
from git_model.config import GITConfig, named_config
from git_model.model.attention import prefix_mask

WORDS = ["[CLS]", "a", "large", "blue", "circle"]
BLUE, AMBER, GREEN = "#D6E8F3", "#FBEBCB", "#D3EEE5"  # fills of IMAGE, TEXT and OTHER


def architecture() -> Drawing:
    """GIT from pixels to logits, with the shapes in the built-in model and in GIT-base."""
    shapes = {name: shapes_of(named_config(name)) for name in ("demo", "git_base")}
    figure = Figure(figsize=(8.6, 9.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 107))
    bare(axes)
    _image_column(axes, shapes)
    _text_column(axes, shapes)
    _decoder(axes, shapes)
    axes.text(
        0, 105.5, "black: the built-in model; grey: GIT-base with 224 x 224 pixels", fontsize=9,
    )  # fmt: skip
    return Drawing(figure, {"shapes": shapes})


def shapes_of(config: GITConfig) -> dict[str, str]:
    """The shape behind each module for one image and five text tokens, without computing."""
    with torch.device("meta"):
        model = GIT(config)
        side = config.encoder.image_size
        pixels, tokens = torch.zeros(1, 3, side, side), torch.zeros(1, 5, dtype=torch.long)
    modules: dict[str, nn.Module] = {
        "patch_embedding": model.encoder.patch_embedding,
        "pre_norm": model.encoder.pre_norm,
        "post_norm": model.encoder.post_norm,
        "projector": model.projector,
        "text": model.decoder.embedding_norm,
        "lm_head": model.decoder.lm_head,
    }
    shapes = {"pixels": _spelled(pixels.shape)}
    for name, module in modules.items():
        module.register_forward_hook(_recorder(shapes, name))
    model.one_pass(pixels, tokens)
    return shapes


def _recorder(shapes: dict[str, str], name: str) -> Callable[..., None]:
    def record(_module: Any, _args: Any, output: torch.Tensor) -> None:
        shapes[name] = _spelled(output.shape)

    return record


def _spelled(shape: Sequence[int]) -> str:
    """A shape without the batch, as "3 x 64 x 64"."""
    return " x ".join(map(str, shape[1:]))


Shapes = dict[str, dict[str, str]]
LEFT, RIGHT, MIDDLE = (20.0, 36.0), (76.0, 40.0), (49.0, 94.0)  # centre and width of a column


def _image_column(axes: Axes, shapes: Shapes) -> None:
    """From the image to its tokens for the decoder."""
    x, _ = LEFT
    image = Image.open(IMAGE_PATH).convert("RGB")
    axes.imshow(image, extent=(x - 7, x + 7, 1, 13.5), aspect="auto", zorder=2)
    axes.set(xlim=(0, 100), ylim=(0, 107))
    _arrow(axes, x, 13.5, 19, shapes, "pixels")
    _box(axes, LEFT, 19, 7, "patch embedding", "one matrix for every patch · chapter 1", BLUE)
    _arrow(axes, x, 26, 31.5, shapes, "patch_embedding")
    _box(axes, LEFT, 31.5, 7, "+ class token, + positions", "LayerNorm · chapter 2", BLUE)
    _arrow(axes, x, 38.5, 44, shapes, "pre_norm")
    _box(axes, LEFT, 44, 10, "encoder block", "self-attention, MLP, no mask · chapter 2", BLUE)
    _repeats(axes, LEFT, 44, "x 4", "x 12")
    _arrow(axes, x, 54, 59.5, shapes, "post_norm", "LayerNorm")
    _box(axes, LEFT, 59.5, 7, "projector", "linear layer, LayerNorm · chapter 3", BLUE)
    _arrow(axes, x, 66.5, 72.5, shapes, "projector")


def _text_column(axes: Axes, shapes: Shapes) -> None:
    """From words to text tokens."""
    x, _ = RIGHT
    axes.text(x, 44, "   ".join(WORDS), ha="center", va="center", weight="bold", color="#8A5A00")
    _arrow(axes, x, 46, 50, {}, "")
    _box(axes, RIGHT, 50, 7, "WordPiece", "text to ids · chapter 4", AMBER)
    _arrow(axes, x, 57, 59.5, {}, "")
    _box(axes, RIGHT, 59.5, 7, "embeddings, + positions", "LayerNorm · chapter 4", AMBER)
    _arrow(axes, x, 66.5, 72.5, shapes, "text")
    axes.text(
        x, 30, "The image column runs once for an image.\nThe text column runs for each\n"
        "caption, question or class name.", ha="center", va="center", fontsize=9,
    )  # fmt: skip


def _decoder(axes: Axes, shapes: Shapes) -> None:
    """The decoder over both, the output layer, and the next words."""
    _box(axes, MIDDLE, 72.5, 13, "decoder block", "self-attention, MLP · chapters 5 to 7", GREEN)
    _repeats(axes, MIDDLE, 72.5, "x 3", "x 6")
    mask = prefix_mask(10, 5).int()
    mask[:, 10:] *= 2
    small = axes.inset_axes((5, 73.8, 13, 10.4), transform=axes.transData)
    small.imshow(mask, cmap=_colours(), vmin=0, vmax=2)
    bare(small)
    axes.text(18.5, 79, "the mask", va="center", fontsize=8)
    x, _ = RIGHT
    axes.text(x - 21, 87.7, "text positions only", ha="right", va="center", fontsize=8)
    axes.plot((x - 20, x - 2), (87.7, 87.7), color="#999999", linewidth=0.8)
    _arrow(axes, x, 85.5, 90, {}, "")
    _box(axes, RIGHT, 90, 6, "lm_head", "", GREEN)
    _arrow(axes, x, 96, 101, shapes, "lm_head", "logits")
    axes.text(
        x, 103, "a   large   blue   circle   to", ha="center", va="center", weight="bold",
        color="#00614A",
    )  # fmt: skip


def _colours() -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap([PALE, IMAGE, TEXT])


def _box(
    axes: Axes, column: tuple[float, float], y: float, height: float, title: str, note: str,
    fill: str,
) -> None:  # fmt: skip
    """A module: a rounded box with its name and what it does."""
    centre, width = column
    edge = {BLUE: IMAGE, AMBER: TEXT, GREEN: OTHER}[fill]
    axes.add_patch(
        FancyBboxPatch(
            (centre - width / 2, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=1.2",
            facecolor=fill,
            edgecolor=edge,
            linewidth=1.2,
            zorder=1,
        )
    )
    middle = y + height / 2 + (1 if height == 10 else 0)
    axes.text(centre, middle + (1.5 if note else 0), title, ha="center", va="center", weight="bold")
    axes.text(centre, middle - 1.6, note, ha="center", va="center", fontsize=8)


def _repeats(axes: Axes, column: tuple[float, float], y: float, black: str, grey: str) -> None:
    """How often a block comes, in the lower right corner of its box."""
    right = column[0] + column[1] / 2 - 1
    axes.text(right, y + 0.8, grey, ha="right", va="bottom", fontsize=8.5, color="#666666")
    axes.text(right - 5.5, y + 0.8, black, ha="right", va="bottom", fontsize=8.5, weight="bold")


def _arrow(
    axes: Axes, x: float, start: float, end: float, shapes: Shapes, key: str, label: str = ""
) -> None:
    """An arrow upwards, with the shape that it carries."""
    axes.annotate("", (x, end), (x, start), arrowprops={"arrowstyle": "-|>", "color": INK})
    if shapes:
        y = (start + end) / 2
        axes.text(x + 1.5, y + 0.3, shapes["demo"][key], va="center", fontsize=8.5)
        axes.text(
            x + 13, y + 0.3, shapes["git_base"][key], va="center", fontsize=8.5, color="#666666"
        )
        axes.text(x - 1.5, y, label, ha="right", va="center", fontsize=8)


@torch.no_grad()
def tokens() -> Drawing:
    """The decoder's input: ten image tokens and five text tokens, 128 numbers each."""
    captioner = demo()
    model = captioner.model
    image = model.projector(model.encode(captioner.load(IMAGE_PATH).pixels[None]))[0]
    ids = torch.tensor([[captioner.tokenizer.token_id(word) for word in WORDS]])
    sequence = torch.cat([image, model.decoder.embed(ids)[0]])  # (15, 128)
    names = ["class\ntoken", *(f"patch\n{n}" for n in range(1, 10)), *WORDS]
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    panels = figure.subplots(1, 15)
    scale = sequence.abs().quantile(0.98).item()
    for n, (axes, name) in enumerate(zip(panels, names, strict=True)):
        colour = IMAGE if n < 10 else TEXT
        axes.imshow(sequence[n].view(16, 8), cmap="PuOr", vmin=-scale, vmax=scale)
        axes.set_title(name, fontsize=8)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=True, color=colour, linewidth=2)
        axes.set_xlabel(str(n + 1), fontsize=8)
    figure.suptitle(
        "blue: image tokens, from the projector        amber: text tokens, from the embeddings",
        fontsize=9,
    )
    return Drawing(figure, {"norms": [round(v, 2) for v in sequence.norm(dim=-1).tolist()]})
