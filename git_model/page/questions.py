"""The kinds of questions that the built-in model learned, and hints about texts that a model did
not learn."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random

from git_model.preprocessing.tokenizer import Tokenizer
from git_model.shapes.clips import ACTIONS, STAY, make_story
from git_model.shapes.questions import SIDES, Question, ask_about, ask_about_story
from git_model.shapes.texts import plural
from git_model.shapes.world import COLOURS, OUTLINES, POSITIONS, make_world

SEED = 2  # of the questions that are shown, which are the same at every start
N_WORLDS = 100  # images and clips; their questions have every form
MAX_QUOTED = 5  # words
MAX_KINDS = 7  # of questions about an image or a clip
UNKNOWN = ("[UNK]", "<unk>")
WORD = re.compile(r"[^\W\d_]+")
VERBS = [re.sub(r"^(\w+)s\b", r"\1", action) for action in ACTIONS]  # "move left", "grow"
SLOTS = {  # phrases that can replace one another in a question
    phrase: slot
    for slot, phrases in {
        "POSITION": POSITIONS,
        "SIDE": SIDES,
        "COLOUR": COLOURS,
        "SHAPE": OUTLINES,
        "SHAPES": map(plural, OUTLINES),
        "ACTION": (*ACTIONS, STAY),
        "VERB": VERBS,
        "ARTICLE": ("a", "an"),
    }.items()
    for phrase in phrases
}
PHRASE = re.compile(rf"\b({'|'.join(sorted(SLOTS, key=len, reverse=True))})\b")


def learned_questions(*, clips: bool) -> list[str]:
    """A question of each form that the built-in model learned, about images or about clips."""
    return list(_learned_forms(clips=clips).values())


def question_hint(question: str, tokenizer: Tokenizer, *, shapes: bool) -> str:
    """Why the answer to a question means little, or empty.

    Args:
        shapes: whether the model is the built-in one, which learned a few forms of questions.
    """
    words = unknown_words([question], tokenizer, closed=shapes)
    reason = f"it does not know {_quoted(words)}" if words else ""
    if not shapes:
        return f"The model may not understand this question: {reason}." if words else ""
    if _form(question) in {**_learned_forms(clips=False), **_learned_forms(clips=True)}:
        return ""
    return f"Not a kind of question that this model learned{f': {reason}' if reason else ''}."


def name_hint(names: Sequence[str], tokenizer: Tokenizer, *, shapes: bool) -> str:
    """Which words of names to choose among a model does not know, or empty."""
    words = unknown_words(names, tokenizer, closed=shapes)
    return f"The model does not know {_quoted(words)}." if words else ""


def unknown_words(texts: Sequence[str], tokenizer: Tokenizer, *, closed: bool) -> list[str]:
    """The distinct words of these texts that a vocabulary does not have: they are [UNK], or spelled
    by single letters.

    Args:
        closed: whether the model's texts consist of whole words of the vocabulary only.
    """
    words = dict.fromkeys(word for text in texts for word in WORD.findall(text))
    return [word for word in words if _is_unknown(word, tokenizer, closed=closed)]


def _is_unknown(word: str, tokenizer: Tokenizer, *, closed: bool) -> bool:
    pieces = tokenizer.tokens(tokenizer.encode(word))
    if any(piece in UNKNOWN for piece in pieces):
        return True
    is_spelled = all(piece.startswith("##") for piece in pieces[1:]) and all(
        len(piece.removeprefix("##")) == 1 for piece in pieces
    )
    return len(pieces) > 1 and (closed or is_spelled)


@cache
def _learned_forms(*, clips: bool) -> dict[str, str]:
    """Each form of the questions that the built-in model learned, and an example of it."""
    rng = Random(SEED)  # noqa: S311 (it draws questions)
    return {_form(question.text): question.text for question in _draw_questions(rng, clips=clips)}


def _draw_questions(rng: Random, *, clips: bool) -> Iterator[Question]:
    for _ in range(N_WORLDS):
        if clips:
            yield from ask_about_story(make_story(rng), rng, MAX_KINDS)
        else:
            yield from ask_about(make_world(rng), rng, MAX_KINDS)


def _form(question: str) -> str:
    """A question whose shapes, colours, positions and actions are replaced by their kind.

    >>> _form("Is there an orange star?")
    'is there ARTICLE COLOUR SHAPE'
    """
    words = " ".join(WORD.findall(question.lower()))
    return PHRASE.sub(lambda match: SLOTS[match[0]], words)


def _quoted(words: Sequence[str]) -> str:
    listed = ", ".join(f"“{word}”" for word in words[:MAX_QUOTED])
    more = f" and {len(words) - MAX_QUOTED} more" if len(words) > MAX_QUOTED else ""
    return f"the word{'s' if len(words) > 1 else ''} {listed}{more}"
