"""Texts to words without Java: close to the Penn Treebank's rules, which published scores use, but
not equal to them. Every output that rests on this says so."""

import re
from collections.abc import Sequence

CLITIC = r"(?:n't|'(?:s|re|ve|ll|d|m))\b"  # words of their own: do|n't, it|'s

WORD = re.compile(
    rf"""
    \d+(?:[.,:/]\d+)*[\w-]*           # 3.5 1,000 10:30 2nd 2-year-old
    | (?:[^\W\d_]\.){{2,}}            # u.s.
    | (?:[djm]r|mrs|ms|no|st|vs)\.
    | can(?=not\b)
    | [^\W\d][\w-]*?(?={CLITIC})      # do of don't
    | {CLITIC}
    | \w+(?:[-'/&]\w+)*               # t-shirt, o'clock
    | [^\w\s]                         # a mark
    """,
    re.VERBOSE,
)
PLAIN = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")  # typographic quotes
MARKS = frozenset("'`.?!,:-;\"")  # what the COCO tools leave out
# They mean to leave brackets out as well, but look for the capitals of -LRB- in lower case.
BRACKETS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
}  # fmt: skip


def split_words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text, in lower case, without punctuation.

    >>> split_words(["A dog, it's big.", "He doesn't see 2 T-shirts!"])
    [['a', 'dog', 'it', "'s", 'big'], ['he', 'does', "n't", 'see', '2', 't-shirts']]
    """
    plain = (text.lower().translate(PLAIN) for text in texts)
    return [
        [BRACKETS.get(word, word) for word in WORD.findall(text) if word not in MARKS]
        for text in plain
    ]
