"""A trie of token sequences: texts with common beginnings are scored or generated together."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from git_model.generation.logits_processors import Hypothesis


class TokenTrie:
    """Token sequences as a tree: a common prefix is stored once, and computed once.

    Source: paper, section 4.4 (image classification); the original's trie_decoder.py.

    >>> trie = TokenTrie([[5, 6, 2], [5, 7, 2]])
    >>> [list(level) for level in trie.levels]
    [[(0, 5)], [(0, 6), (0, 7)], [(0, 2), (1, 2)]]
    >>> trie.paths
    [[0, 0, 0], [0, 1, 1]]
    >>> trie.allowed([5])
    [6, 7]

    Attributes:
        levels: for each depth a map from (number of the parent at the depth before, token) to the
            number of the node.
        paths: for each text the numbers of its nodes, level by level.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self.levels: list[dict[tuple[int, int], int]] = []
        self.paths: list[list[int]] = []
        self._next: dict[tuple[int, int], list[int]] = {}  # (depth, node) -> tokens after it
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
        """The tokens that may follow these tokens; an empty list if no text continues them."""
        node = 0
        for level, token in zip(self.levels, tokens, strict=False):
            if (node, token) not in level:
                return []
            node = level[node, token]
        return self._next.get((len(tokens), node), [])

    def __call__(self, scores: Tensor, hypotheses: Sequence[Hypothesis]) -> Tensor:
        """As a logits processor: a hypothesis must be, or become, one of the trie's texts."""
        pairs = [(row, t) for row, text in enumerate(hypotheses) for t in self.allowed(text.tokens)]
        row, token = torch.tensor(pairs, dtype=torch.long, device=scores.device).view(-1, 2).T
        masked = torch.full_like(scores, float("-inf"))
        return masked.index_put((row, token), scores[row, token])
