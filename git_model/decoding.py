"""From a scene and prompts to texts, or from texts to probabilities: the searches, on a model."""

from collections.abc import Iterable, Sequence

import torch

from git_model.beams import beam_search
from git_model.config import DecodingOptions, GITConfig
from git_model.constraints import TokenTrie, all_of, constraints_of
from git_model.model import GIT, Scene, Session
from git_model.search import Generation, Prompts, TextSession, score, token_by_token
from git_model.settings import GITError

CHUNK = 1024  # rows that scoring keeps in work at a time, each with a logit for every token


def generate(
    model: GIT,
    scene: Scene | None,
    prompts: Sequence[Sequence[int]],
    options: DecodingOptions | None = None,
    trie: TokenTrie | None = None,
) -> list[list[Generation]]:
    """Continue each prompt, until the end token or as far as the model's positions reach.

    Args:
        scene: what `model.see` returned, or None for text without an image.
        prompts: token ids, one or several an image (equally many, image by image); their lengths
            may differ. GIT's prompt is the start token and, for a question, the question.
        trie: texts, each with its end token; nothing else is generated.

    Returns:
        for each prompt `options.sequences` texts, best first.

    Raises:
        GITError: a prompt is empty, too long, holds an unknown id, or does not fit the scene.
    """
    options = options or DecodingOptions()
    config = model.config
    _check(prompts, scene, config)
    _check_ids(options.suppress, config)
    left = config.decoder.vocab_size - len(set(options.suppress))
    if 2 * options.beams > left:
        raise GITError(
            f"beams is {options.beams}, expected at most {left // 2}, half of the tokens"
        )
    if trie is not None and options.beams > 1:
        raise GITError("beams and a trie do not go together, expected greedy search or sampling")
    room = [config.decoder.positions - len(prompt) for prompt in prompts]
    start = left_padded(prompts, config.pad_id, model.decoder.output_bias.device)
    start = start._replace(most=[min(options.max_new_tokens, most) for most in room])
    return search(Session(model, scene), start, options, config.eos_id, trie)


def score_texts(
    model: GIT,
    scene: Scene | None,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
) -> list[list[list[float]]]:
    """The exact log-probabilities of all these texts behind each prompt.

    Args:
        scene, prompts: as in `generate`.
        texts: token ids, with the end token if a text is to end there.

    Returns:
        for each prompt, for each text, the log-probability of each of its tokens.

    Raises:
        GITError: as in `generate`; or a text is empty or does not fit the positions.
    """
    _check(prompts, scene, model.config)
    if not texts or not all(texts):
        raise GITError("there is no text to score, expected at least one token")
    _check_ids((token for text in texts for token in text), model.config)
    longest = max(map(len, prompts)) + max(map(len, texts))
    if longest > model.config.decoder.positions:
        raise GITError(
            f"prompt and text have {longest} tokens, more than this model's "
            f"{model.config.decoder.positions} positions"
        )
    start = left_padded(prompts, model.config.pad_id, model.decoder.output_bias.device)
    size = max(1, CHUNK // len(prompts))
    order = sorted(range(len(texts)), key=lambda n: tuple(texts[n]))  # shared beginnings together
    found: list[list[list[float]]] = [[[]] * len(texts) for _ in prompts]
    for first in range(0, len(order), size):
        chunk = order[first : first + size]
        logprobs = score(Session(model, scene), start, TokenTrie([texts[n] for n in chunk]))
        for row, of_prompt in zip(found, logprobs, strict=True):
            for n, values in zip(chunk, of_prompt, strict=True):
                row[n] = values
    return found


def search(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_id: int,
    trie: TokenTrie | None = None,
) -> list[list[Generation]]:
    """For each prompt the texts that the options ask for, best first.

    Args:
        trie: texts, each with its end token; only these are generated.
    """
    constraint = all_of([*constraints_of(options, eos_id), *([trie] if trie else [])])
    run = beam_search if options.beams > 1 else token_by_token
    return run(session, prompts, options, eos_id, constraint)


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device | None = None
) -> Prompts:
    """Prompts of different length as one tensor, so that all of them end in the last column."""
    length = max(map(len, prompts))
    rows = [[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    tokens = torch.tensor(rows, device=device)
    if all(len(prompt) == length for prompt in prompts):
        return Prompts(prompts, tokens, None)
    starts = torch.tensor([[length - len(prompt)] for prompt in prompts], device=device)
    return Prompts(prompts, tokens, torch.arange(length, device=device) >= starts)


def _check(prompts: Sequence[Sequence[int]], scene: Scene | None, config: GITConfig) -> None:
    if not prompts or not all(prompts):
        raise GITError("a prompt has no token, expected at least the start token")
    if scene is not None and len(prompts) % len(scene):
        raise GITError(
            f"{len(prompts)} prompts for {len(scene)} images, expected equally many for each image"
        )
    _check_ids((token for prompt in prompts for token in prompt), config)
    longest, positions = max(map(len, prompts)), config.decoder.positions
    if longest >= positions:
        raise GITError(
            f"a prompt of {longest} tokens leaves no room for an answer: this model has "
            f"{positions} positions, expected a shorter question"
        )


def _check_ids(tokens: Iterable[int], config: GITConfig) -> None:
    size = config.decoder.vocab_size
    for token in tokens:
        if not 0 <= token < size:
            raise GITError(f"there is no token {token}, expected ids from 0 to {size - 1}")
