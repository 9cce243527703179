"""Transformers' GIT folders: read, written, and refused."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity_models import config_of, make_pair
from safetensors.torch import load_file, save_file
from tiny import bite
from transformers import AutoProcessor, GitConfig, GitForCausalLM

from git_model import GIT, GITConfig, GITError
from git_model.captioner import Captioner
from git_model.config import PreprocessConfig, style_preprocess
from weights_convert import convert
from weights_convert.files import Checkpoint
from weights_convert.huggingface import (
    read_config,
    read_folder,
    read_state,
    write_config,
    write_folder,
    write_state,
)
from weights_convert.processor import find_settings, read_preprocess

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "a", "cat", "##s", "two", ",", "."]


def save(folder: Path, seed: int = 0, **changes: Any) -> GitForCausalLM:
    """A small random model of Transformers' in a folder."""
    sharded = {"max_shard_size": changes.pop("shard")} if "shard" in changes else {}
    model = bite(GitForCausalLM(config_of(seed, **changes)), seed).eval()
    model.save_pretrained(folder, **sharded)
    return model


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(folder: Path) -> str:
    """The one line that says why a folder cannot be read; nothing is written."""
    destination = folder.parent / "new" / "native"
    with pytest.raises(GITError) as error:
        convert(str(folder), destination)
    assert not destination.parent.exists()
    message = str(error.value)
    assert "\n" not in message
    return message


# Tensors


def test_logits_are_equal_in_float64(tmp_path: Path) -> None:
    for frames in (None, 3):
        folder = tmp_path / str(frames)
        pair = make_pair(7, num_image_with_embedding=frames)
        pair.theirs.save_pretrained(folder)
        config, state, _ = read_folder(folder, dtype=torch.float64)
        ours = GIT.from_state(config, state, "test")(pair.pixels, pair.tokens)
        with torch.no_grad():
            theirs = pair.theirs(pixel_values=pair.pixels, input_ids=pair.tokens).logits
        torch.testing.assert_close(ours, theirs[:, -pair.tokens.shape[1] :], rtol=1e-10, atol=1e-10)


def test_every_tensor_of_theirs_has_its_place_and_every_one_of_ours_is_filled() -> None:
    for seed in range(12):
        theirs = GitForCausalLM(config_of(seed)).state_dict()
        config = read_config(config_of(seed).to_dict())
        ours = read_state(theirs, config)
        with torch.device("meta"):
            expected = GIT(config).tensors()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in expected.items()}
        counted = sum(
            part.numel()
            for name, part in theirs.items()
            if not (name == "output.weight" and config.decoder.tied)
        )
        assert sum(part.numel() for part in ours.values()) == counted


@given(st.integers(0, 2**20))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_there_and_back_changes_no_bit_and_no_name(seed: int) -> None:
    theirs_config = config_of(seed)
    theirs = bite(GitForCausalLM(theirs_config), seed).state_dict()
    config = read_config(theirs_config.to_dict())
    back = write_state(read_state(theirs, config), config)
    if config.decoder.tied:
        back["output.weight"] = back["git.embeddings.word_embeddings.weight"]
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("seed", range(4))
def test_transformers_loads_the_way_back_with_nothing_missing_or_left_over(
    seed: int, tmp_path: Path
) -> None:
    shard = {"shard": "20KB"} if seed % 2 else {}
    theirs = save(tmp_path / "theirs", seed, **shard)
    convert(str(tmp_path / "theirs"), tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "back", to="hf")
    again, report = GitForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values())
    assert again.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert settings_of(again.config) == settings_of(theirs.config)


def settings_of(config: GitConfig) -> dict[str, Any]:
    """What a configuration computes: without notes, and each activation under one name."""
    settings = config.to_dict()
    for table in (settings, settings["vision_config"]):
        for key in ("_name_or_path", "dtype", "transformers_version"):
            table.pop(key, None)
        synonyms = {"gelu_new": "gelu_pytorch_tanh", "swish": "silu"}
        table["hidden_act"] = synonyms.get(table["hidden_act"], table["hidden_act"])
    return settings


