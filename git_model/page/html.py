"""The HTML of the page: examples, images, clickable words, answers, bars."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from git_model.explain.drawings import overlay, upscaled
from git_model.page.actions import PageSession, Ranking, Reply, ReplyWord, WordAttention
from git_model.page.samples import THUMBNAIL_SIZE, Sample

MIN_SIZE = 256  # pixels; smaller images are scaled up by a whole factor
MAX_BARS = 20  # labels that are shown
MAX_ALTERNATIVES = 3  # tokens that are shown
MAX_FACTOR = 1_000_000  # larger factors are not written out
PICTURE_INPUT = "picture-input"  # the id of the file input; labels anywhere on the page open it
REAL_MODEL = "--model microsoft/git-base-coco"


def heading(name: str, purpose: str, *, shapes: bool) -> str:
    """The title of the page, and what the model was made for.

    Args:
        shapes: whether the model is the built-in one, which knows no photos.
    """
    if shapes:
        scope = (
            "This built-in model knows <b>drawn shapes only</b>. For photos, open a real one: "
            f"<code>git-model page <span>{REAL_MODEL}</span></code>"
        )
    else:
        scope = f"Made for {escape(purpose)}." if purpose else ""
    return (
        f"<header><h1>GIT <small>{escape(name)}</small></h1><p>A picture is encoded once; its "
        "caption, answers and classes share that.</p>"
        + (f'<p class="scope">{scope}</p>' if scope else "")
        + "</header>"
    )


def notice(text: str) -> str:
    """An error in one line."""
    return f'<p class="notice" role="alert">{escape(text[:1].upper() + text[1:])}</p>'


def file_chooser(max_bytes: int, suffixes: Sequence[str], *, clips: bool) -> str:
    """A button to choose a file of at most `max_bytes`, with a line for errors of the upload;
    upload.js handles its events.

    Args:
        suffixes: of the files to choose from; browsers do not know all kinds of images.
    """
    kinds = ",".join(["image/*", *(["video/*"] if clips else []), *suffixes])
    thing = _thing(clips)
    return (
        f'<label class="choose" for="{PICTURE_INPUT}">Your own {thing}</label>'
        f'<input id="{PICTURE_INPUT}" type="file" aria-label="Your own {thing}" accept="{kinds}" '
        f'data-max-bytes="{max_bytes}"><span>choose, drop or paste</span>'
        '<p class="notice" role="alert" hidden></p>'
    )


def samples(shown: Sequence[Sample]) -> str:
    """The examples as buttons; samples.js handles their events."""
    buttons = "".join(_sample(number, sample) for number, sample in enumerate(shown))
    return f'<div class="samples" role="group" aria-label="Examples">{buttons}</div>'


def _sample(number: int, sample: Sample) -> str:
    spoken, badge = (", a clip", "<span>clip</span>") if sample.is_clip else ("", "")
    return (
        f'<button type="button" data-sample="{number}" '
        f'aria-label="Example: {escape(sample.name)}{spoken}">'
        f'<img src="{_data_url(sample.thumbnail, THUMBNAIL_SIZE)}" alt="">{badge}</button>'
    )


def suggestions(questions: Sequence[str], *, shapes: bool) -> str:
    """Questions as buttons, handled by suggestions.js; for other models than the built-in one a
    line about which models answer questions."""
    if not shapes:
        return (
            '<p class="note">Models that were trained on captions answer badly; '
            "<code>microsoft/git-base-vqav2</code> was trained on questions.</p>"
        )
    buttons = "".join(f'<button type="button">{escape(text)}</button>' for text in questions)
    return f'<div class="chips" role="group" aria-label="Questions to try">{buttons}</div>'


def no_image(*, clips: bool, has_samples: bool) -> str:
    """The placeholder of the image."""
    start = "Choose an example below, or" if has_samples else "Begin here:"
    return (
        f'<figure class="stage"><label class="empty" for="{PICTURE_INPUT}"><b>No {_thing(clips)} '
        f"yet</b><span>{start} drop, paste or choose your own.</span></label></figure>"
    )


def no_caption() -> str:
    """The placeholder of the caption."""
    return '<p class="words empty">The caption will be here.</p>'


def no_details() -> str:
    """The placeholder of the details."""
    return (
        '<p class="note">Each word will be a button: it shows which parts of the picture the model '
        "attended to.</p>"
    )


def image(previews: Sequence[Image.Image]) -> str:
    """An image, or the frames of a clip."""
    is_clip = len(previews) > 1
    images = "".join(
        f'<img src="{_data_url(frame)}" alt="{f"frame {number}" if is_clip else "the picture"}">'
        for number, frame in enumerate(previews, start=1)
    )
    return f'<figure class="stage{" clip" if is_clip else ""}">{images}</figure>'


def attention(result: WordAttention) -> str:
    """The attention map of a word over the image or its frames."""
    max_share = result.shares.max().item()
    return image(
        [
            overlay(frame, shares, max_share)
            for frame, shares in zip(result.frames, result.shares, strict=True)
        ]
    )


def attention_details(result: WordAttention) -> str:
    """What an attention map does not show, and the alternatives to the word."""
    alternatives = ", ".join(
        f"“{escape(token.text)}” {_percent(token.probability)}"
        for token in result.alternatives[:MAX_ALTERNATIVES]
    )
    return (
        f'<p class="note"><b>Attention of “{escape(result.word.text)}”</b>: '
        f"{_percent(result.image_share)} to the image (a bright patch gets much), the rest to the "
        f"text before it. Probability {_percent(result.word.probability)}; alternatives: "
        f"{alternatives}. Recorded in {_time(result.seconds)}. Click the word again for the "
        "picture.</p>"
    )


def waiting(text: str) -> str:
    """What the model is doing at present."""
    return f'<p class="note waiting">{escape(text)} …</p>'


def caption(reply: Reply) -> str:
    """A caption of clickable words."""
    return _words(reply, 0, None)


def details(session: PageSession) -> str:
    """Times and confidence of a session's caption, and a doubt about it if there is one."""
    n_frames, n_tokens = len(session.previews), session.scene.n_tokens
    name = f"{n_frames} frames" if n_frames > 1 else "the image"
    reply = session.replies[0]
    doubt = (
        f'<p class="note doubt"><b>Not made for this picture</b>: {escape(session.doubt)}. What '
        "the model writes about it means little.</p>"
        if session.doubt
        else ""
    )
    hint = "The line under a word is its probability; click a word to see what it attended to."
    return (
        f'{doubt}<p class="note"><b>Encoded {name} once</b>, in {_time(session.seconds)}: '
        f"{n_tokens} image tokens. Caption in {_time(reply.seconds)}, confidence "
        f"{_percent(reply.confidence)}. {'' if doubt else hint}</p>"
    )


