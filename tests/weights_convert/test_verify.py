"""`verify` tells the truth about checkpoints that are right and about those that are not."""

import json
from pathlib import Path

import pytest
import torch
from parity_models import bite, config_of, make_pair
from safetensors.torch import load_file, save_file
from transformers import GitForCausalLM

from git_model.captioner import Captioner
from git_model.model.git import GIT
from git_model.utils.errors import GITError
from weights_convert.rules import ConversionError
from weights_convert.verify import Check, against_published, verify

RELEASED = Path(__file__).parents[2] / "weights_convert" / "released.json"


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    """A video checkpoint as Transformers 4 wrote it: `temperal` in its tensors' names."""
    model = bite(GitForCausalLM(config_of(5, num_image_with_embedding=2)), 5)
    model.save_pretrained(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    old = {
        name.replace("temporal_embedding", "temperal"): part
        for name, part in load_file(path).items()
    }
    save_file(old, path, metadata={"format": "pt"})
    return str(tmp_path / "hf")


def checks(name: str, model: GIT | None = None, **more: object) -> list[Check]:
    model = model or Captioner.from_pretrained(name, dtype=torch.float64).model
    return list(verify(model, name, **more))


def test_a_right_checkpoint_passes_every_check(theirs: str) -> None:
    found = checks(theirs)
    assert len(found) >= 5
    assert not any(check.failed for check in found)


def test_what_transformers_leaves_unset_is_reported(theirs: str) -> None:
    (note,) = {check.note for check in checks(theirs)} - {""}
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


def test_a_distance_that_is_no_number_is_a_failure() -> None:
    assert Check("a", "b", float("nan"), 1e-4).failed
    assert "TOO FAR" in str(Check("a", "b", float("nan"), 1e-4))
    assert not Check("a", "b", None, 1e-4, "no reason").failed


def test_the_first_logits_of_all_17_released_checkpoints_are_known() -> None:
    published = json.loads(RELEASED.read_text())
    assert len(published) == 17
    assert all(len(logits) == 3 for logits in published.values())


def test_published_logits_are_compared_on_a_picture(theirs: str, tmp_path: Path) -> None:
    pair = make_pair(8, num_image_with_embedding=None)
    picture = Path(__file__).parents[2] / "examples" / "images" / "one_shape.png"
    pair.theirs.float().save_pretrained(tmp_path / "still")
    found = checks(str(tmp_path / "still"), released="git-base", image=picture)
    assert found[-1].against == "published git-base"
    assert found[-1].failed  # random weights are not those of git-base

    git = Captioner.from_pretrained(tmp_path / "still", dtype=torch.float64)
    logits = git.model(git.preprocess([picture]).double(), torch.tensor([[1]]))[0, -1, :3]
    rounded = [round(number, 4) for number in logits.tolist()]
    assert not against_published(git.model, "its own", rounded, picture).failed
    rounded[1] += 0.003
    assert against_published(git.model, "its own", rounded, picture).failed


def test_published_logits_need_their_picture(tmp_path: Path) -> None:
    pair = make_pair(8, num_image_with_embedding=None)
    pair.theirs.float().save_pretrained(tmp_path / "still")
    with pytest.raises(GITError, match=r"missing\.jpg"):
        checks(str(tmp_path / "still"), released="git-base", image=tmp_path / "missing.jpg")


def test_a_picture_that_cannot_be_fetched_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    pair = make_pair(8, num_image_with_embedding=None)
    pair.theirs.float().save_pretrained(tmp_path / "still")
    found = checks(str(tmp_path / "still"), released="git-base")
    assert found[-1].distance is None
    assert found[-1].note == "give its picture with --image (no network)"


def test_video_logits_are_not_compared_and_it_says_why(theirs: str) -> None:
    assert "six frames of a video" in checks(theirs, released="git-base-vatex")[-1].note


def test_a_name_that_was_not_released_is_refused(theirs: str) -> None:
    with pytest.raises(ConversionError, match=r"git-huge was not released, expected one of git-ba"):
        checks(theirs, released="git-huge")
