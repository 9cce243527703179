"""The graphs of an exported model run by torch itself, without an export: for tests of sessions."""

from torch import Tensor

from git_model import GIT
from git_model.export.folder import ExportInfo, weights_digest
from git_model.export.graphs import SEE, SEE_CLIP, STEP, SeeGraph, StepGraph
from git_model.export.model import ExportedGIT


class EagerEngine:
    """An engine that counts its calls and notes the shapes of each step's tokens and image."""

    def __init__(self, model: GIT) -> None:
        self.see_graph, self.step_graph = SeeGraph(model), StepGraph(model)
        self.calls = dict.fromkeys((SEE, SEE_CLIP, STEP), 0)
        self.shapes: list[tuple[int, ...]] = []  # (images of `image`, images, texts, new tokens)

    def see(self, pixels: Tensor) -> Tensor:
        self.calls[SEE if pixels.ndim == 4 else SEE_CLIP] += 1
        return self.see_graph(pixels)

    def step(
        self, tokens: Tensor, token_mask: Tensor, image: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor]:
        self.calls[STEP] += 1
        self.shapes.append((image.shape[2], *tokens.shape))
        return self.step_graph(tokens, token_mask, image, past)


def as_exported(model: GIT) -> ExportedGIT:
    """A model as if it were exported and opened again."""
    info = ExportInfo(
        engine="onnx",
        dtype="float32",
        source="the pair",
        source_digest=weights_digest(model.tensors()),
        version="0",
    )
    return ExportedGIT(model.config, info, EagerEngine(model))  # type: ignore[arg-type]
