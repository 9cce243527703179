"""The HTML of the page: examples, images, clickable words, answers, bars."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from git_model.explain.drawings import overlay, upscaled
from git_model.page.actions import PageSession, Ranking, Reply, ReplyWord, WordAttention
from git_model.page.samples import THUMBNAIL_SIZE, Sample

MIN_SIZE = 256  # pixels; smaller images are scaled up by a whole factor
MAX_BARS = 20  # labels that are shown
MAX_ALTERNATIVES = 3  # tokens that are shown
MAX_FACTOR = 1_000_000  # larger factors are not written out
SHORT_DOUBT = "Not made for this picture: this means little."
END = "[SEP]"  # as the vocabulary spells the end of a text
PICTURE_INPUT = "picture-input"  # the id of the file input; labels anywhere on the page open it
REAL_MODEL = "--model microsoft/git-base-coco"


def short_name(model: str) -> str:
    """A model's name as it is shown: of a folder the last two parts of its path, so that
    `runs/flowers/checkpoint` is told apart from another run's."""
    folder = Path(model)
    return "/".join(folder.resolve().parts[-2:]).lstrip("/") if folder.is_dir() else model


def heading(name: str, purpose: str, *, shapes: bool, max_side: int = 0) -> str:
    """The title of the page, and what the model was made for.

    Args:
        purpose: what the model was made for, or empty if its checkpoint does not say.
        shapes: whether the model is the built-in one, which knows no photos.
        max_side: pixels a side of the largest picture that it was made for; 0: of any size.
    """
    limit = f"of at most {max_side} x {max_side} pixels" if max_side else ""
    if shapes:
        scope = (
            f"This built-in model knows <b>drawn shapes only</b>: drawings {limit} in its own "
            "colours on plain grey, like the examples. For photos, open a real one: "
            f"<code>git-model page <span>{REAL_MODEL}</span></code>"
        )
    elif purpose:
        scope = f"Made for {escape(purpose)}{f'; pictures {limit}' if limit else ''}."
    else:
        scope = (
            "This checkpoint does not say what it was made for: compare its texts with what you "
            "see."
        )
    return (
        f"<header><h1>GIT <small>{escape(name)}</small></h1><p>Choose a picture: the model "
        "describes it, answers questions about it, and chooses among names that you give.</p>"
        f'<p class="scope">{scope}</p></header>'
    )


def notice(text: str) -> str:
    """An error in one line."""
    return f'<p class="notice" role="alert">{_sentence(text)}</p>'


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


def suggestions(questions: Sequence[str], clip_questions: Sequence[str]) -> str:
    """The kinds of questions that a model learned, an example of each as a button that
    suggestions.js handles; if they are not known, a line about which models answer questions.

    Args:
        questions: about pictures.
        clip_questions: about clips.
    """
    if not questions:
        return (
            '<p class="note">A model that learned only to describe pictures answers badly; '
            "<code>microsoft/git-base-vqav2</code> learned to answer.</p>"
        )
    clips = (
        f"<details><summary>Questions about clips</summary>{_chips(clip_questions)}</details>"
        if clip_questions
        else ""
    )
    return (
        '<p class="note">This model learned only these kinds of questions, about things that are '
        f"in the picture:</p>{_chips(questions)}{clips}"
    )


def _chips(questions: Sequence[str]) -> str:
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
        "used for it.</p>"
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
    """How to read an attention map, and the alternatives to the word."""
    tokens = (result.first, *result.alternatives[:MAX_ALTERNATIVES])
    others = 1 - sum(token.probability for token in tokens)
    rows = [(_token(token.text), token.probability) for token in tokens]
    rows.append(("all other words", max(others, 0.0)))
    listed = ", ".join(f"<span>{text} {_percent(share)}</span>" for text, share in rows)
    word = escape(result.word.text)
    return (
        f'<p class="note"><b>“{word}”</b>: the model used the brighter parts of the picture for '
        "it. Click it again for the plain picture.</p>"
        f'<p class="note shares">Probable here: {listed}.</p>'
        + _folded(
            f"Brightness is attention, averaged over layers and heads: "
            f"{_percent(result.image_share)} of it goes to the picture, the rest to the text "
            f"before the word. Probability of the whole word: {_percent(result.word.probability)}. "
            f"Recorded in {_time(result.seconds)}."
        )
    )


def _token(text: str) -> str:
    """A token as a person reads it: `“stars”`, `“…s”` for the end of a word, `(end)`."""
    if text == END:
        return "(end of the text)"
    return f"“{escape('…' + text[2:] if text.startswith('##') else text)}”"


def waiting(text: str) -> str:
    """What the model is doing at present."""
    return f'<p class="note waiting">{escape(text)} …</p>'


def caption(session: PageSession) -> str:
    """A session's caption of clickable words; above it a warning if the model was not made for the
    image."""
    warning = (
        f'<div class="warning"><b>Not made for this picture</b><p>{_sentence(session.doubt)}. The '
        "text below means little.</p></div>"
        if session.doubt
        else ""
    )
    return warning + _words(session.replies[0], 0, None, doubted=bool(session.doubt))


