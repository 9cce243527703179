"""From pictures to outcomes: the model is asked about a batch, and its words become records."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from git_model.batch.inputs import Input, Refused
from git_model.batch.journal import Outcome
from git_model.batch.pipeline import Look, stacked
from git_model.batch.records import Editor, Record, identity
from git_model.captioner import BatchScene, Captioner
from git_model.config import DecodingOptions
from git_model.utils.errors import GITError

Found = tuple[Input | Refused, Outcome]
Before = Callable[[Input], str | None]


def nothing(_: Input) -> None:
    """The text that an input has already: none."""


@dataclass
class Author:
    """A model, what it is asked, and who edits what it says.

    Args:
        before: the text that an input has already.

    Attributes:
        busy: seconds in which the model worked.
    """

    git: Captioner
    decoding: DecodingOptions
    editor: Editor
    before: Before = nothing
    busy: float = field(default=0.0, init=False)

    def outcomes(self, batch: Sequence[Look]) -> list[Found]:
        """What becomes of the inputs of a batch, whose pictures have one shape."""
        failures = {
            item: look.failure or self._fault(item) for look in batch for item in look.asked
        }
        found: list[Found] = [
            (item, Outcome(identity(item), failure=failure))
            for item, failure in failures.items()
            if failure is not None
        ]
        seen = [look for look in batch if look.pixels is not None]
        asked = [
            [one for one in look.asked if isinstance(one, Input) and failures[one] is None]
            for look in seen
        ]
        if any(asked):
            records = self._records(seen, asked)
            found += [(item, Outcome(identity(item), record)) for item, record in records]
        return found

    def _fault(self, item: Input | Refused) -> str | None:
        """Why the model cannot be asked this, if so."""
        try:
            self.git.prompt(item.question if isinstance(item, Input) else None)
            return None
        except GITError as error:
            return f"{item.name}: {error}"

    def _records(
        self, seen: Sequence[Look], asked: Sequence[Sequence[Input]]
    ) -> list[tuple[Input, Record]]:
        """What the model says about pictures, each of which it reads once."""
        start = time.monotonic()
        pixels = stacked(seen, self.git.model.device)
        questions = [[item.question for item in row] for row in asked]
        scene = BatchScene(
            ((list(range(len(pixels))), self.git.see_pixels(pixels)),), (None,) * len(pixels)
        )
        replies = self.git.generate(scene, questions, self.decoding)
        self.busy += time.monotonic() - start
        return [
            (item, self.editor.record(item, look.frames, texts, self.before(item)))
            for look, items, row in zip(seen, asked, replies, strict=True)
            for item, texts in zip(items, row, strict=True)
        ]
