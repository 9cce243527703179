"""The actions of the page, without gradio: a session encodes an image once and generates texts.

layout.py connects these functions to the parts of the page.
"""

import math
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TypeVar

from PIL import Image
from torch import Tensor

from git_model.captioner import Caption, Captioner, ImageScene, Label
from git_model.explain.explanation import Explanation, TopToken, explain
from git_model.preprocessing.clip import Clip
from git_model.preprocessing.image import upright_rgb
from git_model.preprocessing.inputs import Frames
from git_model.preprocessing.video import read_media
from git_model.utils.errors import GITError, one_line

MAX_SESSIONS = 16  # in memory; the scene of a large video model takes about 50 MB
MAX_ANSWERS = 20  # that a session keeps
MAX_LABELS = 1000  # of one classification
# A label fits if its probability is at least this share of that of the model's own caption, and its
# tokens have at least this probability (their geometric mean, with the end token).
MIN_FIT = 0.01
MIN_CONFIDENCE = 0.05
PREVIEW_SIZE = 640  # pixels, the longest side of an image that is sent to the browser
T = TypeVar("T")


@dataclass(frozen=True)
class ReplyWord:
    """A word between spaces, and the joint probability of its tokens.

    tokens: their indices in the generated text.
    """

    text: str
    tokens: list[int]
    probability: float


@dataclass(frozen=True)
class Reply:
    """A caption (question: None), or the answer to a question.

    logprob: log p(text | image), of all tokens, the end token included.
    seconds: of generating it from the encoded image.
    hint: why an answer means little, or empty.
    """

    question: str | None
    text: str
    words: list[ReplyWord]
    logprob: float
    n_tokens: int
    seconds: float
    hint: str = ""

    @property
    def confidence(self) -> float:
        """The geometric mean of the probabilities of all tokens."""
        return math.exp(self.logprob / max(self.n_tokens, 1))


@dataclass(frozen=True)
class Ranking:
    """Labels, the most probable first, and the seconds of scoring them.

    caption: the model's own caption of the image.
    n_tokens: of the most probable label, with its end token.
    """

    labels: list[Label]
    caption: Reply
    n_tokens: int
    seconds: float

    @property
    def fit(self) -> float:
        """p(most probable label | image) / p(the model's own caption | image).

        Both are texts, with their end tokens, under the same distribution. This ratio shows whether
        the model would write any of the labels; their probabilities among each other do not.
        """
        return math.exp(min(self.labels[0].logprob - self.caption.logprob, 0.0))

    @property
    def confidence(self) -> float:
        """The geometric mean of the probabilities of the most probable label's tokens."""
        return math.exp(self.labels[0].logprob / self.n_tokens)

    @property
    def none_fits(self) -> bool:
        """Whether the model would hardly write any of the labels: see `MIN_FIT`, and
        `MIN_CONFIDENCE` for images whose own caption is improbable, too."""
        return self.fit < MIN_FIT or self.confidence < MIN_CONFIDENCE


@dataclass(frozen=True)
class WordAttention:
    """The attention of a word, averaged over its tokens, all layers and all heads.

    frames: the model's input: the image, or the frames of a clip.
    shares: (F, rows, columns), each patch's share of the attention to patches; they sum to 1.
    image_share: the attention to image tokens; the rest goes to text.
    first: the word's first token.
    alternatives: the most probable other tokens in its place.
    seconds: of recording it; almost none if the reply was recorded before.
    """

    word: ReplyWord
    frames: list[Image.Image]
    shares: Tensor
    image_share: float
    first: TopToken
    alternatives: list[TopToken]
    seconds: float


@dataclass(frozen=True)
class Picture:
    """An image or clip that was read.

    data: the file.
    frames: the image, or the frames of a clip, upright and in RGB.
    previews: the same, reduced for the browser.
    seconds: of reading the file.
    """

    data: bytes
    media: Image.Image | Clip
    frames: list[Image.Image]
    previews: list[Image.Image]
    seconds: float


