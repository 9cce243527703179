"""What the page shows, as HTML: pictures, words that can be clicked, answers, bars."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from git_model.explain.heat import enlarged, spotlight
from git_model.page.actions import Gaze, Ranking, Said, Spoken, Visit

SMALL = 256  # pixels; smaller pictures are enlarged, pixel by pixel
BARS = 20  # labels that are shown
RUNNERS_UP = 3  # words that are shown


def heading(name: str) -> str:
    """What this page is."""
    return (
        f"<header><h1>GIT <small>{escape(name)}</small></h1><p>Drop a picture or a clip. The model "
        "reads it once; the caption, your questions and the classes all share that one "
        "reading.</p></header>"
    )


def notice(text: str) -> str:
    """What went wrong, in a line."""
    return f'<p class="notice" role="alert">{escape(text[:1].upper() + text[1:])}</p>'


def drop_zone(most: int) -> str:
    """Where a file of at most so many bytes is dropped or chosen, with a line for what goes wrong
    on its way; upload.js makes it work."""
    return (
        '<label class="drop"><b>Picture or clip</b>'
        "<span>Drop it here, paste it, or click to choose a file.</span>"
        f'<input type="file" accept="image/*,video/*" data-most="{most}"></label>'
        '<p class="notice" role="alert" hidden></p>'
    )


def waiting() -> str:
    """Where a picture will be."""
    return '<figure class="look"><div class="empty">Your picture will be here.</div></figure>'


def no_caption() -> str:
    """Where a caption will be."""
    return '<div class="said"><p class="words empty">and its caption here</p></div>'


def picture(visit: Visit) -> str:
    """A visit's picture or frames, and what reading it took."""
    count, tokens = len(visit.pictures), visit.scene.n_tokens
    what = f"{count} frames" if count > 1 else "the picture"
    return _figure(
        visit.pictures,
        f"<b>Read {what} once</b>, in {_time(visit.seconds)}: {tokens} image tokens. All that "
        "follows is written from these.",
    )


def gaze(found: Gaze) -> str:
    """Where the model looked for a word, in light, and what else it might have said."""
    brightest = found.shares.max().item()
    frames = [
        spotlight(frame, shares, brightest)
        for frame, shares in zip(found.frames, found.shares, strict=True)
    ]
    others = ", ".join(
        f"“{escape(guess.text)}” {_percent(guess.probability)}"
        for guess in found.runners_up[:RUNNERS_UP]
    )
    return _figure(
        frames,
        f"<b>Where it looked for “{escape(found.word.text)}”</b>: "
        f"{_percent(found.picture_share)} of its attention went to the picture, the rest to the "
        f"text before. The brightest patch got {_percent(brightest)} of what went to patches. "
        f"Probability {_percent(found.word.probability)}; next came {others}. Watching took "
        f"another reading, {_time(found.seconds)}. Click the word again to see the whole picture.",
    )


def caption(said: Said) -> str:
    """A caption of words to click."""
    return (
        f'<div class="said">{_words(said, 0, None)}'
        f'<p class="note">Confidence {_percent(said.confidence)}, written in '
        f"{_time(said.seconds)}. Click a word to see where the model looked.</p></div>"
    )


def answers(visit: Visit) -> str:
    """All answers, the latest first."""
    return "".join(
        f'<div class="said"><p class="asked">{escape(said.question)}</p>'
        f"{_words(said, number, visit.looked_at)}"
        f'<p class="note">Confidence {_percent(said.confidence)}, answered in '
        f"{_time(said.seconds)}</p></div>"
        for number, said in sorted(visit.said.items(), reverse=True)
        if said.question is not None
    )


def bars(ranking: Ranking) -> str:
    """The likeliest labels, each with its probability as a bar."""
    rows = "".join(
        f"<tr><th>{escape(one.label)}</th>"
        f'<td class="bar"><div style="width: {100 * one.probability:.2f}%"></div></td>'
        f"<td>{_exact(one.probability)}</td></tr>"
        for one in ranking.labels[:BARS]
    )
    left = len(ranking.labels) - BARS
    more = f", {left} more not shown" if left > 0 else ""
    return (
        f'<table class="bars">{rows}</table><p class="note">Exact probabilities among '
        f"{len(ranking.labels)} labels{more}, scored in {_time(ranking.seconds)}</p>"
    )


def _words(said: Said, number: int, pressed: tuple[int, int] | None) -> str:
    """A button for each word, underlined as far as the model was sure of it."""
    if not said.words:
        return '<p class="words">(no words)</p>'
    buttons = " ".join(
        _word(word, number, place, pressed=(number, place) == pressed)
        for place, word in enumerate(said.words)
    )
    return f'<p class="words">{buttons}</p>'


def _word(word: Spoken, number: int, place: int, *, pressed: bool) -> str:
    return (
        f'<button type="button" data-said="{number}" data-word="{place}" '
        f'aria-pressed="{str(pressed).lower()}" '
        f'title="probability {_percent(word.probability)}" '
        f'style="--sure: {100 * word.probability:.0f}%">{escape(word.text)}</button>'
    )


def _figure(frames: Sequence[Image.Image], note: str) -> str:
    several = " several" if len(frames) > 1 else ""
    images = "".join(
        f'<img src="{_address(frame)}" alt="{f"frame {number}" if several else "the picture"}">'
        for number, frame in enumerate(frames, start=1)
    )
    return (
        f'<figure class="look{several}"><div>{images}</div>'
        f'<figcaption class="note">{note}</figcaption></figure>'
    )


def _address(image: Image.Image) -> str:
    """A picture as a data: address; small ones without loss."""
    file = io.BytesIO()
    if max(image.size) < SMALL:
        enlarged(image, SMALL).save(file, "PNG")
        kind = "png"
    else:
        image.save(file, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(share: float) -> str:
    """A share as people read it; never a 0 or a 100 that is not one.

    >>> _percent(0.7421), _percent(0.99997), _percent(2.3e-6)
    ('74.2 %', '> 99.9 %', '< 0.1 %')
    """
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def _exact(share: float) -> str:
    """A share with all digits that matter, however small it is.

    >>> _exact(0.98021), _exact(0.0), _exact(2.34e-6)
    ('98.02 %', '0.00 %', '2.3e-04 %')
    """
    return f"{100 * share:.1e} %" if 0 < share < 0.0001 else f"{100 * share:.2f} %"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
