"""Drawings without matplotlib: attention maps over frames (Pillow), mask and beam tree (SVG).

An attention map dims its frame: the more attention a patch gets, the brighter it is. This keeps the
frame's own colours, which captions name, and is legible without colour vision.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate, groupby

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from git_model.explain.beam_tree import Branch

MIN_BRIGHTNESS = 0.12  # of a patch without attention
CELL, MAX_IMAGE_BLOCK = 18, 180  # px: side of a text token, and of all image tokens at most
LETTER_WIDTH = 7.5  # px, in the font size of the drawings
ROW_HEIGHT, LINK_WIDTH = 38, 36  # px: from rank to rank, and between the tokens of two steps
TOP_MARGIN = 36  # px: from the top of the beam tree to its first rank


def overlay(frame: Image.Image, weights: Tensor, max_weight: float) -> Image.Image:
    """A frame, dimmed where it gets little attention.

    Args:
        weights: (rows, columns), at least 0.
        max_weight: the weight of full brightness. The largest weight of all frames makes frames
            comparable.
    """
    relative = np.clip(weights.numpy() / max(max_weight, 1e-12), 0, 1)
    brightness = MIN_BRIGHTNESS + (1 - MIN_BRIGHTNESS) * relative
    patch_width, patch_height = frame.width // weights.shape[1], frame.height // weights.shape[0]
    brightness = brightness.repeat(patch_height, axis=0).repeat(patch_width, axis=1)
    pixels = np.asarray(frame) * brightness[..., None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def upscaled(frame: Image.Image, size: int) -> Image.Image:
    """The frame, scaled by a whole factor until its longer side has at least `size` pixels."""
    factor = -(-size // max(frame.size))
    new_size = (factor * frame.width, factor * frame.height)
    return frame.resize(new_size, Image.Resampling.NEAREST)


def contact_sheet(frames: Sequence[Image.Image], maps: Tensor, size: int) -> Image.Image:
    """One small image of an attention map over all frames, three frames a row.

    Args:
        maps: (F, rows, columns); the brightest patch of all frames has full brightness.
        size: the approximate pixels of a frame's longer side.

    Returns:
        RGBA, transparent between the frames.
    """
    rows, columns = maps.shape[1:]
    patch = max(1, round(size / max(rows, columns)))  # pixels; a frame has whole patches
    width, height, gap = patch * columns, patch * rows, 2 if len(frames) > 1 else 0
    n_columns = min(len(frames), 3)
    n_rows = -(-len(frames) // n_columns)
    sheet = Image.new("RGBA", (n_columns * (width + gap) - gap, n_rows * (height + gap) - gap))
    for number, (frame, weights) in enumerate(zip(frames, maps, strict=True)):
        row, column = divmod(number, n_columns)
        image = overlay(frame.resize((width, height)), weights, maps.max().item())
        sheet.paste(image, (column * (width + gap), row * (height + gap)))
    return sheet


def matrix_image(weights: Tensor, size: int) -> Image.Image:
    """An attention matrix (queries, keys) as an image, the largest weight white, 0 black.

    Args:
        size: pixels of a side, at least; each weight is a square of whole pixels.
    """
    relative = weights / weights.max().clamp(min=1e-12)
    image = Image.fromarray((255 * relative.numpy()).round().astype(np.uint8))
    return upscaled(image, size)


def data_url(image: Image.Image) -> str:
    """An image as a data: URL, so that an HTML file can contain it."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def mask_svg(mask: Tensor, tokens: Sequence[str]) -> str:
    """The attention mask: each row is a query, each column a key.

    Args:
        mask: (I + T, I + T), True where a token may attend.
        tokens: the T text tokens. Image tokens are drawn smaller if there are many.
    """
    n_image = len(mask) - len(tokens)
    cell = min(CELL, MAX_IMAGE_BLOCK / n_image)
    edges = list(accumulate([cell] * n_image + [CELL] * len(tokens), initial=0.0))
    margin = 16 + LETTER_WIDTH * max(map(len, tokens))
    side = margin + edges[-1]
    whole = 'x="0" y="0" width="{0:.1f}" height="{0:.1f}"'.format(edges[-1])
    return (
        f'<svg class="mask" role="img" aria-label="Attention mask" width="{side:.0f}" '
        f'height="{side:.0f}" viewBox="{-margin:.0f} {-margin:.0f} {side:.0f} {side:.0f}">'
        f'<rect class="masked" {whole}/>{"".join(_attended_cells(mask, n_image, edges))}'
        f"{_grid_lines(edges, n_image)}{_token_labels(tokens, n_image, edges)}</svg>"
    )


