"""What was said about a data set, next to what is right to say."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from git_model.utils.errors import GITError

Task = Literal["captions", "questions", "labels"]
References = Mapping[str, tuple[str, ...]]  # all right answers, by the name of a prediction


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model said about one picture or clip.

    key: of the picture, such as an image id.
    question, question_key: what was asked, and its id; neither for captions.
    logprob: log p(text | picture).
    top: of a classification the likeliest labels, best first.
    answers: all that would be right, where that is known.
    """

    key: str
    text: str
    question: str | None = None
    question_key: str = ""
    logprob: float | None = None
    top: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What the model was asked for."""
        if self.top:
            return "labels"
        return "captions" if self.question is None and not self.question_key else "questions"

    @property
    def name(self) -> str:
        """What a reference finds it by."""
        if self.question_key or self.question is None:
            return self.question_key or self.key
        return f"{self.key}: {self.question}"


def with_answers(
    predictions: Sequence[Prediction], references: References, *, subset: bool = False
) -> list[Prediction]:
    """The predictions with what is right.

    Args:
        subset: allow references without a prediction, and leave them out.

    Raises:
        GITError: a prediction is for nothing in the references, or not the only one; or, unless
            `subset`, a reference has no prediction.
    """
    names = Counter(prediction.name for prediction in predictions)
    for name, count in names.items():
        if name not in references:
            raise GITError(f"there is a prediction for {name!r}, but no reference")
        if count > 1:
            raise GITError(f"there are {count} predictions for {name!r}, expected one")
    missing = references.keys() - names
    if missing and not subset:
        raise GITError(
            f"{len(missing)} of {len(references)} references have no prediction, such as "
            f"{min(missing)!r}: predict them, too, or score the subset"
        )
    return [
        dataclasses.replace(prediction, answers=references[prediction.name])
        for prediction in predictions
    ]