def answers(session: PageSession, waiting_question: str = "") -> str:
    """All answers, the latest first.

    Args:
        waiting_question: a question that has no answer yet.
    """
    doubt = _short_doubt(session)
    latest = (
        f'<div class="reply"><p class="question">{escape(waiting_question)}</p>'
        f"{waiting('Answering')}</div>"
        if waiting_question
        else ""
    )
    return latest + "".join(
        f'<div class="reply"><p class="question">{escape(reply.question)}</p>'
        f"{_words(reply, number, session.selected)}"
        f'<p class="note">Confidence {_percent(reply.confidence)}, answered in '
        f"{_time(reply.seconds)}{doubt}</p></div>"
        for number, reply in sorted(session.replies.items(), reverse=True)
        if reply.question is not None
    )


def bars(ranking: Ranking, session: PageSession) -> str:
    """The most probable labels, each with its probability as a bar; above them a note if none of
    them fits."""
    rows = "".join(
        f'<tr><th scope="row">{escape(label.label)}</th>'
        f'<td class="bar"><div style="width: {100 * label.probability:.2f}%"></div></td>'
        f'<td title="{label.probability:.3g}">{_percent(label.probability)}</td></tr>'
        for label in ranking.labels[:MAX_BARS]
    )
    n_hidden = len(ranking.labels) - MAX_BARS
    more = f", {n_hidden} more not shown" if n_hidden > 0 else ""
    verdict = _none_of_these(ranking) if ranking.none_fits else ""
    return (
        f'{verdict}<table class="bars{" none" if verdict else ""}">{rows}</table>'
        f'<p class="note">Exact probabilities among {len(ranking.labels)} labels{more}, scored in '
        f"{_time(ranking.seconds)}{_short_doubt(session)}</p>"
    )


def _none_of_these(ranking: Ranking) -> str:
    factor = 1 / max(ranking.fit, 1 / (2 * MAX_FACTOR))
    times = f"{float(f'{factor:.2g}'):,.0f}" if factor < MAX_FACTOR else f"over {MAX_FACTOR:,}"
    return (
        '<div class="verdict"><b>None of these</b><p class="note">The model would hardly write any '
        f"of them: “{escape(ranking.labels[0].label)}” is {times} times less probable than its own "
        "caption. Classes fit best in the words of its captions.</p></div>"
    )


def _short_doubt(session: PageSession) -> str:
    return "; the model was not made for this picture" if session.doubt else ""


def _thing(clips: bool) -> str:
    return "picture or clip" if clips else "picture"


def _words(reply: Reply, number: int, selected: tuple[int, int] | None) -> str:
    """A button for each word; the length of its underline is its probability."""
    if not reply.words:
        return '<p class="words empty">The model wrote nothing.</p>'
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


def _data_url(frame: Image.Image, min_size: int = MIN_SIZE) -> str:
    """An image as a data: URL; images below `min_size` pixels are scaled up, without loss."""
    file = io.BytesIO()
    if max(frame.size) < min_size:
        upscaled(frame, min_size).save(file, "PNG")
        kind = "png"
    else:
        frame.save(file, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(share: float) -> str:
    """A share in percent; it is rounded to 0 or 100 only if it is exactly that.

    >>> _percent(0.7421), _percent(0.99997), _percent(2.3e-6)
    ('74.2 %', '> 99.9 %', '< 0.1 %')
    """
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
