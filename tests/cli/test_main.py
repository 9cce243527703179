"""The command line: what it prints, and what it says of bad input."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny import tiny_checkpoint

from git_model.captioner import Captioner
from git_model.cli.main import main
from git_model.config import DecodingOptions
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{n}" for n in range(36))]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A tiny checkpoint in our form."""
    return tiny_checkpoint(tmp_path / "model", WORDS)


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


@pytest.fixture
def images(image: str, tmp_path: Path) -> list[str]:
    """Three pictures, and in second place one that cannot be read."""
    Image.radial_gradient("L").save(tmp_path / "ring.png")
    Image.linear_gradient("L").save(tmp_path / "ramp.png")
    return [image, *(str(tmp_path / name) for name in ("missing.png", "ring.png", "ramp.png"))]


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refusal(*arguments: str | Path, code: int = 1) -> str:
    """The one line that a command ends with."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    return line


def test_help_is_there_at_once_without_torch() -> None:
    code = (
        "import sys\nfrom git_model.cli.main import main\n"
        "try:\n    main(['caption', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_caption_line_has_name_text_and_logprob(model: str, image: str) -> None:
    result = run("caption", image, "--model", model)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{image}  word")
    assert "(log p -" in result.stdout


def test_json_has_a_line_an_image(model: str, image: str) -> None:
    result = run("caption", image, image, "--model", model, "--json", "--batch-size", 1)
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first == second
    assert first["image"] == image
    assert first["logprob"] == pytest.approx(sum(first["token_logprobs"]))


def test_several_captions_of_an_image_are_all_printed(model: str, image: str) -> None:
    result = run("caption", image, "--model", model, "--num-beams", 3, "--num-return-sequences", 3)
    assert len(result.stdout.splitlines()) == 3


def test_every_decoding_option_is_on_the_command_line() -> None:
    text = run("caption", "--help").stdout
    for field in dataclasses.fields(DecodingOptions):
        assert f"--{field.name.replace('_', '-')}" in text


def test_pictures_that_cannot_be_read_do_not_stop_the_others(
    model: str, image: str, tmp_path: Path
) -> None:
    text, empty = tmp_path / "text.jpg", tmp_path / "empty.png"
    text.write_text("no picture")
    empty.touch()
    bad = [text, empty, tmp_path / "missing.jpg", tmp_path]
    result = run("caption", bad[0], image, *bad[1:], "--model", model, "--batch-size", 2)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    lines = result.stderr.splitlines()
    assert [str(path) in line for path, line in zip(bad, lines, strict=True)] == [True] * 4
    assert all(line.startswith("Error: ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption"], "Missing argument 'IMAGE…'"),
        (["caption", "x.png", "--num-beams", "2", "--do-sample"], "either do_sample or num_beams"),
        (["caption", "x.png", "--top-p", "0"], "top_p is 0.0, expected more than 0"),
        (["caption", "x.png", "--dtype", "int8"], "'int8' is not one of"),
        (
            ["caption", "x.png", "--num-return-sequences", "3", "--do-sample", "--num-beams", "4"],
            "do_sample or num_beams",
        ),
        (["ask", "x.png"], "no question was given, expected --question or --questions FILE"),
        (["ask", "x.png", "-q", "why?", "-q", " "], "'-q': it is empty, expected some words"),
        (["ask", "x.png", "-q", "why?", "--num-beams", "0"], "beams is 0, expected at least 1"),
        (["ask", "-q", "why?"], "Missing argument 'IMAGE…'"),
        (["score", "x.png"], "no text was given, expected --text or --texts FILE"),
        (["score", "x.png", "-t", ""], "'-t': it is empty, expected some words"),
        (["score", "x.png", "-t", "a", "--question", ""], "'-q': it is empty"),
        (["score", "x.png", "-t", "a", "--num-beams", "2"], "No such option '--num-beams'"),
        (["classify", "x.png"], "no label was given, expected --label or --labels FILE"),
        (["classify", "x.png", "-l", "a", "-l", " a"], "the label 'a' comes twice"),
        (["classify", "x.png", "-l", ""], "'-l': it is empty, expected some words"),
        (["classify", "x.png", "-l", "a", "--template", "b"], "'b' has no place for the label"),
        (["classify", "x.png", "-l", "a", "--top", "0"], "0 is not in the range"),
        (["classify", "x.png", "-l", "a", "--top", "2", "--generate"], "leave out --top"),
        (["convert", "x"], "Missing argument 'FOLDER'"),
        (["train", "x.toml"], "Missing option '--out'"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_wrong_usage_is_exit_code_two(arguments: list[str], message: str) -> None:
    assert message in refusal(*arguments, code=2)
    if arguments[0] in {"caption", "ask", "score", "classify"}:  # told before a model is looked for
        assert message in refusal(*arguments, "-m", "/nowhere", code=2)


def test_options_that_a_checkpoint_makes_right_are_not_refused(model: str, image: str) -> None:
    several = run(
        "caption", image, "-m", model, "--style", "microsoft", "--num-return-sequences", 3
    )
    assert len(several.stdout.splitlines()) == 3
    line = refusal("caption", image, "-m", model, "--num-return-sequences", 3, code=2)
    assert "num_return_sequences is 3, expected at most num_beams" in line


def records(result: Result) -> list[dict]:
    """What a command printed with --json, without what is the same in all records."""
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len({record.pop("model") for record in found}) == 1
    return found


def evidence(found: object) -> dict:
    return {name: getattr(found, name) for name in ("logprob", "tokens", "token_logprobs")}


def assert_same(found: list[dict], expected: list[dict]) -> None:
    """Equal but for rounding, for a batch computes otherwise than a single image."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            is_number = key in {"logprob", "token_logprobs", "probability"}
            assert one[key] == (pytest.approx(value, abs=1e-4) if is_number else value)


