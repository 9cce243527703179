"""An explanation as one HTML file that needs nothing else: no network, no other file.

All that does not change stands in the HTML; maps of single layers and heads are drawn by
report.js from the numbers, when a word is chosen.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from torch import Tensor

from git_model.explain.explanation import Explanation
from git_model.explain.heat import data_address, sheet
from git_model.explain.svg import mask_svg, tree_svg

THUMB, SMALLER = 72, 48  # px: of a picture, and of a clip's frame, among those of all words
HERE = Path(__file__).parent


def report(found: Explanation, name: str, model: str) -> str:
    """The report.

    Args:
        name: what the picture or clip is called.
        model: what the model is called.
    """
    page = Template((HERE / "report.html").read_text(encoding="utf-8"))
    several = len(found.frames) > 1
    return page.substitute(
        style=(HERE / "report.css").read_text(encoding="utf-8"),
        script=(HERE / "report.js").read_text(encoding="utf-8"),
        data=json.dumps(_numbers(found)).replace("<", "\\u003c"),
        text=escape(found.caption.text) or "(no words)",
        question="" if found.question is None else f"<p>{escape(found.question)}</p>",
        name=escape(name),
        model=escape(model),
        sure=_percent(np.exp(found.caption.logprob)),
        view="clip" if several else "picture",
        size=_size(found),
        frames=_frames(found),
        words=_words(found),
        shares=_section("Frames", FRAMES_NOTE, _shares(found)) if several else "",
        layers=_layers(found),
        mask=mask_svg(found.mask, found.tokens),
        n_image=found.n_image,
        n_text=len(found.tokens),
        num_beams="" if found.tree is None else _section("Beams", BEAMS_NOTE, tree_svg(found.tree)),
    )


FRAMES_NOTE = (
    "How much of what a word gave to the clip went to each frame, all layers and heads averaged."
)
BEAMS_NOTE = (
    "At each step the search weighed these words, the best on top, and went on with some. "
    '<b class="chosen">Bold: the text that won.</b> <span class="kept">Plain: kept.</span> '
    '<span class="ended">Underlined: ended.</span> <span class="dropped">Dashed: dropped.</span> '
    "The number is the score by which a step ranks: log-probabilities, added up."
)


def _section(title: str, note: str, body: str) -> str:
    inner = f'<div class="wide" tabindex="0" role="region" aria-label="{title}">{body}</div>'
    return f"<section><h2>{title}</h2><p>{note}</p>{inner}</section>"


def _size(found: Explanation) -> str:
    """What becomes of the picture, in words."""
    (rows, columns), n = found.grid, len(found.frames)
    patches = f"{rows} x {columns} patches of {found.frames[0].width // columns} pixels a side"
    if n == 1:
        return (
            f"The picture is brought to the model's size and cut into {patches}. These and a class "
            f"token are {found.n_image} image tokens."
        )
    which = "" if found.indices is None else f" ({', '.join(map(str, found.indices))})"
    return (
        f"{n} frames of the clip{which} are brought to the model's size and cut into {patches}. "
        f"These and a class token for each frame are {found.n_image} image tokens."
    )


def _frames(found: Explanation) -> str:
    """The frames, with lines between the patches."""
    rows, columns = found.grid
    lines = [f"M0 {n}H{columns}" for n in range(rows + 1)]
    path = "".join([*lines, *(f"M{n} 0V{rows}" for n in range(columns + 1))])
    several = len(found.frames) > 1
    return "".join(
        f'<figure><div class="cut"><img src="{data_address(frame)}" '
        f'alt="{f"frame {number}" if several else "the picture"}, as the model sees it">'
        f'<svg viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{path}"/><path class="dashes" d="{path}"/></svg></div>'
        f"{f'<figcaption>frame {number}</figcaption>' if several else ''}</figure>"
        for number, frame in enumerate(found.frames, start=1)
    )


def _words(found: Explanation) -> str:
    """A button for each word, with where it looked."""
    side = THUMB if len(found.frames) == 1 else SMALLER
    return "".join(
        f'<button type="button" data-word="{number}" aria-pressed="false">'
        f'<img src="{data_address(sheet(found.frames, maps, side))}" alt="">'
        f"<b>{escape(word.text)}</b><span>{_percent(word.probability)}</span></button>"
        for number, (word, maps) in enumerate(zip(found.words, found.patches(), strict=True))
    )


def _shares(found: Explanation) -> str:
    heads = [f"frame {number}" for number in range(1, len(found.frames) + 1)]
    rows = [
        (word.text, [_bar(_percent(share), share) for share in shares])
        for word, shares in zip(found.words, found.frame_shares().tolist(), strict=True)
    ]
    return _table(heads, rows)


def _layers(found: Explanation) -> str:
    """What each layer would have said, word by word; the written word is bold."""
    rows = []
    for number in range(len(found.words[0].layers)):
        cells = []
        for word in found.words:
            best = word.layers[number][0]
            text = escape(best.text)
            text = f"<b>{text}</b>" if best.token == word.token else text
            cells.append(_bar(f"{text}<br>{_percent(best.probability)}", best.probability))
        rows.append((f"layer {number + 1}", cells))
    return _table([word.text for word in found.words], rows)


def _table(heads: Iterable[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    """A table; the cells are HTML, the heads and the rows' names are text."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows
    )
    return f"<table><thead><tr><td></td>{top}</tr></thead><tbody>{body}</tbody></table>"


def _bar(html: str, share: float) -> str:
    return f'<td class="bar" style="--share: {share:.4f}">{html}</td>'


def _numbers(found: Explanation) -> dict[str, object]:
    """What report.js draws from; weights are as `_as_bytes` packs them."""
    layers, heads = found.image_attention.shape[:2]
    return {
        "layers": layers,
        "heads": heads,
        "frames": len(found.frames),
        "grid": found.grid,
        "tokens": found.tokens,
        "maps": _as_bytes(found.image_attention[..., 1:]),
        "rollout": _as_bytes(found.rollout),
        "text": _as_bytes(found.text_attention),
        "classes": _as_bytes(found.image_attention[..., 0].sum(-1)),
        "words": [
            {
                "text": word.text,
                "probability": word.probability,
                "others": [(one.text, one.probability) for one in word.runners_up],
                "layers": [
                    [(one.text, one.probability) for one in guesses[:3]] for guesses in word.layers
                ],
            }
            for word in found.words
        ],
    }


def _as_bytes(weights: Tensor) -> str:
    """Weights, 0 to 1, as numbers of 16 bits, little-endian."""
    numbers = (65535 * weights.double().numpy()).round().astype("<u2")
    return base64.b64encode(numbers.tobytes()).decode()


def _percent(share: float) -> str:
    """A share as HTML for people; never a 0 that is not one, and its spaces do not break.

    >>> _percent(0.7421), _percent(2.3e-6)
    ('74.2&nbsp;%', '&lt;&nbsp;0.1&nbsp;%')
    """
    return "&lt;&nbsp;0.1&nbsp;%" if 0 < share < 0.0005 else f"{100 * share:.1f}&nbsp;%"
