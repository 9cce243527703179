"""The graphs of an exported model run by torch itself, without an export: for tests of sessions."""

from collections.abc import Sequence

from torch import Tensor

from git_model import GIT
from git_model.export.folder import ExportInfo, settings_digest, weights_digest
from git_model.export.graphs import SEE, SEE_CLIP, STEP, SeeGraph, StepGraph
from git_model.export.model import ExportedGIT
from git_model.generation.padded_session import flat, layers_of
from git_model.model.attention import KeyValue
from git_model.utils.serialize import to_dict


class EagerEngine:
    """An engine that counts its calls and notes the shapes of each step's tokens and image."""

    def __init__(self, model: GIT) -> None:
        self.see_graph, self.step_graph = SeeGraph(model), StepGraph(model)
        self.calls = dict.fromkeys((SEE, SEE_CLIP, STEP), 0)
        self.shapes: list[tuple[int, ...]] = []  # (images of `image`, images, texts, new tokens)

    def see(self, pixels: Tensor) -> tuple[KeyValue, ...]:
        self.calls[SEE if pixels.ndim == 4 else SEE_CLIP] += 1
        return layers_of(self.see_graph(pixels))

    def step(
        self, tokens: Tensor, token_mask: Tensor, image: Sequence[KeyValue], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        self.calls[STEP] += 1
        self.shapes.append((image[0].key.shape[0], *tokens.shape))
        return self.step_graph(tokens, token_mask, flat(image), past)


def as_exported(model: GIT) -> ExportedGIT:
    """A model as if it were exported and opened again."""
    info = ExportInfo(
        engine="onnx",
        dtype="float32",
        source="the pair",
        source_digest=weights_digest(model.tensors()),
        settings_digest=settings_digest(to_dict(model.config)),
        version="0",
    )
    return ExportedGIT(model.config, info, EagerEngine(model))  # type: ignore[arg-type]