def test_ask_answers_every_question_about_every_image(model: str, images: list[str]) -> None:
    questions = ["word1 word2", "word9"]
    arguments = ["ask", *images, "-m", model, "-q", questions[0], "-q", questions[1]]
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    assert re.fullmatch(f"Error: {images.pop(1)}: .*", result.stderr.strip())
    git = Captioner.from_pretrained(model)
    expected = [
        {"image": image, "question": question, "answer": answer.text} | evidence(answer)
        for image in images
        for question, answer in zip(questions, git.ask(image, questions), strict=True)
    ]
    assert_same(records(result), expected)
    width = max(len(image) for image in arguments[1:5])
    lines = [
        f"{one['image']:{width}}  {one['question']}  {one['answer']}  (log p {one['logprob']:.3f})"
        for one in records(result)
    ]
    assert run(*arguments).stdout.splitlines() == lines


def test_ask_prints_all_answers_that_are_asked_for(model: str, image: str) -> None:
    result = run(
        "ask", image, "-m", model, "-q", "word3", "--num-beams", 3, "--num-return-sequences", 2
    )
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize("question", [None, "word5"])
def test_score_prints_every_text_with_its_log_probability(
    model: str, images: list[str], question: str | None
) -> None:
    texts = ["word1", "word1 word2", "word7"]
    options = [] if question is None else ["--question", question]
    given = [part for text in texts for part in ("-t", text)]
    result = run("score", *images, "-m", model, *given, *options, "--json")
    assert result.exit_code == 1
    del images[1]
    git = Captioner.from_pretrained(model)
    expected = [
        {"image": image, "text": one.text} | evidence(one)
        for image in images
        for one in git.score(image, texts, question=question)
    ]
    assert_same(records(result), expected)
    line = run("score", images[0], "-m", model, "-t", "word1", *options).stdout
    assert line == f"{images[0]}  word1  (log p {expected[0]['logprob']:.3f})\n"


