"""The public names, their reprs, and what they say of wrong names."""

import dataclasses
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_checkpoint

import git_model
from git_model import GIT, Caption, Captioner, DecodingOptions
from git_model.checkpoints import loading
from git_model.generation.generate import generate, score_texts
from git_model.utils.errors import GITError

IMAGE = "examples/images/two_shapes.png"
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{n}" for n in range(36))]


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_pretrained("demo")


@pytest.fixture(scope="module")
def image() -> Path:
    return Path(__file__).parents[1] / IMAGE


def test_dir_shows_the_public_names_and_only_these() -> None:
    for _ in range(2):  # also after they were imported
        assert dir(git_model) == [
            "Caption", "Captioner", "DecodingOptions", "Frames", "GIT", "GITConfig", "GITError",
            "Generation", "Scene", "__version__", "generate",
        ]  # fmt: skip
        for name in dir(git_model):
            getattr(git_model, name)


def test_the_version_is_the_packages_and_loads_no_torch() -> None:
    code = "import sys, git_model; print(git_model.__version__, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [version("git-model"), "False"]


def test_reprs_are_one_short_line(captioner: Captioner, image: Path) -> None:
    scene, batch = captioner.see(image), captioner.see([image, image])
    tokens = (captioner.model.config.encoder.image_size // 8) ** 2 + 1
    assert repr(captioner.caption(scene)).startswith("Caption('a ")
    assert repr(scene).startswith("ImageScene(1 images of ")
    assert repr(batch) == "BatchScene(2 images of 1 shapes)"
    assert repr(batch.parts[0][1]).startswith("Scene(2 images of ")
    for item in (captioner, scene, batch, captioner.caption(scene)):
        assert "\n" not in repr(item)
        assert len(repr(item)) < 120
    n_parameters = sum(parameter.numel() for parameter in captioner.model.parameters())
    assert f"({n_parameters / 1e6:.1f}M parameters, float32, cpu, style " in repr(captioner)
    assert tokens > 1


def test_a_notebook_shades_the_words_by_their_probability() -> None:
    spelling = ["a", "<b>", "zeb", "##ra", "[SEP]"]
    logprobs = [0.0, -0.6931471805599453, -0.5, -0.5, -3.0]  # p = 1, 1/2, and e ** -1 together
    html = Caption("a <b> zebra", [5, 6, 7, 8, 2], -4.6931, logprobs, spelling)._repr_html_()
    assert html.count("<span") == 3
    for word, probability, shade in (("a", "1.000", "0.00"), ("&lt;b&gt;", "0.500", "0.35"),
                                     ("zebra", "0.368", "0.44")):  # fmt: skip
        assert (
            f'<span title="p = {probability}" style="background: rgba(230, 159, 0, {shade})">'
            f"{word}</span>"
        ) in html
    assert "<b>" not in html
    plain = Caption("<script>", [1], -1.0, [-1.0])._repr_html_()
    assert "&lt;script&gt;" in plain
    assert "<script>" not in plain


def test_a_real_caption_shows_its_own_words(captioner: Captioner, image: Path) -> None:
    caption = captioner.caption(image)
    words = [part.partition("</span>")[0] for part in caption._repr_html_().split('">')[1:]]
    assert words == caption.text.split()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("num_beam", "num_beams"), ("beams", "num_beams"), ("max_new_token", "max_new_tokens"),
     ("sample", "do_sample"), ("beam_size", "num_beams"), ("topk", "top_k")],
)  # fmt: skip
def test_wrong_option_names_hint_at_the_right_one(
    captioner: Captioner, image: Path, wrong: str, right: str
) -> None:
    with pytest.raises(TypeError, match=f"no option '{wrong}', did you mean {right}\\?"):
        DecodingOptions(**{wrong: 4})
    hint = rf"caption\(\) has no argument '{wrong}'.*DecodingOptions.*did you mean {right}\?"
    with pytest.raises(TypeError, match=hint):
        captioner.caption(image, **{wrong: 4})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=rf"ask\(\) has no argument '{wrong}'"):
        captioner.ask(image, "why?", **{wrong: 4})  # type: ignore[call-overload]


