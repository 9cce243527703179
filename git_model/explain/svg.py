"""The report's drawings as SVG: the mask, and the tree of beams. Classes name the colours."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate, groupby

import torch
from torch import Tensor

from git_model.explain.beam_tree import Branch

CELL, IMAGE_ROOM = 18, 180  # px: a text token's side, and all image tokens together at most
LETTER = 7.5  # px: room for one, in the size that is used
LINE, LINK = 38, 36  # px: from rank to rank, and between the words of two steps


def mask_svg(mask: Tensor, tokens: Sequence[str]) -> str:
    """Who may look at whom: rows look at columns.

    Args:
        mask: (I + T, I + T), True where a token may look.
        tokens: the names of the T text tokens; the image's are drawn smaller if they are many.
    """
    n_image = len(mask) - len(tokens)
    cell = min(CELL, IMAGE_ROOM / n_image)
    edges = list(accumulate([cell] * n_image + [CELL] * len(tokens), initial=0.0))
    margin = 16 + LETTER * max(map(len, tokens))
    side = margin + edges[-1]
    whole = 'x="0" y="0" width="{0:.1f}" height="{0:.1f}"'.format(edges[-1])
    return (
        f'<svg class="mask" role="img" aria-label="Attention mask" width="{side:.0f}" '
        f'height="{side:.0f}" viewBox="{-margin:.0f} {-margin:.0f} {side:.0f} {side:.0f}">'
        f'<rect class="blocked" {whole}/>{"".join(_seen(mask, n_image, edges))}'
        f"{_grid(edges, n_image)}{_names(tokens, n_image, edges)}</svg>"
    )


def _seen(mask: Tensor, n_image: int, edges: Sequence[float]) -> Iterator[str]:
    """A rectangle for each run of tokens that may be looked at; rows that are alike share it."""
    kinds = mask.int() * torch.where(torch.arange(len(mask)) < n_image, 1, 2)
    top = 0
    for row, alike in groupby(kinds.tolist()):
        bottom = top + len(list(alike))
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


def _grid(edges: Sequence[float], n_image: int) -> str:
    """Lines between tokens, but for image tokens that are too small, and the border to the text."""
    shown = edges if edges[1] > CELL / 2 else edges[n_image:]
    end = f"{edges[-1]:.1f}"
    thin = "".join(f"M0 {at:.1f}H{end}M{at:.1f} 0V{end}" for at in shown[1:-1])
    border = f"M0 {edges[n_image]:.1f}H{end}M{edges[n_image]:.1f} 0V{end}"
    return f'<path class="thin" d="{thin}"/><path class="border" d="{border}"/>'


def _names(tokens: Sequence[str], n_image: int, edges: Sequence[float]) -> str:
    middle = edges[n_image] / 2
    places = f"translate({middle:.1f} -8)", f"translate(-8 {middle:.1f}) rotate(-90)"
    found = [
        f'<text text-anchor="middle" transform="{place}">{n_image} image tokens</text>'
        for place in places
    ]
    for token, edge in zip(tokens, edges[n_image:], strict=False):
        at = edge + CELL / 2 + 4
        found.append(f'<text text-anchor="end" x="-6" y="{at:.1f}">{escape(token)}</text>')
        found.append(f'<text transform="translate({at:.1f} -6) rotate(-90)">{escape(token)}</text>')
    return "".join(found)


def tree_svg(tree: Sequence[Sequence[Branch]]) -> str:
    """A beam search: a column for each step, the best on top, joined to what they continue."""
    word = LETTER * max(len(branch.text) for step in tree for branch in step)
    step_width = word + LINK
    width, height = step_width * len(tree), LINE * max(map(len, tree)) + 36
    parts = [
        _branch(branch, (step, rank), word)
        for step, branches in enumerate(tree)
        for rank, branch in enumerate(branches)
    ]
    numbers = "".join(
        f'<text class="quiet" x="{step * step_width + word / 2:.1f}" y="14">{step + 1}</text>'
        for step in range(len(tree))
    )
    return (
        f'<svg class="tree" role="img" aria-label="Beam search, step by step" width="{width:.0f}" '
        f'height="{height:.0f}" text-anchor="middle">{numbers}{"".join(parts)}</svg>'
    )


def _branch(branch: Branch, place: tuple[int, int], word: float) -> str:
    """A word at its step and rank with its score, and the line from what it continues."""
    step, rank = place
    left, y = step * (word + LINK), LINE * rank + 36
    kind = "chosen" if branch.chosen else branch.fate
    link = ""
    if branch.parent is not None:
        start = f"M{left - LINK + 3:.1f} {LINE * branch.parent + 36}"
        link = f'<path class="{kind}" d="{start}L{left - 3:.1f} {y}"/>'
    middle = f"{left + word / 2:.1f}"
    return (
        f'{link}<text class="{kind}" x="{middle}" y="{y + 4}">{escape(branch.text)}'
        f"<title>{branch.probability:.1%}, {branch.fate}</title></text>"
        f'<text class="score" x="{middle}" y="{y + 18}">{branch.score:.2f}</text>'
    )
