"""`verify` tells the truth about checkpoints that are right and about those that are not."""

import json
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from parity_models import config_of, make_pair
from safetensors.torch import load_file, save_file
from tiny import bite, tiny_config, tiny_model
from transformers import GitForCausalLM

import weights_convert
from git_model.captioner import Captioner
from git_model.config import DecodingOptions, PreprocessConfig
from git_model.generation.session import Session
from git_model.model.git import GIT
from git_model.preprocessing.image import open_image
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError
from weights_convert.inspection import Inspection, inspect_files, inspect_vocabulary
from weights_convert.rules import ConversionError
from weights_convert.verification import Check, against_published, random_inputs, verify

ORIGINAL = Path(__file__).parents[1] / "fixtures" / "microsoft" / "image"
RELEASED = files(weights_convert) / "released.json"  # of the installed package


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    """A video checkpoint as Transformers 4 wrote it: `temperal` in its tensors' names."""
    model = bite(GitForCausalLM(config_of(5, num_image_with_embedding=2)), 5)
    model.save_pretrained(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    old = {name.replace("temporal", "temperal"): part for name, part in load_file(path).items()}
    save_file(old, path, metadata={"format": "pt"})
    return str(tmp_path / "hf")


def checks(name: str, model: GIT | None = None, **options: Any) -> list[Check | Inspection]:
    model = model or Captioner.from_pretrained(name, dtype=torch.float64).model
    return list(verify(model, name, **options))


def test_a_right_checkpoint_passes_every_check(theirs: str) -> None:
    results = checks(theirs)
    stages = [check.stage for check in results if isinstance(check, Check)]
    n_layers = config_of(5).num_hidden_layers
    layers = [f"decoder layer {number}" for number in range(n_layers)]
    assert stages == [
        "cached logits", "forward logits", "encoder", "projector", *layers, "logits"
    ]  # fmt: skip
    assert not any(check.failed for check in results)


def test_what_transformers_leaves_unset_is_reported(theirs: str) -> None:
    (note,) = {check.note for check in checks(theirs) if isinstance(check, Check)} - {""}
    assert note == ("Transformers left 2 tensors unset, such as git.img_temporal_embedding.0")


@pytest.mark.parametrize(
    ("tensor", "first"),
    [
        ("encoder.post_norm.bias", "encoder"),
        ("projector.linear.weight", "projector"),
        ("decoder.blocks.0.mlp.down.bias", "decoder layer 0"),
        ("decoder.lm_head.bias", "logits"),
    ],
)
def test_a_wrong_tensor_is_found_at_its_stage(theirs: str, tensor: str, first: str) -> None:
    model = Captioner.from_pretrained(theirs, dtype=torch.float64).model
    with torch.no_grad():
        model.get_parameter(tensor).view(-1)[0] += 0.1
    failed = [check.stage for check in checks(theirs, model) if check.failed]
    assert failed[0] == first


def test_a_wrong_image_prefix_is_found_although_every_cached_path_shares_it(theirs: str) -> None:
    """The reference is one pass over image and text, so it does not call `see`."""
    model = Captioner.from_pretrained(theirs, dtype=torch.float64).model
    see = model.see
    model.see = lambda pixels: see(pixels.flip(0))
    failed = [check.stage for check in checks(theirs, model) if check.failed]
    assert failed[:2] == ["cached logits", "forward logits"]


def test_a_wrong_step_of_the_cache_is_found(theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Session.step
    monkeypatch.setattr(Session, "step", lambda self, tokens: step(self, tokens) * 1.0001)
    failed = [check.stage for check in checks(theirs) if check.failed]
    assert failed == ["cached logits"]


# The checkpoint itself


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_named(value: float, theirs: str) -> None:
    model = Captioner.from_pretrained(theirs, dtype=torch.float64).model
    with torch.no_grad():
        model.decoder.blocks[0].mlp.up.weight[1, :3] = value
    (inspection,) = [check for check in checks(theirs, model) if check.stage == "finite"]
    problem = "tensor decoder.blocks.0.mlp.up.weight has 3 weights that are NaN or infinite"
    assert inspection.problem == problem
    assert str(inspection).endswith(f"WRONG: {problem}")
    assert inspection.failed


def test_a_nan_in_a_row_that_no_test_text_reads_is_found_in_a_file(tmp_path: Path) -> None:
    """Every comparison passes: the token is not among those that are compared."""
    model = tiny_model()
    _, tokens = random_inputs(model)
    unused = min(set(range(40)) - set(tokens.flatten().tolist()))
    with torch.no_grad():
        model.decoder.token_embedding.weight[unused, 0] = float("nan")
    model.float().save_pretrained(tmp_path / "ours")
    results = checks(str(tmp_path / "ours"))
    assert [check.stage for check in results if check.failed] == ["finite"]


def vocabulary(n_tokens: int) -> Tokenizer:
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(n_tokens - 4))]
    return Tokenizer.from_vocab(words)


def test_a_vocabulary_that_fits_names_its_special_tokens() -> None:
    inspection = inspect_vocabulary(vocabulary(40), tiny_config())
    assert not inspection.failed
    assert inspection.result == (
        "40 tokens, vocab_size 40; bos_id [CLS], pad_id [PAD], eos_ids[0] [SEP]"
    )


