"""What the page does, without the page: a picture that is read once, and what is said about it.

Nothing here knows gradio; layout.py brings it to the screen.
"""

import io
import math
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Lock
from time import perf_counter
from typing import TypeVar

from PIL import Image
from torch import Tensor

from git_model.captioner import Caption, Captioner, ImageScene, Label
from git_model.explain.explanation import Explanation, Guess, explain
from git_model.preprocessing.inputs import Frames
from git_model.preprocessing.video import Clip, read_media
from git_model.shapes.clips import draw_clip, make_story
from git_model.shapes.world import draw, make_world
from git_model.utils.errors import GITError

VISITS = 16  # kept at a time; the scene of a large video model takes some 50 MB
QUESTIONS = 20  # whose answers are kept for a picture
LABELS = 1000  # at a time
SHOWN = 640  # pixels, the longest side of a picture that is sent to be looked at
T = TypeVar("T")


@dataclass(frozen=True)
class Spoken:
    """A word as people see it, the tokens it was written in, and the probability of all of them."""

    text: str
    tokens: list[int]  # their places in the caption
    probability: float


@dataclass(frozen=True)
class Said:
    """A caption, or the answer to a question.

    confidence: the geometric mean of the probabilities of all tokens, the end included.
    seconds: what writing it took, once the picture was read.
    """

    question: str | None
    text: str
    words: list[Spoken]
    confidence: float
    seconds: float


@dataclass(frozen=True)
class Ranking:
    """Labels, the likeliest first, and the seconds it took to score them."""

    labels: list[Label]
    seconds: float


@dataclass(frozen=True)
class Gaze:
    """Where the model looked when it chose a word.

    frames: the picture, or the frames, as the model saw them.
    shares: (F, rows, columns), each patch's share of what went to patches; they sum to 1.
    picture_share: of all that was looked at, how much was picture; the rest is text.
    runners_up: what else the word's first token might have been.
    seconds: of reading and writing again to watch; nearly none if that was done before.
    """

    word: Spoken
    frames: list[Image.Image]
    shares: Tensor
    picture_share: float
    runners_up: list[Guess]
    seconds: float


@dataclass
class Visit:
    """A picture or clip that somebody brought: read once, kept until the next.

    said: what was said about it, by number; 0 is the caption.
    looked_at: the word whose look is shown, by the number of its text and its place there.
    """

    data: bytes
    pictures: list[Image.Image]  # small ones, to show
    scene: ImageScene
    seconds: float
    said: dict[int, Said] = field(default_factory=dict)
    looked_at: tuple[int, int] | None = None
    _explained: dict[int, Explanation] = field(default_factory=dict)

    def keep(self, said: Said) -> None:
        """Note an answer under the next number; the oldest one is forgotten when there are many."""
        self.said[max(self.said, default=-1) + 1] = said
        if len(self.said) > QUESTIONS + 1:
            oldest = sorted(self.said)[1]
            del self.said[oldest]
            self._explained.pop(oldest, None)

    def explanation(self, git: Captioner, number: int) -> Explanation:
        """How a text came about; the picture is read again for it, once for all words of the text.

        Raises:
            GITError: the model cannot be watched.
        """
        if number not in self._explained:
            with as_file(self.data) as path:
                self._explained[number] = explain(git, path, self.said[number].question)
        return self._explained[number]


class Visits:
    """The visits of all who have the page open, by session. Each sees only its own, and the one
    that was used least lately makes room for a new one."""

    def __init__(self, most: int = VISITS) -> None:
        self._most = most
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def put(self, session: str, visit: Visit) -> None:
        """Keep a session's visit instead of its last one."""
        with self._lock:
            self._visits[session] = visit
            self._visits.move_to_end(session)
            while len(self._visits) > self._most:
                self._visits.popitem(last=False)

    def get(self, session: str) -> Visit:
        """A session's visit.

        Raises:
            GITError: it has none, or it had to make room.
        """
        with self._lock:
            if session not in self._visits:
                raise GITError("There is no picture yet, or it is no longer kept: drop one first.")
            self._visits.move_to_end(session)
            return self._visits[session]

    def forget(self, session: str) -> None:
        """Drop a session's visit, if it has one."""
        with self._lock:
            self._visits.pop(session, None)


def read(git: Captioner, data: bytes) -> Visit:
    """Read a picture, or with a model that has temporal embeddings a clip, from a file's bytes.

    Raises:
        GITError: they are no picture and no clip, or too many pixels.
    """
    start = perf_counter()
    with as_file(data) as path:
        media = read_media(path, git.model.config.frames)
    frames = media.frames if isinstance(media, Clip) else [media]
    scene = git.see(Frames(frames)) if isinstance(media, Clip) else git.see(media)
    scene.layers[-1].value[0, 0, 0, 0].item()  # a GPU is done only when it is asked for a number
    seconds = perf_counter() - start
    return Visit(data, [_small(frame) for frame in frames], scene, seconds)


