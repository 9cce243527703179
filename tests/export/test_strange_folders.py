"""Exported folders that were changed, moved or made by others; engines in other processes."""

import json
import os
import pickle
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from commands import refusal, run
from eager_engine import as_exported
from PIL import Image
from tiny import tiny_model

from git_model import Captioner
from git_model.config import DecodingOptions
from git_model.export import engines, verification
from git_model.export.folder import read_info, sampled_digest, settings_digest, write_info
from git_model.model.attention import KeyValue
from git_model.utils.errors import GITError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture that is partly transparent."""
    gradient = Image.linear_gradient("L").resize((30, 20))
    channels = (gradient, gradient.rotate(180), gradient, gradient)
    Image.merge("RGBA", channels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def copy_of(exports: Path, tmp_path: Path, name: str = "onnx-float32") -> Path:
    return shutil.copytree(exports / name, tmp_path / "copy")


def edit(folder: Path, table: str, **changes: object) -> None:
    """Change a table of a folder's config.json."""
    settings = json.loads((folder / "config.json").read_text())
    settings[table].update(changes)
    (folder / "config.json").write_text(json.dumps(settings))


def forge(folder: Path, **changes: object) -> None:
    """Change the decoder's settings and all digests, as if all of it were exported so."""
    edit(folder, "decoder", **changes)
    settings = json.loads((folder / "config.json").read_text())
    names = settings["export"]["samples"]
    edit(
        folder,
        "export",
        settings_digest=settings_digest(settings),
        samples={name: sampled_digest(folder / name) for name in names},
    )


@pytest.mark.parametrize(
    "changes", [{"layers": 1}, {"positions": 99}, {"vocab_size": 41}, {"norm_eps": 1e-3}]
)
def test_settings_that_are_not_those_of_the_export_are_refused(
    exports: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    for engine in ("onnx", "openvino"):
        folder = shutil.copytree(exports / f"{engine}-float32", tmp_path / engine)
        edit(folder, "decoder", **changes)
        with pytest.raises(GITError, match=r"config\.json: its encoder, decoder, .* not those of"):
            Captioner.from_pretrained(folder)


@pytest.mark.parametrize("name", ["weights.bin", "tokenizer.json", "step.onnx"])
def test_a_file_of_another_export_is_refused(exports: Path, tmp_path: Path, name: str) -> None:
    folder = copy_of(exports, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(GITError, match=f"{name}: not the file that was exported with config"):
        Captioner.from_pretrained(folder)


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "notes.txt"])
def test_only_files_of_an_export_are_read(exports: Path, tmp_path: Path, name: str) -> None:
    folder = copy_of(exports, tmp_path)
    for path in (tmp_path / "secret.txt", folder / "notes.txt"):
        path.write_text("x")
    edit(folder, "export", samples={name: sampled_digest(tmp_path / "secret.txt")})
    with pytest.raises(GITError, match=f"samples names '{name}', expected files of this folder"):
        Captioner.from_pretrained(folder)


def test_large_files_of_two_models_have_different_samples(tmp_path: Path) -> None:
    torch.randn(2_000_000).numpy().tofile(tmp_path / "a")
    torch.randn(2_000_000).numpy().tofile(tmp_path / "b")
    shutil.copy(tmp_path / "a", tmp_path / "c")
    with (tmp_path / "d").open("wb") as file:  # of another length
        file.write((tmp_path / "a").read_bytes() + b"x")
    samples = [sampled_digest(tmp_path / name) for name in "abcd"]
    assert samples[0] == samples[2]
    assert len(set(samples)) == 3


def test_other_settings_may_be_changed_after_the_export(
    exports: Path, tmp_path: Path, photo: Path
) -> None:
    folder = copy_of(exports, tmp_path)
    edit(folder, "decoding", num_beams=2, max_new_tokens=3)
    edit(folder, "decoder", dropout=0.5)
    options = DecodingOptions(num_beams=2, max_new_tokens=3)
    source = Captioner.from_pretrained(exports / "source")
    caption = Captioner.from_pretrained(folder).caption(photo)
    assert caption.text == source.caption(photo, options=options).text


OTHER_LAYERS = "it has image.1.key, and config.json says nothing of it"
OTHER_HEADS = "its image.0.key has shape ? x 3 x 5 x 8, expected ? x 6 x ? x 4 by"


@pytest.mark.parametrize(
    ("engine", "damage", "line"),
    [
        ("onnx", lambda folder: forge(folder, layers=1), OTHER_LAYERS),
        ("openvino", lambda folder: forge(folder, layers=1), OTHER_LAYERS),
        ("onnx", lambda folder: forge(folder, layers=3), "its image.2.key is missing"),
        ("onnx", lambda folder: forge(folder, heads=6), OTHER_HEADS),
        ("onnx", lambda folder: forge(folder, vocab_size=41), "expected ? x ? x 41 by"),
        ("onnx", lambda folder: edit(folder, "preprocess", crop=[24, 16]), "its pixels has shape"),
        (
            "onnx",
            lambda folder: (
                shutil.copy(folder / "see.onnx", folder / "step.onnx"),
                forge(folder),
            ),
            "it has pixels, and config.json says nothing of it",
        ),
    ],
)
def test_graphs_that_are_not_the_configurations_are_refused(
    exports: Path, tmp_path: Path, engine: str, damage: Callable[[Path], object], line: str
) -> None:
    folder = copy_of(exports, tmp_path, f"{engine}-float32")
    damage(folder)
    with pytest.raises(GITError) as caught:
        Captioner.from_pretrained(folder)
    assert line in str(caught.value)
    assert ": these files are of different models" in str(caught.value)