def test_numbers_keep_the_type_they_are_stored_in(tmp_path: Path) -> None:
    save(tmp_path / "theirs").half().save_pretrained(tmp_path / "theirs")
    convert(str(tmp_path / "theirs"), tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "back", to="hf")
    stored = load_file(tmp_path / "back" / "model.safetensors")
    assert {part.dtype for part in stored.values()} == {torch.float16}
    assert GitForCausalLM.from_pretrained(tmp_path / "back").dtype == torch.float16
    assert {p.dtype for p in GIT.from_pretrained(tmp_path / "ours").parameters()} == {torch.float32}
    _, state, _ = read_folder(tmp_path / "theirs", dtype=torch.float64)
    assert {part.dtype for part in state.values()} == {torch.float64}


@pytest.mark.parametrize("spelling", ["img_temperal_embedding", "img_temporal_embedding"])
def test_temporal_embeddings_are_found_in_both_spellings(spelling: str, tmp_path: Path) -> None:
    theirs = save(tmp_path, 2, num_image_with_embedding=12)

    def respell(tensors: dict) -> None:
        for name in [name for name in tensors if "temporal_embedding" in name]:
            tensors[name.replace("img_temporal_embedding", spelling)] = tensors.pop(name)

    edit_tensors(tmp_path, respell)
    _, state, _ = read_folder(tmp_path)
    expected = torch.cat([row[0] for row in theirs.git.img_temporal_embedding])
    assert torch.equal(state["temporal_embedding"], expected)


def test_a_mixture_of_the_two_spellings_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "theirs", 2, num_image_with_embedding=2)
    old = "git.img_temperal_embedding.1"
    edit_tensors(
        tmp_path / "theirs", lambda t: t.update({old: t.pop("git.img_temporal_embedding.1")})
    )
    message = refusal(tmp_path / "theirs")
    assert old in message
    assert "git.img_temporal_embedding.0" in message


def test_position_ids_of_old_versions_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path)
    prefix = "git.image_encoder.vision_model.embeddings"
    edit_tensors(
        tmp_path,
        lambda tensors: tensors.update(
            {
                f"{prefix}.position_ids": torch.arange(5),
                "git.embeddings.position_ids": torch.ones(3),
            }
        ),
    )
    read_folder(tmp_path)


def test_a_pickle_is_read_where_there_is_no_safetensors_file(tmp_path: Path) -> None:
    theirs = save(tmp_path / "theirs", tie_word_embeddings=False)
    (tmp_path / "theirs" / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    convert(str(tmp_path / "theirs"), tmp_path / "ours")
    _, state, _ = read_folder(tmp_path / "theirs")
    ours = GIT.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(ours[name], state[name]) for name in ours)


# Names of modules that wrapped the model


PREFIXES = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.model."]


