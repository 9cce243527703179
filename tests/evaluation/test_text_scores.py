"""Scores of each text, and the intervals that follow from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_model.evaluation.intervals import bootstrap, t_interval, t_quantile
from git_model.evaluation.metrics import DocumentFrequencies, cider_d_scores
from git_model.evaluation.predictions import Prediction
from git_model.evaluation.scores import PYTHON, score
from git_model.evaluation.text_scores import score_each, text_scores
from git_model.utils.errors import GITError

WORDS = st.lists(st.sampled_from(["a", "red", "dog", "cat", "runs", "sits"]), max_size=7)
TEXTS = WORDS.map(" ".join)


def captions(*pairs: tuple[str, tuple[str, ...]]) -> list[Prediction]:
    return [
        Prediction(key=str(n), text=text, answers=answers)
        for n, (text, answers) in enumerate(pairs)
    ]


THREE = captions(
    ("a dog runs over the grass", ("a dog runs over grass", "the dog is running")),
    ("two red birds", ("two birds in a tree", "birds sit on a branch")),
    ("a man", ("a man on a small horse", "a man")),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_means_over_texts_are_the_scores_of_the_corpus(pairs: list) -> None:
    items = captions(*((text, tuple(answers)) for text, answers in pairs))
    corpus = score(items, ("exact", "rouge_l", "cider_d", "cider_plain"), PYTHON)["captions"]
    rows = score_each(items, ("exact", "rouge_l", "cider_d", "cider_plain"), PYTHON)
    for name in ("exact", "rouge_l", "cider_d", "cider_plain"):
        mean = sum(row[name] for row in rows) / len(rows)
        assert mean == pytest.approx(corpus[name], abs=1e-9), name


def test_the_scores_of_each_text_equal_those_of_pycocoevalcap() -> None:
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    cider = pytest.importorskip("pycocoevalcap.cider.cider_scorer")
    rows = score_each(THREE, ("bleu", "rouge_l", "cider_d"), PYTHON)
    scorer, consensus = bleu.BleuScorer(n=4), cider.CiderScorer(n=4, sigma=6.0)
    for item in THREE:
        scorer += (item.text, list(item.answers))
        consensus += (item.text, list(item.answers))
    _, bleus = scorer.compute_score(option="closest", verbose=0)
    _, ciders = consensus.compute_score()
    for number, (item, row) in enumerate(zip(THREE, rows, strict=True)):
        expected = rouge.Rouge().calc_score([item.text], list(item.answers))
        assert row["rouge_l"] == pytest.approx(100 * expected)
        assert row["cider_d"] == pytest.approx(100 * ciders[number])
        for n in range(4):
            assert row[f"bleu_{n + 1}"] == pytest.approx(100 * bleus[n][number])


def test_any_selection_of_texts_has_the_score_of_a_corpus() -> None:
    scores = text_scores(THREE, ("bleu", "rouge_l"), PYTHON)
    index = np.array([2, 0, 2])
    corpus = score([THREE[n] for n in index], ("bleu", "rouge_l"), PYTHON)["captions"]
    for name in ("bleu_1", "bleu_4", "rouge_l"):
        assert scores.metric(name)(index) == pytest.approx(corpus[name])


def test_questions_and_labels_keep_their_own_scores_in_order() -> None:
    ten = ("red",) * 9 + ("blue",)
    question = Prediction(key="1", question_key="q", text="the blue", answers=ten)
    label = Prediction(key="2", text="cat", top=("cat", "dog"), answers=("dog",))
    rows = score_each([label, question, THREE[2]], tokenizer=PYTHON)
    assert rows[0] == {"top_1": 0, "top_5": 100}
    assert rows[1] == {"exact": 0, "vqa": pytest.approx(30)}  # a third, less the leave-one-out
    assert rows[2]["exact"] == 100


def test_cider_d_takes_document_frequencies_from_elsewhere() -> None:
    references = [[["a", "dog"]], [["a", "cat"]], [["a", "bird"]]]
    frequencies = DocumentFrequencies.of(references)
    [alone] = cider_d_scores([["a", "dog"]], [[["a", "dog"]]], frequencies)
    together = cider_d_scores([["a", "dog"], ["x"], ["x"]], references)
    assert alone == together[0] > 0
    assert cider_d_scores([["a", "dog"]], [[["a", "dog"]]]) == [0]  # of a single image


def test_a_bootstrap_interval_is_near_the_normal_one_and_repeats() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap(400, lambda index: float(values[index].mean()))
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert bootstrap(400, lambda index: float(values[index].mean())) == (low, high)


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # of any table
    [(1, 12.706), (5, 2.571), (30, 2.042), (40, 2.021), (60, 2.000), (120, 1.980)],
)
def test_quantiles_of_student_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, abs=6e-4)


def test_the_interval_of_a_mean_is_that_of_a_t_test() -> None:
    low, high = t_interval([1.0, 2.0, 3.0, 4.0])  # mean 2.5, sd 1.29099, t 3.1824
    assert (low, high) == (pytest.approx(2.5 - 2.05426, abs=1e-4), pytest.approx(4.55426, abs=1e-4))
    assert t_interval([1.0]) is None


def test_a_text_without_a_reference_is_refused() -> None:
    with pytest.raises(GITError, match="'1' has no reference"):
        score_each([Prediction(key="1", text="a")])
    with pytest.raises(GITError, match="there is no prediction"):
        score_each([])