@dataclass
class PageSession:
    """The image or clip of one open page, encoded once, and the replies about it.

    data: the file.
    previews: the image or frames, reduced for the browser.
    seconds: of reading and encoding the file.
    doubt: the reason why the image is not of the kind that the model was made for, or empty.
    replies: by number; 0 is the caption.
    selected: the word whose attention is shown: the number of its reply, its index in it.
    """

    data: bytes
    previews: list[Image.Image]
    scene: ImageScene
    seconds: float
    doubt: str = ""
    replies: dict[int, Reply] = field(default_factory=dict)
    selected: tuple[int, int] | None = None
    _explanations: dict[int, Explanation] = field(default_factory=dict)

    def add_reply(self, reply: Reply) -> None:
        """Keep a reply under the next number; the oldest answer is dropped if there are too
        many."""
        self.replies[max(self.replies, default=-1) + 1] = reply
        if len(self.replies) > MAX_ANSWERS + 1:
            oldest = sorted(self.replies)[1]
            del self.replies[oldest]
            self._explanations.pop(oldest, None)

    def explanation(self, captioner: Captioner, number: int) -> Explanation:
        """The explanation of a reply. It encodes the image again, once for all words of the reply.

        Raises:
            GITError: attention cannot be recorded, since the encoder was compiled.
        """
        if number not in self._explanations:
            question = self.replies[number].question
            with temporary_file(self.data) as path:
                self._explanations[number] = explain(captioner, path, question)
        return self._explanations[number]


