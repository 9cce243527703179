"""From the model's captions to the record that is written: filters remove phrases, add words, and
reject texts that are too short, too long or too improbable."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Literal

from git_model.batch.items import Input, OutputRecord
from git_model.captioner import Caption
from git_model.utils.errors import ConfigError

# Phrases about writing in an image, which models trained on TextCaps mostly invent. kohya's
# make_captions_by_git.py removes them with --remove_words; these patterns are not copied from it.
WRITING = r"(?:words?|letters?|names?|numbers?|text|phrase|slogan|title|initials)(?!\s+of\b)"
BEARER = r"(?:sign|label|banner|sticker|tag|badge|logo|poster|board|caption|plaque|patch)"
QUOTED = r"""(?:"[^"]*(?:"|$)|“[^”]*(?:”|$)|'(?:[^']|(?<=\w)'(?=\w))*(?:'|$))"""
PLAIN = r"""[^\s,.;"'“]+(?:\s+(?!(?:on|in|at|across|and|with|next|by|while)\b)[^\s,.;"“]+)*"""
PLACE = (
    r"(?:\s+(?:(?:is|are)\s+)?(?:(?:written|printed)\s+)?(?:on|in|at|across)\s+"
    r"(?:(?:the|its|his|her|their|a)\s+)?\w+(?:\s+of\s+(?:it|(?:the|a)\s+\w+))?)?"
)
CONTENT = rf"\s+(?:{QUOTED}|{PLAIN}){PLACE}"
PHRASES_ON_WRITING = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:(?:and|that)\s+)?(?:with|has|have|and|featuring|showing)\s+the\s+{WRITING}{CONTENT}",
        rf"\b(?:(?:and|with|has)\s+(?:the|a|an)\s+(?:\w+\s+)?{BEARER}\s+)?"
        rf"(?:that|which)\s+(?:says?|reads?)(?:\s+the\s+{WRITING})?{CONTENT}",
        rf"\bsaying\s+{QUOTED}{PLACE}",
    )
)
DANGLING = re.compile(r"(?:\s+(?:with|and|that|has|which)|[\s,;])+$", re.IGNORECASE)

Mode = Literal["skip", "overwrite", "overwrite-if-other", "append", "prepend"]


