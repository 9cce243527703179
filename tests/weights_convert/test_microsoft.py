"""The original's folders, held against what the original itself computed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from git_model import GIT, GITError
from git_model.config import EncoderConfig, style_preprocess
from weights_convert import convert
from weights_convert.files import open_tensors
from weights_convert.microsoft import read_folder, rules
from weights_convert.rules import undo

FIXTURES = Path(__file__).parents[1] / "fixtures" / "microsoft"
CASES = ["image", "video_6_frames", "rectangular"]
IDS = {"bos_id": 1, "eos_id": 2, "pad_id": 0}  # the recorded models have 97 tokens


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Path:
    return FIXTURES / request.param


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder of the original's that a test may spoil."""
    shutil.copytree(FIXTURES / "video_6_frames", tmp_path / "theirs")
    return tmp_path / "theirs"


def edit(folder: Path, change) -> None:
    path = folder / "snapshot" / "model.pt"
    loaded = torch.load(path, weights_only=True)
    change(loaded["model"])
    torch.save(loaded, path)


def refusal(folder: Path, **ids: int) -> str:
    with pytest.raises(GITError) as error:
        read_folder(folder, **(ids or IDS))
    assert "\n" not in str(error.value)
    return str(error.value)


# Numbers


@torch.no_grad()
def test_every_stage_equals_the_recorded_one_in_float64(case: Path) -> None:
    config, state, _ = read_folder(case, dtype=torch.float64, **IDS)
    model = GIT.from_state(config, state, "test")
    expected = load_file(case / "expected.safetensors")
    visual = model.encode(expected["pixels"])
    stages = {
        "visual": visual,
        "projected": model.projector(visual),
        "logits": model(expected["pixels"], expected["tokens"]),
    }
    for name, tensor in stages.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_still_on_a_video_model_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    """inference.py passes a single image as a list of one frame, so temporal embedding 0 is added.
    The recorded clip has this embedding on its first frame, and frames are encoded one by one."""
    folder = FIXTURES / "video_6_frames"
    config, state, _ = read_folder(folder, dtype=torch.float64, **IDS)
    model = GIT.from_state(config, state, "test")
    recorded = load_file(folder / "expected.safetensors")
    still, tokens = recorded["pixels"][:, 0], recorded["tokens"]
    n_tokens = recorded["visual"].shape[1] // 6
    visual = recorded["visual"][:, :n_tokens]  # of the first frame
    torch.testing.assert_close(model.encode(still), visual, rtol=1e-10, atol=1e-10)
    clip = model(recorded["pixels"][:, :1], tokens)
    torch.testing.assert_close(model(still, tokens), clip, rtol=1e-10, atol=1e-10)

    other = GIT.from_state(config.with_style("huggingface"), model.tensors(), "test")
    embedding = open_tensors(folder / "snapshot" / "model.pt")["img_temperal_embedding.0"].double()
    torch.testing.assert_close(other.encode(still) + embedding, visual, rtol=1e-10, atol=1e-10)
    assert embedding.abs().max() > 0.1


@torch.no_grad()
def test_a_converted_folder_gives_the_recorded_logits_in_float32(
    case: Path, tmp_path: Path
) -> None:
    checkpoint = read_folder(case, dtype=None, **IDS)
    assert {part.dtype for part in checkpoint.state.values()} == {torch.float16}
    GIT.from_state(checkpoint.config, checkpoint.state, "test").save_pretrained(tmp_path / "ours")
    expected = load_file(case / "expected.safetensors")
    logits = GIT.from_pretrained(tmp_path / "ours")(expected["pixels"].float(), expected["tokens"])
    torch.testing.assert_close(logits.double(), expected["logits"], rtol=1e-4, atol=1e-4)


def test_every_tensor_is_accounted_for(case: Path) -> None:
    source = open_tensors(case / "snapshot" / "model.pt")
    config, state, _ = read_folder(case, dtype=None, **IDS)
    back = dict(undo(rules(config.decoder.tied), state))
    assert all(torch.equal(source[name], part) for name, part in back.items())
    tied = {"textual.output.weight"} if config.decoder.tied else set()
    assert source.keys() - back.keys() == tied


def test_sizes_are_read_off_the_tensors(case: Path) -> None:
    config = read_folder(case, **IDS).config
    recorded = json.loads((case / "expected.json").read_text())
    assert config.encoder == EncoderConfig(
        image_size=32, patch_size=8, width=128, layers=2, heads=2, mlp_width=512
    )
    decoder = config.decoder
    assert (decoder.vocab_size, decoder.positions, decoder.width) == (recorded["vocab"], 64, 192)
    assert (decoder.layers, decoder.heads, decoder.mlp_width) == (2, 3, 256)
    assert (decoder.norm_eps, decoder.embedding_norm_eps) == (1e-12, 1e-8)
    assert (config.frames, config.style) == (recorded["frames"] or 0, "microsoft")
    assert config.preprocess == style_preprocess("microsoft", image_size=32, video=False)


