"""From examples to tensors.

A `Sample` is an example as pixels and token ids. A `Batch` is several samples of one shape of
pixels: the model encodes each image once, for all its texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from git_model.config import GITConfig
from git_model.data.augmentation import AugmentConfig, random_crop, training_preprocess
from git_model.data.example import Annotation, Example
from git_model.preprocessing.image import group_by_shape, preprocess_batch
from git_model.preprocessing.tokenizer import Tokenizer, prompt_tokens
from git_model.utils.devices import on_device
from git_model.utils.errors import GITError


@dataclass(frozen=True)
class TextTarget:
    """A training text: token ids. The first `n_prompt` of them are the prompt and have no loss."""

    tokens: list[int]
    n_prompt: int


@dataclass(frozen=True)
class Sample:
    """An example as tensors: pixels (3, H, W), or (F, 3, H, W) of a clip; its texts; and its index
    in the source, which is None for a stream."""

    pixels: Tensor
    texts: list[TextTarget]
    index: int | None = None


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass: B images and R texts, R a multiple of B. The first R/B texts
    belong to the first image, and so on. An image with fewer texts than others gets empty texts,
    which are only padding."""

    pixels: Tensor  # (B, 3, H, W), or (B, F, 3, H, W)
    tokens: Tensor  # (R, T): start, question, answer, end, padding
    mask: Tensor  # (R, T): True for the tokens that have a loss: the answer and the end
    indices: tuple[int, ...] = ()  # of the examples in their source; empty for a stream
    features: Tensor | None = None  # the encoder's `frame_tokens`, where they are cached

    @property
    def n_predicted(self) -> int:
        """The number of tokens that have a loss."""
        return int(self.mask.sum())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device; to a GPU the copy runs while the CPU continues."""
        parts = {
            name: on_device(part, device)
            for name, part in vars(self).items()
            if isinstance(part, Tensor)
        }
        return replace(self, **parts)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Makes samples from examples, and batches from samples.

    Attributes:
        max_tokens: maximum number of tokens of a text, with question, start and end token; at least
            3. A longer text is cut at its end, and then the model does not learn an end token
            there. In style microsoft it is the original's `max_text_len`, which does not count
            start and end token, and the end token is always learned; see `_original_target`.
        max_texts: use at most this many texts of an image, drawn at random; None: all.
        micro_batch: maximum number of images of a batch; None: no limit.
        augment: None: preprocess images as at inference.
    """

    tokenizer: Tokenizer
    config: GITConfig
    max_tokens: int = 40
    max_texts: int | None = None
    micro_batch: int | None = None
    augment: AugmentConfig | None = None

    def sample(self, example: Example, rng: Random) -> Sample:
        """An example as tensors: with all captions, and with one answer, drawn at random, to each
        question.

        Args:
            rng: draws the crop, the answers, the texts and the flip, in this order.

        Raises:
            GITError: the image cannot be used, a question is empty or too long, or there is no
                text. The message names the example.
        """
        preprocess, media = self.config.preprocess, example.media
        try:
            if self.augment is not None:
                media = random_crop(media, self.augment, preprocess, rng)
                preprocess = training_preprocess(preprocess)
            texts = [
                text for annotation in example.annotations for text in self._texts(annotation, rng)
            ]
            if not texts:
                raise GITError("there is no text to learn, expected at least one")
            if self.max_texts is not None and len(texts) > self.max_texts:
                texts = sorted(texts, key=lambda _: rng.random())[: self.max_texts]
            frames = media if isinstance(media, list) else [media]
            pixels = preprocess_batch(frames, preprocess)
        except GITError as error:
            has_key = example.key in str(error)
            raise GITError(f"{error}" if has_key else f"{example.key}: {error}") from None
        sample = Sample(pixels if isinstance(media, list) else pixels[0], texts)
        if self.augment is not None and rng.random() < self.augment.flip:
            return replace(sample, pixels=sample.pixels.flip(-1))
        return sample

    def batches(self, samples: Sequence[Sample]) -> list[Batch]:
        """Samples as batches, each of one shape of pixels and of at most `micro_batch` images, in
        the order in which their shapes first appear."""
        size = self.micro_batch or max(len(samples), 1)
        return [
            collate([samples[i] for i in group[first : first + size]], self.config.pad_id)
            for group in group_by_shape([sample.pixels for sample in samples])
            for first in range(0, len(group), size)
        ]

    def _texts(self, annotation: Annotation, rng: Random) -> list[TextTarget]:
        """The texts of an annotation, each after its prompt."""
        texts = list(annotation.texts)
        if annotation.question is not None:
            if not texts:
                raise GITError(f"there is no answer to {annotation.question[:40]!r}, expected one")
            texts = [texts[int(rng.random() * len(texts))]]
        is_original = self.config.style == "microsoft"
        target = self._original_target if is_original else self._target
        return [target(annotation.question, text) for text in texts]

    def _target(self, question: str | None, text: str) -> TextTarget:
        """Prompt, text and end token; a text that is too long is cut at its end."""
        config, prompt = self.config, [self.config.bos_id]
        if question is not None:
            prompt = prompt_tokens(question, self.tokenizer, config)
            if len(prompt) >= self.max_tokens:
                raise GITError(
                    f"the question that begins {question[:40]!r} has {len(prompt)} tokens with the "
                    f"start, expected fewer than max_tokens {self.max_tokens}"
                )
        tokens = [*prompt, *self.tokenizer.encode(text), config.eos_id]
        return TextTarget(tokens[: self.max_tokens], len(prompt))

    def _original_target(self, question: str | None, text: str) -> TextTarget:
        """Prompt, text and end token with the original's cuts (train.py, `get_data`).

        Question and text are each cut at their end to max_tokens. If both together are longer than
        that, they are cut at the beginning, the question first, to max_tokens - 2. Start and end
        token are not counted and never cut.
        """
        limit, encode = self.max_tokens, self.tokenizer.encode
        prefix = [] if question is None else encode(question)[:limit]
        if question is not None and not prefix:
            raise GITError(f"the question {question[:40]!r} is empty, expected some words")
        payload = [*prefix, *encode(text)[:limit]]
        n_cut = max(0, len(payload) - (limit - 2)) if len(payload) > limit else 0
        tokens = [self.config.bos_id, *payload[n_cut:], self.config.eos_id]
        return TextTarget(tokens, 1 + max(0, len(prefix) - n_cut))


def collate(samples: Sequence[Sample], pad_id: int) -> Batch:
    """Samples of one shape of pixels as one batch, padded to its longest text.

    Padding stands on the right, where no text token attends, so the model needs no mask for it.
    """
    n_texts = max(len(sample.texts) for sample in samples)
    empty = TextTarget([], 0)
    texts = [
        text
        for sample in samples
        for text in [*sample.texts, *[empty] * (n_texts - len(sample.texts))]
    ]
    length = max(len(text.tokens) for text in texts)
    tokens = [text.tokens + [pad_id] * (length - len(text.tokens)) for text in texts]
    column = torch.arange(length)
    indices = tuple(sample.index for sample in samples if sample.index is not None)
    first, end = (
        torch.tensor(numbers)[:, None]
        for numbers in ([t.n_prompt for t in texts], [len(t.tokens) for t in texts])
    )
    return Batch(
        pixels=torch.stack([sample.pixels for sample in samples]),
        tokens=torch.tensor(tokens),
        mask=(column >= first) & (column < end),
        indices=indices,
    )