def test_classify_prints_the_likeliest_labels(model: str, images: list[str]) -> None:
    labels = [f"word{n}" for n in range(8)]
    given = [part for label in labels for part in ("-l", label)]
    arguments = ["classify", *images, "-m", model, *given, "--template", "word9 {}", "-q", "word2"]
    result = run(*arguments, "--json", "--top", 3)
    assert result.exit_code == 1
    del images[1]
    git = Captioner.from_pretrained(model)
    expected = [
        {"image": image} | vars(one)
        for image in images
        for one in git.classify(image, labels, template="word9 {}", question="word2")[:3]
    ]
    assert_same(records(result), expected)
    lines = run(*arguments).stdout.splitlines()
    assert len(lines) == 5 * 3
    best = expected[0]
    words = [best["label"], f"{best['probability']:.1%}", f"(log p {best['logprob']:.3f})"]
    assert re.split("  +", lines[0])[1:] == words


def test_classify_generates_one_of_the_labels(model: str, images: list[str]) -> None:
    labels = ["word1 word2", "word1 word3", "word4"]
    options = [part for label in labels for part in ("-l", label)]
    options += ["--template", "word5 {}", "--question", "word6"]
    arguments = ["classify", *images, "-m", model, *options, "--generate"]
    result = run(*arguments, "--json")
    del images[1]
    captioner = Captioner.from_pretrained(model)
    captions = captioner.classify(
        images, labels, template="word5 {}", question="word6", generate=True
    )
    expected = [
        {"image": image, "label": caption.text} | evidence(caption)
        for image, caption in zip(images, captions, strict=True)
    ]
    assert_same(records(result), expected)
    first = expected[0]
    line = [images[0], first["label"], f"(log p {first['logprob']:.3f})"]
    assert re.split("  +", run(*arguments).stdout.splitlines()[0]) == line


@pytest.mark.parametrize(
    ("command", "option"), [("ask", "question"), ("score", "text"), ("classify", "label")]
)
def test_texts_come_from_a_file_too(
    model: str, image: str, tmp_path: Path, command: str, option: str
) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(b"\xef\xbb\xbfword1\r\n word2 \r\nword3")  # as Windows writes it
    lines = run(command, image, "-m", model, f"--{option}", "word4", f"--{option}s", file).stdout
    given = [part for n in (4, 1, 2, 3) for part in (f"--{option}", f"word{n}")]
    assert lines == run(command, image, "-m", model, *given).stdout
    assert len(lines.splitlines()) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty, expected a label on each line"),
        (b"word1\n\nword2\n", "line 2 is empty, expected a label"),
        (b"word1\nword2\n\n", "line 3 is empty, expected a label"),
        (b"word1\nword2\n word1\n", "line 3: the label 'word1' comes twice, first in {}: line 1"),
        (b"word3\nword0\n", "line 2: the label 'word0' comes twice, first in --label"),
        (b"word1\n\xff\n", "not UTF-8: invalid start byte at byte 6"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_of_labels_with_a_mistake_is_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "labels.txt"
    if content is not None:
        file.write_bytes(content)
    result = run("classify", "x.png", "-m", "/nowhere", "-l", "word0", "--labels", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {file}: {message.format(file)}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "-q", "word1 " * 24], "has 24 tokens, expected at most 22"),
        (["ask", "-q", "\udcff"], "is not a text, expected Unicode characters"),
        (["score", "-t", "word1 " * 24], "more than this model's 24 positions"),
        (["classify", "-l", "word1", "-l", "WORD1"], "'word1' and 'WORD1' have the same tokens"),
        (["classify", "-l", "word1 " * 24, "--generate"], "25 tokens with its end"),
        (["classify", "-l", "word1 [SEP] word2", "--generate"], "holds the end token"),
    ],
)
def test_what_a_model_cannot_be_asked_is_one_line(
    model: str, image: str, arguments: list[str], message: str
) -> None:
    result = run(*arguments, image, "-m", model)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line


