"""Equal to numbers recorded from the original implementation (see tests/fixtures/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from git_model import GIT, DecodingOptions, generate
from git_model.generation.sampling import Generation
from git_model.training.loss import caption_loss
from weights_convert.microsoft import read_folder

FIXTURES = Path(__file__).parent.parent / "fixtures" / "microsoft"
CASES = ("image", "video_6_frames", "rectangular")
EXACT = {"rtol": 1e-10, "atol": 1e-10}


class Recorded:
    """One recorded case: our model with its weights, inputs, and what the original gave."""

    def __init__(self, name: str) -> None:
        folder = FIXTURES / name
        config, state, _ = read_folder(folder, dtype=torch.float64, bos_id=1, eos_id=2)
        self.model = GIT.from_state(config, state, name)
        self.tensors = load_file(folder / "expected.safetensors")
        self.numbers = json.loads((folder / "expected.json").read_text())


@pytest.fixture(scope="module", params=CASES)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def test_the_encoders_tokens_are_equal(recorded: Recorded) -> None:
    visual = recorded.model.encode(recorded.tensors["pixels"])
    torch.testing.assert_close(visual, recorded.tensors["visual"], **EXACT)


def test_the_projected_tokens_are_equal(recorded: Recorded) -> None:
    projected = recorded.model.projector(recorded.model.encode(recorded.tensors["pixels"]))
    torch.testing.assert_close(projected, recorded.tensors["projected"], **EXACT)


def test_the_logits_are_equal(recorded: Recorded) -> None:
    logits = recorded.model(recorded.tensors["pixels"], recorded.tensors["tokens"])
    torch.testing.assert_close(logits, recorded.tensors["logits"], **EXACT)


def test_float32_logits_are_within_a_ten_thousandth(recorded: Recorded) -> None:
    model = GIT.from_state(recorded.model.config, recorded.model.tensors(), "copy").float()
    logits = model(recorded.tensors["pixels"].float(), recorded.tensors["tokens"])
    expected = recorded.tensors["logits"]
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def best_text(recorded: Recorded, result: dict, **options: object) -> Generation:
    """The best text behind one recorded prompt; 24 tokens at most with the prompt."""
    limit = recorded.numbers["beam"]["max_length"] - len(result["prompt"])
    scene = recorded.model.see(recorded.tensors["pixels"][result["image"]][None])
    ((best,),) = generate(
        recorded.model,
        scene,
        [result["prompt"]],
        DecodingOptions(max_new_tokens=limit, **options),
    )
    return best


def padded(tokens: list[int], length: int) -> list[int]:
    """As the original fills its rows: with the end token."""
    return tokens + [2] * (length - len(tokens))


def test_every_recorded_greedy_caption_is_best_text(recorded: Recorded) -> None:
    for result in recorded.numbers["beam_results"]:
        expected = result["greedy_norepeat"]
        assert (
            padded(best_text(recorded, result, no_repeat_token=True).tokens, len(expected))
            == expected
        )


def test_every_recorded_beam_caption_and_its_score_are_best_text(recorded: Recorded) -> None:
    for result in recorded.numbers["beam_results"]:
        best = best_text(recorded, result, num_beams=4, length_penalty=0.6, style="microsoft")
        assert padded(best.tokens, len(result["beam4"])) == result["beam4"]
        assert best.score == pytest.approx(result["beam4_score"], rel=1e-5)


def test_all_recorded_beam_captions_are_found_in_one_batch(recorded: Recorded) -> None:
    results = recorded.numbers["beam_results"]
    per_image = len(results) // len(recorded.tensors["pixels"])
    assert [result["image"] for result in results] == [n // per_image for n in range(len(results))]
    options = DecodingOptions(max_new_tokens=17, num_beams=4, length_penalty=0.6, style="microsoft")
    scene = recorded.model.see(recorded.tensors["pixels"])
    together = generate(recorded.model, scene, [r["prompt"] for r in results], options)
    for result, (best,) in zip(results, together, strict=True):
        scene_of_one = recorded.model.see(recorded.tensors["pixels"][result["image"]][None])
        ((alone,),) = generate(recorded.model, scene_of_one, [result["prompt"]], options)
        assert best.tokens == alone.tokens
        assert best.score == pytest.approx(alone.score, abs=1e-5)


ORIGINAL_NAMES = {
    "image_encoder.conv1.weight": "encoder.patch_embedding.weight",
    "textual.embedding.words.weight": "decoder.token_embedding.weight",
    "textual.output.bias": "decoder.lm_head.bias",
}


def test_the_smoothed_loss_and_its_gradients_are_equal(recorded: Recorded) -> None:
    expected = recorded.numbers["loss"]
    model = GIT.from_state(recorded.model.config, recorded.model.tensors(), "copy")
    model.requires_grad_()
    logits = model(recorded.tensors["pixels"], recorded.tensors["tokens"])
    mask = torch.tensor(expected["need_predict"]).bool()
    loss = caption_loss(
        logits,
        recorded.tensors["tokens"],
        mask,
        label_smoothing=expected["smoothing"],
        style="microsoft",
    )
    assert loss.item() == pytest.approx(expected["value"], rel=1e-6)  # recorded in float32
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for original, ours in ORIGINAL_NAMES.items():
        norm = expected["grad_norm"][original]
        assert gradients[ours].norm().item() == pytest.approx(norm, rel=1e-5)
    for layer in (0, 1):
        name = f"textual.transformer.encoder.layer.{layer}.attention.self.query.weight"
        fused = gradients[f"decoder.blocks.{layer}.attn.qkv.weight"]
        query = fused[: fused.shape[1]]
        assert query.norm().item() == pytest.approx(expected["grad_norm"][name], rel=1e-5)
    for frame in range(model.config.frames):
        norm = expected["grad_norm"][f"img_temperal_embedding.{frame}"]
        assert gradients["temporal_embedding"][frame].norm().item() == pytest.approx(norm, rel=1e-5)
