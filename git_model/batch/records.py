"""What is written about an input: its record, made of the model's words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any, Literal

from git_model.batch.caption_filters import Wording
from git_model.batch.inputs import Input, Refused
from git_model.captioner import Caption

Record = dict[str, Any]  # fit for JSON
Mode = Literal["skip", "overwrite", "append", "prepend"]


@dataclass(frozen=True, kw_only=True)
class Editor:
    """From what a model says to what is written."""

    wording: Wording = field(default_factory=Wording)
    min_confidence: float = 0.0  # a text below it is rejected
    mode: Mode = "skip"  # what to do where there is a text already
    several: bool = False  # a record has a list of texts
    stamp: Record = field(default_factory=dict)  # what every record carries, as the model's name

    def record(
        self, item: Input, frames: list[int] | None, found: Sequence[Caption], before: str | None
    ) -> Record:
        """The record of an input.

        Args:
            frames: the numbers of a clip's frames in its file.
            found: what the model says, best first.
            before: the text that is there already.

        Returns:
            `file_name`; `text`, or `question` and `answer`; `logprob` of what the model said and
            its `confidence`, the geometric mean of its tokens' probabilities; `frames` of a clip;
            `rejected` with the reason if no text is good enough; and the stamp.
        """
        texts = {self.wording.cleaned(one.text): one for one in reversed(found)}  # twins: the best
        texts = dict(reversed(texts.items()))
        faults = {text: self._fault(text, one) for text, one in texts.items()}
        good = {text: one for text, one in texts.items() if faults[text] is None}
        rejected = {} if good else {"rejected": next(iter(faults.values()))}
        kept = good or texts
        name = "text" if item.question is None else "answer"
        said: Record = {
            name: [self._joined(text, None if rejected else before) for text in kept],
            "logprob": [round(one.logprob, 6) for one in kept.values()],
            "confidence": [round(confidence(one), 6) for one in kept.values()],
        }
        if not self.several:
            said = {name: values[0] for name, values in said.items()}
        clip = {} if frames is None else {"frames": frames}
        return about(item) | said | clip | rejected | self.stamp

    def _fault(self, text: str, one: Caption) -> str | None:
        """What is wrong with a text, if anything is."""
        fault = self.wording.fault(text)
        if fault is None and confidence(one) < self.min_confidence:
            fault = f"confidence {confidence(one):.3f} is below {self.min_confidence:g}"
        return fault

    def _joined(self, text: str, before: str | None) -> str:
        text = self.wording.framed(text)
        if not before or self.mode not in ("append", "prepend"):
            return text
        return ", ".join((before, text) if self.mode == "append" else (text, before))


def confidence(found: Caption) -> float:
    """The geometric mean of the tokens' probabilities: 0 to 1, whatever the length."""
    return exp(found.logprob / len(found.tokens)) if found.tokens else 0.0


def about(item: Input | Refused) -> Record:
    """The fields of a record that say which input it is about."""
    asked: Record = {}
    if isinstance(item, Input) and item.question is not None:
        asked["question"] = item.question
    if isinstance(item, Input) and item.question_key:
        asked["question_id"] = item.question_key
    return {"file_name": item.name} | asked


def identity(item: Input | Refused) -> bytes:
    """What tells an input from all others: its key, and what is asked about it."""
    asked = (item.question_key, item.question or "") if isinstance(item, Input) else ("", "")
    return "\0".join((item.key, *asked)).encode("utf-8", "surrogateescape")


def identity_in(record: Record) -> bytes:
    """The identity of the input that a record is about."""
    parts = (record.get(name) or "" for name in ("file_name", "question_id", "question"))
    return "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")


def text_in(record: Record) -> str | None:
    """The text of a record, several as one; None if there is none."""
    said = record.get("answer" if "question" in record else "text")
    if isinstance(said, list):
        said = ", ".join(map(str, said))
    return str(said) if said and "rejected" not in record else None
