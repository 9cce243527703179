"""Small languages made by hand: a stand-in for a model whose right answers can be worked out."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Language:
    """A session in which the logits are a function of the whole text so far.

    Args:
        logits_of: the tokens of one row, without padding -> V logits.

    `rows_in_work` records how many rows each step had, so that a test can see what was paid for.
    """

    def __init__(self, logits_of: Callable[[Sequence[int]], Sequence[float]]) -> None:
        self.logits_of = logits_of
        self.texts: list[list[int]] = []
        self.rows_in_work: list[int] = []

    def step(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        real = torch.ones_like(tokens).bool() if token_mask is None else token_mask
        self.texts = self.texts or [[] for _ in tokens]
        for text, row, keep in zip(self.texts, tokens, real, strict=True):
            text += row[keep].tolist()
        self.rows_in_work.append(len(tokens))
        return torch.tensor([list(self.logits_of(text)) for text in self.texts])

    def select(self, rows: Sequence[int]) -> None:
        self.texts = [list(self.texts[row]) for row in rows]


def markov(table: dict[int, dict[int, float]], size: int) -> Callable[[Sequence[int]], list[float]]:
    """A language in which only the last token matters: {last: {next: probability}}."""

    def logits_of(text: Sequence[int]) -> list[float]:
        row = torch.full((size,), 1e-9)
        for token, probability in table.get(text[-1], {}).items():
            row[token] = probability
        return row.log().tolist()

    return logits_of
