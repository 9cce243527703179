"""GIT: an image encoder, a projector, and a text decoder that attends to both.

`see` encodes images once. All later work on these images (captions, questions, beams, class names,
training on several captions) uses the same `Scene`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from git_model.config import EncoderConfig, GITConfig
from git_model.model.attention import KeyValue
from git_model.model.decoder import TextDecoder
from git_model.model.towers import build_encoder
from git_model.utils.errors import CheckpointError, GITError


@dataclass(frozen=True, repr=False)
class Scene:
    """The image prefix of B images: the KV cache of the image tokens, in every decoder layer.

    The text decoder needs nothing else of the images.
    """

    layers: tuple[KeyValue, ...]

    def __len__(self) -> int:
        """The number of images (a clip counts as one)."""
        return self.layers[0].key.shape[0]

    @property
    def n_tokens(self) -> int:
        """Image tokens of each image."""
        return self.layers[0].key.shape[2]

    def __repr__(self) -> str:
        key = self.layers[0].key
        return (
            f"{type(self).__name__}({len(self)} images of {self.n_tokens} tokens, "
            f"{len(self.layers)} layers, {str(key.dtype).removeprefix('torch.')}, {key.device})"
        )

    def select(self, images: Sequence[int]) -> "Scene":
        """The scene of these images, in this order; the scene itself if they are all its images in
        their order."""
        if list(images) == list(range(len(self))):
            return self
        index = torch.tensor(images, device=self.layers[0].key.device)
        return Scene(tuple(KeyValue(kv.key[index], kv.value[index]) for kv in self.layers))

    def layers_for(self, rows: int) -> tuple[KeyValue, ...]:
        """The image prefix for this number of rows of text, equally many per image.

        Raises:
            GITError: the number of rows is not a multiple of the number of images.
        """
        if rows % len(self):
            raise GITError(
                f"{rows} texts for {len(self)} images: expected equally many texts for each image"
            )
        return self.layers


# Encoders that can be built on the meta device, where tensors have shapes but no values.
META_KINDS = ("clip", "siglip", "timm")


class Projector(nn.Module):
    """From the encoder's width to the decoder's: linear, then norm (paper, section 3.1)."""

    def __init__(self, encoder_width: int, decoder_width: int, norm_eps: float) -> None:
        super().__init__()
        self.linear = nn.Linear(encoder_width, decoder_width)
        self.norm = nn.LayerNorm(decoder_width, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, encoder width) -> (B, I, decoder width)"""
        return self.norm(self.linear(x))


