"""The content of a data set and its faults: counts, sizes, lengths, duplicates."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate
from typing import Any

from git_model.data.example import OpenStored, StoredExample
from git_model.data.vocabulary import SPECIAL, words_of
from git_model.preprocessing.clip import Clip
from git_model.preprocessing.formats import VIDEO_SUFFIXES
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import UNK, bert
from git_model.preprocessing.video import decode_media
from git_model.utils.errors import GITError

N_SAMPLES = 5  # examples of a fault that a report names
ARTICLES = {"a", "an", "the"}
WORD = re.compile(r"\w+")
PIPELINE = bert({token: index for index, token in enumerate(SPECIAL)})  # that splits into words


def digest_of(data: bytes) -> bytes:
    """A short digest, equal for equal files only."""
    return blake2b(data, digest_size=16).digest()


def core_of(caption: str) -> str:
    """A caption without case, punctuation and articles: equal for near-duplicates."""
    return " ".join(word for word in WORD.findall(caption.lower()) if word not in ARTICLES)


@dataclass
class Inspection:
    """Counts, as examples are added.

    Args:
        tokenizer: a vocabulary to compare the texts with.
    """

    tokenizer: Tokenizer | None = None
    unreadable: list[str] = field(default_factory=list)  # a line for each
    n_examples: int = 0
    n_clips: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    captions_of: Counter[int] = field(default_factory=Counter)  # images by number of captions
    n_questions: int = 0
    n_answers: int = 0
    lengths: Counter[int] = field(default_factory=Counter)  # texts by number of words
    token_counts: Counter[int] = field(default_factory=Counter)  # texts by number of tokens
    words: Counter[str] = field(default_factory=Counter)
    captions: Counter[str] = field(default_factory=Counter)
    # of each digest the first example: its key, and where it is
    _first: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    copies: list[tuple[str, str]] = field(default_factory=list)

    def add(self, open_stored: OpenStored) -> None:
        """Count an example; one that cannot be read counts as broken."""
        try:
            stored = open_stored()
            self._add_image(stored)
        except GITError as error:
            self.unreadable.append(str(error))
            return
        self.n_examples += 1
        self._add_copy(stored)
        self._add_texts(stored)

    def _add_copy(self, stored: StoredExample) -> None:
        """Count an image that another example has, too. Two examples may have the same key, and one
        that a mixture repeats is at the same place."""
        first = self._first.setdefault(digest_of(stored.data), (stored.key, stored.where))
        if first[0] != stored.key:
            self.copies.append((first[0], stored.key))
        elif first[1] != stored.where:
            self.copies.append((first[1], stored.where))

    def _add_image(self, stored: StoredExample) -> None:
        is_video = stored.key.lower().endswith(VIDEO_SUFFIXES)
        media = decode_media(stored.data, stored.where, int(is_video))
        if isinstance(media, Clip):
            self.n_clips += 1
            media = media.frames[0]
        self.sizes[media.size] += 1
        self.formats[media.format or "video"] += 1

    def _add_texts(self, stored: StoredExample) -> None:
        n_captions = 0
        for annotation in stored.annotations:
            if annotation.question is None:
                n_captions += len(annotation.texts)
                self.captions.update(annotation.texts)
            else:
                self.n_questions += 1
                self.n_answers += len(annotation.texts)
                self._add_words(annotation.question)
            for text in annotation.texts:
                self._add_words(text)
        self.captions_of[n_captions] += 1

    def _add_words(self, text: str) -> None:
        words = words_of(text, PIPELINE)
        self.words.update(words)
        self.lengths[len(words)] += 1
        if self.tokenizer is not None:
            self.token_counts[len(self.tokenizer.encode(text))] += 1

    def report(self) -> dict[str, Any]:
        """All counts as plain values that JSON can hold."""
        widths, heights = Counter[int](), Counter[int]()
        for (width, height), count in self.sizes.items():
            widths[width] += count
            heights[height] += count
        report = {
            "examples": self.n_examples,
            "unreadable": _listed(self.unreadable),
            "clips": self.n_clips,
            "formats": dict(self.formats.most_common()),
            "width": _range(widths),
            "height": _range(heights),
            "identical_images": _listed([f"{first} = {copy}" for first, copy in self.copies]),
            "captions": self.captions.total(),
            "captions_per_image": _range(self.captions_of),
            "images_without_caption": self.captions_of[0],
            "repeated_captions": self.captions.total() - len(self.captions),
            "near_duplicate_captions": _listed(self._near_duplicates()),
            "questions": self.n_questions,
            "answers": self.n_answers,
            "words_per_text": _range(self.lengths),
            "different_words": len(self.words),
        }
        return report if self.tokenizer is None else report | self._vocabulary(self.tokenizer)

    def _near_duplicates(self) -> list[str]:
        """Captions that differ from another one in case, punctuation or articles alone."""
        captions: dict[str, list[str]] = {}
        for caption in self.captions:
            captions.setdefault(core_of(caption), []).append(caption)
        return [" = ".join(group[:3]) for group in captions.values() if len(group) > 1]

    def _vocabulary(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """How the vocabulary fits the words; shares are of all words, repeated ones included."""
        unknown = tokenizer.token_id(UNK)
        pieces = {word: tokenizer.encode(word) for word in self.words}
        total = max(self.words.total(), 1)
        missing = [word for word, _ in self.words.most_common() if unknown in pieces[word]]
        split = sum(count for word, count in self.words.items() if len(pieces[word]) > 1)
        return {
            "tokens_per_text": _range(self.token_counts),
            "unknown_words": _listed(missing),
            "unknown_share": sum(self.words[word] for word in missing) / total,
            "split_share": split / total,
        }


def inspect(
    examples: Iterable[OpenStored],
    tokenizer: Tokenizer | None = None,
    untaken: Iterable[str] = (),
) -> dict[str, Any]:
    """The report on a data set; see `Inspection`.

    Args:
        untaken: the names of files beside it, see `sources.untaken_files`.
    """
    inspection = Inspection(tokenizer)
    for example in examples:
        inspection.add(example)
    report = inspection.report()
    return {"examples": report["examples"], "not_taken": _listed(list(untaken))} | report


def _listed(items: Sequence[str]) -> dict[str, Any]:
    return {"count": len(items), "first": list(items[:N_SAMPLES])}


def _range(counts: Counter[int]) -> dict[str, int]:
    """The least, the median, the 95th percentile and the largest of counted numbers."""
    values = sorted(counts.items())
    if not values:
        return {}
    return {
        "min": values[0][0],
        "median": _quantile(values, 0.5),
        "p95": _quantile(values, 0.95),
        "max": values[-1][0],
    }


def _quantile(values: list[tuple[int, int]], share: float) -> int:
    """The smallest number that at least this share of all numbers does not exceed."""
    numbers, counts = zip(*values, strict=True)
    return next(
        number
        for number, below in zip(numbers, accumulate(counts), strict=True)
        if below >= share * sum(counts)
    )
