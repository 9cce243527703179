"""The model before its first step: random weights, a checkpoint, CLIP's encoder, a vocabulary."""

import dataclasses

import pytest
import torch
from commands import run
from parity_models import config_of
from runs import recipe_of, start_folder
from small_clip import build, save
from tiny import bite, tiny_config, tiny_model
from transformers import GitForCausalLM

from git_model.checkpoints.loading import open_model
from git_model.checkpoints.native import TOKENIZER
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import TokenizerError
from git_model.training.initialization import (
    initial_model,
    named_tokenizer,
    with_frames,
    with_vocabulary,
)
from git_model.training.recipe import Recipe
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict
from weights_convert.open_clip import read_file

SPECIAL_TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
OLD = Tokenizer.from_vocab([*SPECIAL_TOKENS, *(f"w{n}" for n in range(36))])
ROWS = ("decoder.token_embedding.weight", "decoder.lm_head.weight", "decoder.lm_head.bias")


def random_recipe(**changes) -> Recipe:
    table = {"model": "demo", "tokenizer": "shapes", "steps": 1, "data": {"kind": "shapes"}}
    settings = {"loader": {"batch_size": 1}, "learning": {"encoder_lr": 1.0, "decoder_lr": 1.0}}
    return from_dict(Recipe, table | settings | changes)


def test_random_weights_of_a_named_size_fit_the_vocabulary():
    model, words = initial_model(random_recipe(model="git_base"))
    config = model.config
    assert config.decoder.vocab_size == len(words) == len(named_tokenizer("shapes"))
    assert words.tokens([config.bos_id, config.eos_id, config.pad_id]) == [
        "[CLS]", "[SEP]", "[PAD]"
    ]  # fmt: skip
    assert model.decoder.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_random_weights_follow_torchs_seed():
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(initial_model(random_recipe())[0].projector.linear.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_narrow_model_may_get_weights_by_its_width():
    model, _ = initial_model(random_recipe(initial="by_width"))
    width = model.config.encoder.width
    assert model.projector.linear.weight.std().item() == pytest.approx(width**-0.5, rel=0.05)
    assert model.encoder.position_embedding.std() > 0.2  # ten times that of BERT


def test_the_style_of_a_recipe_is_that_of_the_model(tmp_path):
    model, _ = initial_model(random_recipe(style="microsoft"))
    assert model.config.style == "microsoft"
    start = start_folder(tmp_path / "start")
    model, _ = initial_model(recipe_of(start, style="microsoft"))
    assert model.config.style == "microsoft"
    assert model.config.decoder.embedding_norm_eps == 1e-8


def test_a_checkpoint_is_where_it_was(tmp_path):
    start = start_folder(tmp_path / "start")
    model, words = initial_model(recipe_of(start))
    expected, _ = open_model(start)
    assert model.config == expected.config
    assert all(torch.equal(t, model.tensors()[n]) for n, t in expected.tensors().items())
    assert words.to_json() == named_tokenizer("shapes").to_json()


def test_a_checkpoint_without_a_vocabulary_needs_one(tmp_path):
    start = start_folder(tmp_path / "start")
    (start / TOKENIZER).unlink()
    with pytest.raises(GITError, match="no vocabulary; name a folder with one as tokenizer"):
        initial_model(recipe_of(start))
    words = tmp_path / "words"
    words.mkdir()
    (words / TOKENIZER).write_text(named_tokenizer("shapes").to_json())
    model, _ = initial_model(recipe_of(start, tokenizer=str(words)))
    expected, _ = open_model(start)
    assert all(torch.equal(t, model.tensors()[n]) for n, t in expected.tensors().items())


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_that_both_vocabularies_know_keep_their_numbers(tied):
    config = tiny_config()
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, tied=tied))
    old = bite(GIT(config), 0)
    words = Tokenizer.from_vocab(["[UNK]", "w7", "new", "[SEP]", "w3", "[PAD]", "[CLS]"])
    new = with_vocabulary(old, OLD, words)
    assert new.config.decoder.vocab_size == 7
    assert (new.config.bos_id, new.config.eos_id, new.config.pad_id) == (6, 3, 5)
    before, after = old.tensors(), new.tensors()
    for name in set(ROWS) & after.keys():
        for token, row in words.vocabulary().items():
            if token == "new":
                assert after[name][row].abs().max() < 0.1  # drawn, N(0, 0.02)
            else:
                assert torch.equal(after[name][row], before[name][OLD.token_id(token)])
    for name in after.keys() - set(ROWS):
        assert torch.equal(after[name], before[name])
    assert (new.decoder.lm_head.weight is new.decoder.token_embedding.weight) == tied


