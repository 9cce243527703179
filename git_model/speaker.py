"""The text side: what a model says about a scene, and how likely it finds what others say.

All of it is for a whole scene, with one entry for each of its images; `Captioner` adds the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from git_model.config import DecodingOptions, GITConfig
from git_model.constraints import TokenTrie
from git_model.decoding import generate, score_texts
from git_model.model import GIT, Scene
from git_model.search import Generation
from git_model.settings import GITError
from git_model.tokenizer import Tokenizer

ROWS = 256  # texts that are written at a time, however many questions there are

Texts = list[str] | tuple[str, ...]  # not Sequence[str], which a single str would be, too


@dataclass(frozen=True)
class Caption:
    """A text about a picture, and how sure the model is of it.

    tokens: ids, with the end token if it was reached.
    logprob: log p(tokens | picture), the sum of `token_logprobs`.
    """

    text: str
    tokens: list[int]
    logprob: float
    token_logprobs: list[float]


@dataclass(frozen=True)
class Label:
    """A class, its share of the probability of all labels given, and its log p(label | picture)."""

    label: str
    probability: float
    logprob: float


def prompt_tokens(question: str, tokenizer: Tokenizer, config: GITConfig) -> list[int]:
    """The tokens that an answer stands behind: the start token and the question.

    In the microsoft style at most 38 of them: the last of the first 40 (inference.py).

    Raises:
        GITError: the question is empty, or longer than the model's positions.
    """
    tokens = tokenizer.encode(question)
    if not tokens:
        raise GITError(f"the question {question!r} is empty, expected some words")
    if config.style == "microsoft":
        tokens = tokens[:40][-38:]
    most = config.decoder.positions - 2  # the start token, and one of an answer
    if len(tokens) > most:
        raise GITError(
            f"the question that begins {question[:40]!r} has {len(tokens)} tokens, "
            f"expected at most {most}"
        )
    return [config.bos_id, *tokens]


class Speaker:
    """A GIT with its vocabulary."""

    def __init__(self, model: GIT, tokenizer: Tokenizer | None) -> None:
        self.model = model
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary.

        Raises:
            GITError: the checkpoint came without one, as the original's do.
        """
        if self._tokenizer is None:
            raise GITError(
                "this checkpoint has no vocabulary, so it cannot read or write text: convert it "
                "again with --tokenizer FOLDER (for released models that of bert-base-uncased)"
            )
        return self._tokenizer

    def captions(self, scene: Scene, options: DecodingOptions | None = None) -> list[list[Caption]]:
        """For each image `options.sequences` captions, best first."""
        return [texts for [texts] in self.replies(scene, [[None]] * len(scene), options)]

    def answers(
        self, scene: Scene, questions: Texts, options: DecodingOptions | None = None
    ) -> list[list[list[Caption]]]:
        """For each image, for each question, `options.sequences` answers, best first."""
        return self.replies(scene, [_several(questions, "question")] * len(scene), options)

    def replies(
        self,
        scene: Scene,
        asked: Sequence[Sequence[str | None]],
        options: DecodingOptions | None = None,
    ) -> list[list[list[Caption]]]:
        """For each image, for each of its own questions, or None for a caption,
        `options.sequences` texts, best first.

        Args:
            asked: what each image is asked; their numbers may differ.
        """
        options = options or self.model.config.decoding
        prompts = [[self.prompt(question) for question in row] for row in asked]
        found: list[list[list[Caption]]] = [[] for _ in asked]
        for count in sorted({len(row) for row in asked} - {0}):  # equally many texts an image
            images = [image for image, row in enumerate(asked) if len(row) == count]
            part = scene.part(images)
            each = max(1, ROWS // (len(images) * max(options.beams, options.sequences)))
            for first in range(0, count, each):
                some = [prompts[image][first : first + each] for image in images]
                texts = iter(self._written(part, [one for row in some for one in row], options))
                for image, row in zip(images, some, strict=True):
                    found[image] += islice(texts, len(row))
        return found

    def scores(
        self, scene: Scene, texts: Texts, *, question: str | None = None
    ) -> list[list[Caption]]:
        """For each image the exact log p(text | image) of each text, its end included."""
        tokens = [self._ended(text) for text in _several(texts, "text")]
        return self._scored(scene, texts, tokens, question)

    def labels(
        self, scene: Scene, labels: Texts, *, template: str = "{}", question: str | None = None
    ) -> list[list[Label]]:
        """For each image all labels with their probabilities, the likeliest first."""
        scored = self._scored(scene, labels, self._label_tokens(labels, template), question)
        return [_as_labels(row) for row in scored]

    def picks(
        self, scene: Scene, labels: Texts, *, template: str = "{}", question: str | None = None
    ) -> list[Caption]:
        """For each image one of the labels, generated greedily under a trie of all of them."""
        tokens, start = self._label_tokens(labels, template), self.prompt(question)
        name_of = dict(zip(map(tuple, tokens), labels, strict=True))
        longest = max(name_of, key=len)
        room = self.model.config.decoder.positions - len(start)
        if len(longest) > room:
            raise GITError(
                f"the label {name_of[longest]!r} has {len(longest)} tokens with its end, "
                f"expected at most {room}"
            )
        options = DecodingOptions(max_new_tokens=len(longest))
        found = generate(self.model, scene, [start] * len(scene), options, TokenTrie(tokens))
        return [_caption(name_of[tuple(best.tokens)], best) for best, *_ in found]

    def prompt(self, question: str | None) -> list[int]:
        """What a text is generated behind: the start token and, for an answer, the question."""
        config = self.model.config
        if question is None:
            return [config.bos_id]
        return prompt_tokens(question, self.tokenizer, config)

    def _written(
        self, scene: Scene, prompts: Sequence[Sequence[int]], options: DecodingOptions
    ) -> list[list[Caption]]:
        """For each prompt its texts, best first."""
        found = generate(self.model, scene, prompts, options)
        decode = self.tokenizer.decode
        return [[_caption(decode(one.tokens), one) for one in texts] for texts in found]

    def _scored(
        self,
        scene: Scene,
        names: Texts,
        tokens: Sequence[list[int]],
        question: str | None,
    ) -> list[list[Caption]]:
        """For each image its score of each text, under the name that the text goes by."""
        rows = score_texts(self.model, scene, [self.prompt(question)] * len(scene), tokens)
        return [
            [
                Caption(name, text, sum(logprobs), logprobs)
                for name, text, logprobs in zip(names, tokens, row, strict=True)
            ]
            for row in rows
        ]

    def _ended(self, text: str) -> list[int]:
        """The tokens of a text and the end token, which stands nowhere else."""
        tokens, end = self.tokenizer.encode(text), self.model.config.eos_id
        if not tokens:
            raise GITError(f"the text {text!r} is empty, expected some words")
        if end in tokens:
            raise GITError(f"the text {text!r} holds the end token, which is put behind it anyway")
        return [*tokens, end]

    def _label_tokens(self, labels: Texts, template: str) -> list[list[int]]:
        if "{}" not in template:
            raise GITError(f"the template {template!r} has no place for the label, expected {{}}")
        known: dict[tuple[int, ...], str] = {}
        for number, label in enumerate(_several(labels, "label"), start=1):
            if not label.strip():
                raise GITError(f"label {number} is empty, expected some words")
            tokens = tuple(self._ended(template.replace("{}", label)))
            if tokens in known:
                raise GITError(f"the labels {known[tokens]!r} and {label!r} are the same in tokens")
            known[tokens] = label
        return [list(tokens) for tokens in known]


def _several(texts: Texts, kind: str) -> Texts:
    """The texts, if they are a list and not empty; a str would be taken letter by letter."""
    if isinstance(texts, str) or not texts:
        raise GITError(f"the {kind}s are {texts!r}, expected a list of at least one {kind}")
    return texts


def _caption(text: str, found: Generation) -> Caption:
    return Caption(text, found.tokens, found.logprob, found.token_logprobs)


def _as_labels(scored: Sequence[Caption]) -> list[Label]:
    """Log-probabilities as shares of a whole, the largest first."""
    shares = torch.tensor([one.logprob for one in scored], dtype=torch.float64).softmax(0)
    labels = [
        Label(one.text, share, one.logprob)
        for one, share in zip(scored, shares.tolist(), strict=True)
    ]
    return sorted(labels, key=lambda label: -label.probability)