def test_a_picture_that_the_model_cannot_see_is_one_line(
    model: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*_: object) -> None:
        raise GITError("nothing can be seen")

    monkeypatch.setattr(Captioner, "encode", blind)
    for arguments in (["caption"], ["ask", "-q", "word1"], ["score", "-t", "word1"]):
        assert run(*arguments, image, "-m", model).stderr == "Error: nothing can be seen\n"


def test_help_lists_the_commands_by_use() -> None:
    text = run("--help").stdout
    found = re.findall(r"^  (\w+) ", text[text.index("Commands:") :], flags=re.MULTILINE)
    first = ["caption", "ask", "classify", "score", "batch", "train", "evaluate"]
    assert found == [
        *first, "compare", "convert", "export", "verify", "explain", "page", "data",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["caption", "ask", "classify", "score", "evaluate", "batch"])
def test_the_help_of_a_command_with_many_options_has_headings(command: str) -> None:
    text = run(command, "--help").stdout
    assert [f"\n{heading}:\n" in text for heading in ("Input", "Model", "Output")] == [True] * 3
    has_decoding = command not in ("classify", "score")
    headings = ("Decoding", "Beam search", "Sampling")
    assert [f"\n{heading}:\n" in text for heading in headings][1:] == [has_decoding] * 2


def test_the_line_of_an_option_says_what_it_does_in_the_fields_words() -> None:
    text = run("caption", "--help").stdout
    assert "Caption each IMAGE." in text
    assert re.search(r"--num-beams INTEGER +Beam width; 1 is greedy search\.", text)


def test_an_unknown_model_is_one_line(image: str) -> None:
    assert "/nowhere: no such folder" in refusal("caption", image, "--model", "/nowhere")
    line = refusal("caption", image, "--model", "microsoft/git-nothing")
    assert "microsoft/git-nothing: the Hugging Face hub cannot be reached" in line


def test_a_damaged_checkpoint_is_one_line(model: str, image: str) -> None:
    weights = Path(model) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    line = refusal("caption", image, "--model", model)
    assert f"{weights}: not a readable safetensors file" in line


def test_an_unknown_device_is_one_line(model: str, image: str) -> None:
    assert "device" in refusal("caption", image, "--model", model, "--device", "abacus")


def test_a_failed_conversion_writes_nothing(tmp_path: Path, model: str) -> None:
    target = tmp_path / "somewhere" / "new"
    refusal("convert", tmp_path / "nothing", target)
    assert not target.parent.exists()
    assert "already exists" in refusal("convert", model, model, "--to", "hf")


def test_a_model_goes_to_huggingface_and_back(model: str, image: str, tmp_path: Path) -> None:
    there, back = tmp_path / "hf", tmp_path / "back"
    assert run("convert", model, there, "--to", "hf").exit_code == 0
    assert run("convert", there, back).exit_code == 0
    captions = [run("caption", image, "-m", name).stdout for name in (model, there, back)]
    assert captions[0] == captions[1] == captions[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_verify_prints_every_stage(model: str, dtype: str) -> None:
    result = run("verify", model, "--dtype", dtype)
    assert result.exit_code == 0, result.output
    stages = ("cached logits", "encoder", "projector", "decoder layer 1", "logits")
    for stage in stages:
        assert any(stage in line and line.endswith(" ok") for line in result.stdout.splitlines())


def test_a_recipe_with_a_mistake_is_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("stepz = 5")
    line = refusal("train", recipe, "--out", tmp_path / "out")
    assert f"{recipe}: unknown key 'stepz'" in line
    assert not (tmp_path / "out").exists()


def test_the_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "git_model", "--version"], capture_output=True, text=True, check=True
    )
    assert "version" in done.stdout


@pytest.mark.slow
def test_help_takes_less_than_a_third_of_a_second() -> None:
    before = os.times()
    subprocess.run([sys.executable, "-m", "git_model", "--help"], check=True, capture_output=True)
    after = os.times()  # of the processor: a busy machine is no failure
    assert after.children_user - before.children_user < 0.3


