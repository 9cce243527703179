"""Scores of predictions, and the metrics that fit each task."""

import pytest

from git_model.evaluation import coco_tools, scores
from git_model.evaluation.predictions import Prediction
from git_model.evaluation.scores import PTB, PYTHON, best_tokenizer, check_metrics, score
from git_model.utils.errors import GITError

with_java = pytest.mark.skipif(
    coco_tools.missing_requirement() is not None, reason=f"needs {coco_tools.missing_requirement()}"
)


def caption(key: str, text: str, *answers: str) -> Prediction:
    return Prediction(key=key, text=text, answers=answers)


def answer(key: str, text: str, *answers: str) -> Prediction:
    return Prediction(key="1", question_key=key, text=text, answers=answers)


CAPTIONS = [
    caption("1", "A dog runs over the grass.", "a dog runs over the grass", "the dog is running"),
    caption("2", "two red birds, far away", "two birds in a tree", "birds sit on a branch"),
    caption("3", "a man", "a man on a small horse"),
]


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def test_captions_get_all_scores_that_need_no_java(without_java: None) -> None:
    values = score(CAPTIONS)["captions"]
    names = ["exact", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "cider_plain"]
    assert list(values) == ["count", *names]
    assert values["count"] == 3
    assert values["exact"] == 0  # the full stop counts there, but is no word
    assert values["bleu_1"] > 50


def test_scores_are_times_100(without_java: None) -> None:
    items = [caption(str(n), text, text) for n, text in enumerate(["a b c d", "e f g h"])]
    values = score(items)["captions"]
    assert values["exact"] == values["rouge_l"] == pytest.approx(100)
    assert values["bleu_4"] == pytest.approx(100)
    assert values["cider_d"] == pytest.approx(1000)  # CIDEr goes up to 10


def test_each_task_has_its_own_scores() -> None:
    labels = [
        Prediction(key="1", text="cat", top=("cat", "dog"), answers=("dog",)),
        Prediction(key="2", text="Dog", top=("Dog", "cat"), answers=("dog",)),
        Prediction(key="3", text="a", top=tuple("abcdef"), answers=("f",)),
    ]
    ten = ["red"] * 9 + ["blue"]
    questions = [answer("1", "red", *ten), answer("2", "the blue", *ten)]
    assert score([*questions, *labels]) == {
        "questions": {"count": 2, "exact": pytest.approx(50), "vqa": pytest.approx(65)},
        "labels": {"count": 3, "top_1": pytest.approx(100 / 3), "top_5": pytest.approx(200 / 3)},
    }


def test_vqa_needs_several_people() -> None:
    assert "vqa" not in score([answer("1", "red", "red")])["questions"]
    with pytest.raises(
        GITError, match="the answers of at least 4 people, but '1' has 1: use exact"
    ):
        score([answer("1", "red", "red")], ["vqa"])


def test_only_the_metrics_that_are_named_are_computed() -> None:
    assert list(score(CAPTIONS, ["exact"])["captions"]) == ["count", "exact"]
    mixed = score([*CAPTIONS, answer("9", "a", *"aaaab")], ["rouge_l", "vqa"], PYTHON)
    assert [list(values) for values in mixed.values()] == [["count", "rouge_l"], ["count", "vqa"]]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["blue"], "there is no metric 'blue', expected one of exact, bleu, "),
        (["vqa"], "vqa is no metric for captions"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(metrics: list[str], message: str) -> None:
    with pytest.raises(GITError, match=message):
        score(CAPTIONS, metrics)


def test_a_prediction_without_answers_is_named() -> None:
    with pytest.raises(GITError, match="'4' has no reference to be compared with"):
        score([*CAPTIONS, caption("4", "a")])
    with pytest.raises(GITError, match="there is no prediction to score"):
        score([])


def test_without_java_python_splits_words_and_meteor_is_refused_early(
    without_java: None,
) -> None:
    assert best_tokenizer() is PYTHON
    assert PYTHON.name == "python, not PTB"
    for name in ("meteor", "spice"):
        with pytest.raises(GITError, match=f"{name.upper()} needs Java"):
            check_metrics([name])


@with_java
def test_with_java_words_are_those_of_the_treebank() -> None:
    assert best_tokenizer() is PTB
    names = ["bleu", "rouge_l", "cider_d"]
    assert score(CAPTIONS, names) == score(CAPTIONS, names, PTB)


@with_java
def test_all_scores_of_captions_are_those_of_the_coco_tools() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    candidates = tokenizer.tokenize({item.key: [{"caption": item.text}] for item in CAPTIONS})
    references = tokenizer.tokenize(
        {item.key: [{"caption": text} for text in item.answers] for item in CAPTIONS}
    )
    values = score(CAPTIONS, ["bleu", "rouge_l", "cider_d"])["captions"]
    bleus = Bleu(4).compute_score(references, candidates, verbose=0)[0]
    for name, value in {
        **{f"bleu_{n}": value for n, value in enumerate(bleus, start=1)},
        "rouge_l": Rouge().compute_score(references, candidates)[0],
        "cider_d": Cider().compute_score(references, candidates)[0],
    }.items():
        assert values[name] == pytest.approx(100 * value), name


@with_java
def test_meteor_and_spice_are_among_the_defaults_where_they_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(scores.CORPUS_METRICS, "meteor", lambda *_: 0.25)
    monkeypatch.setitem(scores.CORPUS_METRICS, "spice", lambda *_: 0.125)
    monkeypatch.setattr(coco_tools, "has_spice_models", lambda: True)
    values = score(CAPTIONS)["captions"]
    assert (values["meteor"], values["spice"]) == (25, 12.5)
    monkeypatch.setattr(
        coco_tools, "has_spice_models", lambda: False
    )  # no download without a request
    assert "spice" not in score(CAPTIONS)["captions"]
