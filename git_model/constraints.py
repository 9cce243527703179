"""What a text may not say: stateless functions from scores and the text so far to scores.

A constraint gets the scores of the next token (R, V), logits or log-probabilities, and the text of
each row; a forbidden token gets -inf. The scores it is given stay as they are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from git_model.config import DecodingOptions


class Text(NamedTuple):
    """A text in progress: its prompt, the tokens generated behind it, their log-probabilities."""

    prompt: Sequence[int]
    tokens: list[int]
    logprobs: list[float]


Constraint = Callable[[Tensor, Sequence[Text]], Tensor]


def suppress(tokens: Sequence[int]) -> Constraint:
    """These tokens never come."""

    def constraint(scores: Tensor, _texts: Sequence[Text]) -> Tensor:
        return scores.index_fill(1, torch.tensor(tokens, device=scores.device), float("-inf"))

    return constraint


def min_length(n_tokens: int, eos_id: int) -> Constraint:
    """The end token does not come before this many others."""

    def constraint(scores: Tensor, texts: Sequence[Text]) -> Tensor:
        return _forbid(
            scores, ((i, eos_id) for i, text in enumerate(texts) if len(text.tokens) < n_tokens)
        )

    return constraint


def repetition(penalty: float) -> Constraint:
    """Tokens of prompt and text become less likely: a score above 0 is divided by the penalty, one
    below is multiplied (Keskar et al. 2019, section 4.1)."""

    def constraint(scores: Tensor, texts: Sequence[Text]) -> Tensor:
        seen = torch.zeros_like(scores, dtype=torch.bool)
        for i, text in enumerate(texts):
            seen[i, [*text.prompt, *text.tokens]] = True
        return torch.where(
            seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores
        )

    return constraint


def no_repeat_ngram(size: int) -> Constraint:
    """No run of `size` tokens comes twice in prompt and text."""

    def constraint(scores: Tensor, texts: Sequence[Text]) -> Tensor:
        return _forbid(
            scores,
            ((i, token) for i, text in enumerate(texts) for token in _would_repeat(text, size)),
        )

    return constraint


def no_double(scores: Tensor, texts: Sequence[Text]) -> Tensor:
    """A token never follows itself (`AutoRegressiveBeamSearch` in the original's decoder.py)."""
    return _forbid(scores, ((i, text.tokens[-1]) for i, text in enumerate(texts) if text.tokens))


class TokenTrie:
    """Texts that share their beginnings, as a tree of tokens: what is common is kept, and later
    computed, once.

    Source: paper, section 4.4 (image classification); the original's trie_decoder.py.

    >>> trie = TokenTrie([[5, 6, 2], [5, 7, 2]])
    >>> [list(level) for level in trie.levels]
    [[(0, 5)], [(0, 6), (0, 7)], [(0, 2), (1, 2)]]
    >>> trie.paths
    [[0, 0, 0], [0, 1, 1]]
    >>> trie.allowed([5])
    [6, 7]

    Attributes:
        levels: for each depth its nodes, (number of the parent in the level before, token), and
            their numbers.
        paths: for each text the numbers of its nodes, level by level.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self.levels: list[dict[tuple[int, int], int]] = []
        self.paths: list[list[int]] = []
        self._next: dict[tuple[int, int], list[int]] = {}  # (depth, node) -> tokens behind it
        for text in texts:
            self.paths.append([])
            node = 0
            for depth, token in enumerate(text):
                if depth == len(self.levels):
                    self.levels.append({})
                level = self.levels[depth]
                if (node, token) not in level:
                    self._next.setdefault((depth, node), []).append(token)
                node = level.setdefault((node, token), len(level))
                self.paths[-1].append(node)

    def allowed(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that may follow these; none where no text goes on."""
        node = 0
        for level, token in zip(self.levels, tokens, strict=False):
            if (node, token) not in level:
                return []
            node = level[node, token]
        return self._next.get((len(tokens), node), [])

    def __call__(self, scores: Tensor, texts: Sequence[Text]) -> Tensor:
        """As a constraint: a text must be, or become, one of the trie's."""
        allowed = [(i, t) for i, text in enumerate(texts) for t in self.allowed(text.tokens)]
        row, token = torch.tensor(allowed, dtype=torch.long, device=scores.device).view(-1, 2).T
        found = torch.full_like(scores, float("-inf"))
        return found.index_put((row, token), scores[row, token])


def all_of(constraints: Sequence[Constraint]) -> Constraint:
    """Several constraints as one, applied in this order."""

    def constraint(scores: Tensor, texts: Sequence[Text]) -> Tensor:
        for one in constraints:
            scores = one(scores, texts)
        return scores

    return constraint


def constraints_of(options: DecodingOptions, eos_id: int) -> list[Constraint]:
    """One constraint for each option that is not at rest, in Transformers' order."""
    found: list[Constraint] = []
    if options.repetition_penalty != 1:
        found.append(repetition(options.repetition_penalty))
    if options.no_repeat_ngram:
        found.append(no_repeat_ngram(options.no_repeat_ngram))
    if options.no_double:
        found.append(no_double)
    if options.min_new_tokens:
        found.append(min_length(options.min_new_tokens, eos_id))
    if options.suppress:
        found.append(suppress(options.suppress))
    return found


def _would_repeat(text: Text, size: int) -> Iterable[int]:
    """The tokens that would complete a run which is there already."""
    tokens = [*text.prompt, *text.tokens]
    end = tokens[len(tokens) - size + 1 :]
    starts = range(len(tokens) - size + 1)
    return [tokens[s + size - 1] for s in starts if tokens[s : s + size - 1] == end]


def _forbid(scores: Tensor, pairs: Iterable[tuple[int, int]]) -> Tensor:
    """The scores with -inf at these (row, token)."""
    found = list(pairs)
    if not found:
        return scores
    row, token = torch.tensor(found, device=scores.device).T
    return scores.index_put((row, token), scores.new_tensor(float("-inf")))
