"""The graphs of a model, `see` and `step`, as programs of torch.export.

`see` encodes images once; `step` appends tokens to texts about them. Both are pure functions of
their inputs: the caller holds the image prefix and the text cache. A video model has a third graph,
`see_clip`, because a still image and a clip differ in more than the number of frames.

Letters in shapes: B images, N texts of each image, T new tokens, S tokens before, I image tokens,
L layers, H heads, d = width / H, V vocabulary.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.func import functional_call

from git_model.config import MAX_SIZE, EncoderConfig, GITConfig
from git_model.generation.padded_session import flat, layers_of, pure_step
from git_model.model.encoder import MAX_PATCHES
from git_model.model.git import GIT

Shape = Sequence[int | str]  # str: the name of a size that is free

SEE, SEE_CLIP, STEP = "see", "see_clip", "step"


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph, in order: the shape of each by its name."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


class SeeGraph(nn.Module):
    """Encoder, projector and prefill: pixels (B, 3, height, width), or (B, F, 3, height, width) for
    clips -> the image prefix, see `flat`."""

    def __init__(self, model: GIT) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The image prefix of these pixels, which are float32."""
        scene = self.model.see(pixels.to(self.model.dtype))
        return [tensor.float() for tensor in flat(scene.layers)]


class StepGraph(nn.Module):
    """One step of N texts of each of B images, which share the image prefix.

    tokens (B, N, T) int64; token_mask (B, N, S + T) bool, False for padding, in the past and in
    `tokens`; image, from `see`; past (L, 2, B, N, H, S, d), the texts' keys and values so far, keys
    first, S = 0 at first -> logits (B, N, V) of the token after the last, and present
    (L, 2, B, N, H, S + T, d), the past of the next step.

    The image prefix is one tensor for each layer's keys and one for its values, because an engine
    copies what it splits, and the prefix is the same at every step.
    """

    def __init__(self, model: GIT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, token_mask: Tensor, image: Sequence[Tensor], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The logits of the next token, and the text cache."""
        decoder, dtype = self.model.decoder, self.model.dtype
        layers = layers_of([tensor.to(dtype) for tensor in image])
        logits, present = pure_step(decoder, tokens, token_mask, layers, past.to(dtype))
        return logits.float(), present.float()


class StatelessGraph(nn.Module):
    """A graph whose model has its weights as the first input: names to tensors, as in
    `GIT.tensors`. The module itself has no parameter."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self._graph = (graph,)  # in a tuple, or its parameters would be this module's

    def forward(self, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
        """The outputs of the graph."""
        named = {f"model.{name}": tensor for name, tensor in weights.items()}
        return functional_call(self._graph[0], named, inputs)


def image_size(config: GITConfig) -> tuple[int, int] | None:
    """(height, width) of the pixels, or None where the checkpoint's preprocessing keeps each
    image's aspect ratio, so that sizes differ."""
    return config.preprocess.crop or config.preprocess.exact


def signatures(config: GITConfig) -> dict[str, Signature]:
    """The signature of each graph of a model, by name."""
    decoder = config.decoder
    head = decoder.width // decoder.heads
    size = image_size(config) or ("height", "width")
    image: dict[str, Shape] = {
        f"image.{layer}.{part}": ("images", decoder.heads, "image_tokens", head)
        for layer in range(decoder.layers)
        for part in ("key", "value")
    }
    text = (decoder.layers, 2, "images", "texts", decoder.heads)
    step: dict[str, Shape] = {
        "tokens": ("images", "texts", "tokens"),
        "token_mask": ("images", "texts", "past + tokens"),
        **image,
        "past": (*text, "past", head),
    }
    logits = ("images", "texts", decoder.vocab_size)
    graphs = {
        SEE: Signature({"pixels": ("images", 3, *size)}, image),
        STEP: Signature(step, {"logits": logits, "present": (*text, "past + tokens", head)}),
    }
    if config.frames:
        graphs[SEE_CLIP] = Signature({"pixels": ("images", "frames", 3, *size)}, image)
    return graphs


def programs(
    model: GIT, weights: Mapping[str, Tensor] | None = None
) -> Iterator[tuple[str, ExportedProgram]]:
    """Each graph of a model, by name, as a program in which every size that may change is free.

    Args:
        model: in eval mode, on the CPU.
        weights: the model's own, by name, if they are to be the first input of every program. By
            default a program holds the weights.
    """
    model.requires_grad_(requires_grad=False)
    graphs = {SEE: SeeGraph(model), STEP: StepGraph(model)}
    if model.config.frames:
        graphs[SEE_CLIP] = SeeGraph(model)
    for name, graph in graphs.items():
        module: nn.Module = graph.eval()
        inputs, free = _examples(name, model.config), _dynamic(name, model.config)
        if weights is not None:
            module = StatelessGraph(module)
            inputs, free = (dict(weights), *inputs), (dict.fromkeys(weights), free)
        with _quiet(), _no_size_is_special():
            program = torch.export.export(module, inputs, dynamic_shapes=free, strict=False)
        yield name, program


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export without its notes about sizes, which are meant for its developers."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _no_size_is_special() -> Iterator[None]:
    """torch.export without the question about every free size whether it is 1, as torch's own
    export to ONNX does it: a step is traced in a third of the time."""
    from torch.fx.experimental import _config

    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


def free_size(config: GITConfig, more_rows: int, more_columns: int) -> tuple[int, int]:
    """A size (height, width) of images where it is free: the encoder's own, and more patches."""
    encoder = config.encoder
    if not isinstance(encoder, EncoderConfig):
        return encoder.image_size, encoder.image_size
    rows, columns = encoder.grid + more_rows, encoder.grid + more_columns
    return rows * encoder.patch_size, columns * encoder.patch_size


def _arguments(name: str, entries: Sequence[Any]) -> tuple[Any, ...]:
    """What belongs to each input of a graph, as the arguments of its module."""
    if name != STEP:
        return tuple(entries)
    tokens, token_mask, *image, past = entries
    return tokens, token_mask, image, past


def _examples(name: str, config: GITConfig) -> tuple[Any, ...]:
    """Arguments of a graph whose free sizes are all different, and none of them 0 or 1."""
    height, width = free_size(config, 1, 2)
    frames = config.frames - 1 if config.frames > 2 else config.frames
    sizes = {"images": 2, "texts": 3, "tokens": 2, "past": 4, "past + tokens": 6, "image_tokens": 7}
    sizes |= {"frames": frames, "height": height, "width": width}
    shapes = signatures(config)[name].inputs
    types = {"tokens": torch.long, "token_mask": torch.bool}
    tensors = [
        torch.ones([sizes[size] if isinstance(size, str) else size for size in shape]).to(
            types.get(entry, torch.float32)
        )
        for entry, shape in shapes.items()
    ]
    return _arguments(name, tensors)


def _dynamic(name: str, config: GITConfig) -> tuple[Any, ...]:
    """For each argument the dimensions that are free, as torch.export wants it."""
    positions = config.decoder.positions
    limits = {
        "images": (1, MAX_SIZE),
        "texts": (1, MAX_SIZE),
        "past": (0, positions),
        "image_tokens": (0, (MAX_PATCHES + 1) * max(config.frames, 1)),
        "frames": (1, config.frames),
    }
    sizes = {key: Dim(key, min=low, max=high) for key, (low, high) in limits.items() if high > low}
    sizes |= dict.fromkeys(("tokens", "past + tokens", "height", "width"), Dim.AUTO)
    shapes = signatures(config)[name].inputs.values()
    return _arguments(
        name,
        [{dim: sizes[size] for dim, size in enumerate(shape) if size in sizes} for shape in shapes],
    )