def details(session: PageSession) -> str:
    """How to read a session's caption; folded, its times and probability."""
    n_frames, n_tokens = len(session.previews), session.scene.n_tokens
    name = f"{n_frames} frames" if n_frames > 1 else "The picture"
    reply = session.replies[0]
    hint = (
        ""
        if session.doubt
        else f'<p class="note">Confidence {_percent(reply.confidence)}. The line under a word '
        "shows how sure the model is of it; click a word to see which parts of the picture it "
        "used.</p>"
    )
    return hint + _folded(
        f"{name} encoded once, in {_time(session.seconds)}, into {n_tokens} image tokens; the "
        f"caption took {_time(reply.seconds)}; answers and comparisons use the same tokens. "
        "Confidence is the geometric mean of the probabilities of the text's "
        f"{reply.n_tokens} tokens."
    )


def answers(session: PageSession, waiting_question: str = "") -> str:
    """All answers, the latest first.

    Args:
        waiting_question: a question that has no answer yet.
    """
    latest = (
        f'<div class="reply"><p class="question">{escape(waiting_question)}</p>'
        f"{waiting('Answering')}</div>"
        if waiting_question
        else ""
    )
    return latest + "".join(
        f'<div class="reply"><p class="question">{escape(reply.question)}</p>'
        f"{_words(reply, number, session.selected, doubted=_is_doubted(reply, session))}"
        f"{_below_answer(reply, session)}</div>"
        for number, reply in sorted(session.replies.items(), reverse=True)
        if reply.question is not None
    )


def _is_doubted(reply: Reply, session: PageSession) -> bool:
    return bool(session.doubt or reply.hint)


def _below_answer(reply: Reply, session: PageSession) -> str:
    """The confidence of an answer, or what makes it doubtful."""
    if _is_doubted(reply, session):
        return _doubt(reply.hint or SHORT_DOUBT)
    return (
        f'<p class="note">Confidence {_percent(reply.confidence)}, answered in '
        f"{_time(reply.seconds)}</p>"
    )


def bars(ranking: Ranking, session: PageSession, hint: str = "") -> str:
    """The most probable labels, each with its probability as a bar. If none of them fits, or the
    model was not made for the image, the bars are grey and have no numbers.

    Args:
        hint: which words the model does not know, or empty.
    """
    is_grey = ranking.none_fits or bool(session.doubt)
    rows = "".join(
        f'<tr><th scope="row">{escape(label.label)}</th>'
        f'<td class="bar"><div style="width: {100 * label.probability:.2f}%"></div></td>'
        + (
            ""
            if is_grey
            else f'<td title="{label.probability:.3g}">{_percent(label.probability)}</td>'
        )
        + "</tr>"
        for label in ranking.labels[:MAX_BARS]
    )
    n_hidden = len(ranking.labels) - MAX_BARS
    more = f" {n_hidden} more are not shown." if n_hidden > 0 else ""
    above = (_doubt(SHORT_DOUBT) if session.doubt else "") + (_doubt(hint) if hint else "")
    above += _none_of_these() if ranking.none_fits else ""
    order = (
        "Of these names the least improbable comes first."
        if is_grey
        else "Among these names only: the shares sum to 100 %."
    )
    return (
        f'{above}<table class="bars{" none" if is_grey else ""}">{rows}</table>'
        f'<p class="note">{order}{more}</p>{_folded(_ranking_details(ranking))}'
    )


def _none_of_these() -> str:
    return (
        '<div class="verdict"><b>None of these</b><p class="note">The model would hardly write any '
        "of them about this picture. Word a name as the model words its captions.</p></div>"
    )


def _ranking_details(ranking: Ranking) -> str:
    """The numbers behind `Ranking.none_fits`."""
    factor = 1 / max(ranking.fit, 1 / (2 * MAX_FACTOR))
    times = f"{float(f'{factor:.2g}'):,.0f}" if factor < MAX_FACTOR else f"over {MAX_FACTOR:,}"
    own = (
        f"{times} times less probable than the model's own caption"
        if factor > 1
        else "at least as probable as the model's own caption"
    )
    return (
        f"Exact probabilities among {len(ranking.labels)} names, scored in "
        f"{_time(ranking.seconds)}. “{escape(ranking.labels[0].label)}” is {own}; the geometric "
        f"mean of its tokens' probabilities is {_percent(ranking.confidence)}."
    )


def _doubt(text: str) -> str:
    return f'<p class="doubt">{escape(text)}</p>'


def _folded(text: str) -> str:
    """Details that are hidden until the visitor opens them. `text` is HTML."""
    return f'<details><summary>Details</summary><p class="note">{text}</p></details>'


def _sentence(text: str) -> str:
    """The text with a capital at its beginning, unless it begins with the name of a file."""
    first = text.partition(" ")[0]
    return escape(text[:1].upper() + text[1:] if first.isalpha() else text)


def _thing(clips: bool) -> str:
    return "picture or clip" if clips else "picture"


def _words(reply: Reply, number: int, selected: tuple[int, int] | None, *, doubted: bool) -> str:
    """A button for each word; the length of its underline is its probability, which is grey for a
    doubted text."""
    if not reply.words:
        return '<p class="words empty">The model answered with an empty text.</p>'
    buttons = " ".join(
        _word(word, number, index, selected=(number, index) == selected)
        for index, word in enumerate(reply.words)
    )
    return f'<p class="words{" doubted" if doubted else ""}">{buttons}</p>'


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
