"""Exported folders: their files, their results beside the source's, and what they refuse."""

import dataclasses
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import WORDS, refusal, run
from parity_models import make_pair
from photos import write_json
from PIL import Image
from safetensors.torch import load_file
from tiny import bite, tiny_config
from torch import Tensor

from git_model import Captioner, DecodingOptions, Frames
from git_model.checkpoints.native import EXPORT_FORMAT, write_checkpoint
from git_model.export import engines, folder, write
from git_model.export.graphs import SEE, STEP, programs, signatures
from git_model.export.model import ExportedGIT, open_exported
from git_model.export.onnx_files import write_onnx
from git_model.export.verification import verify
from git_model.generation.padded_session import flat
from git_model.model.git import GIT
from git_model.page import actions
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loop import train
from git_model.training.recipe import read_recipe
from git_model.utils.errors import GITError

ROOT = Path(__file__).parents[2]
ENGINES = ["onnx", "openvino"]
BEAMS = DecodingOptions(num_beams=3, max_new_tokens=7)


def picture(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    picture(1).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def copy(exports: Path, tmp_path: Path) -> Path:
    """An exported folder to damage."""
    return shutil.copytree(exports / "onnx-float32", tmp_path / "copy")


def exact_pair(exports: Path, name: str) -> tuple[Captioner, Captioner]:
    return Captioner.from_pretrained(exports / name), Captioner.from_pretrained(exports / "source")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_stage_equals_the_sources(exports: Path, engine: str) -> None:
    exported, source = exact_pair(exports, f"{engine}-float32")
    comparisons = list(verify(exported.model, source.model))
    names = [comparison.stage for comparison in comparisons]
    assert names == [
        f"{kind}, {stage}"
        for kind in ("images", "clips")
        for stage in (
            "prefix of layer 0",
            "prefix of layer 1",
            "logits",
            "greedy search",
            "beam search",
            "scores",
        )
    ]
    assert [str(comparison) for comparison in comparisons if comparison.failed] == []
    assert {comparison.equal for comparison in comparisons} == {None, 1.0}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_front_door_gives_the_sources_texts_and_probabilities(
    exports: Path, engine: str
) -> None:
    exported, source = exact_pair(exports, f"{engine}-float32")
    images = [picture(1), Frames([picture(2), picture(3)]), picture(4)]
    results = []
    for captioner in (exported, source):
        scene = captioner.see(images)
        results.append(
            [
                captioner.caption(scene, BEAMS),
                [text for row in captioner.ask(scene, ["word3 word4", "word5"]) for text in row],
                [text for row in captioner.score(scene, ["word1", "word1 word2"]) for text in row],
                captioner.classify(scene, ["word7", "word8 word9"], generate=True),
            ]
        )
    for ours, theirs in zip(*results, strict=True):
        assert [text.tokens for text in ours] == [text.tokens for text in theirs]
        torch.testing.assert_close(
            torch.tensor([text.logprob for text in ours]),
            torch.tensor([text.logprob for text in theirs]),
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip


def test_a_batch_of_images_and_their_beams_calls_each_graph_once_a_step(exports: Path) -> None:
    captioner = Captioner.from_pretrained(exports / "onnx-float32")
    options = DecodingOptions(num_beams=4, max_new_tokens=5, min_new_tokens=4)
    captioner.caption(captioner.see([picture(1), picture(2)]), options)
    assert captioner.model.engine.calls == {SEE: 1, STEP: 5, "see_clip": 0}


def test_the_weights_of_both_graphs_are_stored_once(exports: Path) -> None:
    exported = exports / "onnx-float32"
    graphs = [onnx.load(path, load_external_data=False) for path in exported.glob("*.onnx")]
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for graph in graphs
        for tensor in graph.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert {place["location"] for place in places} == {"weights.bin"}
    spans = {(int(place["offset"]), int(place["length"])) for place in places}
    assert len(places) > 1.5 * len(spans)  # two graphs for pixels, and the decoder's in all three
    data = (exported / "weights.bin").read_bytes()
    parts = [data[start : start + length] for start, length in spans]
    assert len(set(parts)) == len(parts)
    model = Captioner.from_pretrained(exports / "source").model
    n_bytes = sum(4 * tensor.numel() for tensor in model.tensors().values())
    assert sum(map(len, parts)) < 1.1 * n_bytes


def test_the_inputs_and_outputs_are_those_of_the_documentation(exports: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    for name in ("see", "see_clip", "step"):
        graph = onnx.load(exports / "onnx-float32" / f"{name}.onnx", load_external_data=False).graph
        for value in (*graph.input, *graph.output):
            if not value.name.startswith("image.1."):  # where the page has dots
                assert f"`{value.name}`" in page
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "tokens": ["images", "texts", "tokens"],
        "token_mask": ["images", "texts", "past + tokens"],
        **{
            f"image.{layer}.{part}": ["images", 3, "image_tokens", 8]
            for layer in range(2)
            for part in ("key", "value")
        },
        "past": [2, 2, "images", "texts", 3, "past", 8],
        "logits": ["images", "texts", 40],
        "present": [2, 2, "images", "texts", 3, "past + tokens", 8],
    }


def test_the_graphs_hold_no_path_of_the_machine_that_wrote_them(exports: Path) -> None:
    for path in (exports / "onnx-float32").iterdir():
        assert str(ROOT).encode() not in path.read_bytes(), path.name


def test_every_file_has_its_digest(exports: Path) -> None:
    for name in ("onnx-float32", "openvino-int8"):
        lines = (exports / name / "SHA256SUMS").read_text().splitlines()
        digests = dict(reversed(line.split("  ")) for line in lines)
        files = {path.name for path in (exports / name).iterdir()} - {"SHA256SUMS"}
        assert digests.keys() == files
        for file, digest in digests.items():
            assert hashlib.sha256((exports / name / file).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", ["onnx-float16", "onnx-int8", "openvino-int8"])
def test_reduced_weights_are_smaller_and_near(exports: Path, name: str) -> None:
    exported, source = exact_pair(exports, name)
    whole = (exports / "onnx-float32" / "weights.bin").stat().st_size
    assert (exports / name / "weights.bin").stat().st_size < whole
    limit = 0.01 if name == "onnx-float16" else 0.3
    distances = [
        comparison.distance
        for comparison in verify(exported.model, source.model)
        if "prefix" in comparison.stage
    ]
    assert 0 < max(distances) < limit


def test_the_commands_run_an_exported_model(exports: Path, photo: Path, tmp_path: Path) -> None:
    for arguments in (
        ["caption", photo, "--num-beams", "2"],
        ["ask", photo, "-q", "word3"],
        ["score", photo, "-t", "word3"],
        ["classify", photo, "--label", "word3", "--label", "word4"],
    ):
        outputs = [
            run(*arguments, "--model", exports / name) for name in ("onnx-float32", "source")
        ]
        assert [output.exit_code for output in outputs] == [0, 0]
        assert outputs[0].stdout.split() == outputs[1].stdout.split()
    batch = run("batch", photo.parent, "--model", exports / "onnx-float32", "--threads", "1",
                "--out", tmp_path / "out.jsonl")  # fmt: skip
    assert batch.exit_code == 0, batch.output
    record = json.loads((tmp_path / "out.jsonl").read_text())
    expected = Captioner.from_pretrained(exports / "source").caption(photo)
    assert record["text"] == expected.text


def test_evaluate_runs_an_exported_model(
    exports: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no Java
    annotation = {"id": 1, "image_id": 1, "caption": "word1 word2"}
    images = [{"id": 1, "file_name": photo.name}]
    coco = write_json(tmp_path / "coco.json", {"images": images, "annotations": [annotation]})
    data = tmp_path / "data.toml"
    data.write_text(f'[data]\nkind = "coco"\nannotations = "{coco}"\nimages = "{tmp_path}"\n')
    out = tmp_path / "predictions.json"
    result = run("evaluate", data, "--model", exports / "onnx-float32", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 captions")
    expected = Captioner.from_pretrained(exports / "source").caption(photo).text
    assert json.loads(out.read_text()) == [{"image_id": 1, "caption": expected}]


def test_the_page_has_the_sources_replies_and_no_attention(exports: Path, photo: Path) -> None:
    exported, source = exact_pair(exports, "onnx-float32")
    sessions = [
        actions.encode(captioner, actions.read_picture(captioner, photo.read_bytes()))
        for captioner in (exported, source)
    ]
    for question in (None, "word3 word4"):
        replies = [
            actions.generate_reply(captioner, session, question).text
            for captioner, session in zip((exported, source), sessions, strict=True)
        ]
        assert replies[0] == replies[1] != ""
    rankings = [
        actions.rank_labels(captioner, session, "word5, word6")
        for captioner, session in zip((exported, source), sessions, strict=True)
    ]
    for label, expected in zip(*(ranking.labels for ranking in rankings), strict=True):
        assert label.label == expected.label
        assert label.logprob == pytest.approx(expected.logprob, rel=1e-4)
    with pytest.raises(GITError, match="an exported model does not show"):
        actions.word_attention(exported, sessions[0], 0, 0)


@pytest.mark.slow
def test_the_command_page_serves_an_exported_model(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[object] = []

    def serve(sockets: object) -> None:
        served.append(sockets)

    server = SimpleNamespace(run=serve)
    monkeypatch.setattr("git_model.page.layout.server_of", lambda app: server)
    result = run("page", "--model", exports / "onnx-float32", "--port", 0)
    assert result.exit_code == 0, result.output
    assert len(served) == 1


def test_verify_compares_an_exported_model_with_its_source(exports: Path) -> None:
    result = run("verify", exports / "onnx-float32")
    assert result.exit_code == 0, result.output
    assert "greedy search" in result.output
    assert "100.0% of the tokens are equal" in result.output
    line = refusal("verify", exports / "onnx-float32", "--source", "demo")
    assert "not those that were exported" in line


def test_the_example_without_torch_gives_the_same_caption(exports: Path, photo: Path) -> None:
    script = ROOT / "examples" / "onnx_caption.py"
    code = script.read_text().split('"""', 2)[2]  # below the docstring
    assert len(list(filter(None, code.splitlines()))) <= 48
    assert "torch" not in code
    process = subprocess.run(
        [sys.executable, script, exports / "onnx-float32", photo],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = Captioner.from_pretrained(exports / "source").caption(photo)
    assert process.stdout.strip() == expected.text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("explain", "PHOTO", "--out", "TMP/why"), "explain records what happens inside"),
        (("convert", "MODEL", "TMP/out"), "cannot be converted"),
        (("export", "MODEL", "TMP/out"), "an exported model cannot be exported again"),
        (("verify", "MODEL", "--source", "MODEL"), "an exported model cannot be a source"),
        (
            ("verify", "MODEL", "--dtype", "float64"),
            "checkpoints, this is exported",
        ),
        (("caption", "PHOTO", "--device", "cpu:1"), "this ONNX Runtime has cpu, expected"),
        (("caption", "PHOTO", "--device", "auto:0"), "this ONNX Runtime has cpu, expected"),
        (("caption", "PHOTO", "--device", "azure"), "this ONNX Runtime has cpu, expected"),
        (("caption", "PHOTO", "--dtype", "bfloat16"), "its own number format"),
        (("caption", "PHOTO", "--compile"), "takes no compile"),
        (("caption", "PHOTO", "--style", "microsoft"), "export the source with --style microsoft"),
        (("caption", "PHOTO", "--device", "cuda"), "this ONNX Runtime has"),
        (("caption", "PHOTO", "--device", "cpu:x"), "this ONNX Runtime has"),
    ],
)
def test_what_an_exported_model_cannot_do_is_one_line(
    exports: Path, photo: Path, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    model = exports / "onnx-float32"
    names = {"PHOTO": str(photo), "MODEL": str(model)}
    words = [names.get(word, word.replace("TMP", str(tmp_path))) for word in arguments]
    options = ["--model", str(model)] if words[0] in ("caption", "explain") else []
    code = 2 if "this is exported" in line else 1  # wrong usage, or a task that it cannot do
    assert line in refusal(*words, *options, code=code)
    assert not (tmp_path / "out").exists()


def test_training_from_an_exported_model_is_refused(exports: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        read_recipe(ROOT / "configs" / "train" / "quick.toml"),
        model=None, initial="bert", tokenizer=None, checkpoint=str(exports / "onnx-float32"),
    )  # fmt: skip
    with pytest.raises(GITError, match="cannot be trained"):
        train(recipe, tmp_path / "run", resume=False)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda path: (path / "weights.bin").unlink(), "weights.bin: no such file"),
        (lambda path: (path / "step.onnx").unlink(), "step.onnx: no such file"),
        (lambda path: (path / "step.onnx").write_bytes(b"x"), "step.onnx: not the file that was"),
        (lambda path: (path / "tokenizer.json").unlink(), "write text: copy the whole folder"),
        (
            lambda path: edit(path, lambda table: table.update(format="git_model export 9")),
            f"'git_model export 9', expected {EXPORT_FORMAT!r}",
        ),
        (lambda path: edit(path, lambda table: table.pop("export")), "engine is missing"),
        (lambda path: edit(path, lambda table: table["export"].update(engine="tf")), "'tf'"),
    ],
)
def test_a_damaged_folder_is_one_line(copy: Path, photo: Path, damage, line: str) -> None:
    damage(copy)
    assert line in refusal("caption", photo, "--model", copy)


def edit(path: Path, change) -> None:
    """Change a folder's config.json."""
    table = json.loads((path / "config.json").read_text())
    change(table)
    (path / "config.json").write_text(json.dumps(table))


def test_a_wrong_digest_is_noticed_with_integrity(copy: Path, photo: Path) -> None:
    with (copy / "config.json").open("a") as file:  # without a change of its meaning
        file.write(" ")
    assert run("caption", photo, "--model", copy).exit_code == 0
    line = refusal("caption", photo, "--model", copy, "--integrity")
    assert "config.json: its sha256 is" in line
    (copy / "SHA256SUMS").unlink()
    line = refusal("caption", photo, "--model", copy, "--integrity")
    assert "cannot be checked: export its source again" in line


def test_a_missing_engine_is_one_line(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("git_model.export.packages.find_spec", lambda _name: None)
    for engine, package in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        with pytest.raises(GITError, match=rf"{package} is not installed.*git-model\[{engine}\]"):
            open_exported(exports / f"{engine}-float32")
    with pytest.raises(GITError, match=r"onnx is not installed.*git-model\[onnx\]"):
        write.export("demo", Path("nowhere"))


def test_an_engine_that_cannot_be_loaded_is_one_line(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_module(name: str) -> None:
        raise OSError(f"lib{name}.so.12: cannot open shared object file\nand more")

    monkeypatch.setattr("git_model.export.packages.import_module", import_module)
    with pytest.raises(GITError, match=r"onnxruntime cannot be loaded \(libonnxruntime.*git-model"):
        open_exported(exports / "onnx-float32")


def test_a_device_that_openvino_does_not_have_is_one_line(exports: Path) -> None:
    with pytest.raises(GITError, match="OpenVINO has cpu"):
        open_exported(exports / "openvino-float32", device="tpu")


def test_a_provider_that_does_not_start_is_one_line(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(GITError, match=r"could not start its CUDAExecutionProvider|cannot load it"):
        open_exported(exports / "onnx-float32", device="auto")
    assert engines._provider("cuda:1", ["CUDAExecutionProvider"])[1] == {"device_id": "1"}


@pytest.mark.parametrize(("value", "dtype"), [("nan", "int8"), ("inf", "float32"), ("7e4", "int8")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: str, dtype: str) -> None:
    model = GIT(tiny_config()).eval()
    with torch.no_grad():
        model.decoder.lm_head.weight[0, 0] = float(value)
    model.save_pretrained(tmp_path / "model")
    line = refusal("export", tmp_path / "model", tmp_path / "out", "--dtype", dtype)
    assert "decoder.lm_head.weight reaches" in line
    assert not (tmp_path / "out").exists()


def wide_model() -> GIT:
    """A model whose weights, 7 MB, are much larger than the code of its graphs."""
    config = tiny_config()
    encoder = dataclasses.replace(config.encoder, layers=1, width=256, mlp_width=1024)
    decoder = dataclasses.replace(config.decoder, layers=1, width=256, heads=4, mlp_width=1024)
    config = dataclasses.replace(config, encoder=encoder, decoder=decoder)
    model = bite(GIT(config).double(), seed=5).float().eval()
    return model.requires_grad_(requires_grad=False)


def size_limit(model: GIT) -> float:
    """Bytes of the weights, and 1 MB for what else a folder has."""
    return 1.1 * sum(4 * tensor.numel() for tensor in model.tensors().values()) + 1e6


def torch_weights(folder: Path) -> dict[str, Tensor]:
    """The first input of a folder's programs, as the documentation says."""
    return dict(sorted(load_file(folder / "weights.safetensors").items()))


def write_see(model: GIT, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program `see` alone: an export of `step` takes ten times as long."""
    monkeypatch.setattr(write, "programs", lambda *a: itertools.islice(programs(*a), 1))
    write.write_torch(model, folder)


def test_a_torch_program_takes_its_weights_as_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wide_model()
    write_see(model, tmp_path, monkeypatch)
    assert {path.name for path in tmp_path.iterdir()} == {"see.pt2", "weights.safetensors"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < size_limit(model)
    see = torch.export.load(tmp_path / "see.pt2").module(check_guards=False)
    pixels = torch.randn(3, 3, 16, 16)
    image, expected = see(torch_weights(tmp_path), pixels), flat(model.see(pixels).layers)
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="input tree"):
        see(dict(list(torch_weights(tmp_path).items())[1:]), pixels)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torch_programs_share_their_weights_and_are_not_opened_with_pickle(tmp_path: Path) -> None:
    model, out = wide_model(), tmp_path / "programs"
    model.save_pretrained(tmp_path / "source")
    assert run("export", tmp_path / "source", out, "--format", "torch").exit_code == 0
    assert sum(path.stat().st_size for path in out.iterdir()) < size_limit(model)
    weights = torch_weights(out)
    see, step = (
        torch.export.load(out / f"{name}.pt2").module(check_guards=False) for name in (SEE, STEP)
    )
    pixels, tokens = torch.randn(2, 3, 16, 16), torch.tensor([[[1]], [[1]]])
    image, mask = see(weights, pixels), torch.ones(2, 1, 1, dtype=torch.bool)
    logits, present = step(weights, tokens, mask, image, torch.zeros(1, 2, 2, 1, 4, 0, 64))
    torch.testing.assert_close(
        logits[:, 0], model(pixels, tokens[:, 0])[:, -1], rtol=1e-4, atol=1e-4
    )
    assert present.shape == (1, 2, 2, 1, 4, 1, 64)
    with pytest.raises(GITError, match="AOTInductor"):
        open_exported(out)
    (out / "weights.safetensors").unlink()
    with pytest.raises(GITError, match=r"weights\.safetensors: no such file"):
        open_exported(out)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_aotinductor_compiles_a_torch_program_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wide_model()
    write_see(model, tmp_path, monkeypatch)
    weights, pixels = torch_weights(tmp_path), torch.randn(2, 3, 16, 16)
    program = torch.export.load(tmp_path / "see.pt2")
    program.example_inputs = ((weights, pixels), {})
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "compiled.pt2")
    )
    see = torch._inductor.aoti_load_package(package)
    image, expected = see(weights, pixels), flat(model.see(pixels).layers)
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)


def test_torch_programs_have_no_int8(tmp_path: Path) -> None:
    options = ("--format", "torch", "--dtype", "int8")
    assert "no int8" in refusal("export", "demo", tmp_path / "no", *options, code=2)
    with pytest.raises(GITError, match="no int8"):
        write.export("demo", tmp_path / "no", engine="torch", dtype="int8")


def test_a_folder_that_exists_is_kept_unless_overwritten(exports: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for options in ([], ["--overwrite"]):
        line = refusal(
            "export", exports / "source", tmp_path / "out", "--format", "torch", *options
        )
        assert "already exists" in line
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("engine", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_model_that_keeps_the_aspect_ratio_takes_images_of_any_size(
    tmp_path: Path, engine: str
) -> None:
    config = tiny_config()
    config = dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, layers=1),
        decoder=dataclasses.replace(config.decoder, layers=1, activation="gelu_tanh"),
        preprocess=dataclasses.replace(config.preprocess, crop=None, long_side_max=40),
    )
    model = bite(GIT(config).double(), seed=3).float().eval()
    name, program = next(programs(model))
    see = program.module(check_guards=False)  # torch also guards the example's sizes
    sizes = [(1, 16, 16), (2, 24, 16), (1, 17, 40)]
    if engine == "onnx":
        write_onnx([(name, program)], signatures(config), tmp_path)
        session = onnxruntime.InferenceSession(tmp_path / "see.onnx")

        def see(pixels: torch.Tensor) -> list[torch.Tensor]:
            return [torch.from_numpy(out) for out in session.run(None, {"pixels": pixels.numpy()})]

        sizes.append((3, 8, 8))  # one patch, for which a torch program has no code
    for n_images, height, width in sizes:
        pixels = torch.randn(n_images, 3, height, width)
        expected = flat(model.see(pixels).layers)
        torch.testing.assert_close(see(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.timeout(600)
def test_random_configurations_equal_their_sources(tmp_path: Path, seed: int) -> None:
    model = make_pair(seed).ours.float().eval()
    size = model.config.decoder.vocab_size
    words = [*WORDS, *(f"other{n}" for n in range(size - len(WORDS)))]
    files = {"tokenizer.json": Tokenizer.from_vocab(words).to_json()}
    write_checkpoint(tmp_path / "source", model.config, model.tensors(), files)
    write.export(str(tmp_path / "source"), tmp_path / "onnx")
    openvino = tmp_path / "openvino"
    openvino.mkdir()
    write.rewrite(tmp_path / "onnx", openvino, "openvino", "float32")
    info, config = folder.read_info(tmp_path / "onnx")
    folder.write_info(openvino, dataclasses.replace(info, engine="openvino"), config)
    for path in (tmp_path / "onnx", openvino):
        exported = open_exported(path)
        assert isinstance(exported, ExportedGIT)
        failed = [str(item) for item in verify(exported, model) if item.failed]
        assert failed == []
