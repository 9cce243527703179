"""Exact log-probabilities of texts."""

from collections.abc import Sequence

import torch

from git_model.generation.sampling import checked, require_range
from git_model.generation.session import Prompts, TextSession
from git_model.generation.trie import TokenTrie


@torch.inference_mode()
def score_trie(session: TextSession, prompts: Prompts, trie: TokenTrie) -> list[list[list[float]]]:
    """The exact log-probabilities of all texts of a trie after each prompt.

    The trie is walked level by level, so a prefix that texts share is computed once.

    Returns:
        for each prompt, for each text, the log-probability of each of its tokens.
    """
    n_prompts = len(prompts.rows)
    logits = require_range(session.step(prompts.tokens, prompts.token_mask).float())
    row_of = {0: 0}  # the row, within each prompt, of a node that has children
    logprobs: list[list[list[float]]] = []  # for each level, prompt, node
    for depth, level in enumerate(trie.levels):
        parent_rows, tokens = (
            torch.tensor(column, device=logits.device)
            for column in zip(*((row_of[parent], token) for parent, token in level), strict=True)
        )
        first = torch.arange(n_prompts, device=logits.device)[:, None] * len(row_of)
        logprobs.append(logits.log_softmax(-1)[first + parent_rows, tokens].tolist())
        next_level = trie.levels[depth + 1] if depth + 1 < len(trie.levels) else []
        nodes = sorted({parent for parent, _ in next_level})
        if nodes:
            session.select((first + parent_rows[nodes]).flatten().tolist())
            logits = session.step(tokens[nodes].repeat(n_prompts)[:, None]).float()
        row_of = {node: row for row, node in enumerate(nodes)}
    return [[_along(path, logprobs, prompt) for path in trie.paths] for prompt in range(n_prompts)]


def _along(path: Sequence[int], logprobs: list[list[list[float]]], prompt: int) -> list[float]:
    """The log-probabilities of the nodes of a path, from its first token to its last."""
    return [checked(logprobs[depth][prompt][node]) for depth, node in enumerate(path)]
