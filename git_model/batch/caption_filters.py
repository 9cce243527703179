"""What is done to a caption before it is written: phrases taken out, words put around it."""

import re
from dataclasses import dataclass

from git_model.utils.errors import ConfigError

# What a model trained on TextCaps says of writing in a picture, mostly invented: kohya's
# make_captions_by_git.py takes it out with --remove_words. These patterns are our own.
WRITING = r"(?:words?|letters?|names?|numbers?|text|phrase|slogan|title|initials)(?!\s+of\b)"
BEARER = r"(?:sign|label|banner|sticker|tag|badge|logo|poster|board|caption|plaque|patch)"
QUOTED = r"""(?:"[^"]*(?:"|$)|“[^”]*(?:”|$)|'(?:[^']|(?<=\w)'(?=\w))*(?:'|$))"""
PLAIN = r"""[^\s,.;"'“]+(?:\s+(?!(?:on|in|at|across|and|with|next|by|while)\b)[^\s,.;"“]+)*"""
PLACE = (
    r"(?:\s+(?:(?:is|are)\s+)?(?:(?:written|printed)\s+)?(?:on|in|at|across)\s+"
    r"(?:(?:the|its|his|her|their|a)\s+)?\w+(?:\s+of\s+(?:it|(?:the|a)\s+\w+))?)?"
)
SAID = rf"\s+(?:{QUOTED}|{PLAIN}){PLACE}"
SAYINGS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:(?:and|that)\s+)?(?:with|has|have|and|featuring|showing)\s+the\s+{WRITING}{SAID}",
        rf"\b(?:(?:and|with|has)\s+(?:the|a|an)\s+(?:\w+\s+)?{BEARER}\s+)?"
        rf"(?:that|which)\s+(?:says?|reads?)(?:\s+the\s+{WRITING})?{SAID}",
        rf"\bsaying\s+{QUOTED}{PLACE}",
    )
)
DANGLING = re.compile(r"(?:\s+(?:with|and|that|has|which)|[\s,;])+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How captions are to read.

    trigger: a word that stands before each, and a comma.
    prefix, postfix: put around each as they are, spaces and all.
    remove: phrases to take out, in small or capital letters.
    remove_words: take out what is said of writing in the picture, such as "with the words …".
    min_words, max_words: how long the model's own part may be.
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

    def cleaned(self, text: str) -> str:
        """A text without the phrases that are to go, and without what dangles where they were."""
        before = None
        while text != before:  # what is gone may bring a phrase together
            before, text = text, self._once(text)
        return text

    def _once(self, text: str) -> str:
        shorter = text
        for pattern in SAYINGS if self.remove_words else ():
            shorter = pattern.sub(" ", shorter)
        for phrase in self.remove:
            shorter = re.sub(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", " ", shorter, flags=re.I)
        if shorter == text:
            return text
        return DANGLING.sub("", re.sub(r"\s+(?=[,.;])", "", " ".join(shorter.split()))).lstrip(
            " ,;"
        )

    def fault(self, cleaned: str) -> str | None:
        """Why a cleaned text is not good enough, if so."""
        n = len(cleaned.split())
        if n < self.min_words:
            return f"{_words(n)}, expected at least {self.min_words}"
        if self.max_words is not None and n > self.max_words:
            return f"{_words(n)}, expected at most {self.max_words}"
        return None

    def framed(self, cleaned: str) -> str:
        """A cleaned text with what is put around it."""
        text = f"{self.prefix}{cleaned}{self.postfix}"
        return f"{self.trigger}, {text}" if self.trigger else text


def _words(n: int) -> str:
    return "1 word" if n == 1 else f"{n} words"