class GIT(nn.Module):
    """The Generative Image-to-text Transformer (Wang et al. 2022).

    Attributes:
        interpolate_frames: whether a clip may have more frames than there are temporal embeddings;
            these are then interpolated. False by default.
    """

    def __init__(self, config: GITConfig) -> None:
        super().__init__()
        self.config = config
        self.interpolate_frames = False
        encoder, decoder = config.encoder, config.decoder
        self.encoder = build_encoder(encoder)
        self.temporal_embedding = (
            nn.Parameter(torch.empty(config.frames, encoder.width)) if config.frames else None
        )
        self.projector = Projector(encoder.width, decoder.width, encoder.norm_eps)
        self.decoder = TextDecoder(decoder)
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw random weights as in BERT: N(0, 0.02), biases 0, norms 1, temporal embeddings 0. An
        encoder that is not this project's keeps the weights that it drew itself."""
        if next(self.decoder.parameters()).is_meta:
            return  # meta tensors hold no values, and filling them imports torch's compiler (1 s)
        own_encoder = isinstance(self.config.encoder, EncoderConfig)
        norms = [m for m in self.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)]
        of_norms = {id(parameter) for norm in norms for parameter in norm.parameters()}
        for name, parameter in self.named_parameters():
            if name.startswith("encoder.") and not own_encoder:
                continue
            if id(parameter) in of_norms:
                parameter.fill_(float(name.endswith("weight")))
            elif name.endswith("bias") or name == "temporal_embedding":
                parameter.zero_()
            else:
                parameter.normal_(std=0.02)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return next(self.parameters()).dtype

    def see(self, pixels: Tensor) -> Scene:
        """Encode images (B, 3, H, W), or clips of F frames (B, F, 3, H, W), once for all texts.

        Raises:
            GITError: as in `encode`.
        """
        return Scene(self.decoder.prefill(self.projector(self.encode(pixels))))

    def encode(self, pixels: Tensor) -> Tensor:
        """The encoder's tokens (B, I, D), D the encoder's width. The tokens of a clip's frames are
        concatenated, each with its temporal embedding added (paper, section 3, *Fine-tuning*).

        Raises:
            GITError: the pixels have another shape, or a clip has more frames than the model has
                temporal embeddings and `interpolate_frames` is off.
        """
        return self.with_temporal_embeddings(self.frame_tokens(pixels))

    def frame_tokens(self, pixels: Tensor) -> Tensor:
        """The first half of `encode`, what the encoder alone gives: tokens (B, I, D) of images, or
        (B, F, I, D) of clips of F frames.

        Raises:
            GITError: as in `encode`.
        """
        if pixels.ndim == 4:
            return self._image_tokens(pixels)
        if pixels.ndim != 5:
            raise wrong_pixels(pixels)
        frames = pixels.shape[1]  # not `len`, which would fix the number in an exported graph
        self._temporal(frames)  # a clip that is too long is refused before it is encoded
        return self._image_tokens(pixels.flatten(0, 1)).unflatten(0, (-1, frames))

    def with_temporal_embeddings(self, tokens: Tensor) -> Tensor:
        """The second half of `encode`: from the result of `frame_tokens` to (B, I, D), or
        (B, F I, D) of clips.

        Raises:
            GITError: a clip has more frames than there are temporal embeddings, as in `encode`.
        """
        if tokens.ndim == 3:
            return self._still(tokens)
        temporal = self._temporal(tokens.shape[1])  # (F, D)
        return (tokens + temporal[:, None]).flatten(1, 2)

    def _temporal(self, frames: int) -> Tensor:
        """The temporal embeddings (F, D) of a clip's frames. With `interpolate_frames` those of a
        longer clip are interpolated linearly; the first and the last frame keep the embeddings at
        the ends."""
        n = self.config.frames
        is_longer = self.interpolate_frames and frames > n
        if self.temporal_embedding is None or frames < 1 or (frames > n and not is_longer):
            raise GITError(
                f"a clip of {frames} frames, but this model has {n} temporal embeddings: sample "
                "fewer frames, interpolate the embeddings, or use a video checkpoint"
            )
        if not is_longer:
            return self.temporal_embedding[:frames]
        by_time = self.temporal_embedding.T[None]  # (1, D, n)
        return interpolate(by_time, size=frames, mode="linear", align_corners=True)[0].T

    def _image_tokens(self, pixels: Tensor) -> Tensor:
        """The encoder's output, (B, I, D)."""
        tokens: Tensor = self.encoder(pixels)
        width = self.config.encoder.width
        if tokens.ndim != 3 or tokens.shape[-1] != width:
            raise GITError(
                f"the encoder returned a tensor of shape {tuple(tokens.shape)}, expected tokens "
                f"(images, tokens, {width})"
            )
        return tokens

    def _still(self, tokens: Tensor) -> Tensor:
        """A still image in a video model. The original runs it as a clip of one frame, with
        temporal embedding 0 (inference.py); Transformers adds none."""
        if self.temporal_embedding is None or self.config.style == "huggingface":
            return tokens
        return tokens + self.temporal_embedding[0]

    def forward(
        self, pixels: Tensor | Scene | None, tokens: Tensor, token_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (R, T, V) of the token after each of `tokens`.

        Args:
            pixels: as in `see`; or a `Scene`; or None for text without an image.
            tokens: (R, T) ids; R is a multiple of the number of images B, and rows 0 to R/B - 1
                belong to image 0.
            token_mask: (R, T), False for padding, on the left or on the right.

        Raises:
            GITError: as in `encode`; R is not a multiple of B, or the text is longer than the
                model's positions.
        """
        scene = self.see(pixels) if isinstance(pixels, Tensor) else pixels
        image = () if scene is None else scene.layers_for(tokens.shape[0])
        return self.decoder.lm_head(self.decoder(tokens, image, token_mask=token_mask))

    def one_pass(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """The logits (B, T, V) of `forward` by the definition: image and text go through every
        layer together, in one pass under `prefix_mask`, without a cache. For checks; `tokens` has
        one row (B, T) for each image."""
        visual = self.projector(self.encode(pixels))
        return self.decoder.lm_head(self.decoder.one_pass(visual, tokens))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        integrity: bool = False,
    ) -> Self:
        """The model in a folder that `save_pretrained` or `git-model convert` wrote, in eval mode.

        Args:
            integrity: first compare every file with its digest in the folder's SHA256SUMS.

        Raises:
            CheckpointError: the folder is missing or damaged, or its tensors do not fit its
                configuration.
        """
        from git_model.checkpoints.native import read_checkpoint

        config, state = read_checkpoint(Path(folder), dtype=dtype, integrity=integrity)
        return cls.from_state(config, state, str(folder)).to(device)

    @classmethod
    def from_state(cls, config: GITConfig, state: Mapping[str, Tensor], where: str) -> Self:
        """A model of this configuration, in eval mode, with these tensors as its weights.

        Args:
            state: the tensors by name; they are not copied.
            where: what errors begin with, such as a folder.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape; the message names
                it.
        """
        model = cls._without_values(config)
        _require_fit(model.tensors(), state, where)
        model.load_state_dict(dict(state), strict=False, assign=True)
        model.decoder.tie_weights()
        return model.eval()

    @classmethod
    def _without_values(cls, config: GITConfig) -> Self:
        """A model to assign tensors to: on the meta device, or on the CPU if a user's own code
        builds the encoder, or if the encoder has buffers that no checkpoint holds."""
        if config.encoder.kind in META_KINDS:
            with torch.device("meta"):
                model = cls(config)
            if dict(model.named_buffers()).keys() <= model.state_dict().keys():
                return model
        with torch.device("cpu"):
            return cls(config)

    def tensors(self) -> dict[str, Tensor]:
        """Every weight once, by name: the content of a checkpoint. In a tied model the output layer
        and the token embedding share a weight, which is listed once. Buffers that an encoder
        stores, such as the statistics of batch norms, come last."""
        weights = {name: parameter.detach() for name, parameter in self.named_parameters()}
        buffers = dict(self.named_buffers())
        return weights | {name: buffers[name] for name in self.state_dict() if name in buffers}

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Write a checkpoint folder with config.json, model.safetensors and SHA256SUMS. The
        vocabulary is not part of the network: `Captioner.save_pretrained` writes it, too.

        Args:
            folder: a new folder.
            overwrite: replace a checkpoint in `folder`.
            files: more text files for the folder, by name.

        Raises:
            GITError: the folder holds other files, or cannot be written; or the weights do not fit
                `config`, so they could not be loaded again: the model has an adapter that is not
                merged, or a module of another kind.
        """
        from git_model.checkpoints.native import write_checkpoint

        tensors = self.tensors()
        expected = GIT._without_values(self.config).tensors()
        _require_fit(expected, tensors, "this model is not what its configuration says")
        write_checkpoint(Path(folder), self.config, tensors, files, overwrite=overwrite)


def wrong_pixels(pixels: Tensor) -> GITError:
    """The error of pixels that have neither the shape of images nor that of clips."""
    return GITError(
        f"pixels have shape {tuple(pixels.shape)}, expected (B, 3, height, width) for images or "
        "(B, frames, 3, height, width) for clips"
    )


def _require_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors that are not exactly those of a model."""
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    for names, problem in ((missing, "is missing"), (extra, "is not part of this model")):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f"{where}: tensor {names[0]} {problem}{others}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: tensor {name} has shape {tuple(state[name].shape)}, expected "
                f"{tuple(tensor.shape)} from the configuration"
            )
