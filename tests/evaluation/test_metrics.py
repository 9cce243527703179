"""BLEU, ROUGE-L, CIDEr, exact match, and the words that they count."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.evaluation import coco_tools
from git_model.evaluation.metrics import (
    bleu,
    cider_d,
    cider_plain,
    exact,
    rouge_l,
    split_words,
)

Corpus = tuple[list[list[str]], list[list[list[str]]]]

words = str.split
CAT = words("the cat sat on the mat")
DOG = words("a big dog ran over grass")
BIRD = words("two small birds fly away today")

texts = st.lists(st.sampled_from("abcdef"), max_size=9)
corpora = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1)


def split(pairs: list[tuple[list[str], list[list[str]]]]) -> Corpus:
    return [candidate for candidate, _ in pairs], [texts for _, texts in pairs]


def test_the_reference_itself_scores_highest() -> None:
    candidates, references = [CAT, DOG, BIRD], [[CAT], [DOG], [BIRD]]
    assert bleu(candidates, references) == pytest.approx([1, 1, 1, 1])
    assert rouge_l(candidates, references) == pytest.approx(1)
    assert cider_d(candidates, references) == pytest.approx(10)
    assert cider_plain(candidates, references) == pytest.approx(10)


def test_scores_of_a_small_corpus_are_those_recorded_from_the_coco_tools() -> None:
    """Recorded from pycocoevalcap 1.2, for runs without it."""
    candidates = ["the cat sat on the mat with the cat", "a big dog ran over grass", "two birds",
            "one red bus"]  # fmt: skip
    references = [
        ["the cat sat on the mat", "a cat is on a mat"],
        ["a big dog runs over the grass", "a dog on grass"],
        ["two small birds fly away over the tree today", "birds in the sky"],
        ["a red bus on the road", "the red bus"],
    ]
    corpus = (
        [words(text) for text in candidates],
        [[words(text) for text in row] for row in references],
    )
    expected = [0.7499999999250001, 0.6123724356307301, 0.5386086724458814, 0.47772139604163893]
    assert bleu(*corpus) == pytest.approx(expected, rel=1e-12)
    assert rouge_l(*corpus) == pytest.approx(0.6598991667672987, rel=1e-12)
    assert cider_d(*corpus) == pytest.approx(2.4085751989948165, rel=1e-12)


def test_bleu_of_a_small_case_is_as_by_hand() -> None:
    # 4 of 5 words match (`the` at most twice), 2 of 4 pairs; the reference has 6 words
    candidates, references = [words("the the the cat is")], [[words("the cat is on the mat")]]
    brevity = math.exp(1 - 6 / 5)
    expected = [brevity * 4 / 5, brevity * math.sqrt(4 / 5 * 2 / 4)]
    assert bleu(candidates, references)[:2] == pytest.approx(expected, abs=1e-8)


def test_bleu_takes_the_reference_of_closest_length_and_the_shorter_of_two() -> None:
    candidates = [words("a b c d")]
    assert bleu(candidates, [[words("a b c"), words("a b c d e")]])[0] == pytest.approx(1)
    assert bleu(candidates, [[words("a b c d e"), words("a b c d e f g")]])[0] < 0.8


def test_rouge_takes_best_precision_and_best_recall_each_from_any_reference() -> None:
    candidates = [words("a b c")]
    # precision 3/3 from the long reference, recall 1/1 from the short one
    assert rouge_l(candidates, [[words("x a y b z c"), ["a"]]]) == pytest.approx(1)
    precision, recall = 2 / 3, 2 / 4
    by_hand = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(candidates, [[words("a x c y")]]) == pytest.approx(by_hand)


def test_cider_of_a_single_image_is_zero() -> None:
    assert cider_d([CAT], [[CAT]]) == cider_plain([CAT], [[CAT]]) == 0


def test_cider_d_penalises_length_and_repetition_and_plain_cider_less() -> None:
    references = [[CAT], [DOG], [BIRD]]
    longer = cider_d([CAT + CAT, DOG, BIRD], references)
    assert longer < 10
    assert cider_plain([CAT + CAT, DOG, BIRD], references) > longer


def test_plain_cider_is_the_cosine_of_the_papers_equations() -> None:
    rng = random.Random(0)
    vocabulary = "abcdefgh"
    make = lambda: [rng.choice(vocabulary) for _ in range(rng.randint(4, 9))]  # noqa: E731
    references = [[make() for _ in range(3)] for _ in range(6)]
    candidates = [make() for _ in references]

    def weights(text: list[str], n: int) -> dict[tuple[str, ...], float]:
        ngrams = Counter(zip(*(text[i:] for i in range(n)), strict=False))
        images = {
            ngram: sum(
                any(ngram in zip(*(t[i:] for i in range(n)), strict=False) for t in texts)
                for texts in references
            )
            for ngram in ngrams
        }
        # as term frequency the share of all n-grams, as the paper has it: the cosine is the same
        total = sum(ngrams.values())
        return {r: c / total * math.log(6 / max(1, images[r])) for r, c in ngrams.items()}

    def cosine(left: dict, right: dict) -> float:
        norms = math.hypot(*left.values()) * math.hypot(*right.values())
        return sum(left[r] * right.get(r, 0) for r in left) / norms if norms else 0

    expected = [
        sum(cosine(weights(c, n), weights(a, n)) for a in texts for n in (1, 2, 3, 4)) / 4 / 3
        for c, texts in zip(candidates, references, strict=True)
    ]
    assert cider_plain(candidates, references) == pytest.approx(10 * sum(expected) / 6)


@given(corpora, st.randoms(use_true_random=False))
def test_the_order_of_images_and_of_references_does_not_matter(pairs: list, rng) -> None:
    shuffled = [(candidate, rng.sample(texts, len(texts))) for candidate, texts in pairs]
    rng.shuffle(shuffled)
    for metric in (bleu, rouge_l, cider_d, cider_plain):
        assert metric(*split(shuffled)) == pytest.approx(metric(*split(pairs)))


@given(corpora)
def test_scores_stay_within_their_bounds(pairs: list) -> None:
    corpus = split(pairs)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in (*bleu(*corpus), rouge_l(*corpus)))
    assert -1e-9 <= cider_d(*corpus) <= cider_plain(*corpus) + 1e-9 <= 10 + 2e-9


@given(corpora)
def test_scores_are_those_of_the_coco_tools(pairs: list) -> None:
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = split(pairs)
    theirs = (
        {n: [" ".join(text) for text in texts] for n, texts in enumerate(references)},
        {n: [" ".join(text)] for n, text in enumerate(candidates)},
    )
    assert bleu(candidates, references) == pytest.approx(
        Bleu(4).compute_score(*theirs, verbose=0)[0]
    )
    assert rouge_l(candidates, references) == pytest.approx(Rouge().compute_score(*theirs)[0])
    if any(text for texts in references for text in texts):  # else their CIDEr fails
        assert cider_d(candidates, references) == pytest.approx(Cider().compute_score(*theirs)[0])


def test_a_corpus_with_a_missing_reference_is_an_error() -> None:
    for metric in (bleu, rouge_l, cider_d, cider_plain):
        with pytest.raises(ValueError, match="shorter"):
            metric([CAT, DOG], [[CAT]])


def test_exact_match_ignores_case_and_spaces_only() -> None:
    assert exact(" A red  circle", ["a blue circle", "a Red circle "])
    assert not exact("a red circle.", ["a red circle"])
    assert not exact("", ["a"])


# By the Penn Treebank's tokenizer, without punctuation; the Java test below checks it.
SPLIT = {
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "It's a café, isn't it?": "it 's a café is n't it",
    "the dogs' toys; a girl's": "the dogs toys a girl 's",
    "He can't, she cannot, they don\u2019t": "he ca n't she can not they do n't",
    "a close-up of a T-shirt and/or 2-year-old": "a close-up of a t-shirt and/or 2-year-old",
    "at 10:30 a.m., $5 or 50% of 1,000": "at 10:30 a.m. $ 5 or 50 % of 1,000",
    "Mr. Smith (left) in the U.S. -- no. 7": "mr. smith -lrb- left -rrb- in the u.s. no. 7",
    '"stop" \u201cgo\u201d ... end': "stop go end",
    "red,white & blue; five o'clock!": "red white & blue five o'clock",
    "": "",
}


@pytest.mark.parametrize(("text", "words"), SPLIT.items())
def test_python_splits_everyday_captions_as_the_treebank(text: str, words: str) -> None:
    assert split_words([text]) == [words.split()]


@given(st.lists(st.text()))
def test_any_text_gives_words_without_spaces(texts: list[str]) -> None:
    lines = split_words(texts)
    assert len(lines) == len(texts)
    assert all(word.split() == [word] for line in lines for word in line)


@pytest.mark.skipif(
    coco_tools.missing_requirement() is not None, reason=f"needs {coco_tools.missing_requirement()}"
)
def test_java_splits_them_in_the_same_way() -> None:
    assert coco_tools.ptb_words(list(SPLIT)) == [words.split() for words in SPLIT.values()]