@dataclass(frozen=True, kw_only=True)
class CaptionFilters:
    """What is removed from captions and added to them, and how long they may be.

    trigger: a word that is put before each caption, with a comma.
    prefix, postfix: texts that are put before and after each caption, without added spaces.
    remove: phrases to remove; case is ignored.
    remove_words: remove phrases about writing in the image, such as "with the words …".
    min_words, max_words: limits of the model's own part, in words.
    """

    trigger: str = ""
    prefix: str = ""
    postfix: str = ""
    remove: tuple[str, ...] = ()
    remove_words: bool = False
    min_words: int = 1
    max_words: int | None = None

    def __post_init__(self) -> None:
        if self.max_words is not None and self.max_words < self.min_words:
            raise ConfigError(
                f"max_words is {self.max_words}, expected at least min_words, {self.min_words}"
            )
        if not all(phrase.strip() for phrase in self.remove):
            raise ConfigError("a phrase to remove is empty, expected some words")

    def clean(self, text: str) -> str:
        """A text without the phrases to remove, and without a "with" or "and" before them."""
        before = None
        while text != before:  # a removal may bring the words of a phrase together
            before, text = text, self._remove_once(text)
        return text

    def _remove_once(self, text: str) -> str:
        shorter = text
        for pattern in PHRASES_ON_WRITING if self.remove_words else ():
            shorter = pattern.sub(" ", shorter)
        for phrase in self.remove:
            shorter = re.sub(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", " ", shorter, flags=re.I)
        if shorter == text:
            return text
        return DANGLING.sub("", re.sub(r"\s+(?=[,.;])", "", " ".join(shorter.split()))).lstrip(
            " ,;"
        )

    def fault(self, text: str) -> str | None:
        """The reason for rejecting a cleaned text, or None."""
        n = len(text.split())
        if n < self.min_words:
            return f"{_n_words(n)}, expected at least {self.min_words}"
        if self.max_words is not None and n > self.max_words:
            return f"{_n_words(n)}, expected at most {self.max_words}"
        return None

    def frame(self, text: str) -> str:
        """A cleaned text with the words around it."""
        text = f"{self.prefix}{text}{self.postfix}"
        return f"{self.trigger}, {text}" if self.trigger else text


def _n_words(n: int) -> str:
    return "1 word" if n == 1 else f"{n} words"


@dataclass(frozen=True, kw_only=True)
class RecordEditor:
    """Makes an input's record from the model's captions.

    min_confidence: texts of a lower confidence are rejected.
    mode: what happens to a text that exists already.
    multiple: whether a record has a list of texts.
    stamp: fields of every record, such as the model's name.
    """

    filters: CaptionFilters = field(default_factory=CaptionFilters)
    min_confidence: float = 0.0
    mode: Mode = "skip"
    multiple: bool = False
    stamp: OutputRecord = field(default_factory=dict)

    def record(
        self,
        item: Input,
        frames: list[int] | None,
        captions: Sequence[Caption],
        old_text: str | None,
        warning: str | None = None,
    ) -> OutputRecord:
        """The record of an input.

        Args:
            frames: the indices of a clip's frames in its file.
            captions: the model's texts, best first.
            old_text: the text that exists already, if any.
            warning: the reason for not trusting the text, if there is one.

        Returns:
            `file_name`; `text`, or `question` and `answer`; `logprob` of the caption and its
            `confidence`, the geometric mean of its tokens' probabilities; `frames` of a clip;
            `rejected` with the reason if no text is good enough; the `warning`; and the stamp.
        """
        # of captions that are equal after cleaning, the best one
        cleaned = {self.filters.clean(caption.text): caption for caption in reversed(captions)}
        cleaned = dict(reversed(cleaned.items()))
        faults = {text: self._fault(text, caption) for text, caption in cleaned.items()}
        good = {text: caption for text, caption in cleaned.items() if faults[text] is None}
        rejected = {} if good else {"rejected": next(iter(faults.values()))}
        texts = good or cleaned
        name = "text" if item.question is None else "answer"
        values: OutputRecord = {
            name: self._joined(list(texts), None if rejected else old_text),
            "logprob": [round(caption.logprob, 6) for caption in texts.values()],
            "confidence": [round(confidence(caption), 6) for caption in texts.values()],
        }
        if not self.multiple:
            values = {name: rows[0] for name, rows in values.items()}
        clip = {} if frames is None else {"frames": frames}
        notes = rejected if warning is None else rejected | {"warning": warning}
        return item.fields | values | clip | notes | self.stamp

    def _fault(self, text: str, caption: Caption) -> str | None:
        """The reason for rejecting a text, or None."""
        fault = self.filters.fault(text)
        if fault is None and confidence(caption) < self.min_confidence:
            fault = f"confidence {confidence(caption):.3f} is below {self.min_confidence:g}"
        return fault

    def _joined(self, texts: list[str], old_text: str | None) -> list[str]:
        """The texts with the words around them, each joined to the old text."""
        texts = [self.filters.frame(text) for text in texts]
        if not old_text or self.mode not in ("append", "prepend"):
            return texts
        behind = self.mode == "append"
        additions = [f", {text}" if behind else f"{text}, " for text in texts]
        if old_text in ("\n".join(texts), ", ".join(texts)):
            return texts
        base = _base_of(old_text, additions, behind)
        return [base + addition if behind else addition + base for addition in additions]


def _base_of(old_text: str, additions: list[str], behind: bool) -> str:
    """The text to join additions to: the old text, or, if they are joined to it already, the text
    before that. This happens after a run that was killed at its very end.

    Args:
        behind: the additions end the texts; else they begin them.
    """
    for separator in ("\n", ", "):  # of a text file, of a record
        n_added = sum(map(len, additions)) + len(separator) * (len(additions) - 1)
        length, rest = divmod(len(old_text) - n_added, len(additions))
        first = 0 if behind else len(additions[0])
        base = old_text[first : first + max(length, 0)]
        joined = (base + text if behind else text + base for text in additions)
        if rest == 0 and length > 0 and old_text == separator.join(joined):
            return base
    return old_text


def confidence(caption: Caption) -> float:
    """The geometric mean of the tokens' probabilities: from 0 to 1, at any length."""
    return exp(caption.logprob / len(caption.tokens)) if caption.tokens else 0.0
