"""GIT: an image encoder, a projector, and a text decoder that reads both.

`see` reads images once; everything after that (captions, questions, beams, class names, training
on several captions) asks the same `Scene`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from git_model.attention import KeyValue, KVCache, Places
from git_model.checkpoint import load_strictly, read_checkpoint, write_checkpoint
from git_model.config import GITConfig
from git_model.decoder import TextDecoder
from git_model.encoder import Encoder
from git_model.settings import GITError


@dataclass(frozen=True)
class Scene:
    """All that the text side ever needs of B images: keys and values of every decoder layer."""

    layers: tuple[KeyValue, ...]

    def __len__(self) -> int:
        """The number of images (clips count as one)."""
        return len(self.layers[0].key)

    @property
    def n_tokens(self) -> int:
        """Image tokens of each image."""
        return self.layers[0].key.shape[2]

    def select(self, images: Tensor) -> "Scene":
        """The scene of these images (B',) only, in this order."""
        return Scene(tuple(KeyValue(x.key[images], x.value[images]) for x in self.layers))

    def part(self, images: Sequence[int]) -> "Scene":
        """The scene of these images, in this order; the scene itself if they are all of it."""
        if list(images) == list(range(len(self))):
            return self
        return self.select(torch.tensor(images, device=self.layers[0].key.device))


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
    """The Generative Image-to-text Transformer (Wang et al. 2022)."""

    def __init__(self, config: GITConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = config.encoder, config.decoder
        self.encoder = Encoder(encoder)
        self.temporal = (
            nn.Parameter(torch.empty(config.frames, encoder.width)) if config.frames else None
        )
        self.projector = Projector(encoder.width, decoder.width, encoder.norm_eps)
        self.decoder = TextDecoder(decoder)
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Random weights as BERT has them: N(0, 0.02), biases 0, norms 1, temporal embeddings 0."""
        if self.decoder.output_bias.is_meta:
            return  # to fill nothing there takes a second, for torch imports its compiler
        for name, parameter in self.named_parameters():
            if "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            elif name.endswith("bias") or name == "temporal":
                parameter.zero_()
            else:
                parameter.normal_(std=0.02)

    def see(self, pixels: Tensor) -> Scene:
        """Read images once: (B, 3, H, W), or clips of F frames: (B, F, 3, H, W)."""
        return Scene(self.decoder.read(self.projector(self.encode(pixels))))

    def encode(self, pixels: Tensor) -> Tensor:
        """The encoder's tokens (B, I, D); a clip's frames stand one after the other, each marked
        with its temporal embedding (paper, section 3.2)."""
        if pixels.ndim == 4:
            return self.encoder(pixels)
        if pixels.ndim != 5:
            raise GITError(
                f"pixels have shape {tuple(pixels.shape)}, expected (B, 3, height, width) for "
                "images or (B, frames, 3, height, width) for clips"
            )
        frames = pixels.shape[1]
        if self.temporal is None or not 1 <= frames <= len(self.temporal):
            raise GITError(
                f"a clip of {frames} frames, but this model has {self.config.frames} temporal "
                "embeddings: sample fewer frames, or use a video checkpoint"
            )
        tokens = self.encoder(pixels.flatten(0, 1)).unflatten(0, (-1, frames))  # (B, F, 1 + N, D)
        return (tokens + self.temporal[:frames, None]).flatten(1, 2)

    def forward(
        self, pixels: Tensor | Scene | None, tokens: Tensor, token_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (R, T, V) of the token after each of `tokens`.

        Args:
            pixels: as in `see`, or what `see` returned, or None for text alone.
            tokens: (R, T) ids; R is a multiple of the number of images B, and rows 0 to R/B - 1
                belong to image 0.
            token_mask: (R, T), False for padding, on the left or the right.
        """
        scene = self.see(pixels) if isinstance(pixels, Tensor) else pixels
        image = _layers_for(scene, len(tokens))
        return self.decoder.predict(self.decoder(tokens, image, token_mask=token_mask))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The model in a folder that `save_pretrained` or `git-model convert` wrote, in eval mode.

        Raises:
            CheckpointError: the folder is missing, damaged, or does not fit its configuration.
        """
        config, state = read_checkpoint(Path(folder), dtype=dtype)
        return cls.from_state(config, state, str(folder)).to(device)

    @classmethod
    def from_state(cls, config: GITConfig, state: Mapping[str, Tensor], where: str) -> Self:
        """A model, in eval mode, that owns exactly these tensors; errors begin with `where`."""
        with torch.device("meta"):
            model = cls(config)
        load_strictly(model, state, where)
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write config.json and model.safetensors; see `write_checkpoint`."""
        write_checkpoint(Path(folder), self.config, self.state_dict(), overwrite=overwrite)


class Session:
    """Texts in progress on a model: all that a search sees of it.

    Args:
        scene: what they are about, or None; its images get equally many consecutive rows.
    """

    def __init__(self, model: GIT, scene: Scene | None) -> None:
        self._model = model
        self._scene = scene
        self._image: tuple[KeyValue, ...] = ()
        self._image_of: list[int] = []  # the image that each row is about
        self._cache = KVCache(model.config.decoder.layers)
        self._token_mask: Tensor | None = None

    def step(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Append tokens (R, T) and return the logits (R, V) of what follows the last of them.

        Args:
            token_mask: (R, T), False for padding; given at the first step if ever.
        """
        if self._cache.length == 0:
            self._image = _layers_for(self._scene, len(tokens))
            each = len(tokens) // (1 if self._scene is None else len(self._scene))
            self._image_of = [row // each for row in range(len(tokens))]
        if self._token_mask is not None:
            token_mask = torch.cat([self._token_mask, torch.ones_like(tokens).bool()], dim=1)
        self._token_mask = token_mask
        hidden = self._model.decoder(tokens, self._image, self._cache, token_mask)
        return self._model.decoder.predict(hidden[:, -1])

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken twice. What is left out costs nothing
        more, and an image without a row is forgotten."""
        index = torch.tensor(rows, device=self._model.decoder.output_bias.device)
        if list(rows) != list(range(len(self._image_of))):
            self._cache.select(index)
            if self._token_mask is not None:
                self._token_mask = self._token_mask[index]
        image_of = [self._image_of[row] for row in rows]
        if self._scene is not None and image_of != self._image_of:
            kept = sorted(set(image_of))
            if len(kept) < len(self._scene):
                self._scene = self._scene.select(torch.tensor(kept, device=index.device))
                image_of = [kept.index(image) for image in image_of]
            self._place_rows(self._scene, image_of)
        self._image_of = image_of

    def _place_rows(self, scene: Scene, image_of: list[int]) -> None:
        """Say where each row stands, its image having places for as many rows as any has."""
        device = self._model.decoder.output_bias.device
        each = max(map(image_of.count, range(len(scene))))
        index = [image * each + image_of[:row].count(image) for row, image in enumerate(image_of)]
        if index == list(range(each * len(scene))):
            self._image = scene.layers
        else:
            places = Places(torch.tensor(index, device=device), each * len(scene))
            self._image = tuple(layer._replace(places=places) for layer in scene.layers)


def _layers_for(scene: Scene | None, rows: int) -> tuple[KeyValue, ...]:
    """The scene's layers, once the rows of text are known to divide among its images."""
    if scene is None:
        return ()
    if rows % len(scene):
        raise GITError(
            f"{rows} texts for {len(scene)} images: expected equally many texts for each image"
        )
    return scene.layers
