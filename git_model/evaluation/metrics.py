"""How good texts are, as pure functions of their words: BLEU, ROUGE-L, CIDEr, exact match.

They are written as the COCO tools compute them (pycocoevalcap), oddities and all, so that their
scores may stand beside published ones. Every text is a list of words; words.py and coco_tools.py
make one. All scores go from 0 to 1, CIDEr's from 0 to 10.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

Words = Sequence[str]
Ngram = tuple[str, ...]

LONGEST = 4  # words of the longest n-grams
TINY, SMALL = 1e-15, 1e-9  # keep BLEU's fractions defined where nothing matches or nothing is said
BETA = 1.2  # how much more ROUGE-L thinks of recall than of precision
SIGMA = 6.0  # by how many words CIDEr-D lets a text's length be off before its score falls


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 (Papineni et al. 2002) of a whole corpus.

    The share of the candidates' n-grams that a reference has, too; geometric mean over n; less for
    candidates that are shorter than the reference of closest length.

    Args:
        candidates: what was said, at least one text.
        references: for each candidate, the texts that it is compared with, at least one.
    """
    said = expected = 0
    correct, written = [0] * LONGEST, [0] * LONGEST
    for candidate, others in zip(candidates, references, strict=True):
        said += len(candidate)
        expected += min((abs(len(other) - len(candidate)), len(other)) for other in others)[1]
        for index in range(LONGEST):
            found = _ngrams(candidate, index + 1)
            known = reduce(or_, (_ngrams(other, index + 1) for other in others))  # the most of each
            correct[index] += (found & known).total()
            written[index] += found.total()
    ratio = (said + TINY) / (expected + SMALL)
    brevity = min(1.0, math.exp(1 - 1 / ratio))
    scores, product = [], 1.0
    for index in range(LONGEST):
        product *= (correct[index] + TINY) / (written[index] + SMALL)
        scores.append(brevity * product ** (1 / (index + 1)))
    return scores


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """ROUGE-L (Lin 2004): the mean F-score of the longest common subsequence, where the best
    precision and the best recall may come from different references."""
    total = 0.0
    for candidate, others in zip(candidates, references, strict=True):
        mine = candidate or [""]  # the COCO tools see one empty word in a text without words
        pairs = [(_common(mine, other or [""]), len(other or [""])) for other in others]
        precision = max(common for common, _ in pairs) / len(mine)
        recall = max(common / length for common, length in pairs)
        if precision and recall:
            total += (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return total / len(candidates)


def cider(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]], *, defended: bool = True
) -> float:
    """CIDEr (Vedantam et al. 2015): the mean cosine between candidate and reference, as vectors of
    n-grams that count for less the more images have them in their references.

    An n-gram that every image has counts for nothing; so does, then, any text about one image.

    Args:
        defended: CIDEr-D, where repeating a word gains nothing and a wrong length costs. It is
            what the COCO tools call CIDEr, and what papers report. False: the plain formula.
    """
    images = Counter(ngram for others in references for ngram in _of_any(others))
    idf = _Rarity(images, math.log(len(references)))
    total = 0.0
    for candidate, others in zip(candidates, references, strict=True):
        vector = idf.vector(candidate)
        likeness = sum(_cosine(vector, idf.vector(other), defended) for other in others)
        total += 10 * likeness / len(others)
    return total / len(candidates)


def exact(text: str, answers: Sequence[str]) -> bool:
    """Whether a text is one of the answers, but for case and spaces."""
    return _plain(text) in map(_plain, answers)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _ngrams(words: Words, n: int) -> Counter[Ngram]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _of_any(texts: Sequence[Words]) -> set[Ngram]:
    """Every n-gram of any of the texts, once."""
    return {ngram for words in texts for n in range(LONGEST) for ngram in _ngrams(words, n + 1)}


def _common(one: Words, other: Words) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(other) + 1)  # with the words of `one` so far, and the first so many of other
    for word in one:
        corner = 0
        for place, partner in enumerate(other, start=1):
            above = best[place]
            best[place] = corner + 1 if word == partner else max(above, best[place - 1])
            corner = above
    return best[-1]


class _Vector(NamedTuple):
    """A text as CIDEr sees it: for each n its n-grams' weights, and their norm."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


class _Rarity(NamedTuple):
    """Which n-grams are rare: in how many images' references each is, and log of all images."""

    images: Counter[Ngram]
    log_all: float

    def vector(self, words: Words) -> _Vector:
        """Each n-gram's count times its rarity."""
        weights = [
            {
                ngram: count * (self.log_all - math.log(max(1, self.images[ngram])))
                for ngram, count in _ngrams(words, n + 1).items()
            }
            for n in range(LONGEST)
        ]
        norms = [math.hypot(*row.values()) for row in weights]
        return _Vector(weights, norms, len(words))


def _cosine(candidate: _Vector, reference: _Vector, defended: bool) -> float:
    """The cosine between two texts, the mean over n."""
    total = 0.0
    for n in range(LONGEST):
        mine, theirs = candidate.weights[n], reference.weights[n]
        both = [(weight, theirs[ngram]) for ngram, weight in mine.items() if ngram in theirs]
        if defended:  # what is said too often counts only as often as the reference has it
            both = [(min(weight, other), other) for weight, other in both]
        product = sum(weight * other for weight, other in both)
        if product:
            total += product / (candidate.norms[n] * reference.norms[n]) / LONGEST
    off = candidate.length - reference.length
    return total * math.exp(-(off**2) / (2 * SIGMA**2)) if defended else total
