"""Decoder steps over a text cache of fixed length: equal to those over a growing one, in every
search. Whether the code is compiled changes nothing but rounding; one slow test compiles it."""

from pathlib import Path

import pytest
import torch
from parity_models import make_pair
from torch import Tensor
from torch.fx import GraphModule

from git_model import GIT, DecodingOptions, generate
from git_model.generation import compiled
from git_model.generation.compiled import CompiledGIT, StaticSteps
from git_model.generation.generate import score_texts
from git_model.generation.padded_session import PaddedSession
from git_model.generation.session import open_session
from git_model.generation.trie import TokenTrie
from git_model.utils import compiling

EXACT = {"rtol": 1e-10, "atol": 1e-10}
PROMPTS = [[1, 7, 9], [1], [1, 5], [1, 3, 11, 4]]  # of different lengths, two for each image
SEARCHES = {
    "greedy": DecodingOptions(max_new_tokens=9),
    "beams": DecodingOptions(max_new_tokens=9, num_beams=3, num_return_sequences=3),
    "microsoft": DecodingOptions(
        max_new_tokens=9, num_beams=4, style="microsoft", length_penalty=0.6
    ),
    "samples": DecodingOptions(max_new_tokens=6, do_sample=True, num_return_sequences=2),
    "constraints": DecodingOptions(
        max_new_tokens=9, min_new_tokens=4, no_repeat_ngram_size=2, repetition_penalty=1.3
    ),
}


def pair_of(seed: int) -> tuple[CompiledGIT, GIT, Tensor]:
    """A random small model in float64 with static steps, which are not compiled; the same with the
    usual steps; pixels of two images."""
    pair = make_pair(seed)
    static = CompiledGIT.from_state(pair.ours.config, pair.ours.tensors(), "the pair")
    static.steps = StaticSteps(static.decoder)
    return static, pair.ours, pair.pixels