def _attended_cells(mask: Tensor, n_image: int, edges: Sequence[float]) -> Iterator[str]:
    """A rectangle for each run of keys that a query may attend to; equal rows share it."""
    kinds = mask.int() * torch.where(torch.arange(len(mask)) < n_image, 1, 2)
    top = 0
    for row, equal_rows in groupby(kinds.tolist()):
        bottom = top + len(list(equal_rows))
        left = 0
        for kind, run in groupby(row):
            right = left + len(list(run))
            if kind:
                yield (
                    f'<rect class="{"image" if kind == 1 else "text"}" x="{edges[left]:.1f}" '
                    f'y="{edges[top]:.1f}" width="{edges[right] - edges[left]:.1f}" '
                    f'height="{edges[bottom] - edges[top]:.1f}"/>'
                )
            left = right
        top = bottom


def _grid_lines(edges: Sequence[float], n_image: int) -> str:
    """Lines between tokens, except image tokens that are too small, and the border to the text."""
    drawn = edges if edges[1] > CELL / 2 else edges[n_image:]
    end = f"{edges[-1]:.1f}"
    thin = "".join(f"M0 {edge:.1f}H{end}M{edge:.1f} 0V{end}" for edge in drawn[1:-1])
    border = f"M0 {edges[n_image]:.1f}H{end}M{edges[n_image]:.1f} 0V{end}"
    return f'<path class="thin" d="{thin}"/><path class="border" d="{border}"/>'


def _token_labels(tokens: Sequence[str], n_image: int, edges: Sequence[float]) -> str:
    middle = edges[n_image] / 2
    transforms = f"translate({middle:.1f} -8)", f"translate(-8 {middle:.1f}) rotate(-90)"
    labels = [
        f'<text text-anchor="middle" transform="{transform}">{n_image} image tokens</text>'
        for transform in transforms
    ]
    for token, edge in zip(tokens, edges[n_image:], strict=False):
        base, text = f"{edge + CELL / 2 + 4:.1f}", escape(token)
        labels.append(f'<text text-anchor="end" x="-6" y="{base}">{text}</text>')
        labels.append(f'<text transform="translate({base} -6) rotate(-90)">{text}</text>')
    return "".join(labels)


def tree_svg(tree: Sequence[Sequence[Branch]]) -> str:
    """A beam search: a column for each step, best branch on top, linked to the branches that they
    continue."""
    token_width = LETTER_WIDTH * max(len(branch.text) for step in tree for branch in step)
    step_width = token_width + LINK_WIDTH
    width, height = step_width * len(tree), ROW_HEIGHT * max(map(len, tree)) + TOP_MARGIN
    branches = "".join(
        _branch(branch, step, rank, token_width)
        for step, branches in enumerate(tree)
        for rank, branch in enumerate(branches)
    )
    numbers = "".join(
        f'<text class="muted" x="{(number - 1) * step_width + token_width / 2:.1f}" y="14">'
        f"{number}</text>"
        for number in range(1, len(tree) + 1)
    )
    return (
        f'<svg class="tree" role="img" aria-label="Beam search, step by step" width="{width:.0f}" '
        f'height="{height:.0f}" text-anchor="middle">{numbers}{branches}</svg>'
    )


def _branch(branch: Branch, step: int, rank: int, token_width: float) -> str:
    """A token at its step and rank with its score, and the link to its parent."""
    left, y = step * (token_width + LINK_WIDTH), ROW_HEIGHT * rank + TOP_MARGIN
    kind = "best" if branch.on_best_path else branch.outcome
    link = ""
    if branch.parent is not None:
        start = f"M{left - LINK_WIDTH + 3:.1f} {ROW_HEIGHT * branch.parent + TOP_MARGIN}"
        link = f'<path class="{kind}" d="{start}L{left - 3:.1f} {y}"/>'
    middle = f"{left + token_width / 2:.1f}"
    return (
        f'{link}<text class="{kind}" x="{middle}" y="{y + 4}">{escape(branch.text)}'
        f"<title>{branch.probability:.1%}, {branch.outcome}</title></text>"
        f'<text class="score" x="{middle}" y="{y + 18}">{branch.score:.2f}</text>'
    )
