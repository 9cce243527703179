"""BLEU, ROUGE-L, CIDEr and exact match."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.evaluation.metrics import bleu, cider, exact, rouge_l

Corpus = tuple[list[list[str]], list[list[list[str]]]]

words = str.split
CAT = words("the cat sat on the mat")
DOG = words("a big dog ran over grass")
BIRD = words("two small birds fly away today")

texts = st.lists(st.sampled_from("abcdef"), max_size=9)
corpora = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1)


def split(pairs: list[tuple[list[str], list[list[str]]]]) -> Corpus:
    return [said for said, _ in pairs], [answers for _, answers in pairs]


def test_the_reference_itself_scores_highest() -> None:
    said, answers = [CAT, DOG, BIRD], [[CAT], [DOG], [BIRD]]
    assert bleu(said, answers) == pytest.approx([1, 1, 1, 1])
    assert rouge_l(said, answers) == pytest.approx(1)
    assert cider(said, answers) == pytest.approx(10)
    assert cider(said, answers, defended=False) == pytest.approx(10)


def test_scores_of_a_small_corpus_are_those_that_the_coco_tools_gave() -> None:
    """Written down from pycocoevalcap 1.2, for runs without it."""
    said = ["the cat sat on the mat with the cat", "a big dog ran over grass", "two birds",
            "one red bus"]  # fmt: skip
    answers = [
        ["the cat sat on the mat", "a cat is on a mat"],
        ["a big dog runs over the grass", "a dog on grass"],
        ["two small birds fly away over the tree today", "birds in the sky"],
        ["a red bus on the road", "the red bus"],
    ]
    corpus = [words(text) for text in said], [[words(text) for text in row] for row in answers]
    expected = [0.7499999999250001, 0.6123724356307301, 0.5386086724458814, 0.47772139604163893]
    assert bleu(*corpus) == pytest.approx(expected, rel=1e-12)
    assert rouge_l(*corpus) == pytest.approx(0.6598991667672987, rel=1e-12)
    assert cider(*corpus) == pytest.approx(2.4085751989948165, rel=1e-12)


def test_bleu_of_a_small_case_counts_as_by_hand() -> None:
    # 5 words, of which `the` counts once too often; pairs: `the cat` of 4; the reference has 6
    said, answers = [words("the the the cat is")], [[words("the cat is on the mat")]]
    brevity = math.exp(1 - 6 / 5)
    expected = [brevity * 4 / 5, brevity * math.sqrt(4 / 5 * 2 / 4)]
    assert bleu(said, answers)[:2] == pytest.approx(expected, abs=1e-8)


def test_bleu_takes_the_reference_of_closest_length_and_the_shorter_of_two() -> None:
    said = [words("a b c d")]
    assert bleu(said, [[words("a b c"), words("a b c d e")]])[0] == pytest.approx(1)
    assert bleu(said, [[words("a b c d e"), words("a b c d e f g")]])[0] < 0.8


def test_rouge_takes_best_precision_and_best_recall_each_from_any_reference() -> None:
    said = [words("a b c")]
    # precision 3/3 from the long reference, recall 1/1 from the short one
    assert rouge_l(said, [[words("x a y b z c"), ["a"]]]) == pytest.approx(1)
    precision, recall = 2 / 3, 2 / 4
    by_hand = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(said, [[words("a x c y")]]) == pytest.approx(by_hand)


def test_cider_of_a_single_image_is_zero_for_all_its_ngrams_are_everywhere() -> None:
    assert cider([CAT], [[CAT]]) == 0


def test_cider_d_punishes_a_wrong_length_and_gains_nothing_by_repeating() -> None:
    answers = [[CAT], [DOG], [BIRD]]
    longer = cider([CAT + CAT, DOG, BIRD], answers)
    assert longer < 10
    assert cider([CAT + CAT, DOG, BIRD], answers, defended=False) > longer


def test_plain_cider_is_the_cosine_of_the_papers_equations() -> None:
    rng = random.Random(0)
    vocabulary = "abcdefgh"
    make = lambda: [rng.choice(vocabulary) for _ in range(rng.randint(4, 9))]  # noqa: E731
    answers = [[make() for _ in range(3)] for _ in range(6)]
    said = [make() for _ in answers]

    def weights(text: list[str], n: int) -> dict[tuple[str, ...], float]:
        runs = Counter(zip(*(text[i:] for i in range(n)), strict=False))
        images = {
            run: sum(
                any(run in zip(*(t[i:] for i in range(n)), strict=False) for t in texts)
                for texts in answers
            )
            for run in runs
        }
        # as term frequency the share of all n-grams, as the paper has it: the cosine is the same
        total = sum(runs.values())
        return {r: c / total * math.log(6 / max(1, images[r])) for r, c in runs.items()}

    def cosine(one: dict, other: dict) -> float:
        norms = math.hypot(*one.values()) * math.hypot(*other.values())
        return sum(one[r] * other.get(r, 0) for r in one) / norms if norms else 0

    expected = [
        sum(cosine(weights(c, n), weights(a, n)) for a in texts for n in (1, 2, 3, 4)) / 4 / 3
        for c, texts in zip(said, answers, strict=True)
    ]
    assert cider(said, answers, defended=False) == pytest.approx(10 * sum(expected) / 6)


@given(corpora, st.randoms(use_true_random=False))
def test_the_order_of_images_and_of_references_does_not_matter(pairs: list, rng) -> None:
    mixed = [(said, rng.sample(answers, len(answers))) for said, answers in pairs]
    rng.shuffle(mixed)
    for metric in (bleu, rouge_l, cider):
        assert metric(*split(mixed)) == pytest.approx(metric(*split(pairs)))


@given(corpora)
def test_scores_stay_within_their_bounds(pairs: list) -> None:
    corpus = split(pairs)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in (*bleu(*corpus), rouge_l(*corpus)))
    assert -1e-9 <= cider(*corpus) <= cider(*corpus, defended=False) + 1e-9 <= 10 + 2e-9


@given(corpora)
def test_scores_are_those_of_the_coco_tools(pairs: list) -> None:
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    said, answers = split(pairs)
    theirs = (
        {n: [" ".join(text) for text in texts] for n, texts in enumerate(answers)},
        {n: [" ".join(text)] for n, text in enumerate(said)},
    )
    assert bleu(said, answers) == pytest.approx(Bleu(4).compute_score(*theirs, verbose=0)[0])
    assert rouge_l(said, answers) == pytest.approx(Rouge().compute_score(*theirs)[0])
    if any(text for texts in answers for text in texts):  # else their CIDEr fails
        assert cider(said, answers) == pytest.approx(Cider().compute_score(*theirs)[0])


def test_a_corpus_with_a_missing_reference_is_an_error() -> None:
    for metric in (bleu, rouge_l, cider):
        with pytest.raises(ValueError, match="shorter"):
            metric([CAT, DOG], [[CAT]])


def test_exact_match_overlooks_case_and_spaces_only() -> None:
    assert exact(" A red  circle", ["a blue circle", "a Red circle "])
    assert not exact("a red circle.", ["a red circle"])
    assert not exact("", ["a"])
