"""The table of docs/parity.md: measured distances between this project and its references.

    python benchmarks/parity_table.py

Needs the `test` extra: the references and the weights that bite are those of tests/parity.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from parity_models import ModelPair, make_pair  # noqa: E402
from results import Table  # noqa: E402

from git_model import GIT  # noqa: E402
from git_model.generation.session import Session  # noqa: E402
from git_model.utils.distance import distance  # noqa: E402
from weights_convert.microsoft import read_folder  # noqa: E402

Pair = tuple[Tensor, Tensor]


def their_logits(pair: ModelPair, pixels: Tensor | None, **more: object) -> Tensor:
    """Transformers' logits at text positions, in float64."""
    out = pair.theirs(input_ids=pair.tokens, pixel_values=pixels, use_cache=False, **more)
    return out.logits[:, -pair.tokens.shape[1] :]


def images(dtype: torch.dtype) -> Iterator[Pair]:
    """60 random small models: images, or clips with all their frames."""
    for seed in range(1000, 1060):
        pair = make_pair(seed)
        expected = their_logits(pair, pair.pixels)
        yield pair.ours.to(dtype)(pair.pixels.to(dtype), pair.tokens), expected


def other_sizes(dtype: torch.dtype) -> Iterator[Pair]:
    """Positions interpolated to five other sizes."""
    pair = make_pair(4, vision_patch_size=8, vision_image_size=32, num_image_with_embedding=None)
    for size in ((24, 24), (32, 48), (40, 16), (37, 50), (8, 8)):
        pixels = torch.randn(2, 3, *size, dtype=torch.float64)
        expected = their_logits(pair, pixels, interpolate_pos_encoding=True)
        yield pair.ours.to(dtype)(pixels.to(dtype), pair.tokens), expected
        pair.ours.double()


def text_alone(dtype: torch.dtype) -> Iterator[Pair]:
    """Ten random models without an image."""
    for seed in range(10):
        pair = make_pair(seed)
        yield pair.ours.to(dtype)(None, pair.tokens), their_logits(pair, None)


def recorded(stage: str, dtype: torch.dtype) -> Iterator[Pair]:
    """One stage of the three cases recorded from the original."""
    for folder in sorted((TESTS / "fixtures" / "microsoft").iterdir()):
        if folder.is_dir():
            config, state, _ = read_folder(folder, dtype=dtype, bos_id=1, eos_id=2)
            model = GIT.from_state(config, state, folder.name)
            expected = load_file(folder / "expected.safetensors")
            pixels = expected["pixels"].to(dtype)
            visual = model.encode(pixels)
            stages = {"visual": visual, "projected": model.projector(visual)}
            stages["logits"] = model(pixels, expected["tokens"])
            yield stages[stage], expected[stage]


def cached(dtype: torch.dtype) -> Iterator[Pair]:
    """Twenty random models fed token by token, against one pass over image and text in float64."""
    for seed in range(20):
        pair = make_pair(seed)
        expected = pair.ours.one_pass(pair.pixels, pair.tokens)
        model = pair.ours.to(dtype)
        session = Session(model, model.see(pair.pixels.to(dtype)))
        steps = [session.step(pair.tokens[:, n : n + 1]) for n in range(pair.tokens.shape[1])]
        yield torch.stack(steps, dim=1), expected


ROWS = (
    ("Transformers", "logits, 60 random models", images),
    ("Transformers", "logits, interpolated positions", other_sizes),
    ("Transformers", "logits, text alone", text_alone),
    ("original, recorded", "encoder, 3 cases", lambda dtype: recorded("visual", dtype)),
    ("original, recorded", "projector, 3 cases", lambda dtype: recorded("projected", dtype)),
    ("original, recorded", "logits, 3 cases", lambda dtype: recorded("logits", dtype)),
    ("one uncached pass", "logits, token by token", cached),
)


@torch.inference_mode()
def main() -> None:
    """Measure, print and save the table."""
    table = Table("parity_table", ("against", "what", "float64", "float32"))
    for against, what, run in ROWS:
        largest = [
            max(distance(ours.double(), theirs) for ours, theirs in run(dtype))
            for dtype in (torch.float64, torch.float32)
        ]
        table.add(against, what, *(f"{value:.0e}" for value in largest))
    table.save()


if __name__ == "__main__":
    main()
