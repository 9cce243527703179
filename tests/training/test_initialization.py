"""Where a run may start: random weights, a checkpoint, a CLIP tower, another vocabulary."""

import dataclasses

import pytest
import torch
from parity_models import bite, config_of
from click.testing import CliRunner
from runs import recipe_of, start_folder
from test_open_clip import build, save
from tiny import tiny_config, tiny_model
from transformers import GitForCausalLM

from git_model.checkpoints.loading import open_model
from git_model.checkpoints.native import TOKENIZER
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer, TokenizerError
from git_model.training.initialization import (
    named_tokenizer,
    start_of,
    with_frames,
    with_vocabulary,
)
from git_model.training.recipe import Recipe
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict
from weights_convert.__main__ import main as convert
from weights_convert.open_clip import read_file

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
OLD = Tokenizer.from_vocab([*SPECIAL, *(f"w{n}" for n in range(36))])
ROWS = ("decoder.token_embedding.weight", "decoder.lm_head.weight", "decoder.lm_head.bias")


def random_recipe(**changes) -> Recipe:
    table = {"model": "demo", "tokenizer": "shapes", "steps": 1, "data": {"kind": "shapes"}}
    more = {"feed": {"batch_size": 1}, "learning": {"encoder_lr": 1.0, "decoder_lr": 1.0}}
    return from_dict(Recipe, table | more | changes)


def test_random_weights_of_a_named_size_get_room_for_the_vocabulary():
    model, words = start_of(random_recipe(model="git_base"))
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
        weights.append(start_of(random_recipe())[0].projector.linear.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_narrow_model_may_get_weights_by_its_width():
    model, _ = start_of(random_recipe(initial="by_width"))
    width = model.config.encoder.width
    assert model.projector.linear.weight.std().item() == pytest.approx(width**-0.5, rel=0.05)
    assert model.encoder.position_embedding.std() > 0.2  # ten times that of BERT


def test_the_style_of_a_recipe_is_that_of_the_model(tmp_path):
    model, _ = start_of(random_recipe(style="microsoft"))
    assert model.config.style == "microsoft"
    start = start_folder(tmp_path / "start")
    model, _ = start_of(recipe_of(start, style="microsoft"))
    assert model.config.style == "microsoft"
    assert model.config.decoder.embedding_norm_eps == 1e-8


def test_a_checkpoint_is_where_it_was(tmp_path):
    start = start_folder(tmp_path / "start")
    model, words = start_of(recipe_of(start))
    expected, _ = open_model(start)
    assert model.config == expected.config
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in expected.state_dict().items())
    assert words.to_json() == named_tokenizer("shapes").to_json()


def test_a_checkpoint_without_a_vocabulary_needs_one(tmp_path):
    start = start_folder(tmp_path / "start")
    (start / TOKENIZER).unlink()
    with pytest.raises(GITError, match="no vocabulary; name a folder with one as tokenizer"):
        start_of(recipe_of(start))
    words = tmp_path / "words"
    words.mkdir()
    (words / TOKENIZER).write_text(named_tokenizer("shapes").to_json())
    model, _ = start_of(recipe_of(start, tokenizer=str(words)))
    expected, _ = open_model(start)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in expected.state_dict().items())


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_that_both_vocabularies_know_keep_their_numbers(tied):
    config = tiny_config()
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, tied=tied))
    old = bite(GIT(config), 0)
    words = Tokenizer.from_vocab(["[UNK]", "w7", "new", "[SEP]", "w3", "[PAD]", "[CLS]"])
    new = with_vocabulary(old, OLD, words)
    assert new.config.decoder.vocab_size == 7
    assert (new.config.bos_id, new.config.eos_id, new.config.pad_id) == (6, 3, 5)
    before, after = old.state_dict(), new.state_dict()
    for name in set(ROWS) & after.keys():
        for token, row in words.vocabulary().items():
            if token == "new":
                assert after[name][row].abs().max() < 0.1  # drawn, N(0, 0.02)
            else:
                assert torch.equal(after[name][row], before[name][OLD.token_id(token)])
    for name in after.keys() - set(ROWS):
        assert torch.equal(after[name], before[name])