@pytest.mark.parametrize(
    ("n_tokens", "changes", "problem"),
    [
        (43, {}, "3 ids are not below vocab_size, such as 40"),
        (30, {"bos_id": 33}, "bos_id is 33, which is no token of the vocabulary"),
        (30, {"pad_id": 30}, "pad_id is 30, which is no token"),
        (30, {"eos_ids": (2, 39)}, "eos_ids[1] is 39, which is no token"),
    ],
)
def test_a_vocabulary_of_another_model_is_wrong(
    n_tokens: int, changes: dict[str, Any], problem: str
) -> None:
    inspection = inspect_vocabulary(vocabulary(n_tokens), tiny_config(**changes))
    assert inspection.failed
    assert problem in str(inspection)


def test_ids_without_a_token_are_counted() -> None:
    """Such as those of a vocabulary that is padded to a multiple of 64."""
    inspection = inspect_vocabulary(vocabulary(37), tiny_config())
    assert not inspection.failed
    assert "3 ids without a token, such as 37" in inspection.result
    suppress = DecodingOptions(suppress_tokens=(37, 38, 39))
    inspection = inspect_vocabulary(vocabulary(37), tiny_config(decoding=suppress))
    assert "without a token" not in inspection.result


def test_every_file_is_printed_with_its_sha256(theirs: str) -> None:
    lines = [str(inspection) for inspection in inspect_files(theirs)]
    files = sorted(Path(theirs).iterdir())
    assert len(lines) == len(files) >= 3
    for line, path in zip(lines, files, strict=True):
        assert path.name in line
        assert sha256(path.read_bytes()).hexdigest() in line
        assert line.endswith("not compared: no SHA256SUMS")


def test_the_originals_weights_are_among_the_files() -> None:
    names = [inspection.stage for inspection in inspect_files(str(ORIGINAL))]
    assert "snapshot/model.pt" in names
    assert "parameter.yaml" in names


def test_a_flipped_weight_passes_every_comparison_but_not_its_digest(tmp_path: Path) -> None:
    """Both sides of a comparison load the same file."""
    folder = tmp_path / "ours"
    tiny_model().float().save_pretrained(folder)
    assert not any(check.failed for check in checks(str(folder)))
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.blocks.0.attn.out.weight"][0, 0] *= -1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    failed = [check for check in checks(str(folder)) if check.failed]
    assert [check.stage for check in failed] == ["model.safetensors"]
    assert "WRONG: SHA256SUMS has " in str(failed[0])


def test_files_that_came_or_went_are_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    tiny_model().float().save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "model.safetensors").unlink()
    failed = {check.stage: check.problem for check in inspect_files(str(folder)) if check.failed}
    assert failed == {
        "tokenizer_config.json": "SHA256SUMS does not list it",
        "model.safetensors": "SHA256SUMS lists it",
    }


def test_settings_that_transformers_lacks_do_not_stop_the_comparison(tmp_path: Path) -> None:
    images = PreprocessConfig(short_side=16, crop=(16, 16), upright=False)
    decoding = DecodingOptions(no_repeat_token=True)
    model = tiny_model(preprocess=images, decoding=decoding).float()
    model.save_pretrained(tmp_path / "ours")
    results = checks(str(tmp_path / "ours"))
    assert any(check.stage == "logits" for check in results)
    assert not any(check.failed for check in results)


# What was published


def test_a_distance_that_is_no_number_is_a_failure() -> None:
    assert Check("a", "b", float("nan"), 1e-4).failed
    assert "TOO FAR" in str(Check("a", "b", float("nan"), 1e-4))
    assert not Check("a", "b", None, 1e-4, "no reason").failed


def test_the_first_logits_of_all_17_released_checkpoints_are_known() -> None:
    published = json.loads(RELEASED.read_text())
    assert len(published) == 17
    assert all(len(logits) == 3 for logits in published.values())


def test_published_logits_are_compared_on_an_image(theirs: str, tmp_path: Path) -> None:
    pair = make_pair(8, num_image_with_embedding=None)
    path = Path(__file__).parents[2] / "examples" / "images" / "one_shape.png"
    pair.theirs.float().save_pretrained(tmp_path / "still")
    results = checks(str(tmp_path / "still"), released="git-base", image=path)
    assert results[-1].against == "published git-base"
    assert results[-1].failed  # random weights are not those of git-base

    captioner = Captioner.from_pretrained(tmp_path / "still", dtype=torch.float64)
    pixels = captioner.preprocess([open_image(path)]).double()
    logits = captioner.model(pixels, torch.tensor([[1]]))[0, -1, :3]
    rounded = [round(number, 4) for number in logits.tolist()]
    assert not against_published(captioner.model, "its own", rounded, path).failed
    rounded[1] += 0.003
    assert against_published(captioner.model, "its own", rounded, path).failed


def test_published_logits_need_their_image(tmp_path: Path) -> None:
    pair = make_pair(8, num_image_with_embedding=None)
    pair.theirs.float().save_pretrained(tmp_path / "still")
    with pytest.raises(GITError, match=r"missing\.jpg"):
        checks(str(tmp_path / "still"), released="git-base", image=tmp_path / "missing.jpg")


def test_an_image_that_cannot_be_downloaded_has_to_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    pair = make_pair(8, num_image_with_embedding=None)
    pair.theirs.float().save_pretrained(tmp_path / "still")
    results = checks(str(tmp_path / "still"), released="git-base")
    assert results[-1].distance is None
    assert results[-1].note == "give its image with --image (no network)"


def test_video_logits_are_not_compared_and_it_says_why(theirs: str) -> None:
    note = checks(theirs, released="git-base-vatex")[-1].note
    assert "six random frames" in note
    assert "cannot be rebuilt exactly offline" in note


def test_a_name_that_was_not_released_is_refused(theirs: str) -> None:
    with pytest.raises(ConversionError, match=r"git-huge was not released, expected one of git-ba"):
        checks(theirs, released="git-huge")
