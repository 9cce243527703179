"""The losses that a recipe can name: cross-entropy, and cross-entropy with distillation or with a
contrastive loss.

Self-critical training is in scst.py. To add a loss, write a class with `__call__(model, batch)`, a
dataclass with its settings in recipe.py, and a line in `open_loss`. An experiment needs none of
these: `kind = "python"` takes a function by its dotted name.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.checkpoints.loading import open_model
from git_model.data.collation import Batch
from git_model.data.example import Source, Stream
from git_model.model.git import GIT, Scene
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loss import (
    CrossEntropy,
    Loss,
    LossOutput,
    at_least_float32,
    predicted,
    scene_of,
    token_losses,
    visual_of,
)
from git_model.training.recipe import (
    ContrastiveConfig,
    DistillationConfig,
    PythonLossConfig,
    Recipe,
    ScstConfig,
)
from git_model.training.scst import Scst, document_frequencies
from git_model.utils.dotted import call_object, dotted_name, import_object
from git_model.utils.errors import ConfigError, GITError


def open_loss(
    recipe: Recipe, model: GIT, tokenizer: Tokenizer, source: Source | Stream | None = None
) -> Loss:
    """The recipe's loss.

    Args:
        source: the training data, in which SCST counts n-grams; None: the recipe's.

    Raises:
        GITError: the teacher does not fit the model, or a loss of your own cannot be imported.
    """
    config, smoothing = recipe.loss, recipe.learning.label_smoothing
    if isinstance(config, ScstConfig):
        source = recipe.open_data() if source is None else source
        return Scst(config, tokenizer, document_frequencies(config, source))
    if isinstance(config, DistillationConfig):
        n_tokens = recipe.loader.max_tokens + (2 if model.config.style == "microsoft" else 0)
        teacher = open_teacher(config.teacher, model, tokenizer, n_tokens)
        return Distillation(teacher, config.weight, config.temperature, smoothing)
    if isinstance(config, ContrastiveConfig):
        return Contrastive(config.weight, config.temperature, smoothing)
    if isinstance(config, PythonLossConfig):
        return own_loss(config)
    return CrossEntropy(smoothing)


def own_loss(config: PythonLossConfig) -> Loss:
    """A loss by dotted name: a class is called with the arguments, a function is bound to them."""
    value: Any = import_object(config.loss, "loss.loss")
    if not inspect.isclass(value):
        _require_arguments(value, config)
        return cast(Loss, functools.partial(value, **config.arguments))
    made = call_object(config.loss, "loss.loss", **config.arguments)
    require_loss(made)
    return cast(Loss, made)


def _require_arguments(loss: Callable[..., Any], config: PythonLossConfig) -> None:
    """Refuse a function that does not take a model, a batch and the recipe's arguments."""
    try:
        signature = inspect.signature(loss)
    except ValueError:  # a function in C may have none
        return
    try:
        signature.bind(None, None, **config.arguments)
    except TypeError as error:
        raise ConfigError(
            f"loss.loss is {config.loss}, which cannot be called with a model, a batch and these "
            f"arguments: {error}"
        ) from None


def require_loss(loss: Any) -> None:
    """Refuse an object that is not a loss, or has weights of its own."""
    if not callable(loss):
        raise ConfigError(f"the loss is {dotted_name(loss)}, expected a function (model, batch)")
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ConfigError(
            f"the loss {dotted_name(loss)} has weights to train, expected none: a checkpoint and "
            "a state hold only the model's"
        )


