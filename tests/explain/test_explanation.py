"""Explanations: tokens, attention, distributions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_captioner import WORDS, exact_captioner, picture
from tiny import tiny_config

from git_model import Captioner, DecodingOptions, Frames
from git_model.config import PreprocessConfig
from git_model.explain.explanation import TOP_K, Explanation, explain
from git_model.model.attention import prefix_mask
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

IMAGES = Path(__file__).parents[2] / "examples" / "images"
ROUNDING = 1e-5  # a search takes its logits in float32
LONG = DecodingOptions(min_new_tokens=5)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return exact_captioner()


@pytest.fixture(scope="module")
def demo() -> Captioner:
    return Captioner.from_pretrained("demo")


def clip_captioner() -> Captioner:
    torch.manual_seed(0)
    model = GIT(tiny_config(frames=3)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return Captioner(model, Tokenizer.from_vocab(WORDS))


def logits_of(captioner: Captioner, explanation: Explanation, image: Image.Image) -> torch.Tensor:
    """(T, V), by the test's own pass over prompt and text."""
    prompt = captioner.prompt(explanation.question)
    with torch.inference_mode():
        pixels = captioner.preprocess([image]).double()
        tokens = torch.tensor([[*prompt, *explanation.caption.tokens[:-1]]])
        return captioner.model(pixels, tokens)[0]


def test_the_text_is_that_of_caption_and_ask(captioner: Captioner) -> None:
    assert explain(captioner, picture(1)).caption == captioner.caption(picture(1))
    answer = explain(captioner, picture(1), "word5 word6")
    assert answer.caption == captioner.ask(picture(1), "word5 word6")
    assert answer.input_tokens[:3] == ["[CLS]", "word5", "word6"]


@pytest.mark.parametrize("question", [None, "word5 word6"])
def test_the_mask_is_the_prefix_mask_of_this_run(
    captioner: Captioner, question: str | None
) -> None:
    explanation = explain(captioner, picture(1), question)
    n_text = len(captioner.prompt(question)) + len(explanation.generated) - 1
    assert n_text == len(explanation.input_tokens)
    assert explanation.n_image == 5
    assert torch.equal(explanation.mask, prefix_mask(5, n_text))


def test_a_text_of_one_token_has_a_mask_without_a_triangle(captioner: Captioner) -> None:
    explanation = explain(captioner, picture(1), options=DecodingOptions(max_new_tokens=1))
    assert len(explanation.generated) == 1
    assert torch.equal(explanation.mask, prefix_mask(5, 1))


def test_the_attention_of_a_token_to_image_and_text_sums_to_one(captioner: Captioner) -> None:
    explanation = explain(captioner, picture(1), "word5 word6", LONG)
    n_tokens = len(explanation.generated)
    assert n_tokens > 4
    assert explanation.image_attention.shape == (2, 3, n_tokens, 1, 5)
    assert explanation.text_attention.shape == (2, 3, n_tokens, 2 + n_tokens)
    total = explanation.image_attention.sum((-1, -2)) + explanation.text_attention.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_rows_of_the_matrices_are_attention(captioner: Captioner) -> None:
    explanation = explain(captioner, picture(1), "word5 word6", LONG)
    n_text, n_generated = len(explanation.input_tokens), len(explanation.generated)
    matrix = explanation.text_matrix
    assert matrix.shape[2:] == (n_text, n_text)
    assert torch.equal(matrix[:, :, -n_generated:], explanation.text_attention)
    assert torch.equal(matrix, matrix.tril())
    config = captioner.model.config.encoder
    n_image = explanation.n_image
    assert explanation.encoder_attention.shape == (config.layers, config.heads, n_image, n_image)
    sums = explanation.encoder_attention.sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_a_token_attends_to_no_later_text(captioner: Captioner) -> None:
    explanation = explain(captioner, picture(1), "word5 word6", LONG)
    for n, weights in enumerate(explanation.text_attention.unbind(2)):
        assert (weights[..., : 3 + n] > 0).all()
        assert (weights[..., 3 + n :] == 0).all()


