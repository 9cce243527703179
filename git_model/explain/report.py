"""An explanation as one HTML file that needs no network and no other file.

The HTML holds everything that does not depend on a choice; report.js draws the attention maps of a
token's layers and heads from the numbers when the token is selected.
"""

import base64
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from torch import Tensor

from git_model.explain.drawings import contact_sheet, data_url, mask_svg, matrix_image, tree_svg
from git_model.explain.explanation import Explanation, TopToken

IMAGE_THUMBNAIL, FRAME_THUMBNAIL = 72, 48  # px: longer side of an image, and of a clip's frame
MATRIX_SIZE = 64  # px: side of an attention matrix, at least
N_LENS_TOKENS = 3  # tokens shown for each layer in the details of a token
HERE = Path(__file__).parent


def report(explanation: Explanation, name: str, model: str) -> str:
    """The report as HTML.

    Args:
        name: of the image or clip, as shown.
        model: its name, as shown.
    """
    template = Template((HERE / "report.html").read_text(encoding="utf-8"))
    is_clip, tree = len(explanation.frames) > 1, explanation.tree
    shares = _section("Frames", FRAMES_NOTE, _frame_shares(explanation)) if is_clip else ""
    beams = "" if tree is None else _section("Beam search", BEAMS_NOTE, tree_svg(tree))
    question, warning = explanation.question, explanation.image_warning
    return template.substitute(
        style=(HERE / "report.css").read_text(encoding="utf-8"),
        script=(HERE / "report.js").read_text(encoding="utf-8"),
        data=json.dumps(_data(explanation)).replace("<", "\\u003c"),
        text=escape(explanation.caption.text) or "(empty)",
        question="" if question is None else f"<p>{escape(question)}</p>",
        name=escape(name),
        model=escape(model),
        purpose=escape(f" (made for {explanation.purpose})" if explanation.purpose else ""),
        warning="" if warning is None else f'<p role="alert"><b>{escape(warning)}</b></p>',
        probability=_percent(math.exp(explanation.caption.logprob)),
        per_token=_percent(math.exp(explanation.caption.logprob / len(explanation.generated))),
        n_generated=len(explanation.generated),
        text_matrices=_matrices(explanation.text_matrix, "Text to text"),
        encoder_matrices=_matrices(explanation.encoder_attention, "Encoder"),
        media="clip" if is_clip else "image",
        input=_input(explanation),
        frames=_frames(explanation),
        tokens=_tokens(explanation),
        shares=shares,
        lens=_logit_lens(explanation),
        mask=mask_svg(explanation.mask, explanation.input_tokens),
        n_image=explanation.n_image,
        n_text=len(explanation.input_tokens),
        beams=beams,
    )


FRAMES_NOTE = (
    "Each frame's share of a token's attention to the clip, averaged over all layers and heads."
)
BEAMS_NOTE = (
    "At each step the search ranks these candidates, the best on top, and continues with some of "
    'them. <b class="best">Bold: the best text.</b> <span class="kept">Plain: kept.</span> '
    '<span class="finished">Underlined: finished.</span> '
    '<span class="pruned">Dashed: pruned.</span> '
    "The number is the score by which a step ranks, a sum of log-probabilities."
)


def _section(title: str, note: str, body: str) -> str:
    inner = f'<div class="wide" tabindex="0" role="region" aria-label="{title}">{body}</div>'
    return f"<section><h2>{title}</h2><p>{note}</p>{inner}</section>"


def _input(explanation: Explanation) -> str:
    """A sentence about how the image becomes image tokens."""
    (rows, columns), n_frames = explanation.grid, len(explanation.frames)
    patches = (
        f"{rows} x {columns} patches of {explanation.frames[0].width // columns} pixels a side"
    )
    n_prefix = explanation.n_prefix
    prefix = {0: "", 1: " and a class token"}.get(n_prefix, f" and {n_prefix} class tokens")
    if n_frames == 1:
        return (
            f"The image is resized for the model and cut into {patches}. These{prefix} make "
            f"{explanation.n_image} image tokens."
        )
    indices = explanation.frame_indices
    numbers = "" if indices is None else f" ({', '.join(map(str, indices))})"
    return (
        f"{n_frames} frames of the clip{numbers} are resized for the model and cut into {patches}. "
        f"These{prefix and prefix + ' for each frame'} make {explanation.n_image} image tokens."
    )


def _frames(explanation: Explanation) -> str:
    """The frames, with lines between the patches."""
    rows, columns = explanation.grid
    lines = [f"M0 {n}H{columns}" for n in range(rows + 1)]
    path = "".join([*lines, *(f"M{n} 0V{rows}" for n in range(columns + 1))])
    is_clip = len(explanation.frames) > 1
    return "".join(
        f'<figure><div class="patches"><img src="{data_url(frame)}" '
        f'alt="{f"frame {number}" if is_clip else "the image"}, as the model\'s input">'
        f'<svg viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{path}"/><path class="dashes" d="{path}"/></svg></div>'
        f"{f'<figcaption>frame {number}</figcaption>' if is_clip else ''}</figure>"
        for number, frame in enumerate(explanation.frames, start=1)
    )