@pytest.fixture(params=[(64, False), (2, True)], ids=["as on a CPU", "as on a GPU, enlarged"])
def shape(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What shape a step has: as on a CPU; and as on a GPU, with a text cache that is soon full."""
    capacity, keeps_shape = request.param

    def session(*arguments: object, **_: object) -> PaddedSession:
        return PaddedSession(*arguments, keeps_shape=keeps_shape)  # type: ignore[arg-type]

    monkeypatch.setattr(compiled, "CAPACITY", capacity)
    monkeypatch.setattr(compiled, "PaddedSession", session)


@pytest.mark.usefixtures("shape")
@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_gives_the_same_texts_and_probabilities(search: str) -> None:
    for seed in (0, 4):
        static, model, pixels = pair_of(seed)
        ours, theirs = (
            [
                text
                for row in generate(network, network.see(pixels), PROMPTS, SEARCHES[search])
                for text in row
            ]
            for network in (static, model)
        )
        assert isinstance(open_session(static, static.see(pixels)), PaddedSession)
        assert [text.tokens for text in ours] == [text.tokens for text in theirs]
        for text, expected in zip(ours, theirs, strict=True):
            assert text.token_logprobs == pytest.approx(expected.token_logprobs, abs=1e-10)


@pytest.mark.usefixtures("shape")
def test_scores_and_tries_are_the_same() -> None:
    texts, prompts = [[5, 6, 2], [5, 7, 8, 2], [9, 2], [5, 6, 3, 2]], [[1], [1, 4, 4]]
    trie, options = TokenTrie(texts), DecodingOptions(max_new_tokens=4)
    static, model, pixels = pair_of(5)
    (scores, labels), (expected_scores, expected_labels) = (
        (
            score_texts(network, network.see(pixels), prompts, texts),
            generate(network, network.see(pixels), prompts, options, trie),
        )
        for network in (static, model)
    )
    for row, expected in zip(scores, expected_scores, strict=True):
        for values, expected_values in zip(row, expected, strict=True):
            assert values == pytest.approx(expected_values, abs=1e-10)
    assert [row[0].tokens for row in labels] == [row[0].tokens for row in expected_labels]


@pytest.mark.usefixtures("shape")
@pytest.mark.parametrize("rows", [[3, 3, 0, 1], [1, 3, 0, 2], [0, 1, 3], [2, 3]])
def test_logits_are_the_same_when_rows_are_dropped_doubled_and_reordered(rows: list[int]) -> None:
    static, model, pixels = pair_of(4)
    logits = []
    for network in (static, model):
        session = open_session(network, network.see(pixels))
        session.step(torch.tensor([[1, 6], [5, 2], [6, 6], [7, 3]]))
        session.select(rows)
        logits.append(session.step(torch.tensor([[4], [2], [8], [7]][: len(rows)])))
        session.select([1, 0])
        logits.append(session.step(torch.tensor([[4, 9, 8], [7, 3, 3]])))
        logits.append(session.step(torch.tensor([[2], [8]])))
    for ours, theirs in zip(logits[:3], logits[3:], strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_texts_that_end_leave_a_kept_shape_until_half_are_idle() -> None:
    static, _, pixels = pair_of(0)
    shapes = []

    def step(tokens: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append(tuple(tokens.shape[:2]))
        assert static.steps is not None
        return static.steps(tokens, *rest)

    scene = static.see(pixels.repeat(4, 1, 1, 1))  # 8 images
    session = PaddedSession(step, scene, static.decoder.check_length, keeps_shape=True)
    session.step(torch.ones(8, 1, dtype=torch.long))
    for n_rows in (7, 5, 4, 3, 2, 1):
        session.select(range(n_rows))
        session.step(torch.ones(n_rows, 1, dtype=torch.long))
    assert shapes == [(n, 1) for n in (8, 8, 8, 4, 4, 2, 1)]


def test_a_text_without_an_image_takes_the_usual_steps() -> None:
    static, model, _ = pair_of(0)
    ours, theirs = (generate(network, None, [[1, 5]]) for network in (static, model))
    assert ours[0][0].tokens == theirs[0][0].tokens


def run_searches(model: GIT, pixels: Tensor) -> list[list[int]]:
    """The tokens of one image and of two, greedily, with beams, and after questions."""
    texts = []
    for images in (pixels[:1], pixels):
        scene, n = model.see(images), len(images)
        for prompts, options in (
            ([[1]] * n, SEARCHES["greedy"]),
            ([[1]] * n, SEARCHES["beams"]),
            ([[1, 7, 9], [1, 5]] * n, SEARCHES["greedy"]),
        ):
            results = generate(model, scene, prompts, options)
            texts += [text.tokens for row in results for text in row]
    return texts


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("shape")
def test_all_searches_together_need_few_pieces_of_compiled_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch.compile traces the steps here; the result is not translated to C++, which takes
    minutes."""
    graphs = []

    def keep(graph: GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compiling, "_inductor", lambda mode: keep)
    monkeypatch.setattr(compiling, "_keep_between_processes", lambda: None)
    torch._dynamo.reset()  # or code that other tests compiled counts
    static, model, pixels = pair_of(0)
    assert static.steps is not None
    static.steps.compile()
    assert run_searches(static, pixels) == run_searches(model, pixels)
    assert 1 <= len(graphs) <= 6  # an image or several, a text of each or several; a larger cache
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("compiling the decoder's step")
    n_graphs = len(graphs)
    run_searches(static, pixels)
    assert len(graphs) == n_graphs


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_compiled_steps_give_the_same_texts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(compiling.CACHE_VARIABLE, str(tmp_path))
    torch._dynamo.reset()  # or code that other tests compiled counts
    static, model, pixels = pair_of(0)
    assert static.steps is not None
    static.steps.compile()
    ours, theirs = (
        generate(network, network.see(pixels), PROMPTS, SEARCHES["beams"])
        for network in (static, model)
    )
    for row, expected in zip(ours, theirs, strict=True):
        assert [text.tokens for text in row] == [text.tokens for text in expected]
        assert [text.logprob for text in row] == pytest.approx(
            [text.logprob for text in expected], abs=1e-10
        )
    assert any(tmp_path.iterdir())
