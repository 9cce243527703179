"""Why the model says what it says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_captioner import WORDS, exact_captioner, picture
from tiny import tiny_config

from git_model import Captioner, DecodingOptions
from git_model.config import PreprocessConfig
from git_model.explain.explanation import GUESSES, Explanation, explain
from git_model.model.attention import prefix_mask
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

IMAGES = Path(__file__).parents[2] / "examples" / "images"
ROUNDING = 1e-5  # a search takes its logits in float32
LONG = DecodingOptions(min_new_tokens=5)


@pytest.fixture(scope="module")
def git() -> Captioner:
    return exact_captioner()


@pytest.fixture(scope="module")
def demo() -> Captioner:
    return Captioner.from_pretrained("demo")


def clips() -> Captioner:
    torch.manual_seed(0)
    model = GIT(tiny_config(frames=3)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return Captioner(model, Tokenizer.from_vocab(WORDS))


def logits_of(git: Captioner, found: Explanation, view: Image.Image) -> torch.Tensor:
    """(T, V), by a pass of the test's own over prompt and text."""
    prompt = git.prompt(found.question)
    with torch.inference_mode():
        pixels = git.preprocess([view]).double()
        return git.model(pixels, torch.tensor([[*prompt, *found.caption.tokens[:-1]]]))[0]


def test_the_text_is_the_one_that_caption_and_ask_give(git: Captioner) -> None:
    assert explain(git, picture(1)).caption == git.caption(picture(1))
    asked = explain(git, picture(1), "word5 word6")
    assert asked.caption == git.ask(picture(1), "word5 word6")
    assert asked.tokens[:3] == ["[CLS]", "word5", "word6"]


@pytest.mark.parametrize("question", [None, "word5 word6"])
def test_the_mask_is_the_prefix_mask_of_this_run(git: Captioner, question: str | None) -> None:
    found = explain(git, picture(1), question)
    n_text = len(git.prompt(question)) + len(found.words) - 1
    assert n_text == len(found.tokens)
    assert found.n_image == 5
    assert torch.equal(found.mask, prefix_mask(5, n_text))


def test_a_text_of_one_word_has_a_mask_without_a_triangle(git: Captioner) -> None:
    found = explain(git, picture(1), options=DecodingOptions(max_new_tokens=1))
    assert len(found.words) == 1
    assert torch.equal(found.mask, prefix_mask(5, 1))


def test_what_a_word_gave_to_image_and_text_sums_to_one(git: Captioner) -> None:
    found = explain(git, picture(1), "word5 word6", LONG)
    n_words = len(found.words)
    assert n_words > 4
    assert found.image_attention.shape == (2, 3, n_words, 1, 5)
    assert found.text_attention.shape == (2, 3, n_words, 2 + n_words)
    total = found.image_attention.sum((-1, -2)) + found.text_attention.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_word_looks_no_further_than_the_text_before_it(git: Captioner) -> None:
    found = explain(git, picture(1), "word5 word6", LONG)
    for n, weights in enumerate(found.text_attention.unbind(2)):
        assert (weights[..., : 3 + n] > 0).all()
        assert (weights[..., 3 + n :] == 0).all()


@pytest.mark.parametrize("question", [None, "word5 word6"])
def test_the_last_layer_read_off_is_the_model_itself(git: Captioner, question: str | None) -> None:
    found = explain(git, picture(2), question, LONG)
    expected = logits_of(git, found, picture(2)).softmax(-1)
    first = len(git.prompt(question)) - 1
    for n, word in enumerate(found.words):
        best = expected[first + n].topk(GUESSES)
        assert [guess.token for guess in word.layers[-1]] == best.indices.tolist()
        shares = [guess.probability for guess in word.layers[-1]]
        assert shares == pytest.approx(best.values.tolist(), abs=1e-7)
        assert word.layers[0] != word.layers[-1]


