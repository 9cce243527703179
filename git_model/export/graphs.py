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

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.func import functional_call

from git_model.config import MAX_SIZE, EncoderConfig, GITConfig
from git_model.generation.padded_session import pure_step, stacked
from git_model.model.encoder import MAX_PATCHES
from git_model.model.git import GIT

Shape = Sequence[int | None]  # None: a size that is free

SEE, SEE_CLIP, STEP = "see", "see_clip", "step"
INPUTS = {
    SEE: ("pixels",),
    SEE_CLIP: ("pixels",),
    STEP: ("tokens", "token_mask", "image", "past"),
}
OUTPUTS = {SEE: ("image",), SEE_CLIP: ("image",), STEP: ("logits", "present")}
# The names of the sizes that a caller may choose, by input and dimension.
DIMENSIONS: dict[str, dict[str, dict[int, str]]] = {
    SEE: {"pixels": {0: "images", 2: "height", 3: "width"}},
    SEE_CLIP: {"pixels": {0: "images", 1: "frames", 3: "height", 4: "width"}},
    STEP: {
        "tokens": {0: "images", 1: "texts", 2: "tokens"},
        "token_mask": {0: "images", 1: "texts", 2: "past + tokens"},
        "image": {2: "images", 4: "image_tokens"},
        "past": {2: "images", 3: "texts", 5: "past"},
    },
}


class SeeGraph(nn.Module):
    """Encoder, projector and prefill: pixels (B, 3, height, width), or (B, F, 3, height, width) for
    clips -> image prefix (L, 2, B, H, I, d), keys before values."""

    def __init__(self, model: GIT) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """The image prefix of these pixels, which are float32."""
        return stacked(self.model.see(pixels.to(self.model.dtype))).float()


class StepGraph(nn.Module):
    """One step of N texts of each of B images, which share the image prefix.

    tokens (B, N, T) int64; token_mask (B, N, S + T) bool, False for padding, in the past and in
    `tokens`; image (L, 2, B, H, I, d), from `see`; past (L, 2, B, N, H, S, d), the texts' keys and
    values so far, S = 0 at first -> logits (B, N, V) of the token after the last, and present
    (L, 2, B, N, H, S + T, d), the past of the next step.
    """

    def __init__(self, model: GIT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, token_mask: Tensor, image: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The logits of the next token, and the text cache."""
        decoder, dtype = self.model.decoder, self.model.dtype
        logits, present = pure_step(decoder, tokens, token_mask, image.to(dtype), past.to(dtype))
        return logits.float(), present.float()


class StatelessGraph(nn.Module):
    """A graph whose model has its weights as the first input: names to tensors, as in
    `GIT.tensors`. The module itself has no parameter."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self._graph = (graph,)  # in a tuple, or its parameters would be this module's

    def forward(self, weights: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        """The outputs of the graph."""
        named = {f"model.{name}": tensor for name, tensor in weights.items()}
        outputs: Tensor = functional_call(self._graph[0], named, inputs)
        return outputs


def image_size(config: GITConfig) -> tuple[int, int] | None:
    """(height, width) of the pixels, or None where the checkpoint's preprocessing keeps each
    image's aspect ratio, so that sizes differ."""
    return config.preprocess.crop or config.preprocess.exact


def shapes_of(config: GITConfig) -> dict[str, dict[str, Shape]]:
    """The shape of each input and output of each graph of a model, by name."""
    decoder = config.decoder
    head = decoder.width // decoder.heads
    size = image_size(config) or (None, None)
    image = (decoder.layers, 2, None, decoder.heads, None, head)
    text = (decoder.layers, 2, None, None, decoder.heads, None, head)
    graphs: dict[str, dict[str, Shape]] = {
        SEE: {"pixels": (None, 3, *size), "image": image},
        STEP: {
            "tokens": (None, None, None),
            "token_mask": (None, None, None),
            "image": image,
            "past": text,
            "logits": (None, None, decoder.vocab_size),
            "present": text,
        },
    }
    if config.frames:
        graphs[SEE_CLIP] = {"pixels": (None, None, 3, *size), "image": image}
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
        module, inputs, free = graph.eval(), _examples(name, model), _dynamic(name, model.config)
        with _quiet():
            if weights is None:
                yield name, torch.export.export(module, inputs, dynamic_shapes=free, strict=False)
            else:
                shapes = (dict.fromkeys(weights), tuple(free))
                stateless, named = StatelessGraph(module), (dict(weights), *inputs)
                yield (
                    name,
                    torch.export.export(stateless, named, dynamic_shapes=shapes, strict=False),
                )


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


def free_size(config: GITConfig, more_rows: int, more_columns: int) -> tuple[int, int]:
    """A size (height, width) of images where it is free: the encoder's own, and more patches."""
    encoder = config.encoder
    if not isinstance(encoder, EncoderConfig):
        return encoder.image_size, encoder.image_size
    rows, columns = encoder.grid + more_rows, encoder.grid + more_columns
    return rows * encoder.patch_size, columns * encoder.patch_size


def _examples(name: str, model: GIT) -> tuple[Tensor, ...]:
    """Inputs of a graph whose free sizes are all different, and none of them 0 or 1."""
    config, decoder = model.config, model.config.decoder
    height, width = image_size(config) or free_size(config, 1, 2)
    if name != STEP:
        frames = config.frames - 1 if config.frames > 2 else config.frames
        clip = (frames,) if name == SEE_CLIP else ()
        return (torch.zeros(2, *clip, 3, height, width),)
    head = decoder.width // decoder.heads
    image = torch.zeros(decoder.layers, 2, 2, decoder.heads, 7, head)
    past = torch.zeros(decoder.layers, 2, 2, 3, decoder.heads, 4, head)
    tokens = torch.zeros(2, 3, 2, dtype=torch.long)
    return tokens, torch.ones(2, 3, 6, dtype=torch.bool), image, past


def _dynamic(name: str, config: GITConfig) -> list[dict[int, object]]:
    """For each input the dimensions that are free, as torch.export wants it."""
    positions = config.decoder.positions
    limits = {
        "images": (1, MAX_SIZE),
        "texts": (1, MAX_SIZE),
        "tokens": (1, positions),
        "past": (0, positions),
        "image_tokens": (0, (MAX_PATCHES + 1) * max(config.frames, 1)),
        "frames": (1, config.frames),
    }
    sizes = {key: Dim(key, min=low, max=high) for key, (low, high) in limits.items() if high > low}
    free = {"past + tokens"} | (set() if image_size(config) else {"height", "width"})
    return [
        {
            dim: sizes.get(key, Dim.AUTO)
            for dim, key in DIMENSIONS[name][entry].items()
            if key in sizes or key in free
        }
        for entry in INPUTS[name]
    ]
