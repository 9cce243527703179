"""BLEU, ROUGE-L, CIDEr and exact match, and the words that they count, in plain Python.

The metrics are computed as the COCO tools (pycocoevalcap) compute them, peculiarities included, so
that scores can be compared with published ones. A text is a list of words, from `split_words` here
or from `coco_tools.ptb_words` in Java. Scores go from 0 to 1, CIDEr's from 0 to 10.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import NamedTuple

WordList = Sequence[str]
Ngram = tuple[str, ...]

MAX_N = 4  # words of the longest n-grams
TINY, SMALL = 1e-15, 1e-9  # keep BLEU's fractions defined where nothing matches, or a text is empty
BETA = 1.2  # the weight of recall against precision in ROUGE-L
SIGMA = 6.0  # standard deviation, in words, of CIDEr-D's penalty on the difference in length

CLITIC = r"(?:n't|'(?:s|re|ve|ll|d|m))\b"  # words by themselves: do|n't, it|'s
WORD = re.compile(
    rf"""
    \d+(?:[.,:/]\d+)*[\w-]*           # 3.5 1,000 10:30 2nd 2-year-old
    | (?:[^\W\d_]\.){{2,}}            # u.s.
    | (?:[djm]r|mrs|ms|no|st|vs)\.
    | can(?=not\b)
    | [^\W\d][\w-]*?(?={CLITIC})      # do of don't
    | {CLITIC}
    | \w+(?:[-'/&]\w+)*               # t-shirt, o'clock
    | [^\w\s]                         # a punctuation mark
    """,
    re.VERBOSE,
)
STRAIGHT_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
PUNCTUATION = frozenset("'`.?!,:-;\"")  # what the COCO tools leave out
# They list the brackets -LRB- … as punctuation, too, but compare them with text in lower case.
BRACKETS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
}  # fmt: skip


def split_words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text, in lower case, without punctuation. The rules are close to the Penn
    Treebank's, which published scores use, but not equal to them. Every output that uses this
    function says so.

    >>> split_words(["A dog, it's big.", "He doesn't see 2 T-shirts!"])
    [['a', 'dog', 'it', "'s", 'big'], ['he', 'does', "n't", 'see', '2', 't-shirts']]
    """
    plain = (text.lower().translate(STRAIGHT_QUOTES) for text in texts)
    return [
        [BRACKETS.get(word, word) for word in WORD.findall(text) if word not in PUNCTUATION]
        for text in plain
    ]


def exact(text: str, answers: Sequence[str]) -> bool:
    """Whether a text equals one of the answers, apart from case and spaces."""
    return _normalised(text) in map(_normalised, answers)


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())


def bleu(candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]) -> list[float]:
    """BLEU-1 to BLEU-4 (Papineni et al. 2002) of a whole corpus.

    For each n the share of the candidates' n-grams that occur in a reference; of these shares the
    geometric mean; times a penalty if candidates are shorter than their references of closest
    length.

    Args:
        candidates: generated texts, at least one.
        references: for each candidate its reference texts, at least one.
    """
    columns = zip(*bleu_counts(candidates, references), strict=True)
    return bleu_of([sum(column) for column in columns])


def bleu_counts(
    candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]
) -> list[list[int]]:
    """The ten numbers that BLEU counts in each candidate: its words, the words of the reference of
    closest length, for n = 1 to 4 the n-grams that occur in a reference, and for n = 1 to 4 all
    n-grams."""
    return [_bleu_counts(*pair) for pair in zip(candidates, references, strict=True)]


def _bleu_counts(candidate: WordList, texts: Sequence[WordList]) -> list[int]:
    n_expected = min((abs(len(text) - len(candidate)), len(text)) for text in texts)[1]
    matches, totals = [], []
    for n in range(1, MAX_N + 1):
        ngrams = _ngrams(candidate, n)
        limits = reduce(or_, (_ngrams(text, n) for text in texts))  # largest counts
        matches.append((ngrams & limits).total())
        totals.append(ngrams.total())
    return [len(candidate), n_expected, *matches, *totals]


def bleu_of(counts: Sequence[int]) -> list[float]:
    """BLEU-1 to BLEU-4 of summed counts."""
    n_words, n_expected, *rest = counts
    matches, totals = rest[:MAX_N], rest[MAX_N:]
    ratio = (n_words + TINY) / (n_expected + SMALL)
    brevity_penalty = min(1.0, math.exp(1 - 1 / ratio))
    scores, product = [], 1.0
    for index in range(MAX_N):
        product *= (matches[index] + TINY) / (totals[index] + SMALL)
        scores.append(brevity_penalty * product ** (1 / (index + 1)))
    return scores


def rouge_l(candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]) -> float:
    """ROUGE-L (Lin 2004): the mean F-score of the longest common subsequence, where the best
    precision and the best recall may come from different references. Arguments as in `bleu`."""
    return _mean(rouge_l_scores(candidates, references))


def rouge_l_scores(
    candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]
) -> list[float]:
    """ROUGE-L of each candidate."""
    return [_rouge_l(*pair) for pair in zip(candidates, references, strict=True)]