def say(git: Captioner, visit: Visit, question: str | None = None) -> Said:
    """Caption a visit's picture, or answer a question about it, and note it there.

    Raises:
        GITError: the question is empty or too long.
    """
    if question is None:
        best, seconds = _timed(lambda: git.caption(visit.scene))
    else:
        asked = question.strip()
        best, seconds = _timed(lambda: git.ask(visit.scene, asked))
    confidence = math.exp(best.logprob / len(best.tokens))
    said = Said(question, best.text, spoken_words(git, best), confidence, seconds)
    visit.keep(said)
    return said


def rank(git: Captioner, visit: Visit, text: str) -> Ranking:
    """Score the labels in a text, see `labels_in`, for a visit's picture.

    Raises:
        GITError: there are none, or too many, or one is too long.
    """
    labels = labels_in(text)
    if not labels:
        raise GITError("There are no labels: type some, one a line or with commas between them.")
    if len(labels) > LABELS:
        raise GITError(f"There are {len(labels)} labels, expected at most {LABELS} at a time.")
    ranked, seconds = _timed(lambda: git.classify(visit.scene, labels))
    return Ranking(ranked, seconds)


def look_back(git: Captioner, visit: Visit, number: int, word: int) -> Gaze:
    """Where the model looked for a word, which is noted as `looked_at`.

    Args:
        number: of the text, as in `Visit.said`.
        word: its place among the text's words.

    Raises:
        GITError: there is no such word (any more).
    """
    said = visit.said.get(number)
    if said is None or not 0 <= word < len(said.words):
        raise GITError("That answer is no longer kept: ask again.")
    found, seconds = _timed(lambda: visit.explanation(git, number))
    visit.looked_at = number, word
    spoken = said.words[word]
    shares = found.patches()[spoken.tokens].mean(0)
    return Gaze(
        word=spoken,
        frames=found.frames,
        shares=shares / shares.sum(),
        picture_share=found.image_attention[:, :, spoken.tokens].sum((-1, -2)).mean().item(),
        runners_up=found.words[spoken.tokens[0]].runners_up,
        seconds=seconds,
    )


def spoken_words(git: Captioner, caption: Caption) -> list[Spoken]:
    """The words between the spaces of a text, each with the tokens that made it.

    A token belongs to the last word of the text up to it. The end token belongs to none.
    """
    texts = caption.text.split()
    places: list[list[int]] = [[] for _ in texts]
    for place, token in enumerate(caption.tokens):
        so_far = len(git.tokenizer.decode(caption.tokens[: place + 1]).split())
        if token != git.model.config.eos_id and so_far:
            places[min(so_far, len(texts)) - 1].append(place)
    return [
        Spoken(text, tokens, math.exp(sum(caption.token_logprobs[place] for place in tokens)))
        for text, tokens in zip(texts, places, strict=True)
        if tokens
    ]


def labels_in(text: str) -> list[str]:
    """The labels in a text, each once, split at line ends and commas.

    >>> labels_in("a cat, a dog\\n\\na bird, a cat")
    ['a cat', 'a dog', 'a bird']
    """
    return list(
        dict.fromkeys(label for part in re.split(r"[,\n]", text) if (label := part.strip()))
    )


def shapes_picture(rng: Random, *, clip: bool) -> bytes:
    """A file with a new picture or clip of the built-in model's world, of a kind that its training
    never showed."""
    file = io.BytesIO()
    if clip:
        first, *others = draw_clip(make_story(rng, "held_out"))
        first.save(file, "PNG", save_all=True, append_images=others)
    else:
        draw(make_world(rng, "held_out")).save(file, "PNG")
    return file.getvalue()


@contextmanager
def as_file(data: bytes) -> Iterator[Path]:
    """These bytes as a file while the block runs; errors call it "the file", once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        try:
            yield path
        except GITError as error:
            message = str(error).replace(str(path), "the file")
            raise GITError(message.replace("the file: the file", "the file")) from None


def _small(picture: Image.Image) -> Image.Image:
    """The picture in RGB, no larger than it is shown."""
    copy = picture.copy()
    copy.thumbnail((SHOWN, SHOWN))
    return copy.convert("RGB")


def _timed(act: Callable[[], T]) -> tuple[T, float]:
    """What a function returns, and the seconds it took."""
    start = perf_counter()
    return act(), perf_counter() - start