@pytest.mark.parametrize("question", [None, "word5 word6"])
def test_the_last_layer_of_the_logit_lens_is_the_model_itself(
    captioner: Captioner, question: str | None
) -> None:
    explanation = explain(captioner, picture(2), question, LONG)
    expected = logits_of(captioner, explanation, picture(2)).softmax(-1)
    first = len(captioner.prompt(question)) - 1
    for n, token in enumerate(explanation.generated):
        best = expected[first + n].topk(TOP_K)
        assert [top.token for top in token.logit_lens[-1]] == best.indices.tolist()
        probs = [top.probability for top in token.logit_lens[-1]]
        assert probs == pytest.approx(best.values.tolist(), abs=1e-7)
        assert token.logit_lens[0] != token.logit_lens[-1]


def test_a_tokens_probability_is_that_of_the_search(captioner: Captioner) -> None:
    explanation = explain(captioner, picture(2))
    for token, logprob in zip(
        explanation.generated, explanation.caption.token_logprobs, strict=True
    ):
        assert token.probability == pytest.approx(np.exp(logprob), abs=ROUNDING)


def test_alternatives_are_the_most_probable_tokens_that_were_not_generated(
    captioner: Captioner,
) -> None:
    options = DecodingOptions(do_sample=True, seed=3, temperature=3.0)
    explanation = explain(captioner, picture(2), options=options)
    expected = logits_of(captioner, explanation, picture(2)).softmax(-1)
    for n, token in enumerate(explanation.generated):
        order = expected[n].argsort(descending=True).tolist()
        order.remove(token.token)
        assert [other.token for other in token.alternatives] == order[:TOP_K]
        assert [other.text for other in token.alternatives] == [WORDS[i] for i in order[:TOP_K]]
    best = [
        max(token.alternatives, key=lambda other: other.probability)
        for token in explanation.generated
    ]
    assert any(
        other.probability > token.probability
        for other, token in zip(best, explanation.generated, strict=True)
    )


def test_beams_are_kept_as_a_tree_and_a_greedy_text_has_none(captioner: Captioner) -> None:
    assert explain(captioner, picture(1)).tree is None
    explanation = explain(captioner, picture(1), options=DecodingOptions(num_beams=3))
    assert explanation.tree is not None
    path = [branch for step in explanation.tree for branch in step if branch.on_best_path]
    assert path[-1].tokens == explanation.caption.tokens


def test_frames_are_the_model_input_cut_to_whole_patches() -> None:
    captioner = exact_captioner()
    preprocess = PreprocessConfig(short_side=None, crop=(19, 29), mean=(0.1, 0.2, 0.3))
    captioner.model.config = dataclasses.replace(captioner.model.config, preprocess=preprocess)
    image = picture(0, (29, 19))
    explanation = explain(captioner, image)
    assert explanation.grid == (2, 3)
    assert np.array_equal(np.asarray(explanation.frames[0]), np.asarray(image)[:16, :24])
    assert explanation.rollout.shape == (len(explanation.generated), 1, 2, 3)


def test_a_clip_has_its_frames_and_their_shares() -> None:
    captioner, frames = clip_captioner(), [picture(n) for n in range(3)]
    explanation = explain(captioner, Frames(frames))
    assert len(explanation.frames) == 3
    assert explanation.n_image == 15
    assert explanation.frame_shares().shape == (len(explanation.generated), 3)
    torch.testing.assert_close(
        explanation.frame_shares().sum(-1), torch.ones(len(explanation.generated)).double()
    )
    assert explanation.rollout.shape == (len(explanation.generated), 3, 2, 2)


def test_a_frame_that_is_changed_changes_its_own_map_of_the_first_layer() -> None:
    captioner, frames = clip_captioner(), [picture(n) for n in range(3)]
    options = DecodingOptions(max_new_tokens=1)
    before = explain(captioner, Frames(frames), options=options).image_attention[0, :, 0]
    frames[1] = picture(9)
    after = explain(captioner, Frames(frames), options=options).image_attention[0, :, 0]
    ratio = after / before  # a softmax: all that did not change moves by the same factor
    unchanged = ratio[:, [0, 2]].flatten(1)
    torch.testing.assert_close(unchanged, unchanged[:, :1].expand_as(unchanged))
    assert (ratio[:, 1] / unchanged[:, :1]).sub(1).abs().max() > 0.01


def test_maps_are_averages_over_the_layers_and_heads_that_are_not_named(
    captioner: Captioner,
) -> None:
    explanation = explain(captioner, picture(1))
    weights = explanation.image_attention[..., 1:].unflatten(-1, (2, 2))
    torch.testing.assert_close(explanation.patch_attention(), weights.mean((0, 1)))
    torch.testing.assert_close(explanation.patch_attention(layer=1), weights[1].mean(0))
    torch.testing.assert_close(explanation.patch_attention(head=2), weights[:, 2].mean(0))
    assert torch.equal(explanation.patch_attention(layer=0, head=2), weights[0, 2])