def test_a_video_model_sees_a_clip_and_says_which_frames(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "video", WORDS, frames=3)
    frames = [Image.new("RGB", (16, 16), (20 * n, 0, 0)) for n in range(9)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    command = ["caption", tmp_path / "moving.gif", "--model", model, "--json"]
    assert json.loads(run(*command).stdout)["frames"] == [1, 4, 7]
    assert json.loads(run(*command, "--sampling", "ends").stdout)["frames"] == [0, 4, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0.5"], "--temperature is for sampling, add --do-sample"),
        (["--length-penalty", "2"], "--length-penalty is for beam search, add --num-beams"),
        (["--num-beams", "2", "--length-penalty", "1e9"], "expected from -100 to 100"),
        (["--do-sample", "--seed", "9" * 30], "expected a number of at most 63 bits"),
    ],
)
def test_an_option_that_would_do_nothing_or_too_much_is_wrong_usage(
    options: list[str], message: str, image: str
) -> None:
    assert message in refusal("caption", image, "--model", "demo", *options, code=2)


def test_a_revision_is_for_hub_ids(image: str) -> None:
    assert "a revision is for hub ids" in refusal(
        "caption", image, "--model", "demo", "--revision", "main"
    )


def test_names_that_are_too_long_are_one_line(image: str, tmp_path: Path) -> None:
    refusal("caption", image, "--model", "x" * 300)
    refusal("convert", "demo", tmp_path / ("x" * 300))


def test_the_built_in_model_can_be_converted(tmp_path: Path) -> None:
    assert run("convert", "demo", tmp_path / "hf", "--to", "hf").exit_code == 0


def test_a_vocabulary_of_another_model_is_refused(model: str, tmp_path: Path) -> None:
    words = Tokenizer.from_vocab([*WORDS, *(f"more{n}" for n in range(9))])
    (Path(model) / "tokenizer.json").write_text(words.to_json())
    line = refusal("convert", model, tmp_path / "new", "--to", "hf")
    assert "the vocabulary has 49 tokens, but the model's vocab_size is 40" in line
    assert not (tmp_path / "new").exists()


def test_a_full_disk_behind_the_output_is_one_line(model: str, image: str) -> None:
    command = [sys.executable, "-m", "git_model", "caption", image, "--model", model]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_picture_for_verify_needs_a_released_checkpoint(model: str, image: str) -> None:
    assert "--released" in refusal("verify", model, "--image", image, code=2)


def test_a_warning_of_pythons_is_one_line_without_a_source_line(
    model: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Captioner.see_batch

    def warning(self: Captioner, *arguments: object) -> object:
        warnings.warn("first\nsecond", FutureWarning, stacklevel=1)
        return real(self, *arguments)  # type: ignore[arg-type]

    before = warnings.showwarning
    monkeypatch.setattr(Captioner, "see_batch", warning)
    result = run("caption", image, "--model", model)
    assert result.exit_code == 0
    assert "Warning: first\\nsecond\n" in result.stderr
    assert ".py" not in result.stderr
    assert "warnings.warn" not in result.stderr
    assert warnings.showwarning is before


def test_a_model_without_a_vocabulary_is_refused_before_its_weights_are_read(
    model: str, image: str
) -> None:
    (Path(model) / "tokenizer.json").unlink()
    (Path(model) / "model.safetensors").write_bytes(b"never read")
    assert "add vocab.txt to this folder" in refusal("caption", image, "--model", model)


def test_ctrl_c_in_training_is_one_line(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("git_model.training.loop.train", interrupted)
    recipe = Path(__file__).parents[2] / "configs" / "train" / "quick.toml"
    result = CliRunner().invoke(main, ["train", str(recipe), "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    line = f"Error: {tmp_path / 'run'}: stopped by Ctrl-C; --resume continues from its last state"
    assert result.stderr.strip() == line
