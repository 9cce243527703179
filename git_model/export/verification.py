"""An exported model beside its source, stage by stage: prefix, logits, texts, probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from git_model.config import DecodingOptions
from git_model.export.folder import weights_digest
from git_model.export.graphs import free_size, image_size
from git_model.export.model import ExportedGIT
from git_model.generation.generate import generate, score_texts
from git_model.generation.session import open_session
from git_model.model.git import GIT, Scene
from git_model.utils.distance import distance
from git_model.utils.errors import GITError

N_IMAGES, N_STEPS = 2, 6
MAX_NEW_TOKENS = 20
# The largest relative difference, and the smallest share of equal tokens. int8 is an approximation:
# its error is measured on a task (benchmarks/exported_accuracy.py), not on random images. Zeros in
# place of all results would have the distance 1.
TOLERANCE = {"float32": (1e-4, 1.0), "float16": (2e-2, 0.0), "int8": (0.9, 0.0)}


@dataclass(frozen=True)
class Comparison:
    """One stage of both models.

    distance: relative, the largest difference over the largest number.
    equal: share of equal tokens, where the stage generates texts.
    """

    stage: str
    distance: float
    tolerance: float
    equal: float | None = None
    required: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the models differ by more than the tolerance; NaN counts as a difference."""
        too_far = not self.distance <= self.tolerance
        return too_far or (self.equal is not None and self.equal < self.required)

    def __str__(self) -> str:
        tokens = "" if self.equal is None else f"  {self.equal:.1%} of the tokens are equal"
        verdict = "TOO FAR" if self.failed else "ok"
        return (
            f"{self.stage:24} {self.distance:8.1e} (at most {self.tolerance:.0e}) {verdict}{tokens}"
        )


@torch.inference_mode()
def verify(exported: ExportedGIT, source: GIT) -> Iterator[Comparison]:
    """Compare an exported model with its source on random images and tokens, each stage as soon as
    it is done.

    Args:
        source: in float32 on the CPU.

    Raises:
        GITError: the source's weights are not those that were exported.
    """
    if weights_digest(source.tensors()) != exported.info.source_digest:
        raise GITError(
            f"{exported.info.source}: its weights are not those that were exported: export it "
            "again, or name the right source with --source (or a hub id's commit with --revision)"
        )
    tolerance, required = TOLERANCE[exported.info.dtype]
    for kind, pixels in random_images(source):
        scenes = exported.see(pixels), source.see(pixels)
        for number, (layer, expected) in enumerate(zip(*(s.layers for s in scenes), strict=True)):
            difference = max(map(distance, layer[:2], expected[:2]))
            yield Comparison(f"{kind}, prefix of layer {number}", difference, tolerance)
        logits = map(_logits, (exported, source), scenes)
        yield Comparison(f"{kind}, logits", distance(*logits), tolerance)
        for name, options in _searches():
            difference, equal = _texts(exported, source, scenes, options)
            yield Comparison(f"{kind}, {name}", difference, tolerance, equal, required)
        scores = map(_scores, (exported, source), scenes)
        yield Comparison(f"{kind}, scores", distance(*scores), tolerance)


def random_images(model: GIT) -> Iterator[tuple[str, Tensor]]:
    """Pixels of images, and of clips for a video model."""
    config, rng = model.config, torch.Generator().manual_seed(0)
    height, width = image_size(config) or free_size(config, 0, 1)
    yield "images", torch.randn(N_IMAGES, 3, height, width, generator=rng)
    if config.frames:
        yield "clips", torch.randn(N_IMAGES, config.frames, 3, height, width, generator=rng)


def _searches() -> list[tuple[str, DecodingOptions]]:
    greedy = DecodingOptions(max_new_tokens=MAX_NEW_TOKENS)
    beams = DecodingOptions(max_new_tokens=MAX_NEW_TOKENS, num_beams=4, num_return_sequences=4)
    return [("greedy search", greedy), ("beam search", beams)]


def _logits(model: GIT, scene: Scene) -> Tensor:
    """The logits of random tokens, two texts for each image: after two tokens at once, then step by
    step, with the texts in another order in between."""
    vocab, rng = model.config.decoder.vocab_size, torch.Generator().manual_seed(1)
    session, logits = open_session(model, scene), []
    rows = 2 * len(scene)
    for step in range(N_STEPS):
        length = 2 if step == 0 else 1
        logits.append(session.step(torch.randint(0, vocab, (rows, length), generator=rng)))
        session.select([*range(1, rows, 2), *range(0, rows, 2)] if step == 2 else range(rows))
    return torch.stack(logits).float()


def _texts(
    exported: GIT, source: GIT, scenes: Sequence[Scene], options: DecodingOptions
) -> tuple[float, float]:
    """The distance of the log-probabilities of the equal texts from both models, 0 if there are
    none, and the share of equal tokens."""
    prompts = [[source.config.bos_id]] * N_IMAGES
    results = [
        [text for row in generate(model, scene, prompts, options) for text in row]
        for model, scene in zip((exported, source), scenes, strict=True)
    ]
    pairs = list(zip(*results, strict=True))
    longest = [max(len(a.tokens), len(b.tokens)) for a, b in pairs]
    n_equal = sum(sum(map(int.__eq__, a.tokens, b.tokens)) for a, b in pairs)
    of_equal = [(a.logprob, b.logprob) for a, b in pairs if a.tokens == b.tokens]
    difference = distance(*torch.tensor(of_equal).unbind(1)) if of_equal else 0.0
    return difference, n_equal / sum(longest)


def _scores(model: GIT, scene: Scene) -> Tensor:
    """The log-probabilities of random texts with common beginnings."""
    vocab, rng = model.config.decoder.vocab_size, torch.Generator().manual_seed(2)
    first = torch.randint(0, vocab, (4,), generator=rng).tolist()
    rest = torch.randint(0, vocab, (4, 3), generator=rng).tolist()
    texts = [[first[n // 2], *row] for n, row in enumerate(rest)]
    scores = score_texts(model, scene, [[model.config.bos_id]] * N_IMAGES, texts)
    return torch.tensor([[sum(text) for text in row] for row in scores])