@dataclass(frozen=True)
class Distillation:
    """(1 - weight) * cross-entropy + weight * T^2 * KL(teacher || model), both distributions
    softened by the temperature T, at each token to predict (Hinton et al. 2015)."""

    teacher: GIT
    weight: float
    temperature: float
    label_smoothing: float = 0.0

    def __call__(self, model: GIT, batch: Batch) -> LossOutput:
        """The sum over the tokens to predict."""
        logits, target = predicted(model, batch, scene_of(model, batch))
        teacher = self.teacher.to(logits.device)
        with torch.no_grad():
            teacher_logits, _ = predicted(teacher, batch, teacher.see(batch.pixels))
        entropy = token_losses(
            logits, target, label_smoothing=self.label_smoothing, style=model.config.style
        )
        divergence = self.temperature**2 * F.kl_div(
            (at_least_float32(logits) / self.temperature).log_softmax(-1),
            (at_least_float32(teacher_logits) / self.temperature).log_softmax(-1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        total = (1 - self.weight) * entropy.sum() + self.weight * divergence.sum()
        return LossOutput(
            total,
            {"cross_entropy": entropy.detach().sum(), "divergence": divergence.detach().sum()},
        )


def open_teacher(name: str, model: GIT, tokenizer: Tokenizer, n_tokens: int = 1) -> GIT:
    """The teacher model, in eval mode.

    Args:
        n_tokens: of the longest text.

    Raises:
        GITError: it has another vocabulary, other special tokens, another number of logits, another
            preprocessing, fewer frames than the model, or no position for the longest text.
    """
    teacher, vocabulary = open_model(name, style=model.config.style)
    config, expected = teacher.config, model.config
    if vocabulary is None or vocabulary.vocabulary() != tokenizer.vocabulary():
        raise GITError(f"teacher {name} has another vocabulary than the model, expected the same")
    for key, value, of_model in (
        ("vocab_size", config.decoder.vocab_size, expected.decoder.vocab_size),
        ("bos_id", config.bos_id, expected.bos_id),
        ("eos_id", config.eos_id, expected.eos_id),
        ("preprocess", config.preprocess, expected.preprocess),
    ):
        if value != of_model:
            raise GITError(f"teacher {name} has {key} {value}, expected the model's: {of_model}")
    for key, value, least in (
        ("temporal embeddings", config.frames, expected.frames),
        ("positions of text", config.decoder.positions, n_tokens),
    ):
        if value < least:
            raise GITError(f"teacher {name} has {value} {key}, expected at least {least}")
    return teacher.requires_grad_(False).eval()


@dataclass(frozen=True)
class Contrastive:
    """Cross-entropy + weight * InfoNCE between images and texts, without weights of its own.

    An image's vector is the mean of its projected tokens, a text's is the decoder's hidden state at
    its last token, without an image. Cosine similarities are divided by the temperature. The loss
    is the cross-entropy of finding each text's image among the images of the forward pass, and each
    image's texts among the texts.
    """

    weight: float
    temperature: float
    label_smoothing: float = 0.0

    def __call__(self, model: GIT, batch: Batch) -> LossOutput:
        """The sum over the tokens to predict; the contrastive loss counts for each of them."""
        visual = visual_of(model, batch)
        logits, target = predicted(model, batch, Scene(model.decoder.prefill(visual)))
        entropy = token_losses(
            logits, target, label_smoothing=self.label_smoothing, style=model.config.style
        ).sum()
        contrast = self.contrast(at_least_float32(visual).mean(1), *text_vectors(model, batch))
        total = entropy + self.weight * contrast * batch.n_predicted
        return LossOutput(
            total,
            {
                "cross_entropy": entropy.detach(),
                "contrastive": contrast.detach() * batch.n_predicted,
            },
        )

    def contrast(self, images: Tensor, texts: Tensor, image_of: Tensor) -> Tensor:
        """The contrastive loss, the mean of both directions: a single number.

        Args:
            images: (B, D).
            texts: (N, D).
            image_of: (N,), the image of each text.
        """
        if not len(texts):
            return 0 * images.sum()
        similarity = F.normalize(texts, dim=-1) @ F.normalize(images, dim=-1).T / self.temperature
        to_image = F.cross_entropy(similarity, image_of)
        is_own = image_of[:, None] == torch.arange(len(images), device=images.device)
        own = similarity.masked_fill(~is_own, -torch.inf).logsumexp(0)  # (B,)
        to_text = (similarity.logsumexp(0) - own)[is_own.any(0)].mean()
        return (to_image + to_text) / 2


def text_vectors(model: GIT, batch: Batch) -> tuple[Tensor, Tensor]:
    """The vector (N, D) of each text, and the index of its image (N,). Texts that are only padding
    are left out."""
    n_tokens = batch.mask.long().cumsum(1).argmax(1)  # the last token to predict of each row
    rows = batch.mask.any(1).nonzero()[:, 0]
    hidden = model.decoder(batch.tokens)[rows, n_tokens[rows]]
    return at_least_float32(hidden), rows // (len(batch.tokens) // len(batch.pixels))
