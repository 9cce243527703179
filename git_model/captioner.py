"""Files in, text out: model, vocabulary and preprocessing in one object."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from git_model.config import DecodingOptions, GITError, Style
from git_model.constraints import TokenTrie
from git_model.decoding import generate, score_texts
from git_model.model import GIT, Scene
from git_model.opening import open_model
from git_model.preprocess import open_image, preprocess_batch
from git_model.tokenizer import Tokenizer

Picture = str | Path | Image.Image


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


@dataclass(frozen=True)
class PictureScene(Scene):
    """A scene that remembers whether one picture was given or a list of them."""

    single: bool


Seen = PictureScene | Picture | Sequence[Picture | Sequence[Picture]]


class Captioner:
    """A GIT that works on files.

    >>> git = Captioner.from_pretrained("demo")
    >>> scene = git.see("examples/images/two_shapes.png")
    >>> git.caption(scene).text
    """

    def __init__(self, model: GIT, tokenizer: Tokenizer | None) -> None:
        self.model = model
        self._tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "demo",
        *,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        style: Style | None = None,
    ) -> Self:
        """Open a model.

        Args:
            name: "demo" (comes with this package), a folder in our form, in Hugging Face's or in
                the original's, or a hub id such as "microsoft/git-base-coco".
            revision: of a hub id: a branch, tag or commit.
            style: "huggingface" or "microsoft": run the checkpoint as that reference does; by
                default as the checkpoint says.

        Raises:
            GITError: no such model, or a damaged one.
        """
        return cls(*open_model(name, dtype=dtype, device=device, revision=revision, style=style))

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

    def preprocess(self, pictures: Sequence[Picture]) -> Tensor:
        """Pictures, or the frames of a clip, as pixels (B, 3, H, W)."""
        images = [p if isinstance(p, Image.Image) else open_image(Path(p)) for p in pictures]
        return preprocess_batch(images, self.model.config.preprocess)

    def see(self, pictures: Picture | Sequence[Picture | Sequence[Picture]]) -> PictureScene:
        """Read a picture, a clip, or a batch of either, once.

        Args:
            pictures: a path or Pillow image; a list of Pillow images (the frames of one clip if
                the model has temporal embeddings, else a batch); a list of paths (a batch); or a
                list of lists of frames (a batch of clips).
        """
        if isinstance(pictures, str | Path | Image.Image):
            return self.see_pixels(self.preprocess([pictures]), single=True)
        if not pictures:
            raise GITError("no picture was given")
        if all(isinstance(p, str | Path | Image.Image) for p in pictures):
            flat: Sequence[Picture] = pictures  # type: ignore[assignment]
            is_clip = self.model.config.frames > 0 and isinstance(flat[0], Image.Image)
            pixels = self.preprocess(flat)
            return self.see_pixels(pixels[None] if is_clip else pixels, single=is_clip)
        clips: Sequence[Sequence[Picture]] = pictures  # type: ignore[assignment]
        if len({len(clip) for clip in clips}) > 1:
            raise GITError("the clips of a batch differ in their number of frames")
        return self.see_pixels(torch.stack([self.preprocess(clip) for clip in clips]))

    @torch.inference_mode()
    def see_pixels(self, pixels: Tensor, *, single: bool = False) -> PictureScene:
        """As `see`, for pixels (B, 3, H, W) or (B, F, 3, H, W) that are preprocessed already."""
        weight = self.model.encoder.patch.weight
        scene = self.model.see(pixels.to(weight.device, weight.dtype))
        return PictureScene(scene.layers, single)

    def caption(
        self, scene: Seen, options: DecodingOptions | None = None
    ) -> Caption | list[Caption]:
        """Say what is to be seen: the best caption, or a list of them for a batch.

        Args:
            scene: what `see` returned, or what it takes.
            options: by default those of the checkpoint, `model.config.decoding`.
        """
        seen = self._seen(scene)
        captions = [best for best, *_ in self.captions(seen, options)]
        return captions[0] if seen.single else captions

    def captions(self, scene: Scene, options: DecodingOptions | None = None) -> list[list[Caption]]:
        """For each image of a scene `options.sequences` captions, best first."""
        return self._written(scene, [[self.model.config.bos_id]] * len(scene), options)

    def ask(
        self, scene: Seen, questions: str | Sequence[str], options: DecodingOptions | None = None
    ) -> Any:
        """Answer a question, or several, about each picture; the picture is read once.

        Returns:
            a Caption whose text is the answer; a list of them for several questions; and a list of
            either, picture by picture, for a batch.

        Raises:
            GITError: a question is empty, or longer than the model's positions.
        """
        seen = self._seen(scene)
        prompts = [
            self.prompt(q) for q in ([questions] if isinstance(questions, str) else questions)
        ]
        found = self._written(seen, prompts * len(seen), options)
        best = [texts[0] for texts in found]
        rows: list[Any] = [best[n : n + len(prompts)] for n in range(0, len(best), len(prompts))]
        if isinstance(questions, str):
            rows = [row[0] for row in rows]
        return rows[0] if seen.single else rows

    def prompt(self, question: str) -> list[int]:
        """The tokens that an answer is generated behind: the start token and the question.

        In the microsoft style at most 38 of them: the last of the first 40 (inference.py).
        """
        tokens = self.tokenizer.encode(question)
        if not tokens:
            raise GITError(f"the question {question!r} is empty, expected some words")
        if self.model.config.style == "microsoft":
            tokens = tokens[:40][-38:]
        return [self.model.config.bos_id, *tokens]

    def score(
        self, scene: Seen, texts: Sequence[str], *, question: str | None = None
    ) -> list[Caption] | list[list[Caption]]:
        """The exact log p(text | picture) of each text, its end included.

        Args:
            question: score the texts as answers to it.

        Returns:
            the texts in the order given, for a batch a list of them for each picture.
        """
        seen = self._seen(scene)
        rows = self._scored(seen, texts, [self._text_tokens(text) for text in texts], question)
        return rows[0] if seen.single else rows

    def classify(
        self,
        scene: Seen,
        labels: Sequence[str],
        *,
        template: str = "{}",
        question: str | None = None,
    ) -> list[Label] | list[list[Label]]:
        """Which of these labels fits each picture: all of them with their probabilities, the
        likeliest first. The probabilities are exact: each label is scored, none is sampled.

        Args:
            template: the text that a label makes, such as "a photo of a {}".
            question: take the labels as answers to it.

        Raises:
            GITError: a label is empty, or there twice once it is in tokens.
        """
        seen = self._seen(scene)
        scored = self._scored(seen, labels, self._label_tokens(labels, template), question)
        rows = [_as_labels(row) for row in scored]
        return rows[0] if seen.single else rows

    def pick(
        self,
        scene: Seen,
        labels: Sequence[str],
        *,
        template: str = "{}",
        question: str | None = None,
        options: DecodingOptions | None = None,
    ) -> Caption | list[Caption]:
        """One of these labels for each picture, generated under a trie of all labels, as the paper
        classifies (section 4.4): cheaper than `classify` where there are many, and greedy."""
        seen = self._seen(scene)
        tokens = self._label_tokens(labels, template)
        longest = DecodingOptions(max_new_tokens=max(map(len, tokens)))
        name_of = dict(zip(map(tuple, tokens), labels, strict=True))
        start = [self.model.config.bos_id] if question is None else self.prompt(question)
        found = generate(
            self.model, seen, [start] * len(seen), options or longest, TokenTrie(tokens)
        )
        picked = [
            Caption(name_of[tuple(best.tokens)], best.tokens, best.logprob, best.token_logprobs)
            for best, *_ in found
        ]
        return picked[0] if seen.single else picked

    def _seen(self, scene: Seen) -> PictureScene:
        return scene if isinstance(scene, PictureScene) else self.see(scene)

    def _written(
        self, scene: Scene, prompts: Sequence[Sequence[int]], options: DecodingOptions | None
    ) -> list[list[Caption]]:
        found = generate(self.model, scene, prompts, options or self.model.config.decoding)
        return [
            [
                Caption(
                    self.tokenizer.decode(one.tokens), one.tokens, one.logprob, one.token_logprobs
                )
                for one in texts
            ]
            for texts in found
        ]

    def _scored(
        self,
        scene: Scene,
        names: Sequence[str],
        tokens: Sequence[Sequence[int]],
        question: str | None,
    ) -> list[list[Caption]]:
        """For each image its score of each text, under the name that the text goes by."""
        start = [self.model.config.bos_id] if question is None else self.prompt(question)
        rows = score_texts(self.model, scene, [start] * len(scene), tokens)
        return [
            [
                Caption(name, list(text), sum(logprobs), logprobs)
                for name, text, logprobs in zip(names, tokens, row, strict=True)
            ]
            for row in rows
        ]

    def _text_tokens(self, text: str) -> list[int]:
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise GITError(f"the text {text!r} is empty, expected some words")
        return [*tokens, self.model.config.eos_id]

    def _label_tokens(self, labels: Sequence[str], template: str) -> list[list[int]]:
        if not labels:
            raise GITError("there are no labels, expected at least one")
        if "{}" not in template:
            raise GITError(f"the template {template!r} has no place for the label, expected {{}}")
        known: dict[tuple[int, ...], str] = {}
        for label in labels:
            if not label.strip():
                raise GITError(f"label {len(known) + 1} is empty, expected some words")
            tokens = tuple(self._text_tokens(template.replace("{}", label)))
            if tokens in known:
                raise GITError(f"the labels {known[tokens]!r} and {label!r} are the same in tokens")
            known[tokens] = label
        return [list(tokens) for tokens in known]


def _as_labels(scored: Sequence[Caption]) -> list[Label]:
    """Log-probabilities as shares of a whole, the largest first."""
    shares = torch.tensor([one.logprob for one in scored], dtype=torch.float64).softmax(0)
    labels = [
        Label(one.text, share, one.logprob)
        for one, share in zip(scored, shares.tolist(), strict=True)
    ]
    return sorted(labels, key=lambda label: -label.probability)