def test_a_words_probability_is_that_of_the_search(git: Captioner) -> None:
    found = explain(git, picture(2))
    for word, logprob in zip(found.words, found.caption.token_logprobs, strict=True):
        assert word.probability == pytest.approx(np.exp(logprob), abs=ROUNDING)


def test_runners_up_are_the_likeliest_words_that_were_not_written(git: Captioner) -> None:
    options = DecodingOptions(do_sample=True, seed=3, temperature=3.0)
    found = explain(git, picture(2), options=options)
    expected = logits_of(git, found, picture(2)).softmax(-1)
    for n, word in enumerate(found.words):
        order = expected[n].argsort(descending=True).tolist()
        order.remove(word.token)
        assert [guess.token for guess in word.runners_up] == order[:GUESSES]
        assert [guess.text for guess in word.runners_up] == [WORDS[i] for i in order[:GUESSES]]
    best = [max(word.runners_up, key=lambda one: one.probability) for word in found.words]
    assert any(
        guess.probability > word.probability for guess, word in zip(best, found.words, strict=True)
    )


def test_beams_are_kept_as_a_tree_and_a_greedy_text_has_none(git: Captioner) -> None:
    assert explain(git, picture(1)).tree is None
    found = explain(git, picture(1), options=DecodingOptions(num_beams=3))
    assert found.tree is not None
    marked = [branch for step in found.tree for branch in step if branch.chosen]
    assert marked[-1].tokens == found.caption.tokens


def test_frames_are_what_the_model_saw_cut_to_whole_patches() -> None:
    git = exact_captioner()
    usual = PreprocessConfig(short_side=None, crop=(19, 29), mean=(0.1, 0.2, 0.3))
    git.model.config = dataclasses.replace(git.model.config, preprocess=usual)
    view = picture(0, (29, 19))
    found = explain(git, view)
    assert found.grid == (2, 3)
    assert np.array_equal(np.asarray(found.frames[0]), np.asarray(view)[:16, :24])
    assert found.rollout.shape == (len(found.words), 1, 2, 3)


def test_a_clip_has_its_frames_and_their_shares() -> None:
    git, frames = clips(), [picture(n) for n in range(3)]
    found = explain(git, frames)
    assert len(found.frames) == 3
    assert found.n_image == 15
    assert found.frame_shares().shape == (len(found.words), 3)
    torch.testing.assert_close(found.frame_shares().sum(-1), torch.ones(len(found.words)).double())
    assert found.rollout.shape == (len(found.words), 3, 2, 2)


def test_a_frame_that_is_changed_changes_its_own_map_of_the_first_layer() -> None:
    git, frames = clips(), [picture(n) for n in range(3)]
    options = DecodingOptions(max_new_tokens=1)
    before = explain(git, frames, options=options).image_attention[0, :, 0]
    frames[1] = picture(9)
    after = explain(git, frames, options=options).image_attention[0, :, 0]
    ratio = after / before  # a softmax: all that did not change moves by the same factor
    unchanged = ratio[:, [0, 2]].flatten(1)
    torch.testing.assert_close(unchanged, unchanged[:, :1].expand_as(unchanged))
    assert (ratio[:, 1] / unchanged[:, :1]).sub(1).abs().max() > 0.01


def test_maps_are_averages_over_the_layers_and_heads_that_are_not_named(git: Captioner) -> None:
    found = explain(git, picture(1))
    weights = found.image_attention[..., 1:].unflatten(-1, (2, 2))
    torch.testing.assert_close(found.patches(), weights.mean((0, 1)))
    torch.testing.assert_close(found.patches(layer=1), weights[1].mean(0))
    torch.testing.assert_close(found.patches(head=2), weights[:, 2].mean(0))
    assert torch.equal(found.patches(layer=0, head=2), weights[0, 2])