# What a file may look like


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.module.", "model._orig_mod."])
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_prefixes_of_wrappers_and_a_bare_state_dict_are_the_same(
    prefix: str, bare: bool, legacy: bool, copy: Path
) -> None:
    expected = read_folder(copy, **IDS)
    tensors = open_tensors(copy / "snapshot" / "model.pt")
    renamed = {prefix + name: tensors[name].clone() for name in tensors}
    torch.save(
        renamed if bare else {"model": renamed, "iteration": 7, "optimizer": {"lr": 0.1}},
        copy / "snapshot" / "model.pt",
        _use_new_zipfile_serialization=not legacy,
    )
    result = read_folder(copy, **IDS)
    assert result.config == expected.config
    assert all(torch.equal(result.state[name], expected.state[name]) for name in expected.state)


def test_the_file_may_lie_beside_the_parameters(copy: Path) -> None:
    (copy / "snapshot" / "model.pt").rename(copy / "model.pt")
    assert read_folder(copy, **IDS).config.frames == 6


def test_a_tensor_that_is_there_with_and_without_module_is_refused(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.update({"textual.output.bias": torch.zeros(97)}))
    assert "tensor textual.output.bias is there twice" in refusal(copy)


def test_another_prefix_is_named(copy: Path) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[f"student.{name.removeprefix('module.')}"] = tensors.pop(name)

    edit(copy, rename)
    message = refusal(copy)
    assert "tensor image_encoder.conv1.weight is missing" in message
    assert "student.image_encoder.conv1.weight is there" in message


def test_clips_own_projection_is_dropped(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.update({"image_encoder.proj": torch.zeros(128, 64)}))
    read_folder(copy, **IDS)


def test_an_output_weight_that_equals_the_embeddings_is_tied(copy: Path) -> None:
    words, output = "module.textual.embedding.words.weight", "module.textual.output.weight"
    edit(copy, lambda tensors: tensors.update({output: tensors[words]}))
    config, state, _ = read_folder(copy, **IDS)
    assert config.decoder.tied
    assert "decoder.lm_head.weight" not in state
    edit(copy, lambda tensors: tensors.update({output: tensors[words] * 2}))
    assert not read_folder(copy, **IDS).config.decoder.tied


def test_ten_and_more_frames_stay_in_order(copy: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        for i in reversed(range(12)):
            tensors[f"module.img_temperal_embedding.{i}"] = torch.full((1, 1, 128), float(i))

    edit(copy, add)
    (copy / "parameter.yaml").write_text("num_image_with_embedding: 12\n")
    config, state, _ = read_folder(copy, **IDS)
    assert config.frames == 12
    assert state["temporal_embedding"][:, 0].tolist() == list(range(12))


# parameter.yaml


def test_a_missing_and_an_empty_parameter_file_are_the_same_here(copy: Path) -> None:
    (copy / "parameter.yaml").unlink()
    without = read_folder(copy, **IDS).config
    (copy / "parameter.yaml").write_text("")
    assert read_folder(copy, **IDS).config == without


def test_the_longest_side_is_the_one_of_the_parameter_file(copy: Path) -> None:
    (copy / "parameter.yaml").write_text("test_crop_size: 32\ntest_respect_ratio_max: 48\n")
    preprocess = read_folder(copy, **IDS).config.preprocess
    assert (preprocess.short_side, preprocess.long_side_max, preprocess.crop) == (32, 48, None)


def test_a_crop_that_is_no_whole_number_of_patches_keeps_its_size(copy: Path) -> None:
    (copy / "parameter.yaml").write_text("test_crop_size: 37\n")
    config = read_folder(copy, **IDS).config
    assert (config.encoder.image_size, config.encoder.grid) == (37, 4)
    assert config.preprocess.crop == (37, 37)


def grow(folder: Path) -> None:
    """Positions for 480 pixels in patches of 8, as the released models for questions have them
    in patches of 16."""
    table = {"module.image_encoder.positional_embedding": torch.randn(60**2 + 1, 128)}
    edit(folder, lambda tensors: tensors.update(table))


def test_a_model_for_questions_keeps_the_aspect_ratio_as_its_parameters_say(copy: Path) -> None:
    grow(copy)
    parameters = copy / "parameter.yaml"
    parameters.write_text("test_crop_size: 480\ntest_respect_ratio_max: 640\n")
    config = read_folder(copy, **IDS).config
    assert config.encoder.image_size == 480
    assert (config.preprocess.long_side_max, config.preprocess.crop) == (640, None)
    parameters.write_text("test_crop_size: 480\n")
    config = read_folder(copy, **IDS).config
    assert (config.preprocess.long_side_max, config.preprocess.crop) == (None, (480, 480))
    parameters.unlink()
    assert read_folder(copy, **IDS).config.preprocess.long_side_max == 640


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_image_with_embedding: 5", ["num_image_with_embedding is 5", "tensors show 6"]),
        ("visual_feature_size: 768", ["visual_feature_size is 768", "tensors show 128"]),
        ("test_crop_size: 224", ["test_crop_size is 224", "tensors show 32"]),
        ("image_encoder_type: CLIPViT_L_14", ["image_encoder_type is CLIPViT_L_14", "(128, 2, 8)"]),
        ("image_encoder_type: [1]", ["image_encoder_type is [1]", "CLIPViT_B_16"]),
        ("[" * 5000, ["not valid YAML"]),
        ("image_encoder_type: swin", ["image_encoder_type is 'swin'", "CLIPViT_B_16"]),
        ("beam_size: 4", ["unknown key 'beam_size'", "test_crop_size"]),
        ("test_crop_size: 32.5", ["test_crop_size is 32.5"]),
        ("test_crop_size: true", ["test_crop_size is True"]),
        ("test_crop_size: 0", ["test_crop_size is 0"]),
        ("[1, 2]", ["expected a table"]),
        ("a: [", ["not valid YAML"]),
        ("!!python/object/apply:os.mkdir [owned]", ["not valid YAML"]),
        ("\x00", ["not valid YAML"]),
    ],
)
def test_a_parameter_file_that_says_otherwise_is_refused(
    text: str, words: list[str], copy: Path
) -> None:
    (copy / "parameter.yaml").write_text(text)
    message = refusal(copy)
    assert all(word in message for word in [*words, "parameter.yaml"])


