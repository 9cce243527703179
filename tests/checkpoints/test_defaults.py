"""The models that are used where none is named, and what released models were made for."""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from commands import refusal, run
from PIL import Image

import weights_convert
from git_model import Captioner
from git_model.checkpoints import defaults
from git_model.checkpoints.defaults import DEFAULT_MODELS, DEMO_PURPOSE, PURPOSES
from git_model.checkpoints.native import folder_of
from git_model.config import ConfigError, GITConfig
from weights_convert.hub import find_folder

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "examples" / "images"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (300, 200), "orange").save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_the_released_models_with_a_purpose_are_those_with_published_logits() -> None:
    released = json.loads(Path(weights_convert.__file__).with_name("released.json").read_text())
    assert {f"microsoft/{name}" for name in released} == PURPOSES.keys()
    assert {model for pair in DEFAULT_MODELS.values() for model in pair} <= PURPOSES.keys()


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (["caption", "photo"], "microsoft/git-base-coco"),
        (["caption", "clip"], "microsoft/git-base-vatex"),
        (["caption", "clip", "photo"], "microsoft/git-base-coco"),
        (["caption", "movie.mp4"], "microsoft/git-base-vatex"),
        (["ask", "photo", "-q", "why?"], "microsoft/git-base-vqav2"),
        (["ask", "clip", "-q", "why?"], "microsoft/git-base-msrvtt-qa"),
        (["classify", "photo", "-l", "a"], "microsoft/git-base"),
        (["score", "photo", "-t", "a"], "microsoft/git-base-coco"),
        (["score", "photo", "-t", "a", "-q", "why?"], "microsoft/git-base-vqav2"),
        (["explain", "photo", "--out", "why"], "microsoft/git-base-coco"),
        (["batch", "folder"], "microsoft/git-base-coco"),
        (["batch", "folder", "-q", "why?"], "microsoft/git-base-vqav2"),
        (["batch", "clips", "--out", "clips.csv"], "microsoft/git-base-vatex"),
    ],
)
def test_the_model_fits_the_task(
    arguments: list[str], model: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "clips"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.gif").symlink_to(IMAGES / "both_act.gif")
    (tmp_path / "folder" / "b.jpg").symlink_to(photo)
    (tmp_path / "movie.mp4").touch()
    paths = {"photo": str(photo), "clip": str(IMAGES / "both_act.gif")}
    line = refusal(*(paths.get(word, word) for word in arguments))
    assert line.startswith(f"Error: {model}: the Hugging Face hub cannot be reached")


def test_the_default_in_python_is_the_captioner_of_photos() -> None:
    parameters = inspect.signature(Captioner.from_pretrained).parameters
    assert parameters["name"].default == "microsoft/git-base-coco"


def test_offline_one_line_names_the_cache_the_variable_and_the_demo(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    result = run("caption", photo)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert f"cache: {tmp_path / 'hub'}; HF_HUB_OFFLINE=1 is set; --model demo needs no" in line


class FakeHub:
    """A hub with one repository of two files, of which some are in the cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, cached: set[str]) -> None:
        files = {"config.json": 500, "model.safetensors": 706_516_000, "tf_model.h5": 10**9}
        self.info = SimpleNamespace(
            sha="c0ffee",
            siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in files.items()],
            card_data=SimpleNamespace(license="mit"),
        )
        self.downloads: list[dict[str, object]] = []
        self.folder = folder
        (folder / "model.safetensors").touch()
        monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: self)
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.download)
        monkeypatch.setattr(
            "huggingface_hub.try_to_load_from_cache",
            lambda _, name, **__: f"/cache/{name}" if name in cached else None,
        )

    def model_info(self, *_: object, **__: object) -> SimpleNamespace:
        return self.info

    def download(self, _: str, **options: object) -> str:
        self.downloads.append(options)
        return str(self.folder)


def test_size_and_licence_are_named_before_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = FakeHub(monkeypatch, tmp_path, {"config.json"})
    assert find_folder("microsoft/git-base-coco", cache_dir=tmp_path / "hub") == tmp_path
    expected = f"microsoft/git-base-coco: downloading 707 MB to {tmp_path / 'hub'}, licence: MIT\n"
    assert capsys.readouterr() == ("", expected)
    assert hub.downloads[0]["revision"] is None


def test_nothing_is_said_where_all_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = FakeHub(monkeypatch, tmp_path, {"config.json", "model.safetensors"})
    find_folder("microsoft/git-base-coco")
    assert capsys.readouterr() == ("", "")
    [options] = hub.downloads
    assert (options["revision"], options["local_files_only"]) == ("c0ffee", True)


def test_the_help_names_the_defaults_and_their_purposes() -> None:
    text = " ".join(run("caption", "--help").stdout.replace("git-\n", "git-").split())
    assert DEMO_PURPOSE in text
    assert "[default: auto]" in text
    for model in DEFAULT_MODELS["caption"]:
        assert defaults.PURPOSES[model] in text


@pytest.mark.parametrize(
    "command", ["caption", "ask", "classify", "score", "batch", "explain", "evaluate", "page"]
)
def test_the_help_of_the_model_says_what_the_built_in_one_is_for_and_names_its_card(
    command: str,
) -> None:
    purpose = json.loads((folder_of("demo") / "config.json").read_text())["purpose"]
    help_text = run(command, "--help").stdout
    text = " ".join(help_text.split())
    assert f"demo: {purpose} (MIT licence; its model card: below)" in text
    lines = [line.strip() for line in help_text.splitlines()]
    card = Path(lines[lines.index("Model card of demo:") + 1])
    assert card.parent == folder_of("demo")
    assert "| licence | MIT" in card.read_text()
    assert "## Limits" in card.read_text()


def test_the_demo_says_once_that_it_was_not_made_for_photos(photo: Path) -> None:
    shapes = IMAGES / "two_shapes.png"
    result = run("caption", "--model", "demo", photo, photo, shapes, "--batch-size", 2)
    line, count = result.stderr.splitlines()
    assert line.startswith(f"Warning: {photo}: the model was made for {DEMO_PURPOSE}; this has ")
    assert count == "Warning: 2 images in all have such a warning"
    assert "300 x 200 pixels" in line
    assert run("caption", "--model", "demo", shapes).stderr == ""


@pytest.mark.usefixtures("few_figures")
def test_explain_shows_the_purpose_and_the_warning(photo: Path, tmp_path: Path) -> None:
    short = ("--max-new-tokens", 1)
    result = run("explain", "--model", "demo", photo, "--out", tmp_path / "why", *short)
    assert f"Warning: {photo}: the model was made for" in result.stderr
    page = (tmp_path / "why" / "report.html").read_text()
    assert f"model demo (made for {DEMO_PURPOSE})" in page
    assert "do not trust its text" in page


def test_images_that_are_left_on_their_side_are_counted() -> None:
    cases = ROOT / "tests" / "fixtures" / "cases"
    photos = [cases / name for name in ("orient1.png", "orient6.jpg", "orient8.png")]
    command = ("caption", "--model", "demo", *photos)
    result = run(*command, "--style", "microsoft")
    assert "Warning: 2 images are stored rotated or mirrored, and left so" in result.stderr
    for options in ((), ("--style", "microsoft", "--upright")):
        assert run(*command, *options).stderr == ""
    assert "2 images are stored" in run(*command, "--no-upright").stderr


def test_a_purpose_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"purpose is 'a.nb', expected a line"):
        GITConfig(purpose="a\nb")
    with pytest.raises(ConfigError, match="purpose_side is -1, expected from 0"):
        GITConfig(purpose_side=-1)