def test_rollout_is_that_of_one_matrix_over_image_and_text(git: Captioner) -> None:
    """Written out for the whole sequence at once: encoder and decoder of the tiny model."""
    found = explain(git, picture(1))
    model, text = git.model, torch.tensor([[*git.prompt(None), *found.caption.tokens[:-1]]])
    with torch.inference_mode():
        visual, products = git.preprocess([picture(1)]).double(), []
        x = model.encoder.patch_embedding(visual).flatten(2).mT
        x = torch.cat([model.encoder.class_token.expand(1, 1, -1), x], 1)
        x = model.encoder.pre_norm(x + model.encoder.position_embedding)
        for block in model.encoder.blocks:
            products.append(_mixed(block.attn, block.attn_norm(x), None))
            x = block(x)
        encoder = products[1] @ products[0]
        image = model.projector(model.encoder.post_norm(x))
        x = torch.cat([image, model.decoder.embed(text, 0, None)], 1)
        mask, products = prefix_mask(5, text.shape[1]), []
        for block in model.decoder.blocks:
            products.append(_mixed(block.attn, x, mask))
            x, _ = block(x, mask=mask)
        decoder = (products[1] @ products[0])[5:, :5]
    expected = (decoder @ encoder)[:, 1:].unflatten(-1, (1, 2, 2))
    torch.testing.assert_close(found.rollout, expected)


def _mixed(attn: torch.nn.Module, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    query, key, _ = attn.qkv(x).unflatten(-1, (3, attn.heads, -1)).unbind(2)
    scores = torch.einsum("qhd,khd->hqk", query[0], key[0]) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1).mean(0)
    return (weights + torch.eye(len(weights))) / 2


def test_a_bfloat16_model_can_be_explained(git: Captioner) -> None:
    found = explain(Captioner(exact_captioner().model.bfloat16(), git.tokenizer), picture(1))
    assert found.image_attention.dtype == found.rollout.dtype == torch.float32


def test_ids_without_a_name_are_spelled_as_numbers() -> None:
    git = Captioner(exact_captioner().model, Tokenizer.from_vocab(WORDS[:30]))
    options = DecodingOptions(do_sample=True, temperature=9.0, suppress_tokens=tuple(range(30, 40)))
    found = explain(git, picture(1), options=options)
    spelled = {guess.text for word in found.words for guess in word.runners_up}
    assert any(text.strip("[]").isdecimal() for text in spelled)


def test_no_word_no_explanation(git: Captioner) -> None:
    options = DecodingOptions(
        num_beams=2, style="microsoft", max_new_tokens=1, suppress_tokens=(2,)
    )
    with pytest.raises(GITError, match="no word was written"):
        explain(git, picture(1), options=options)


def test_a_model_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(GITError, match="no vocabulary"):
        explain(Captioner(exact_captioner().model, None), picture(1))


def test_a_compiled_encoder_is_refused(git: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch.compile does it: hooks that come later are not in the compiled code."""
    compiled = exact_captioner()
    pair = exact_captioner().model.encoder
    monkeypatch.setattr(compiled.model.encoder, "forward", pair.forward)
    with pytest.raises(GITError, match="compiled"):
        explain(compiled, picture(1))


def test_the_built_in_model_looks_at_what_it_speaks_of(demo: Captioner) -> None:
    found = explain(demo, IMAGES / "three_shapes.png")
    texts = [word.text for word in found.words]
    brightest = found.patches()[:, 0].flatten(1).argmax(-1)
    assert brightest[texts.index("pink")] == 4  # the middle of nine patches
    assert brightest[texts.index("black")] == 1  # above it
    assert brightest[texts.index("yellow")] == 7  # below it


def test_an_animation_tells_which_of_its_frames_were_taken(demo: Captioner) -> None:
    found = explain(demo, IMAGES / "one_acts_twice.gif", "does it grow?")
    assert found.indices == [0, 1, 2, 3, 4, 5]
    assert found.question == "does it grow?"
    assert len(found.frames) == 6