def test_the_model_says_the_same_of_words_that_it_knows():
    old = tiny_model()
    bite(old, 0)
    turned = Tokenizer.from_vocab(list(reversed(OLD.tokens(range(40)))))
    new = with_vocabulary(old, OLD, turned).double()
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    tokens = torch.tensor([[1, 4, 7, 9]])
    expected = old(pixels, tokens)
    torch.testing.assert_close(new(pixels, 39 - tokens).flip(-1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("own", "frames"), [(0, 3), (2, 3), (3, 2), (2, 0)])
def test_a_model_gets_other_temporal_embeddings_and_keeps_those_it_has(own, frames):
    model = bite(tiny_model(frames=own), 0)
    new = with_frames(model, frames)
    assert new.config.frames == frames
    if frames:
        both = min(own, frames)
        assert not both or torch.equal(
            new.temporal_embedding[:both], model.temporal_embedding[:both]
        )
        assert not new.temporal_embedding[both:].any()
        picture, tokens = torch.randn(1, 3, 16, 16, dtype=torch.float64), torch.tensor([[1, 5]])
        assert torch.equal(new(picture, tokens), model(picture, tokens))
    else:
        assert new.temporal_embedding is None


def test_a_recipe_may_teach_a_model_of_pictures_to_see_clips(tmp_path):
    model, _ = start_of(recipe_of(start_folder(tmp_path / "start"), frames=8))
    assert model.config.frames == len(model.temporal_embedding) == 8


def test_suppressed_words_stay_suppressed():
    config = tiny_config()
    decoding = dataclasses.replace(config.decoding, suppress_tokens=(5, 9))
    model = GIT(dataclasses.replace(config, decoding=decoding))
    words = Tokenizer.from_vocab([*SPECIAL, "w5", "w6"])
    assert with_vocabulary(model, OLD, words).config.decoding.suppress_tokens == (4,)  # w5 was 9


def test_a_tower_of_clip_gets_any_vocabulary():
    fresh = tiny_model()  # its decoder has learned nothing, and has no vocabulary
    words = Tokenizer.from_vocab([*SPECIAL, "a", "b"])
    model = with_vocabulary(fresh, None, words)
    assert model.config.decoder.vocab_size == 6
    assert (model.config.bos_id, model.config.eos_id, model.config.pad_id) == (1, 2, 0)
    for name, tensor in fresh.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)


def test_a_vocabulary_without_a_special_token_is_refused():
    model = GIT(dataclasses.replace(tiny_config(), bos_id=9))
    with pytest.raises(TokenizerError, match="the vocabulary has no token 'w5'"):
        with_vocabulary(model, OLD, Tokenizer.from_vocab([*SPECIAL, "new"]))


def test_the_start_of_a_fine_tuned_model_may_be_any_folder_that_is_known(tmp_path):
    theirs = bite(GitForCausalLM(config_of(3)), 3)
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.raises(GITError, match="no vocabulary"):
        start_of(recipe_of(tmp_path / "theirs"))
    model, _ = start_of(recipe_of(tmp_path / "theirs", tokenizer="shapes"))
    assert model.config.decoder.vocab_size == len(named_tokenizer("shapes"))
    weight = theirs.git.visual_projection.visual_projection[0].weight
    assert torch.equal(model.projector.linear.weight, weight)


def test_the_papers_start_is_a_folder_that_the_converter_of_open_clip_wrote(tmp_path):
    tower = save(tmp_path, build())
    options = ["--config", "demo", "--heads", "2", "--activation", "gelu"]
    done = CliRunner().invoke(
        convert, ["open_clip", str(tower), str(tmp_path / "clip"), *options], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    model, words = start_of(recipe_of(tmp_path / "clip", tokenizer="shapes"))
    config, state = read_file(tower, heads=2, activation="gelu")
    assert model.config.encoder == config
    assert all(torch.equal(t, model.encoder.state_dict()[name]) for name, t in state.items())
    assert model.config.decoder.vocab_size == len(words)
