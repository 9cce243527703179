"""The HTML of the page: images, clickable words, answers, bars."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from git_model.explain.drawings import overlay, upscaled
from git_model.page.actions import PageSession, Ranking, Reply, ReplyWord, WordAttention

MIN_SIZE = 256  # pixels; smaller images are scaled up by a whole factor
MAX_BARS = 20  # labels that are shown
MAX_ALTERNATIVES = 3  # tokens that are shown


def heading(name: str) -> str:
    """The title and purpose of the page."""
    return (
        f"<header><h1>GIT <small>{escape(name)}</small></h1><p>Drop an image or a clip. The model "
        "encodes it once; the caption, your questions and the classes share that one "
        "encoding.</p></header>"
    )


def notice(text: str) -> str:
    """An error in one line."""
    return f'<p class="notice" role="alert">{escape(text[:1].upper() + text[1:])}</p>'


def drop_zone(max_bytes: int) -> str:
    """A zone to drop or choose a file of at most `max_bytes`, with a line for errors of the upload;
    upload.js handles its events."""
    return (
        '<label class="drop"><b>Image or clip</b>'
        "<span>Drop it here, paste it, or click to choose a file.</span>"
        f'<input type="file" accept="image/*,video/*" data-max-bytes="{max_bytes}"></label>'
        '<p class="notice" role="alert" hidden></p>'
    )


def no_image() -> str:
    """The placeholder of the image."""
    return '<figure class="frames"><div class="empty">Your image will be here.</div></figure>'


def no_caption() -> str:
    """The placeholder of the caption."""
    return '<div class="reply"><p class="words empty">and its caption here</p></div>'


def image(session: PageSession) -> str:
    """A session's image or frames, and the time of encoding."""
    n_frames, n_tokens = len(session.previews), session.scene.n_tokens
    name = f"{n_frames} frames" if n_frames > 1 else "the image"
    return _figure(
        session.previews,
        f"<b>Encoded {name} once</b>, in {_time(session.seconds)}: {n_tokens} image tokens. The "
        "caption, answers and classes below are computed from these.",
    )


def attention(result: WordAttention) -> str:
    """The attention map of a word, and the alternatives to it."""
    max_share = result.shares.max().item()
    frames = [
        overlay(frame, shares, max_share)
        for frame, shares in zip(result.frames, result.shares, strict=True)
    ]
    alternatives = ", ".join(
        f"“{escape(token.text)}” {_percent(token.probability)}"
        for token in result.alternatives[:MAX_ALTERNATIVES]
    )
    return _figure(
        frames,
        f"<b>Attention of “{escape(result.word.text)}”</b>: {_percent(result.image_share)} to the "
        f"image, the rest to the text before it. The brightest patch gets {_percent(max_share)} of "
        f"the attention to patches. Probability {_percent(result.word.probability)}; alternatives: "
        f"{alternatives}. Recording this took another forward pass, {_time(result.seconds)}. "
        "Click the word again to show the image.",
    )


def caption(reply: Reply) -> str:
    """A caption of clickable words."""
    return (
        f'<div class="reply">{_words(reply, 0, None)}'
        f'<p class="note">Confidence {_percent(reply.confidence)}, generated in '
        f"{_time(reply.seconds)}. Click a word to show its attention.</p></div>"
    )


def answers(session: PageSession) -> str:
    """All answers, the latest first."""
    return "".join(
        f'<div class="reply"><p class="question">{escape(reply.question)}</p>'
        f"{_words(reply, number, session.selected)}"
        f'<p class="note">Confidence {_percent(reply.confidence)}, answered in '
        f"{_time(reply.seconds)}</p></div>"
        for number, reply in sorted(session.replies.items(), reverse=True)
        if reply.question is not None
    )


def bars(ranking: Ranking) -> str:
    """The most probable labels, each with its probability as a bar."""
    rows = "".join(
        f"<tr><th>{escape(label.label)}</th>"
        f'<td class="bar"><div style="width: {100 * label.probability:.2f}%"></div></td>'
        f"<td>{_exact(label.probability)}</td></tr>"
        for label in ranking.labels[:MAX_BARS]
    )
    n_hidden = len(ranking.labels) - MAX_BARS
    more = f", {n_hidden} more not shown" if n_hidden > 0 else ""
    return (
        f'<table class="bars">{rows}</table><p class="note">Exact probabilities among '
        f"{len(ranking.labels)} labels{more}, scored in {_time(ranking.seconds)}</p>"
    )


def _words(reply: Reply, number: int, selected: tuple[int, int] | None) -> str:
    """A button for each word; the length of its underline is its probability."""
    if not reply.words:
        return '<p class="words">(empty)</p>'
    buttons = " ".join(
        _word(word, number, index, selected=(number, index) == selected)
        for index, word in enumerate(reply.words)
    )
    return f'<p class="words">{buttons}</p>'


def _word(word: ReplyWord, number: int, index: int, *, selected: bool) -> str:
    return (
        f'<button type="button" data-reply="{number}" data-word="{index}" '
        f'aria-pressed="{str(selected).lower()}" '
        f'title="probability {_percent(word.probability)}" '
        f'style="--probability: {100 * word.probability:.0f}%">{escape(word.text)}</button>'
    )


def _figure(frames: Sequence[Image.Image], note: str) -> str:
    is_clip = len(frames) > 1
    images = "".join(
        f'<img src="{_data_url(frame)}" alt="{f"frame {number}" if is_clip else "the image"}">'
        for number, frame in enumerate(frames, start=1)
    )
    return (
        f'<figure class="frames{" clip" if is_clip else ""}"><div>{images}</div>'
        f'<figcaption class="note">{note}</figcaption></figure>'
    )


def _data_url(frame: Image.Image) -> str:
    """An image as a data: URL; small images without loss."""
    file = io.BytesIO()
    if max(frame.size) < MIN_SIZE:
        upscaled(frame, MIN_SIZE).save(file, "PNG")
        kind = "png"
    else:
        frame.save(file, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(share: float) -> str:
    """A share for people; never rounded to 0 or 100 unless it is that.

    >>> _percent(0.7421), _percent(0.99997), _percent(2.3e-6)
    ('74.2 %', '> 99.9 %', '< 0.1 %')
    """
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def _exact(share: float) -> str:
    """A share with at least two significant digits, however small it is.

    >>> _exact(0.98021), _exact(0.0), _exact(2.34e-6)
    ('98.02 %', '0.00 %', '2.3e-04 %')
    """
    return f"{100 * share:.1e} %" if 0 < share < 0.0001 else f"{100 * share:.2f} %"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