def wrap(folder: Path, prefix: str, form: str, inner: str = "") -> None:
    """Rename the tensors of a folder, in another kind of file."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    renamed = {}
    for name, part in tensors.items():
        name = name.replace("git.encoder.layer.", f"git.encoder.{inner}layer.")
        renamed[prefix + name] = part
    if form == "safetensors":
        save_file(renamed, folder / "model.safetensors")
    elif form == "shards":
        names = list(renamed)
        shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, members in shards.items():
            save_file({name: renamed[name] for name in members}, folder / file)
        weight_map = {name: file for file, members in shards.items() for name in members}
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
    else:
        legacy = form == "legacy pickle"
        path = folder / "pytorch_model.bin"
        torch.save(renamed, path, _use_new_zipfile_serialization=not legacy)


@pytest.mark.parametrize("form", ["safetensors", "shards", "pickle", "legacy pickle"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_are_taken_off_in_every_file(
    prefix: str, form: str, tmp_path: Path
) -> None:
    save(tmp_path, tie_word_embeddings=False)
    expected = read_folder(tmp_path)
    wrap(tmp_path, prefix, form, inner="_orig_mod.")
    result = read_folder(tmp_path)
    assert result.config == expected.config
    assert result.state.keys() == expected.state.keys()
    assert all(torch.equal(result.state[name], expected.state[name]) for name in expected.state)


@pytest.mark.parametrize("form", ["safetensors", "shards", "pickle"])
def test_a_tensor_with_and_without_a_prefix_is_refused(form: str, tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    name = "git.embeddings.LayerNorm.bias"
    edit_tensors(tmp_path / "theirs", lambda t: t.update({f"module.{name}": t[name].clone()}))
    wrap(tmp_path / "theirs", "", form)
    message = refusal(tmp_path / "theirs")
    assert f"tensor {name} is there twice" in message
    assert f"module.{name}" in message


def test_another_prefix_is_named(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    wrap(tmp_path / "theirs", "ema.model.", "safetensors")
    assert "unexpected tensor ema.model." in refusal(tmp_path / "theirs")


# The output layer


def test_tied_embeddings_need_no_output_weight(tmp_path: Path) -> None:
    save(tmp_path, tie_word_embeddings=True)
    assert "output.weight" not in load_file(tmp_path / "model.safetensors")
    config, state, _ = read_folder(tmp_path)
    assert config.decoder.tied
    assert "decoder.lm_head.weight" not in state


def with_output(tensors: dict, *, plus: float) -> None:
    tensors["output.weight"] = tensors["git.embeddings.word_embeddings.weight"] + plus


def test_an_equal_output_weight_beside_tied_embeddings_is_dropped(tmp_path: Path) -> None:
    save(tmp_path, tie_word_embeddings=True)
    edit_tensors(tmp_path, lambda tensors: with_output(tensors, plus=0))
    assert read_folder(tmp_path).config.decoder.tied


def test_two_different_weights_are_not_tied_whatever_the_configuration_says(tmp_path: Path) -> None:
    """So it is in Transformers."""
    save(tmp_path, tie_word_embeddings=True)
    edit_tensors(tmp_path, lambda tensors: with_output(tensors, plus=1))
    config, state, _ = read_folder(tmp_path)
    theirs = GitForCausalLM.from_pretrained(tmp_path)
    assert not config.decoder.tied
    assert torch.equal(state["decoder.lm_head.weight"], theirs.output.weight)
    assert torch.equal(
        state["decoder.token_embedding.weight"], theirs.git.embeddings.word_embeddings.weight
    )


def test_an_untied_model_without_its_output_weight_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "theirs", tie_word_embeddings=False)
    edit_tensors(tmp_path / "theirs", lambda tensors: tensors.pop("output.weight"))
    assert "tensor output.weight is missing" in refusal(tmp_path / "theirs")


# Configuration


def test_an_empty_configuration_is_git_base() -> None:
    defaults = read_config(GitConfig().to_dict())
    assert read_config({}) == read_config({"vision_config": None}) == defaults == GITConfig()


@pytest.mark.parametrize("seed", range(30))
def test_every_setting_survives_and_a_sparse_file_means_the_defaults(seed: int) -> None:
    draw = random.Random(seed)
    full = GitConfig(
        vocab_size=500,
        layer_norm_eps=1e-7,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.3,
        num_image_with_embedding=4,
        max_position_embeddings=77,
        tie_word_embeddings=True,
        vision_config={"attention_dropout": 0.4, "layer_norm_eps": 1e-4, "image_size": 96},
    ).to_dict()
    sparse = {key: value for key, value in full.items() if draw.random() < 0.5}
    if draw.random() < 0.5 and "vision_config" in sparse:
        vision = sparse["vision_config"]
        sparse["vision_config"] = {k: v for k, v in vision.items() if draw.random() < 0.5}
    theirs = GitConfig.from_dict(sparse)
    config = read_config(sparse)
    again = GitConfig.from_dict(write_config(config))
    for key in ("vocab_size", "layer_norm_eps", "hidden_dropout_prob", "max_position_embeddings"):
        assert getattr(again, key) == getattr(theirs, key)
    for key in ("attention_probs_dropout_prob", "num_image_with_embedding", "tie_word_embeddings"):
        assert getattr(again, key) == getattr(theirs, key)
    for key in ("attention_dropout", "layer_norm_eps", "image_size", "hidden_act"):
        assert getattr(again.vision_config, key) == getattr(theirs.vision_config, key)


def test_what_does_not_change_the_computation_is_passed_over() -> None:
    settings = {
        "use_cache": False,
        "initializer_range": 1,
        "_name_or_path": "x",
        "dtype": "float16",
    }
    assert read_config(settings) == GITConfig()


def test_end_tokens_may_be_a_list() -> None:
    assert read_config({"eos_token_id": [7]}).eos_ids == (7,)
    config = read_config({"eos_token_id": [7, 5]})
    assert (config.eos_ids, config.eos_id) == ((7, 5), 7)
    assert write_config(config)["eos_token_id"] == [7, 5]
    assert write_config(GITConfig())["eos_token_id"] == 102


@torch.no_grad()
@pytest.mark.parametrize("tower", ["text", "vision"])
@pytest.mark.parametrize(
    "name", ["relu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish", "gelu", "quick_gelu"]
)
def test_every_activation_gives_the_logits_of_transformers(
    name: str, tower: str, tmp_path: Path
) -> None:
    key = "hidden_act" if tower == "text" else "vision_hidden_act"
    pair = make_pair(4, **{key: name})
    tensors = {"pixel_values": pair.pixels, "input_ids": pair.tokens}
    expected = pair.theirs(**tensors).logits[:, -pair.tokens.shape[1] :]
    logits = pair.ours(pair.pixels, pair.tokens)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    other = make_pair(4, **{key: "gelu" if name != "gelu" else "relu"})
    assert (other.ours(pair.pixels, pair.tokens) - expected).abs().max() > 1e-5

    checkpoint = Checkpoint(pair.ours.config, pair.ours.tensors(), None)
    write_folder(tmp_path / "back", checkpoint)
    again = GitForCausalLM.from_pretrained(tmp_path / "back", attn_implementation="eager")
    again.config.vision_config._attn_implementation = "sdpa"
    back = again(**tensors).logits[:, -pair.tokens.shape[1] :]
    torch.testing.assert_close(back, expected, rtol=1e-10, atol=1e-10)


def test_without_a_padding_token_the_end_token_pads() -> None:
    assert read_config({"pad_token_id": None, "eos_token_id": 7}).pad_id == 7


def test_equal_sides_may_stand_in_a_list() -> None:
    config = read_config({"vision_config": {"image_size": [48, 48], "patch_size": [8, 8]}})
    assert (config.encoder.image_size, config.encoder.patch_size) == (48, 8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_act": "gelu_10"}, ["gelu_10", "gelu_new", "quick_gelu"]),
        ({"vision_config": {"hidden_act": "mish"}}, ["mish", "gelu_pytorch_tanh", "silu"]),
        ({"hidden_act": ["relu"]}, ["['relu']", "expected one of gelu"]),
        ({"vision_config": {"num_channels": 1}}, ["num_channels", "1", "3"]),
        ({"vision_config": {"image_size": [32, 48]}}, ["image_size", "[32, 48]", "square"]),
        ({"vision_config": {"patch_size": [8, 4]}}, ["patch_size", "[8, 4]"]),
        ({"vision_config": "clip"}, ["vision_config", "clip"]),
        ({"model_type": "blip"}, ["model_type", "blip", "git"]),
        ({"position_embedding_type": "relative_key"}, ["position_embedding_type", "absolute"]),
        ({"quantization_config": {"bits": 8}}, ["quantization_config"]),
        ({"eos_token_id": [1, "2"]}, ["eos_token_id", "[1, '2']"]),
        ({"eos_token_id": [1, 40000]}, ["eos_ids", "40000", "30522"]),
        ({"eos_token_id": [7, 7]}, ["eos_ids", "(7, 7)", "distinct"]),
        ({"bos_token_id": None}, ["bos_id"]),
        ({"hidden_size": "768"}, ["width", "768"]),
        ({"num_attention_heads": 7}, ["width 768", "heads 7"]),
        ({"num_image_with_embedding": -1}, ["frames", "-1"]),
        ({"vocab_size": 50}, ["bos_id", "101", "50"]),
    ],
)
def test_a_setting_that_we_do_not_have_is_named(settings: dict, words: list[str]) -> None:
    with pytest.raises(GITError) as error:
        read_config(settings)
    assert all(word in str(error.value) for word in words)


def test_an_eps_that_they_have_no_word_for_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    checkpoint = read_folder(tmp_path / "theirs")
    original = checkpoint._replace(config=checkpoint.config.with_style("microsoft"))
    with pytest.raises(GITError, match="embedding_norm_eps is 1e-08"):
        write_folder(tmp_path / "back", original)
    assert not (tmp_path / "back").exists()


# Folders


def test_vocabulary_and_preprocessing_travel_there_and_back(tmp_path: Path) -> None:
    save(tmp_path / "theirs", num_image_with_embedding=None)
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(TOKENS))
    settings = {"image_processor_type": "CLIPImageProcessor", "size": 30, "crop_size": 24}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(settings))
    convert(str(tmp_path / "theirs"), tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "back", to="hf")
    config, _, tokenizer = read_folder(tmp_path / "back")
    assert config.preprocess == PreprocessConfig(short_side=30, crop=(24, 24))
    assert tokenizer is not None
    assert tokenizer.encode("two cats, a cat.") == [8, 6, 7, 9, 5, 6, 10]
    theirs = AutoProcessor.from_pretrained(tmp_path / "back")
    assert type(theirs).__name__ == "GitProcessor"
    assert theirs.tokenizer("Two cats").input_ids == [1, 8, 6, 7, 2]
    assert theirs.tokenizer.pad_token_id == 0
    assert theirs.image_processor.crop_size["height"] == 24
    theirs.save_pretrained(tmp_path / "nested")
    assert not (tmp_path / "nested" / "preprocessor_config.json").exists()
    assert read_preprocess(find_settings(tmp_path / "nested") or {}) == config.preprocess


def test_added_tokens_travel_there_and_back(tmp_path: Path) -> None:
    """A caption with such a token failed: the file beside vocab.txt was passed over."""
    save(tmp_path / "theirs", vocab_size=50, num_image_with_embedding=None)
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(TOKENS))
    added = {"red panda": len(TOKENS), "<obj>": len(TOKENS) + 1}
    (tmp_path / "theirs" / "added_tokens.json").write_text(json.dumps(added))
    captioner = Captioner.from_pretrained(tmp_path / "theirs")
    assert captioner.tokenizer.decode([5, 11, 2]) == "a red panda"
    convert(str(tmp_path / "theirs"), tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "back", to="hf")
    theirs = AutoProcessor.from_pretrained(tmp_path / "back").tokenizer
    ours = Captioner.from_pretrained(tmp_path / "ours").tokenizer
    for text in ("a red panda, two <obj>", "cats"):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert ours.decode([5, 11, 12]) == theirs.decode([5, 11, 12]) == "a red panda <obj>"


def test_a_video_model_comes_back_with_a_processor_of_clips(tmp_path: Path) -> None:
    save(tmp_path / "theirs", num_image_with_embedding=3, vision_image_size=16, vision_patch_size=8)
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(TOKENS))
    convert(str(tmp_path / "theirs"), tmp_path / "back", to="hf")
    theirs = AutoProcessor.from_pretrained(tmp_path / "back")
    frames = [torch.zeros(3, 20, 30, dtype=torch.uint8)] * 3
    assert theirs(images=frames, return_tensors="pt").pixel_values.shape == (1, 3, 3, 16, 16)


def test_without_a_processor_file_the_preprocessing_is_transformers_default(tmp_path: Path) -> None:
    save(tmp_path)
    config = read_folder(tmp_path).config
    assert config.preprocess == style_preprocess(
        "huggingface", image_size=config.encoder.image_size, video=config.frames > 0
    )


def test_a_folder_of_ours_is_not_taken_for_theirs(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    convert(str(tmp_path / "theirs"), tmp_path / "ours")
    with pytest.raises(GITError, match="in this project's format already"):
        read_folder(tmp_path / "ours")


def test_a_destination_in_the_way_is_left_as_it_is(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine.txt").write_text("keep")
    for to in ("native", "hf"):
        with pytest.raises(GITError, match="already exists"):
            convert(str(tmp_path / "theirs"), tmp_path / "new", to=to)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "theirs"]


# Damaged folders


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    edit_tensors(tmp_path / "theirs", lambda t: t.pop("git.embeddings.LayerNorm.bias"))
    assert "tensor git.embeddings.LayerNorm.bias is missing" in refusal(tmp_path / "theirs")


def test_a_missing_part_of_a_fused_tensor_is_named(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    name = "git.encoder.layer.0.attention.self.key.weight"
    edit_tensors(tmp_path / "theirs", lambda tensors: tensors.pop(name))
    assert f"tensor {name} is missing" in refusal(tmp_path / "theirs")


def test_an_extra_tensor_is_named(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    edit_tensors(tmp_path / "theirs", lambda t: t.update({"git.stranger": torch.zeros(1)}))
    assert "unexpected tensor git.stranger" in refusal(tmp_path / "theirs")


def test_a_layer_that_the_configuration_does_not_count_is_named(tmp_path: Path) -> None:
    save(tmp_path / "theirs", num_hidden_layers=3)
    edit_config(tmp_path / "theirs", num_hidden_layers=2)
    assert "tensor git.encoder.layer.2." in refusal(tmp_path / "theirs")


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    edit_tensors(tmp_path / "theirs", lambda t: t.update({"output.bias": torch.zeros(7)}))
    message = refusal(tmp_path / "theirs")
    assert "tensor output.bias has shape (7,)" in message


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    for size in (0, 5, 100, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        assert "model.safetensors: not a readable safetensors file" in refusal(path.parent)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    save(tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    for legacy in (False, True):
        torch.save(
            {"output.bias": Evil()},
            tmp_path / "theirs" / "pytorch_model.bin",
            _use_new_zipfile_serialization=not legacy,
        )
        assert "could run code" in refusal(tmp_path / "theirs")
    assert not (tmp_path / "owned").exists()


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    assert "no weights, expected one of model.safetensors" in refusal(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text("{")
    assert "config.json: not valid JSON" in refusal(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").unlink()
    assert "not a checkpoint, expected config.json" in refusal(tmp_path / "theirs")


# Shards


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save(tmp_path / "theirs", shard="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    return tmp_path / "theirs"


def edit_index(folder: Path, change) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "..\\x.safetensors"],
)
def test_a_shard_outside_the_folder_is_refused(sharded: Path, shard: str) -> None:
    edit_index(sharded, lambda index: index.update({"output.bias": shard}))
    assert "is not the name of a file in its folder" in refusal(sharded)


def test_an_index_that_lists_itself_is_refused(sharded: Path) -> None:
    edit_index(sharded, lambda index: index.update(x="model.safetensors.index.json"))
    assert "is not the name of a file" in refusal(sharded)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    gone = sorted(sharded.glob("*.safetensors"))[1]
    gone.unlink()
    assert f"{gone.name}: no such file" in refusal(sharded)


def test_a_tensor_that_is_listed_but_not_there_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[0].name
    edit_index(sharded, lambda index: index.update(ghost=shard))
    assert f"lists tensor ghost, which is not in {shard}" in refusal(sharded)


def test_a_tensor_that_is_there_but_not_listed_is_named(sharded: Path) -> None:
    edit_index(sharded, lambda index: index.pop("output.bias"))
    assert "does not list tensor output.bias" in refusal(sharded)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_is_refused(sharded: Path, text: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    assert "no weight_map" in refusal(sharded)