def test_an_unknown_option_that_resembles_none_lists_them() -> None:
    with pytest.raises(TypeError, match="expected one of max_new_tokens, max_length, "):
        DecodingOptions(zzzzzz=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_beams", "4", "int"),
        ("max_length", 2.5, "int"),
        ("length_penalty", "1", "float"),
        ("do_sample", 1, "bool"),
        ("suppress_tokens", 7, "a list"),
    ],
)
def test_a_value_of_a_wrong_type_is_named(name: str, value: object, expected: str) -> None:
    with pytest.raises(GITError, match=f"DecodingOptions: {name} is .*, expected {expected}"):
        DecodingOptions(**{name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    options = DecodingOptions(num_beams=np.int64(4), length_penalty=np.float32(0.5))
    assert options == DecodingOptions(num_beams=4, length_penalty=0.5)


def test_arguments_of_a_wrong_type_are_named(captioner: Captioner, image: Path) -> None:
    scene = captioner.see(image)
    with pytest.raises(TypeError, match="options is of type dict, expected DecodingOptions"):
        captioner.caption(scene, {"num_beams": 4})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a question is of type int, expected str"):
        captioner.ask(scene, ["why?", 4])  # type: ignore[list-item]
    for wrong in (5, {"frames": 2}, None):
        with pytest.raises(TypeError, match=r"sampling is of type .*, expected str or ReadOptions"):
            captioner.see(image, wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="template is of type int, expected str"):
        captioner.classify(scene, ["a"], template=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="generate is of type str, expected bool"):
        captioner.classify(scene, ["a"], generate="no")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="question is of type int, expected str or None"):
        captioner.score(scene, ["a"], question=5)  # type: ignore[call-overload]
    for wrong in (5, None):
        with pytest.raises(TypeError, match=r"name is of type .*, expected str or a path"):
            Captioner.from_pretrained(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="options is of type dict, expected DecodingOptions"):
        generate(captioner.model, None, [[2]], {"num_beams": 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a token is of type str, expected int"):
        generate(captioner.model, None, ["a"])  # type: ignore[list-item]
    with pytest.raises(GITError, match="the texts are 4, expected a list"):
        captioner.score(scene, 4)  # type: ignore[call-overload]


def test_to_changes_dtype_and_returns_the_captioner(image: Path) -> None:
    captioner = Captioner.from_pretrained("demo")
    text = captioner.caption(image).text
    assert captioner.to(dtype="float64") is captioner
    assert captioner.model.dtype == torch.float64
    assert captioner.caption(image).text == text
    assert captioner.to(torch.float32).model.dtype == torch.float32
    assert captioner.to("cpu").device == torch.device("cpu")
    with pytest.raises(GITError, match="device 'quantum' cannot be used here"):
        captioner.to("quantum")


def test_hub_options_reach_the_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def download(name: str, **options: object) -> str:
        calls.append((name, options))
        raise OSError("no network here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(GITError, match="no network here"):
        Captioner.from_pretrained(
            "org/name", revision="v1", token="secret", cache_dir=tmp_path, local_files_only=True
        )
    [(name, options)] = calls
    del options["allow_patterns"]
    assert name == "org/name"
    assert options == {
        "revision": "v1", "token": "secret", "cache_dir": tmp_path, "local_files_only": True
    }  # fmt: skip


def test_a_missing_revision_is_named() -> None:
    with pytest.raises(GITError, match="its revision v9 is not in the cache"):
        Captioner.from_pretrained("org/name", revision="v9", local_files_only=True)


@pytest.mark.parametrize(
    "device",
    ["quantum", "", "cpu:x", "mps", "cuda:99", "xpu", "meta", "vulkan"],
)
def test_a_device_that_cannot_be_used_is_one_short_line(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(GITError, match=f"device '{device}' cannot be used here: ") as error:
        Captioner.from_pretrained("demo", device=device)
    assert len(str(error.value)) < 160


def test_an_adapter_folder_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(
        GITError, match=r"an adapter, not a model: open it with its base .*or merge"
    ):
        Captioner.from_pretrained(tmp_path)


def test_adding_vocab_txt_is_enough(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(tiny_checkpoint(tmp_path / "model", WORDS))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(GITError, match=r"model: the model has no vocabulary, .* add vocab\.txt"):
        loading.require_vocabulary(folder)
    with pytest.raises(GITError, match=r"no vocabulary, .* add vocab\.txt to its folder"):
        Captioner.from_pretrained(folder).caption(image)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    loading.require_vocabulary(folder)
    assert Captioner.from_pretrained(folder).caption(image).text


@pytest.mark.parametrize("num_beams", [1, 2])
def test_weights_that_overflow_say_so_instead_of_certainty(
    captioner: Captioner, image: Path, num_beams: int
) -> None:
    broken = Captioner.from_pretrained("demo")
    with torch.no_grad():
        broken.model.decoder.lm_head.weight.mul_(1e9)
    scene, prompt = broken.see(image), [broken.model.config.bos_id]
    for run in (
        lambda: generate(broken.model, scene, [prompt], DecodingOptions(num_beams=num_beams)),
        lambda: score_texts(broken.model, scene, [prompt], [[5, 6]]),
    ):
        with pytest.raises(GITError, match="its weights overflow"):
            run()


@pytest.mark.parametrize(("left", "line"), [(0, "holds every token"), (1, "leaves 1 of ")])
def test_suppressing_nearly_all_tokens_says_so(
    captioner: Captioner, image: Path, left: int, line: str
) -> None:
    size = captioner.model.config.decoder.vocab_size
    options = DecodingOptions(num_beams=4, suppress_tokens=tuple(range(left, size)))
    with pytest.raises(GITError, match=f"suppress_tokens {line}"):
        captioner.caption(image, options)


def test_max_length_alone_is_the_only_limit_as_in_transformers() -> None:
    assert DecodingOptions().max_new_tokens == 20
    assert DecodingOptions(max_length=50).max_new_tokens == 49  # a prompt has at least one token
    assert DecodingOptions(max_length=50, max_new_tokens=7).max_new_tokens == 7


def test_options_of_a_checkpoint_are_changed_and_not_replaced(captioner: Captioner) -> None:
    base = DecodingOptions(num_beams=4, length_penalty=0.6, max_length=30)
    model = GIT(dataclasses.replace(captioner.model.config, decoding=base))
    options = Captioner(model, captioner.tokenizer).decoding(max_new_tokens=10)
    assert (options.num_beams, options.length_penalty) == (4, 0.6)
    assert (options.max_new_tokens, options.max_length) == (10, None)
    longer = options.changed(max_length=12, num_beams=2)
    assert (longer.max_new_tokens, longer.max_length, longer.num_beams) == (11, 12, 2)
    with pytest.raises(TypeError, match="no option 'beams', did you mean num_beams"):
        options.changed(beams=4)


@pytest.mark.parametrize(
    ("method", "name", "advice"),
    [
        ("caption", "num_beams", r": decoding options are one object, options=DecodingOptions\("),
        ("caption", "image", ", did you mean scene"),
        ("ask", "question", ", did you mean questions"),
        ("caption", "streamer", "expected one of max_new_tokens"),
        ("see", "num_beams", "expected images, sampling; decoding options belong to caption"),
        ("see", "image", ", did you mean images"),
        ("score", "image", ", did you mean scene"),
        ("classify", "num_beams", "expected scene, labels, template, question, generate; decoding"),
        ("generate", "num_beams", r": decoding options are one object, options=DecodingOptions\("),
        ("from_pretrained", "torch_dtype", ", did you mean dtype"),
        ("from_pretrained", "device_map", ", did you mean device"),
        ("from_pretrained", "quantize", "`git-model export MODEL FOLDER --dtype int8` quantizes"),
        ("load", "frames", "expected image, sampling"),
    ],
)
def test_advice_on_a_wrong_argument_fits_it(
    captioner: Captioner, image: Path, method: str, name: str, advice: str
) -> None:
    with pytest.raises(TypeError, match=f"has no argument '{name}'.*{advice}"):
        getattr(captioner, method)(image, **{name: 4})


def test_pixels_of_a_processor_are_a_batch(captioner: Captioner, image: Path) -> None:
    pixels = captioner.preprocess([Image.open(image).convert("RGB")] * 2)
    texts = [str(caption) for caption in captioner.caption(captioner.see_pixels(pixels))]
    assert texts == [captioner.caption(image).text] * 2
    for wrong in (pixels, pixels[0] - 10):
        with pytest.raises((TypeError, GITError), match=r"captioner\.see_pixels"):
            captioner.caption(wrong)


def test_generate_takes_images_and_names_questions_that_are_no_lists(
    captioner: Captioner, image: Path
) -> None:
    [[texts]] = captioner.generate(image, [[None]], captioner.decoding(num_beams=2))
    assert texts[0].text
    for wrong in ([None], ["why?"], "why?", None):
        with pytest.raises(TypeError, match=r"expected for each image a list of questions"):
            captioner.generate(image, wrong)
    with pytest.raises(GITError, match="has 2 lists, expected one for each image, 1 in all"):
        captioner.generate(image, [[None], [None]])


def test_a_captioner_is_saved_with_its_vocabulary(captioner: Captioner, tmp_path: Path) -> None:
    captioner.save_pretrained(tmp_path / "new")
    again = Captioner.from_pretrained(tmp_path / "new", integrity=True)
    assert again.tokenizer.to_json() == captioner.tokenizer.to_json()
    with pytest.raises(GITError, match="new"):
        captioner.save_pretrained(tmp_path / "new")


def test_a_dtype_that_no_weights_can_have_is_one_line() -> None:
    with pytest.raises(GITError, match=r"dtype is 'torch\.int8', expected auto or one of float32"):
        Captioner.from_pretrained("demo", dtype=torch.int8)


def test_the_demo_warns_of_a_picture_from_another_world(captioner: Captioner) -> None:
    photo, drawing = Image.new("RGB", (300, 200)), Image.new("RGB", (64, 64))
    with pytest.warns(UserWarning, match="drawn shapes.*this has 300 x 200 pixels"):
        captioner.caption(photo)
    with pytest.warns(UserWarning, match=r"^image 2: .*300 x 200.*\(1 of 2 images"):
        captioner.see([drawing, photo])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captioner.caption(drawing)