def test_logits_of_tokens_that_stay_do_not_change():
    old = tiny_model()
    bite(old, 0)
    reversed_tokens = Tokenizer.from_vocab(list(reversed(OLD.tokens(range(40)))))
    new = with_vocabulary(old, OLD, reversed_tokens).double()
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    tokens = torch.tensor([[1, 4, 7, 9]])
    expected = old(pixels, tokens)
    torch.testing.assert_close(new(pixels, 39 - tokens).flip(-1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("old", "frames"), [(0, 3), (2, 3), (3, 2), (2, 0)])
def test_the_number_of_temporal_embeddings_changes_and_those_in_both_stay(old, frames):
    model = bite(tiny_model(frames=old), 0)
    new = with_frames(model, frames)
    assert new.config.frames == frames
    if frames:
        shared = min(old, frames)
        assert not shared or torch.equal(
            new.temporal_embedding[:shared], model.temporal_embedding[:shared]
        )
        assert not new.temporal_embedding[shared:].any()
        image, tokens = torch.randn(1, 3, 16, 16, dtype=torch.float64), torch.tensor([[1, 5]])
        assert torch.equal(new(image, tokens), model(image, tokens))
    else:
        assert new.temporal_embedding is None


def test_a_recipe_may_add_temporal_embeddings_to_an_image_model(tmp_path):
    model, _ = initial_model(recipe_of(start_folder(tmp_path / "start"), frames=8))
    assert model.config.frames == len(model.temporal_embedding) == 8


def test_suppressed_tokens_stay_suppressed():
    config = tiny_config()
    decoding = dataclasses.replace(config.decoding, suppress_tokens=(5, 9))
    model = GIT(dataclasses.replace(config, decoding=decoding))
    words = Tokenizer.from_vocab([*SPECIAL_TOKENS, "w5", "w6"])
    assert with_vocabulary(model, OLD, words).config.decoding.suppress_tokens == (4,)  # w5 was 9


def test_a_checkpoint_without_a_vocabulary_gets_any():
    old = tiny_model()
    words = Tokenizer.from_vocab([*SPECIAL_TOKENS, "a", "b"])
    model = with_vocabulary(old, None, words)
    assert model.config.decoder.vocab_size == 6
    assert (model.config.bos_id, model.config.eos_id, model.config.pad_id) == (1, 2, 0)
    for name, tensor in old.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)


def test_a_vocabulary_without_a_special_token_is_refused():
    model = GIT(dataclasses.replace(tiny_config(), bos_id=9))
    with pytest.raises(TokenizerError, match="the vocabulary has no token 'w5'"):
        with_vocabulary(model, OLD, Tokenizer.from_vocab([*SPECIAL_TOKENS, "new"]))


def test_fine_tuning_may_start_from_a_hugging_face_folder(tmp_path):
    theirs = bite(GitForCausalLM(config_of(3)), 3)
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.raises(GITError, match="no vocabulary"):
        initial_model(recipe_of(tmp_path / "theirs"))
    model, _ = initial_model(recipe_of(tmp_path / "theirs", tokenizer="shapes"))
    assert model.config.decoder.vocab_size == len(named_tokenizer("shapes"))
    weight = theirs.git.visual_projection.visual_projection[0].weight
    assert torch.equal(model.projector.linear.weight, weight)


def test_the_papers_start_is_a_folder_that_convert_wrote_from_open_clip(tmp_path):
    source = save(tmp_path, build())
    options = ["--from", "open_clip", "--config", "demo", "--heads", "2", "--activation", "gelu"]
    result = run("convert", source, tmp_path / "clip", *options)
    assert result.exit_code == 0, result.output
    model, words = initial_model(recipe_of(tmp_path / "clip", tokenizer="shapes"))
    config, state = read_file(source, heads=2, activation="gelu")
    assert model.config.encoder == config
    assert all(torch.equal(t, model.encoder.state_dict()[name]) for name, t in state.items())
    assert model.config.decoder.vocab_size == len(words)