# Damage


def test_the_ids_of_a_small_vocabulary_have_to_be_given() -> None:
    message = refusal(FIXTURES / "image", bos_id=101, eos_id=102, pad_id=0)
    assert "bos_id is 101, but the vocabulary has 97 tokens" in message
    assert "--bos-id" in message


@pytest.mark.parametrize(
    "name",
    [
        "image_encoder.conv1.weight",
        "image_encoder.positional_embedding",
        "image_encoder.ln_pre.bias",
        "image_encoder.transformer.resblocks.0.mlp.c_fc.weight",
        "image_encoder.transformer.resblocks.1.attn.in_proj_bias",
        "img_temperal_embedding.3",
        "textual.embedding.words.weight",
        "textual.embedding.positions.weight",
        "textual.transformer.encoder.layer.0.intermediate.dense.weight",
        "textual.transformer.encoder.layer.1.attention.self.key.bias",
        "textual.output.weight",
        "textual.output.bias",
    ],
)
def test_a_missing_tensor_is_named(name: str, copy: Path) -> None:
    edit(copy, lambda tensors: tensors.pop(f"module.{name}"))
    (copy / "parameter.yaml").unlink()
    assert f"tensor {name} is missing" in refusal(copy)


def test_a_missing_layer_in_the_middle_is_named(copy: Path) -> None:
    def drop(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "resblocks.0." in name]:
            tensors[name.replace("resblocks.0.", "resblocks.2.")] = tensors.pop(name)

    edit(copy, drop)
    assert "tensor image_encoder.transformer.resblocks.0." in refusal(copy)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("image_encoder.conv1.weight", (128, 3), "expected 4 dimensions"),
        ("image_encoder.conv1.weight", (128, 1, 8, 8), "expected (128, 3, 8, 8)"),
        ("image_encoder.conv1.weight", (100, 3, 8, 8), "width 100 is not a multiple of 64"),
        ("image_encoder.positional_embedding", (16, 128), "has 16 rows, expected 1 and a square"),
        ("image_encoder.positional_embedding", (0, 128), "has 0 rows"),
        ("textual.output.bias", (96,), "tensor textual.output.bias has shape (96,)"),
        ("img_temperal_embedding.2", (2, 1, 128), "img_temperal_embedding.2 has shape (2, 1, 128)"),
    ],
)
def test_a_misshapen_tensor_is_named(
    name: str, shape: tuple[int, ...], words: str, copy: Path
) -> None:
    edit(copy, lambda tensors: tensors.update({f"module.{name}": torch.zeros(shape)}))
    assert words in refusal(copy)


def test_an_extra_tensor_is_named(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.update({"module.textual.stranger": torch.zeros(1)}))
    assert "unexpected tensor textual.stranger" in refusal(copy)


@pytest.mark.parametrize("loaded", [[1, 2], {"model": {"a": 1}}, {"a": "text"}, torch.zeros(2)])
def test_a_file_of_other_things_is_refused(loaded: Any, copy: Path) -> None:
    torch.save(loaded, copy / "snapshot" / "model.pt")
    assert "expected" in refusal(copy)


def test_a_truncated_file_is_refused(copy: Path) -> None:
    path = copy / "snapshot" / "model.pt"
    for size in (0, 10, 2000, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:size])
        assert "not a plain file of tensors" in refusal(copy)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_is_written(
    legacy: bool, copy: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(copy / "owned"),)

    path = copy / "snapshot" / "model.pt"
    torch.save({"model": Evil()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(GITError, match="could run code"):
        convert(str(copy), copy.parent / "new" / "ours")
    assert not (copy / "owned").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["theirs"]


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    assert "no weights, expected snapshot/model.pt or model.pt" in refusal(tmp_path)
