"""The command `evaluate`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import WORDS, refusal, run
from photos import photo, write_json
from tiny import tiny_checkpoint

from git_model.captioner import Captioner
from git_model.cli.evaluate import evaluate
from git_model.config import DecodingOptions
from git_model.data.sources import read_data
from git_model.utils.serialize import read_mapping

ROOT = Path(__file__).parents[2]
COLOURS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint in our form."""
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", WORDS)


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def toml(path: Path, **fields: Any) -> Path:
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    path.write_text("\n".join(["[data]", *lines]))
    return path


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Three images in COCO's form."""
    for n, colour in enumerate(COLOURS, start=1):
        photo(tmp_path / f"{n}.png", colour)
    images = [{"id": n, "file_name": f"{n}.png"} for n in (1, 2, 3)]
    texts = [(1, "word1 word2"), (2, "word3"), (2, "word4"), (3, "word5 word6")]
    annotations = [
        {"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(texts)
    ]
    coco = write_json(tmp_path / "coco.json", {"images": images, "annotations": annotations})
    return toml(tmp_path / "data.toml", kind="coco", annotations=coco, images=str(tmp_path))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Two questions about an image in VQAv2's form."""
    photo(tmp_path / "1.png")
    questions = [{"image_id": 1, "question_id": n, "question": f"word{n}"} for n in (11, 12)]
    ten = [{"answer": "word1", "answer_id": n} for n in range(10)]
    annotations = [{"question_id": n, "image_id": 1, "answers": ten} for n in (11, 12)]
    return toml(
        tmp_path / "vqa.toml",
        kind="vqav2",
        questions=write_json(tmp_path / "questions.json", {"questions": questions}),
        annotations=write_json(tmp_path / "annotations.json", {"annotations": annotations}),
        images=str(tmp_path),
        image_name="{id}.png",
    )


def scores_of(*arguments: str | Path) -> dict[str, Any]:
    result = run("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_model_is_scored_on_a_data_set(model: str, captions: Path) -> None:
    scores = scores_of(captions, "--model", model)
    assert scores["model"] == model
    assert scores["broken"] == 0
    assert scores["tokenizer"] == "python, not PTB"
    assert scores["captions"]["count"] == 3
    assert scores["captions"].keys() >= {"exact", "bleu_4", "rouge_l", "cider_d", "cider_plain"}


def test_scores_are_printed_with_their_usual_names(model: str, captions: Path) -> None:
    result = run("evaluate", captions, "--model", model)
    assert result.stdout.splitlines()[0] == "3 captions, tokenizer: python, not PTB"
    lines = dict(line.strip().rsplit(None, 1) for line in result.stdout.splitlines()[1:])
    assert list(lines)[:2] == ["exact match", "BLEU-1"]
    assert "CIDEr-D" in lines
    assert all(value == f"{float(value):.2f}" for value in lines.values())


def test_written_predictions_have_the_same_scores(
    model: str, captions: Path, tmp_path: Path
) -> None:
    lines, results = tmp_path / "predictions.jsonl", tmp_path / "predictions.json"
    direct = scores_of(captions, "--model", model, "--out", lines)["captions"]
    assert scores_of("--predictions", lines)["captions"] == direct
    coco = tmp_path / "coco.json"
    assert scores_of("--predictions", lines, "--references", coco)["captions"] == direct
    run("evaluate", captions, "--model", model, "--out", results)
    assert [entry["image_id"] for entry in json.loads(results.read_text())] == [1, 2, 3]
    assert scores_of("--predictions", results, "--references", coco)["captions"] == direct


def test_the_text_is_that_of_the_captioner(model: str, captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    run("evaluate", captions, "--model", model, "--num-beams", 2, "--out", out, "--batch-size", 2)
    captioner, options = Captioner.from_pretrained(model), DecodingOptions(num_beams=2)
    for n, line in enumerate(out.read_text().splitlines(), start=1):
        expected = captioner.caption(tmp_path / f"{n}.png", options)
        assert json.loads(line)["text"] == expected.text
        assert json.loads(line)["key"] == str(n)


def test_questions_are_answered_and_written_for_evalai(
    model: str, questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "predictions.json"
    scores = scores_of(questions, "--model", model, "--out", out)
    assert scores["questions"].keys() == {"count", "exact", "vqa"}
    assert "tokenizer" not in scores  # these metrics need no words
    assert [entry["question_id"] for entry in json.loads(out.read_text())] == [11, 12]
    again = scores_of("--predictions", out, "--references", tmp_path / "annotations.json")
    assert again["questions"] == scores["questions"]


def test_without_answers_predictions_are_written_and_nothing_is_scored(
    model: str, questions: Path, tmp_path: Path
) -> None:
    lines = [line for line in questions.read_text().splitlines() if "annotations" not in line]
    questions.write_text("\n".join(lines))
    out = tmp_path / "predictions.json"
    result = run("evaluate", questions, "--model", model, "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.strip() == "2 predictions, with no references to compare with"
    assert len(json.loads(out.read_text())) == 2
    assert "'11' has no reference" in refusal("evaluate", questions, "--model", model)


def test_foreign_predictions_need_no_model(tmp_path: Path) -> None:
    results = [{"image_id": 1, "caption": "A dog."}, {"image_id": 2, "caption": "two big birds"}]
    annotations = [
        {"image_id": image, "caption": text}
        for image, text in [(1, "a dog"), (2, "two big birds"), (3, "a cat")]
    ]
    files = ["--predictions", write_json(tmp_path / "predictions.json", results), "--references"]
    files.append(write_json(tmp_path / "references.json", {"annotations": annotations}))
    scores = scores_of(*files, "--subset", "--metric", "bleu", "--metric", "rouge_l")["captions"]
    assert scores["count"] == 2
    assert [scores[name] for name in ("bleu_1", "rouge_l")] == pytest.approx([100, 100])
    assert "exact" not in scores
    line = refusal("evaluate", *files)
    assert "predictions.json: 1 of 3 references have no prediction, such as '3'" in line


def test_labels_are_classified(model: str, captions: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("word3\nword1 word2\nword5 word6\n")
    out = tmp_path / "predictions.jsonl"
    scores = scores_of(captions, "--model", model, "--labels", labels, "--out", out)["labels"]
    assert scores.keys() == {"count", "top_1", "top_5"}
    assert scores["top_5"] == pytest.approx(100)  # there are only three labels
    line = json.loads(out.read_text().splitlines()[0])
    assert sorted(line["top"]) == ["word1 word2", "word3", "word5 word6"]
    assert line["text"] == line["top"][0]


def test_broken_images_are_named_and_left_out(model: str, captions: Path, tmp_path: Path) -> None:
    (tmp_path / "2.png").write_text("not an image")
    result = run("evaluate", captions, "--model", model, "--json", "--broken-limit", 1)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["broken"] == 1
    assert result.stderr.startswith("Left out: ")
    assert "2.png" in result.stderr
    line = refusal("evaluate", captions, "--model", model)
    assert "1 examples cannot be read, expected at most 0; the last: " in line


def test_a_run_that_fails_keeps_the_old_predictions(
    model: str, captions: Path, tmp_path: Path
) -> None:
    (tmp_path / "3.png").write_text("not an image")
    out = tmp_path / "predictions.jsonl"
    out.write_text("before")
    refusal("evaluate", captions, "--model", model, "--out", out)
    assert out.read_text() == "before"
    assert not list(tmp_path.glob(".predictions*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either DATA.toml or --predictions FILE"),
        (["d.toml", "--predictions", "p.json"], "expected either DATA.toml or --predictions FILE"),
        (["d.toml", "--references", "r.json"], "--references goes with --predictions"),
        (["--predictions", "p", "--model", "demo"], "--model goes with DATA.toml"),
        (["--predictions", "p", "--num-beams", "2"], "--num-beams goes with DATA.toml"),
        (["--predictions", "p", "--out", "o.jsonl"], "--out goes with DATA.toml"),
        (["--predictions", "p", "--subset"], "--subset goes with --references"),
        (["--predictions", "p", "--versus", "q", "--intervals"], "without --versus"),
        (
            ["--predictions", "p", "--versus", "q", "--metric", "meteor", "--metric", "spice"],
            "--versus needs scores of single texts, which meteor and spice does not have",
        ),
        (["d.toml", "-m", "demo", "--intervals", "--metric", "spice"], "--intervals needs scores"),
        (["--predictions", "p", "--metric", "x"], "'x' is not one of 'exact', 'bleu'"),
        (["d.toml", "-m", "demo", "--template", "a {}"], "--template goes with --labels"),
        (
            ["d.toml", "-m", "demo", "--labels", "l", "--num-beams", "2"],
            "--num-beams goes with generated text",
        ),
        (
            ["d.toml", "-m", "demo", "--out", "o.txt"],
            "--out is o.txt, expected a name in .jsonl or .json",
        ),
        (["d.toml"], "no model was named, expected --model"),
        (["d.toml", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments: list[str], message: str) -> None:
    assert message in refusal("evaluate", *arguments, code=2)


def test_bad_input_gives_one_line(model: str, captions: Path, tmp_path: Path) -> None:
    named = ("--model", model)
    out = tmp_path / "none" / "predictions.jsonl"
    assert "none/predictions.jsonl: cannot be written" in refusal(
        "evaluate", captions, *named, "--out", out
    )
    assert "METEOR needs Java" in refusal("evaluate", captions, *named, "--metric", "meteor")
    other = tmp_path / "other.toml"
    assert "other.toml: No such file" in refusal("evaluate", other, *named)
    other.write_text("[date]")
    assert "other.toml: expected one table, [data], found date" in refusal(
        "evaluate", other, *named
    )
    other.write_text("[data]\nkind = 'stars'")
    assert "kind is 'stars', expected one of shapes, coco" in refusal("evaluate", other, *named)
    other.write_text("[data]\nkind = 'folder'\npath = 'nowhere'\nsize = 3")
    assert "unknown key 'size'" in refusal("evaluate", other, *named)
    out = tmp_path / "predictions.jsonl"
    out.write_bytes(b'{"key": "1", "text": "caf\xe9"}')
    assert "predictions.jsonl: line 1: not UTF-8" in refusal("evaluate", "--predictions", out)
    out.write_text('{"key": "1", "text": "a"}')
    assert "'1' has no reference" in refusal("evaluate", "--predictions", out)
    refs = ["--references", write_json(tmp_path / "r.json", [{"key": "2", "answers": ["a"]}])]
    line = refusal("evaluate", "--predictions", out, *refs)
    assert "predictions.jsonl: there is a prediction for '1', but no reference" in line


def test_a_form_that_does_not_fit_is_refused_at_the_first_batch(
    model: str, captions: Path, tmp_path: Path
) -> None:
    labels, broken = tmp_path / "labels.txt", tmp_path / "3.png"
    labels.write_text("word3")
    broken.write_text("not an image")  # the end of the data is not reached
    arguments = [captions, "--model", model, "--labels", labels, "--batch-size", 1]
    line = refusal("evaluate", *arguments, "--out", tmp_path / "predictions.json")
    assert "there are labels: name a .jsonl file" in line


def test_the_papers_scores_have_a_command_for_each_released_checkpoint() -> None:
    tasks = ["", "-coco", "-textcaps", "-vqav2", "-textvqa", "-vatex", "-msrvtt-qa"]
    released = [f"git-{size}{task}" for size in ("base", "large") for task in tasks]
    released += [f"git-large-r{task}" for task in tasks[:3]]
    text = (ROOT / "docs" / "evaluation.md").read_text()
    row = r"^\| `(git-[a-z0-9-]+)` \| ([^|]+) \| (?:`git-model evaluate (.*)` )?\|$"
    rows = re.findall(row, text, re.MULTILINE)
    assert [name for name, *_ in rows] == released
    for name, score, command in rows:
        assert bool(command) == (name not in ("git-base", "git-large", "git-large-r"))
        assert bool(re.search(r"\d", score)) == (name in released[:14] and bool(command))
        if command:
            options = evaluate.make_context("evaluate", command.split()).params
            assert (options["model"], options["style"]) == (f"microsoft/{name}", "microsoft")
            read_data(read_mapping(ROOT / options["data"])["data"], options["data"])


def lines_file(path: Path, texts: list[str]) -> Path:
    """Predictions of captions, with their references."""
    answers = [["a red dog runs", "a dog"], ["two birds sit", "birds"], ["a man on a horse"]]
    rows = [
        {"key": str(n), "text": text, "answers": answers[n % 3]} for n, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = ["a red dog runs", "two birds sit", "a man on a horse"] * 4
BAD = ["a red dog", "birds fly", "a horse"] * 4


def test_written_lines_have_the_scores_of_each_text(
    model: str, captions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lines.jsonl"
    corpus = scores_of(captions, "--model", model, "--out", out)["captions"]
    rows = [json.loads(line)["scores"] for line in out.read_text().splitlines()]
    assert len(rows) == 3
    for name in ("exact", "rouge_l", "cider_d"):
        assert sum(row[name] for row in rows) / 3 == pytest.approx(corpus[name])
    run("evaluate", captions, "--model", model, "--out", out, "--metric", "rouge_l")
    assert json.loads(out.read_text().splitlines()[0])["scores"].keys() == {"rouge_l"}


def test_intervals_stand_beside_the_scores(tmp_path: Path) -> None:
    file = lines_file(tmp_path / "a.jsonl", BAD)
    result = run("evaluate", "--predictions", file, "--intervals", "--metric", "rouge_l")
    [line] = result.stdout.splitlines()[1:]
    match = re.fullmatch(r"  ROUGE-L +(\S+)  \[(\S+), (\S+)\]", line)
    assert match is not None, line
    value, low, high = map(float, match.groups())
    assert low < value < high
    scores = scores_of("--predictions", file, "--intervals", "--metric", "bleu")
    assert scores["intervals"]["captions"].keys() == {f"bleu_{n}" for n in range(1, 5)}


def test_two_files_are_compared_text_by_text(tmp_path: Path) -> None:
    good, bad = lines_file(tmp_path / "a.jsonl", GOOD), lines_file(tmp_path / "b.jsonl", BAD)
    lines = bad.read_text().splitlines(keepends=True)
    bad.write_text("".join(reversed(lines)))  # in any order
    scores = scores_of("--predictions", good, "--versus", bad, "--metric", "rouge_l")
    row = scores["captions"]["rouge_l"]
    alone = [
        scores_of("--predictions", file, "--metric", "rouge_l")["captions"]["rouge_l"]
        for file in (good, bad)
    ]
    assert [row["score"], row["versus"]] == pytest.approx(alone)
    assert row["difference"] == pytest.approx(alone[0] - alone[1])
    low, high = row["interval"]
    assert 0 < low < row["difference"] < high
    same = scores_of("--predictions", good, "--versus", good)["captions"]["cider_d"]
    assert (same["difference"], same["interval"]) == (0, [0, 0])
    text = run("evaluate", "--predictions", good, "--versus", bad).stdout
    assert re.search(r"CIDEr-D +\S+ +\S+ +\+\S+  \[\+\S+, \+\S+\]", text)


MIXED = [
    {"key": "a", "text": "a red dog runs", "answers": ["a red dog runs"]},
    {"key": "a", "question": "how many?", "text": "1"},  # without a reference
    {"key": "b", "text": "a", "top": ["a"]},
]


def rows_file(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("versus", [False, True])
def test_tasks_without_the_named_metric_are_left_out_and_named(
    tmp_path: Path, versus: bool
) -> None:
    file = rows_file(tmp_path / "a.jsonl", MIXED)
    options = ["--predictions", file, "--metric", "rouge_l"]
    options += ["--versus", file] if versus else ["--intervals"]
    result = run("evaluate", *options)
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if line[0] != " "] == [
        line for line in result.stdout.splitlines() if line.startswith("1 captions")
    ]
    assert result.stderr == (
        "Not scored: 1 questions, for which rouge_l is no metric\n"
        "Not scored: 1 labels, for which rouge_l is no metric\n"
    )
    scores = json.loads(run("evaluate", *options, "--json").stdout)
    assert not {"questions", "labels"} & scores.keys()


@pytest.mark.parametrize("questions", [("q", "q"), ("q", "r"), (None, "q")])
def test_one_question_id_may_stand_twice_if_both_files_tell_them_apart(
    tmp_path: Path, questions: tuple[str | None, str]
) -> None:
    rows = [
        {"key": key, "question_key": "1", "question": question, "text": "x", "answers": [answer]}
        for key, question, answer in zip("ab", questions, "xy", strict=True)
    ]
    file = rows_file(tmp_path / "a.jsonl", rows)
    back = rows_file(tmp_path / "b.jsonl", rows[::-1])
    for other in (file, back):
        row = scores_of("--predictions", file, "--versus", other)["questions"]["exact"]
        assert (row["score"], row["versus"], row["difference"]) == (50, 50, 0)
    less = rows_file(tmp_path / "c.jsonl", [{"question_id": 1, "answer": "x"}])
    line = refusal("evaluate", "--predictions", file, "--versus", less)
    assert "a file has two predictions of one name, '1', which the other file does not" in line


def test_a_form_with_fewer_names_is_compared_by_the_question_id(tmp_path: Path) -> None:
    rows = [
        {"key": key, "question_key": key, "question": "q", "text": "x", "answers": ["x"]}
        for key in "ab"
    ]
    full = rows_file(tmp_path / "a.jsonl", rows)
    few = [{"question_id": key, "answer": "x"} for key in "ba"]
    short = rows_file(tmp_path / "b.jsonl", few)
    refs = ("--references", rows_file(tmp_path / "r.jsonl", rows))
    scores = scores_of("--predictions", full, "--versus", short, *refs)
    assert scores["questions"]["exact"]["difference"] == 0


def test_predictions_of_different_tasks_are_not_compared(tmp_path: Path) -> None:
    row = {"key": "a", "text": "x", "answers": ["x"]}
    captions = rows_file(tmp_path / "c.jsonl", [row])
    labels = rows_file(tmp_path / "l.jsonl", [row | {"top": ["x"]}])
    answers = rows_file(tmp_path / "q.jsonl", [row | {"question": "q"}, row])
    for first, other, words in (
        (labels, captions, "of labels in the first file, and of captions in the other"),
        (answers, labels, "of captions and questions in the first file, and of labels in the"),
    ):
        assert words in refusal("evaluate", "--predictions", first, "--versus", other)


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    good = lines_file(tmp_path / "a.jsonl", GOOD)
    short = lines_file(tmp_path / "short.jsonl", GOOD[:3])
    message = "--versus: the two files are about different texts, such as '10'"
    assert message in refusal("evaluate", "--predictions", good, "--versus", short)
    other = tmp_path / "other.jsonl"
    other.write_text(good.read_text().replace("a dog", "a cat"))
    message = "--versus: '0' has other references in the other file"
    assert message in refusal("evaluate", "--predictions", good, "--versus", other)
    line = refusal("evaluate", "data.toml", "--versus", good, code=2)
    assert "--versus goes with --predictions" in line