def _tokens(explanation: Explanation) -> str:
    """A button for each generated token, with its attention map."""
    size = IMAGE_THUMBNAIL if len(explanation.frames) == 1 else FRAME_THUMBNAIL
    pairs = zip(explanation.generated, explanation.patch_attention(), strict=True)
    return "".join(
        f'<button type="button" data-token="{index}" aria-pressed="false">'
        f'<img src="{data_url(contact_sheet(explanation.frames, maps, size))}" alt="">'
        f"<b>{_token(token.text)}</b><span>{_percent(token.probability)}</span></button>"
        for index, (token, maps) in enumerate(pairs)
    )


def _frame_shares(explanation: Explanation) -> str:
    headers = [f"frame {number}" for number in range(1, len(explanation.frames) + 1)]
    rows = [
        (token.text, [_bar(_percent(share), share) for share in shares])
        for token, shares in zip(
            explanation.generated, explanation.frame_shares().tolist(), strict=True
        )
    ]
    return _table(headers, rows)


def _logit_lens(explanation: Explanation) -> str:
    """The most probable token after each layer; bold where it is the generated token."""
    generated = explanation.generated
    rows = []
    for layer in range(len(generated[0].logit_lens)):
        cells = []
        for token in generated:
            top = token.logit_lens[layer][0]
            text = f"<b>{_token(top.text)}</b>" if top.token == token.token else _token(top.text)
            cells.append(_bar(f"{text}<br>{_percent(top.probability)}", top.probability))
        rows.append((f"layer {layer + 1}", cells))
    return _table([token.text for token in generated], rows)


def _token(text: str) -> str:
    """A token as HTML; a word that is read from right to left stays apart from its neighbours."""
    return f"<bdi>{escape(text)}</bdi>"


def _matrices(weights: Tensor, name: str) -> str:
    """A table of attention matrices (layers, heads, queries, keys)."""
    n_layers, n_heads = weights.shape[:2]
    if n_layers == 0:
        return "<p>Not recorded: this image encoder is another library's.</p>"
    rows = []
    for layer in range(n_layers):
        cells = []
        for head in range(n_heads):
            picture = data_url(matrix_image(weights[layer, head], MATRIX_SIZE))
            label = f"{name}, layer {layer + 1}, head {head + 1}"
            cells.append(f'<td><img class="matrix" src="{picture}" alt="{label}"></td>')
        rows.append((f"layer {layer + 1}", cells))
    return _table([f"head {head + 1}" for head in range(n_heads)], rows)


def _table(headers: Iterable[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    """A table; the cells are HTML, the headers and the rows' names are text."""
    top = "".join(f'<th scope="col">{_token(header)}</th>' for header in headers)
    body = "".join(
        f'<tr><th scope="row">{_token(name)}</th>{"".join(cells)}</tr>' for name, cells in rows
    )
    return f"<table><thead><tr><td></td>{top}</tr></thead><tbody>{body}</tbody></table>"


def _bar(html: str, share: float) -> str:
    return f'<td class="bar" style="--share: {share:.4f}">{html}</td>'


def _data(explanation: Explanation) -> dict[str, object]:
    """The data that report.js draws; weights are packed by `_packed`."""
    n_layers, n_heads = explanation.image_attention.shape[:2]
    drops = explanation.occlusion
    largest_drop = 0.0 if drops is None else max(drops.max().item(), 0.0)
    return {
        "layers": n_layers,
        "heads": n_heads,
        "frames": len(explanation.frames),
        "grid": explanation.grid,
        "input_tokens": explanation.input_tokens,
        "patch_attention": _packed(explanation.image_attention[..., explanation.n_prefix :]),
        "rollout": _packed(explanation.rollout),
        "occlusion": None
        if drops is None
        else _packed(drops.clamp(min=0) / max(largest_drop, 1e-12)),
        "max_drop": largest_drop,
        "text_attention": _packed(explanation.text_attention),
        "class_attention": _packed(
            explanation.image_attention[..., : explanation.n_prefix].sum((-1, -2))
        ),
        "generated": [
            {
                "text": token.text,
                "probability": token.probability,
                "alternatives": _pairs(token.alternatives),
                "logit_lens": [_pairs(layer[:N_LENS_TOKENS]) for layer in token.logit_lens],
            }
            for token in explanation.generated
        ],
    }


def _pairs(tokens: Iterable[TopToken]) -> list[tuple[str, float]]:
    return [(token.text, token.probability) for token in tokens]


def _packed(weights: Tensor) -> str:
    """Weights, 0 to 1, as base64 of 16-bit integers, little-endian; 65535 is 1."""
    numbers = (65535 * weights.double().numpy()).round().astype("<u2")
    return base64.b64encode(numbers.tobytes()).decode()


def _percent(share: float) -> str:
    """A share as HTML with spaces that do not break; a small one is never rounded to 0.

    >>> _percent(0.7421), _percent(2.3e-6)
    ('74.2&nbsp;%', '&lt;&nbsp;0.1&nbsp;%')
    """
    return "&lt;&nbsp;0.1&nbsp;%" if 0 < share < 0.0005 else f"{100 * share:.1f}&nbsp;%"