def _rouge_l(candidate: WordList, texts: Sequence[WordList]) -> float:
    words = candidate or [""]  # for the COCO tools an empty text is one empty word
    pairs = [(_lcs_length(words, text or [""]), len(text or [""])) for text in texts]
    precision = max(common for common, _ in pairs) / len(words)
    recall = max(common / length for common, length in pairs)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def _lcs_length(left: WordList, right: WordList) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(right) + 1)  # of the words of `left` so far and the first i of `right`
    for left_word in left:
        diagonal = 0
        for i, right_word in enumerate(right, start=1):
            above = best[i]
            best[i] = diagonal + 1 if left_word == right_word else max(above, best[i - 1])
            diagonal = above
    return best[-1]


def cider_d(candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]) -> float:
    """CIDEr-D: CIDEr with clipped counts and a penalty on the difference in length, so that
    repeating a word does not raise it. The COCO tools, and papers, call it CIDEr."""
    return _mean(cider_d_scores(candidates, references))


def cider_d_scores(
    candidates: Sequence[WordList],
    references: Sequence[Sequence[WordList]],
    frequencies: "DocumentFrequencies | None" = None,
) -> list[float]:
    """CIDEr-D of each candidate.

    Args:
        frequencies: how many images have an n-gram; by default counted in these references.
    """
    return _cider(candidates, references, _clipped_cosine, frequencies)


def cider_plain(candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]) -> float:
    """CIDEr (Vedantam et al. 2015): the mean cosine between candidate and reference, as vectors of
    n-grams weighted by TF-IDF over images.

    An n-gram that occurs in the references of every image has weight 0, so the score of a single
    image is 0.
    """
    return _mean(cider_plain_scores(candidates, references))


def cider_plain_scores(
    candidates: Sequence[WordList], references: Sequence[Sequence[WordList]]
) -> list[float]:
    """CIDEr of each candidate, with n-grams counted in all these references."""
    return _cider(candidates, references, _cosine)


@dataclass(frozen=True)
class DocumentFrequencies:
    """For each n-gram the number of images whose references contain it, and the number of all
    images: the IDF of CIDEr."""

    images: Counter[Ngram]
    n_images: int

    @classmethod
    def of(cls, references: Iterable[Sequence[WordList]]) -> "DocumentFrequencies":
        """Counted in the references of each image."""
        images: Counter[Ngram] = Counter()
        n_images = 0
        for texts in references:
            images.update(_distinct_ngrams(texts))
            n_images += 1
        return cls(images, n_images)


class _Vector(NamedTuple):
    """A text as a TF-IDF vector: for each n the weights of its n-grams, and their norm."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


def _cider(
    candidates: Sequence[WordList],
    references: Sequence[Sequence[WordList]],
    similarity: Callable[[_Vector, _Vector], float],
    frequencies: DocumentFrequencies | None = None,
) -> list[float]:
    frequencies = frequencies or DocumentFrequencies.of(references)
    images, log_images = frequencies.images, math.log(frequencies.n_images)
    scores = []
    for candidate, texts in zip(candidates, references, strict=True):
        vector = _tf_idf(candidate, images, log_images)
        similarities = [similarity(vector, _tf_idf(text, images, log_images)) for text in texts]
        scores.append(10 * sum(similarities) / len(texts))
    return scores


def _tf_idf(words: WordList, images: Counter[Ngram], log_images: float) -> _Vector:
    """A text's vector.

    Args:
        images: for each n-gram, the number of images that have it in their references.
        log_images: the logarithm of the number of all images.
    """
    weights = [
        {
            ngram: count * (log_images - math.log(max(1, images[ngram])))
            for ngram, count in _ngrams(words, n + 1).items()
        }
        for n in range(MAX_N)
    ]
    norms = [math.hypot(*row.values()) for row in weights]
    return _Vector(weights, norms, len(words))


def _cosine(candidate: _Vector, reference: _Vector) -> float:
    """The cosine, the mean over n."""
    return _mean_over_n(candidate, reference, lambda weight, _: weight)


def _clipped_cosine(candidate: _Vector, reference: _Vector) -> float:
    """As `_cosine`, where an n-gram counts at most as often as the reference has it, times a
    Gaussian of the difference in length."""
    difference = candidate.length - reference.length
    cosine = _mean_over_n(candidate, reference, min)
    return cosine * math.exp(-(difference**2) / (2 * SIGMA**2))


def _mean_over_n(
    candidate: _Vector, reference: _Vector, clip: Callable[[float, float], float]
) -> float:
    total = 0.0
    for n in range(MAX_N):
        weights, others = candidate.weights[n], reference.weights[n]
        product = sum(
            clip(weight, others[ngram]) * others[ngram]
            for ngram, weight in weights.items()
            if ngram in others
        )
        if product:
            total += product / (candidate.norms[n] * reference.norms[n]) / MAX_N
    return total


def _ngrams(words: WordList, n: int) -> Counter[Ngram]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _distinct_ngrams(texts: Sequence[WordList]) -> set[Ngram]:
    """Every n-gram of any of the texts, once."""
    return {ngram for words in texts for n in range(MAX_N) for ngram in _ngrams(words, n + 1)}
