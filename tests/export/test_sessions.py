"""Searches on a model outside PyTorch: equal results, one image prefix for all texts of an image.

The graphs run in torch here, over many random configurations; the engines are tested in
test_engines.py.
"""

import pytest
import torch
from eager_engine import as_exported
from parity_models import make_pair
from tiny import tiny_model
from torch import Tensor, nn

from git_model import GIT, DecodingOptions, generate
from git_model.config import TowerConfig
from git_model.export.graphs import SEE, SEE_CLIP, STEP
from git_model.generation.generate import score_texts
from git_model.generation.padded_session import flat
from git_model.generation.session import open_session
from git_model.generation.trie import TokenTrie
from git_model.model.towers import TOWERS
from git_model.utils.errors import GITError

SEEDS = range(8)  # of random configurations: video, tied, patches of 4, 7 and 8, all activations
SEARCHES = [
    DecodingOptions(max_new_tokens=9),
    DecodingOptions(max_new_tokens=9, num_beams=3, num_return_sequences=3),
    DecodingOptions(max_new_tokens=9, num_beams=4, style="microsoft", length_penalty=0.6),
    DecodingOptions(max_new_tokens=6, do_sample=True, num_return_sequences=2),
]


def pair_of(seed: int) -> tuple[GIT, Tensor]:
    """A random small model with weights that bite, in float32, and pixels for it."""
    pair = make_pair(seed)
    return pair.ours.float(), pair.pixels.float()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_search_gives_the_source_models_texts(seed: int) -> None:
    model, pixels = pair_of(seed)
    exported = as_exported(model)
    scenes = exported.see(pixels), model.see(pixels)
    prompts = [[1, 7, 9], [1], [1, 5], [1, 3, 11, 4]]  # of different lengths, two for each image
    for options in SEARCHES:
        ours, theirs = (
            generate(network, scene, prompts, options)
            for network, scene in zip((exported, model), scenes, strict=True)
        )
        for row, expected in zip(ours, theirs, strict=True):
            assert [text.tokens for text in row] == [text.tokens for text in expected]
            torch.testing.assert_close(
                torch.tensor([text.logprob for text in row]),
                torch.tensor([text.logprob for text in expected]),
                rtol=1e-4, atol=1e-4,
            )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 5, 9])
def test_scores_and_tries_are_the_source_models(seed: int) -> None:
    model, pixels = pair_of(seed)
    exported = as_exported(model)
    texts = [[5, 6, 2], [5, 7, 8, 2], [9, 2], [5, 6, 3, 2]]
    prompts = [[1], [1, 4, 4]]
    trie, options = TokenTrie(texts), DecodingOptions(max_new_tokens=4)
    results = [
        (
            score_texts(network, network.see(pixels), prompts, texts),
            generate(network, network.see(pixels), prompts, options, trie),
        )
        for network in (exported, model)
    ]
    (scores, labels), (expected_scores, expected_labels) = results
    for row, expected in zip(scores, expected_scores, strict=True):
        for values, expected_values in zip(row, expected, strict=True):
            torch.testing.assert_close(torch.tensor(values), torch.tensor(expected_values))
    assert [row[0].tokens for row in labels] == [row[0].tokens for row in expected_labels]


def test_beams_share_the_image_that_was_encoded_once() -> None:
    model = tiny_model().float()
    exported = as_exported(model)
    scene = exported.see(torch.zeros(2, 3, 16, 16))
    generate(exported, scene, [[1]] * 2, DecodingOptions(num_beams=3, max_new_tokens=5))
    engine = exported.engine
    assert engine.calls == {SEE: 1, SEE_CLIP: 0, STEP: len(engine.shapes)}
    assert engine.shapes[0] == (2, 2, 1, 1)
    assert set(engine.shapes[1:4]) == {(2, 2, 3, 1)}  # three beams of each of two images


@pytest.mark.parametrize("rows", [[3, 3, 0, 1, 3], [1, 3, 0, 2, 2], [2, 0, 1, 3, 0]])
def test_rows_may_be_dropped_doubled_and_reordered_among_images(rows: list[int]) -> None:
    model, pixels = pair_of(4)
    logits = []
    for network in (as_exported(model), model):
        session = open_session(network, network.see(pixels))
        session.step(torch.tensor([[1], [5], [6], [7]]))
        session.select(rows[:4])  # all of them, or one of an image more than of the other
        session.step(torch.tensor([[4], [2], [8], [7]]))
        session.select([*range(4), 0])
        session.step(torch.tensor([[4], [9], [8], [7], [3]]))
        session.select([4, 0])  # the first image is not needed any more
        logits.append(session.step(torch.tensor([[3], [4]])))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (lambda session: session.step(torch.ones(3, 1).long()), "3 texts for 2 images"),
        (lambda session: session.step(torch.ones(2, 25).long()), "longer than the 24 positions"),
    ],
)
def test_a_session_refuses_what_does_not_fit(action, line: str) -> None:
    exported = as_exported(tiny_model().float())
    session = open_session(exported, exported.see(torch.zeros(2, 3, 16, 16)))
    with pytest.raises(GITError, match=line):
        action(session)


def test_a_mask_after_the_first_step_is_refused() -> None:
    exported = as_exported(tiny_model().float())
    session = open_session(exported, exported.see(torch.zeros(1, 3, 16, 16)))
    session.step(torch.ones(1, 2).long())
    with pytest.raises(GITError, match="expected it at the first"):
        session.step(torch.ones(1, 1).long(), torch.ones(1, 1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (lambda model: model(None, torch.ones(1, 1).long()), "logits of whole texts"),
        (lambda model: model.tensors(), "give its weights"),
        (lambda model: model.load_state_dict({}), "take other weights"),
        (lambda model: model.to("cpu"), "move or change"),
        (lambda model: model.half(), "move or change"),
        (lambda model: generate(model, None, [[1]]), "no text without an image"),
        (lambda model: model.see(torch.zeros(1, 3, 8, 16)), "exported for 16 x 16"),
        (lambda model: model.see(torch.zeros(3, 16, 16)), r"shape \(3, 16, 16\), expected"),
        (lambda model: model.see(torch.zeros(1, 1, 16, 16)), r"shape \(1, 1, 16, 16\), expected"),
        (lambda model: model.see(torch.zeros(1, 4, 3, 16, 16)), "a clip of 4 frames"),
    ],
)
def test_an_exported_model_refuses_what_it_cannot_do(action, line: str) -> None:
    with pytest.raises(GITError, match=line):
        action(as_exported(tiny_model().float()))


def test_an_exported_model_may_have_an_encoder_that_a_users_code_builds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Means(nn.Module):
        def __init__(self, config: TowerConfig) -> None:
            super().__init__()
            [scale] = torch.full((1,), 0.5).tolist()  # needs a value, which meta tensors lack
            self.linear, self.scale = nn.Linear(3, config.width), scale

        def forward(self, pixels: Tensor) -> Tensor:
            return self.linear(pixels.flatten(2).mT * self.scale)

    monkeypatch.setattr(TowerConfig, "KINDS", {*TowerConfig.KINDS, "means"})
    monkeypatch.setitem(TOWERS, "means", Means)
    model = tiny_model(encoder=TowerConfig(kind="means", image_size=16, width=6)).float()
    exported = as_exported(model)
    assert all(parameter.is_meta for parameter in exported.parameters())
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(flat(exported.see(pixels).layers), flat(model.see(pixels).layers))