class SessionStore:
    """The sessions of all open pages, by the id of the page. The least recently used session is
    dropped if there are too many."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, PageSession] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._sessions

    def put(self, session_id: str, session: PageSession) -> None:
        """Store a session, in place of an earlier one of the same page."""
        with self._lock:
            self._sessions[session_id] = session
            self._sessions.move_to_end(session_id)
            while len(self._sessions) > self._max_sessions:
                self._sessions.popitem(last=False)

    def get(self, session_id: str) -> PageSession:
        """The session of a page.

        Raises:
            GITError: there is none, or it was dropped.
        """
        with self._lock:
            if session_id not in self._sessions:
                raise GITError(
                    "There is no picture yet, or it is no longer kept: choose or drop one first, "
                    "then try again."
                )
            self._sessions.move_to_end(session_id)
            return self._sessions[session_id]

    def remove(self, session_id: str) -> None:
        """Drop the session of a page, if it has one."""
        with self._lock:
            self._sessions.pop(session_id, None)


def read_picture(captioner: Captioner, data: bytes, name: str = "the file") -> Picture:
    """An image from a file's bytes, or a clip if the model has temporal embeddings.

    Args:
        name: of the file, in the error lines.

    Raises:
        GITError: the file is neither an image nor a clip, or has too many pixels.
    """
    start = perf_counter()
    config = captioner.model.config
    with temporary_file(data, name) as path:
        media = read_media(path, config.frames)
        stills = media.frames if isinstance(media, Clip) else [media]
        try:
            frames = [upright_rgb(still, config.preprocess) for still in stills]
        except (ValueError, OSError) as error:
            raise GITError(f"{path}: {error}") from None
    return Picture(data, media, frames, [_preview(f) for f in frames], perf_counter() - start)


def encode(captioner: Captioner, picture: Picture, doubt: str = "") -> PageSession:
    """Encode an image or clip.

    Raises:
        GITError: it cannot be resized to the model's input.
    """
    start = perf_counter()
    media = picture.media
    scene = captioner.see(Frames(media.frames) if isinstance(media, Clip) else media)
    scene.layers[-1].value[0, 0, 0, 0].item()  # waits until a GPU has finished
    seconds = picture.seconds + perf_counter() - start
    return PageSession(picture.data, picture.previews, scene, seconds, doubt)


def generate_reply(
    captioner: Captioner, session: PageSession, question: str | None = None, hint: str = ""
) -> Reply:
    """Caption a session's image, or answer a question about it, and add the reply to the session.

    Args:
        hint: why the answer means little, or empty.

    Raises:
        GITError: the question is empty or too long.
    """
    if question is None:
        caption, seconds = _timed(lambda: captioner.caption(session.scene))
    else:
        caption, seconds = _timed(lambda: captioner.ask(session.scene, question.strip()))
    words = reply_words(captioner, caption)
    n_tokens = len(caption.tokens)
    reply = Reply(question, caption.text, words, caption.logprob, n_tokens, seconds, hint)
    session.add_reply(reply)
    return reply


def rank_labels(captioner: Captioner, session: PageSession, text: str) -> Ranking:
    """Score the labels in a text, as `parse_labels` finds them, for a session's image. If it has no
    caption yet, it is captioned, too.

    Raises:
        GITError: there are none, or too many, or one is too long.
    """
    labels = parse_labels(text)
    if not labels:
        raise GITError("There are no names: type some, one a line or separated by commas.")
    if len(labels) > MAX_LABELS:
        raise GITError(f"There are {len(labels)} names, expected at most {MAX_LABELS} at a time.")
    caption = session.replies.get(0) or generate_reply(captioner, session)
    ranked, seconds = _timed(lambda: captioner.classify(session.scene, labels))
    n_tokens = len(captioner.tokenizer.encode(ranked[0].label)) + 1
    return Ranking(ranked, caption, n_tokens, seconds)


def word_attention(
    captioner: Captioner, session: PageSession, reply_number: int, word_index: int
) -> WordAttention:
    """The attention of a word, which becomes the session's selected word.

    Raises:
        GITError: the session has no such word, or dropped its reply.
    """
    reply = session.replies.get(reply_number)
    if reply is None or not 0 <= word_index < len(reply.words):
        raise GITError("That answer is no longer kept: ask again.")
    explanation, seconds = _timed(lambda: session.explanation(captioner, reply_number))
    session.selected = reply_number, word_index
    word = reply.words[word_index]
    attention = explanation.patch_attention()[word.tokens].mean(0)
    first = explanation.generated[word.tokens[0]]
    return WordAttention(
        word=word,
        frames=explanation.frames,
        shares=attention / attention.sum(),
        image_share=explanation.image_attention[:, :, word.tokens].sum((-1, -2)).mean().item(),
        first=TopToken(first.text, first.token, first.probability),
        alternatives=first.alternatives,
        seconds=seconds,
    )


def reply_words(captioner: Captioner, caption: Caption) -> list[ReplyWord]:
    """The words between the spaces of a text, each with its tokens.

    A token belongs to the last word of the text up to it; an end token belongs to none.
    """
    texts = caption.text.split()
    tokens_of: list[list[int]] = [[] for _ in texts]
    for index, token in enumerate(caption.tokens):
        n_words = len(captioner.tokenizer.decode(caption.tokens[: index + 1]).split())
        if token not in captioner.model.config.eos_ids and n_words:
            tokens_of[min(n_words, len(texts)) - 1].append(index)
    return [
        ReplyWord(text, tokens, math.exp(sum(caption.token_logprobs[index] for index in tokens)))
        for text, tokens in zip(texts, tokens_of, strict=True)
        if tokens
    ]


def parse_labels(text: str) -> list[str]:
    """The distinct labels in a text, separated by line ends and commas.

    >>> parse_labels("a cat, a dog\\n\\na bird, a cat")
    ['a cat', 'a dog', 'a bird']
    """
    return list(
        dict.fromkeys(label for part in re.split(r"[,\n]", text) if (label := part.strip()))
    )


@contextmanager
def temporary_file(data: bytes, name: str = "the file") -> Iterator[Path]:
    """These bytes as a file while the block runs; errors name it, but not by its path, and do not
    name Pillow."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        try:
            yield path
        except GITError as error:
            message = str(error).replace(f"{path}: {path}", str(path))
            message = message.replace("another format that Pillow reads", "a similar format")
            raise GITError(message.replace(str(path), one_line(name))) from None


def _preview(image: Image.Image) -> Image.Image:
    """The image, at most `PREVIEW_SIZE` a side."""
    preview = image.copy()
    preview.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    return preview


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    """The result of a function, and the seconds it took."""
    start = perf_counter()
    return function(), perf_counter() - start