def test_an_engine_that_fails_while_it_runs_is_one_line(
    exports: Path, tmp_path: Path, photo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(exports, tmp_path)
    forge(folder, positions=99)
    arguments = ["--min-new-tokens", "60", "--max-new-tokens", "70"]
    line = refusal("caption", photo, "--model", folder, *arguments)
    assert "step.onnx: the engine cannot run it: " in line
    assert "out of data bounds" in line
    assert capfd.readouterr().err == ""  # nor a line of the engine's own


def relocate(folder: Path, location: str) -> None:
    """Let a graph look for its weights elsewhere."""
    model = onnx.load(folder / "see.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "see.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["../weights.bin", "ABSOLUTE", "link.bin"])
def test_a_graph_that_reads_weights_outside_its_folder_is_refused(
    exports: Path, tmp_path: Path, location: str
) -> None:
    folder, outside = copy_of(exports, tmp_path), tmp_path / "weights.bin"
    shutil.copy(folder / "weights.bin", outside)
    (folder / "link.bin").symlink_to(outside)
    relocate(folder, str(outside) if location == "ABSOLUTE" else location)
    forge(folder)
    with pytest.raises(GITError, match=r"see\.onnx: the engine cannot load it: "):
        Captioner.from_pretrained(folder)


def test_weights_behind_a_link_are_one_line_that_says_so(exports: Path, tmp_path: Path) -> None:
    folder = copy_of(exports, tmp_path)
    (folder / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(GITError, match=r"weights\.bin: a link that leads out of the folder"):
        Captioner.from_pretrained(folder)


def test_a_folder_opens_through_a_link_after_a_move_on_a_disk_without_writing(
    exports: Path, tmp_path: Path, photo: Path
) -> None:
    copy_of(exports, tmp_path).rename(tmp_path / "moved é x")
    (tmp_path / "link").symlink_to("moved é x")
    (tmp_path / "moved é x").chmod(0o555)
    expected = Captioner.from_pretrained(exports / "source").caption(photo)
    assert Captioner.from_pretrained(tmp_path / "link").caption(photo).text == expected.text


def test_a_captioner_is_pickled_by_its_folder(exports: Path, photo: Path) -> None:
    captioner = Captioner.from_pretrained(exports / "onnx-float32")
    data = pickle.dumps(captioner)
    assert len(data) < 100_000
    assert pickle.loads(data).caption(photo) == captioner.caption(photo)


def test_a_fork_of_a_process_that_runs_onnx_is_told_not_to_hang(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.OnnxRuntime, "_process", os.getpid() + 1)
    with pytest.raises(GITError, match="method spawn"):
        Captioner.from_pretrained(exports / "onnx-float32")


@pytest.fixture
def example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What examples/onnx_caption.py prints for its arguments."""
    script = str(ROOT / "examples" / "onnx_caption.py")

    def output(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(script)
        return capsys.readouterr().out.strip()

    return output


@pytest.mark.parametrize("sizes", [{}, {"short_side": None, "crop": None, "exact": [16, 16]}])
def test_the_example_stretches_or_crops_takes_transparency_and_answers(
    exports: Path,
    tmp_path: Path,
    photo: Path,
    sizes: dict[str, object],
    example: Callable[..., str],
) -> None:
    folder = copy_of(exports, tmp_path)
    edit(folder, "preprocess", **sizes)
    answer = example(folder, photo, "word3", "word4")
    assert answer == Captioner.from_pretrained(folder).ask(photo, "word3 word4").text != ""


@pytest.mark.parametrize("changes", [{"crop": None}, {"crop_offset": "round"}])
def test_the_example_refuses_preprocessing_that_it_does_not_know(
    exports: Path,
    tmp_path: Path,
    photo: Path,
    changes: dict[str, object],
    example: Callable[..., str],
) -> None:
    folder = copy_of(exports, tmp_path)
    edit(folder, "preprocess", **changes)
    with pytest.raises(SystemExit, match="Error: this example has no code for"):
        example(folder, photo)


def test_the_example_says_what_it_lacks(
    exports: Path, tmp_path: Path, photo: Path, example: Callable[..., str]
) -> None:
    for arguments in ([], [exports / "onnx-float32"], [tmp_path / "no", photo]):
        with pytest.raises(SystemExit, match="Error: expected an exported folder and an image"):
            example(*arguments)
    with pytest.raises(SystemExit, match="Error: the question has 30 tokens: no room"):
        example(exports / "onnx-float32", photo, *["word3"] * 30)


def test_verify_says_how_to_name_a_source_that_was_moved(exports: Path, tmp_path: Path) -> None:
    folder, source = copy_of(exports, tmp_path), tmp_path / "gone"
    info, config = read_info(folder)
    (folder / "SHA256SUMS").unlink()
    write_info(folder, replace(info, source=str(source)), config)
    line = refusal("verify", folder)
    assert f"was exported from {source}: if that was moved, name it with --source" in line
    assert run("verify", folder, "--source", exports / "source").exit_code == 0


def test_an_int8_export_without_a_result_fails_the_comparison() -> None:
    model = tiny_model().float()
    exported = as_exported(model)
    exported.info = replace(exported.info, dtype="int8")
    assert not next(verification.verify(exported, model)).failed
    see = exported.engine.see
    exported.engine.see = lambda pixels: [
        KeyValue(torch.zeros_like(layer.key), torch.zeros_like(layer.value))
        for layer in see(pixels)
    ]
    assert next(verification.verify(exported, model)).failed