def test_rollout_equals_that_of_one_pass_over_image_and_text(captioner: Captioner) -> None:
    """Written out for the whole sequence at once: encoder and decoder of the tiny model."""
    explanation = explain(captioner, picture(1))
    model = captioner.model
    text = torch.tensor([[*captioner.prompt(None), *explanation.caption.tokens[:-1]]])
    with torch.inference_mode():
        visual, products = captioner.preprocess([picture(1)]).double(), []
        x = model.encoder.patch_embedding(visual).flatten(2).mT
        x = torch.cat([model.encoder.class_token.expand(1, 1, -1), x], 1)
        x = model.encoder.pre_norm(x + model.encoder.position_embedding)
        for block in model.encoder.blocks:
            products.append(_half_attention(block.attn, block.attn_norm(x), None))
            x = block(x)
        encoder = products[1] @ products[0]
        image = model.projector(model.encoder.post_norm(x))
        x = torch.cat([image, model.decoder.embed(text, 0, None)], 1)
        mask, products = prefix_mask(5, text.shape[1]), []
        for block in model.decoder.blocks:
            products.append(_half_attention(block.attn, x, mask))
            x, _ = block(x, mask=mask)
        decoder = (products[1] @ products[0])[5:, :5]
    expected = (decoder @ encoder)[:, 1:].unflatten(-1, (1, 2, 2))
    torch.testing.assert_close(explanation.rollout, expected)


def _half_attention(
    attn: torch.nn.Module, x: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    query, key, _ = attn.qkv(x).unflatten(-1, (3, attn.heads, -1)).unbind(2)
    scores = torch.einsum("qhd,khd->hqk", query[0], key[0]) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1).mean(0)
    return (weights + torch.eye(len(weights))) / 2


def test_a_bfloat16_model_can_be_explained(captioner: Captioner) -> None:
    explanation = explain(
        Captioner(exact_captioner().model.bfloat16(), captioner.tokenizer), picture(1)
    )
    assert explanation.image_attention.dtype == explanation.rollout.dtype == torch.float32


def test_ids_without_a_token_are_written_as_numbers() -> None:
    captioner = Captioner(exact_captioner().model, Tokenizer.from_vocab(WORDS[:30]))
    options = DecodingOptions(do_sample=True, temperature=9.0, suppress_tokens=tuple(range(30, 40)))
    explanation = explain(captioner, picture(1), options=options)
    texts = {other.text for token in explanation.generated for other in token.alternatives}
    assert any(text.strip("[]").isdecimal() for text in texts)


def test_a_text_without_tokens_cannot_be_explained(captioner: Captioner) -> None:
    options = DecodingOptions(
        num_beams=2, style="microsoft", max_new_tokens=1, suppress_tokens=(2,)
    )
    with pytest.raises(GITError, match="no token was generated"):
        explain(captioner, picture(1), options=options)


def test_a_model_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(GITError, match="no vocabulary"):
        explain(Captioner(exact_captioner().model, None), picture(1))


def test_a_compiled_encoder_is_refused(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with torch.compile: hooks that are added later do not run in compiled code."""
    compiled = exact_captioner()
    pair = exact_captioner().model.encoder
    monkeypatch.setattr(compiled.model.encoder, "forward", pair.forward)
    with pytest.raises(GITError, match="compiled"):
        explain(compiled, picture(1))


def test_the_built_in_model_attends_to_what_it_names(demo: Captioner) -> None:
    explanation = explain(demo, IMAGES / "three_shapes.png")
    texts = [token.text for token in explanation.generated]
    brightest = explanation.patch_attention()[:, 0].flatten(1).argmax(-1)
    assert brightest[texts.index("pink")] == 4  # the middle of nine patches
    assert brightest[texts.index("black")] == 1  # above it
    assert brightest[texts.index("yellow")] == 7  # below it


def test_the_explanation_of_an_animation_has_its_frame_indices(demo: Captioner) -> None:
    explanation = explain(demo, IMAGES / "one_acts_twice.gif", "does it grow?")
    assert explanation.frame_indices == [0, 1, 2, 3, 4, 5]
    assert explanation.question == "does it grow?"
    assert len(explanation.frames) == 6
