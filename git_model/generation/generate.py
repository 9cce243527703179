"""Run searches on a model: from a scene and prompts to texts, or to probabilities of texts."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from numbers import Integral

from git_model.config import DecodingOptions, GITConfig
from git_model.generation.arguments import with_hints
from git_model.generation.beam_search import beam_search
from git_model.generation.logits_processors import chain, processors_of
from git_model.generation.sampling import Generation, greedy_or_sample
from git_model.generation.scoring import score_trie
from git_model.generation.session import Prompts, TextSession, left_padded, open_session
from git_model.generation.trie import TokenTrie
from git_model.model.git import GIT, Scene
from git_model.utils.errors import GITError

MAX_ROWS = 1024  # that scoring computes at a time, each with a logit for every token


@with_hints
def generate(
    model: GIT,
    scene: Scene | None,
    prompts: Sequence[Sequence[int]],
    options: DecodingOptions | None = None,
    trie: TokenTrie | None = None,
) -> list[list[Generation]]:
    """Continue each prompt until an end token, a limit of the options or the model's last position.

    Args:
        scene: what `model.see` returned, or None for text without an image.
        prompts: token ids: for each image equally many prompts, image by image; their lengths may
            differ. GIT's prompt is the start token and, for a question, the question's tokens.
        options: by default `DecodingOptions()`, not the options of the checkpoint.
        trie: texts, each with its end token; only these are generated.

    Returns:
        for each prompt `options.num_return_sequences` texts, best first.

    Raises:
        GITError: a prompt is empty, too long, or holds an unknown id; the prompts do not divide
            among the images; or the options or the trie do not fit the model.
        TypeError: a token is not an int.
    """
    options = options or DecodingOptions()
    config = model.config
    _check(prompts, scene, config)
    _check_options(options, config)
    if trie is not None:
        _check_trie(trie, options, config)
    _check_max_length(prompts, options)
    positions = config.decoder.positions
    limits = [min(options.max_new_tokens, positions - len(prompt)) for prompt in prompts]
    start = left_padded(prompts, config.pad_id, model.device)._replace(limits=limits)
    return searcher(options, config.eos_ids, trie)(open_session(model, scene), start)


@with_hints
def score_texts(
    model: GIT,
    scene: Scene | None,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
) -> list[list[list[float]]]:
    """The exact log-probabilities of all these texts after each prompt.

    Args:
        scene, prompts: as in `generate`.
        texts: token ids; with the end token the probability is that the text ends there.

    Returns:
        for each prompt, for each text, the log-probability of each of its tokens.

    Raises:
        GITError: as in `generate`; or a text is empty or does not fit the positions.
        TypeError: as in `generate`.
    """
    config = model.config
    _check(prompts, scene, config)
    _check_texts(prompts, texts, config)
    start = left_padded(prompts, config.pad_id, model.device)
    size = max(1, MAX_ROWS // len(prompts))
    order = sorted(range(len(texts)), key=lambda n: tuple(texts[n]))  # shared prefixes together
    scores: list[list[list[float]]] = [[[]] * len(texts) for _ in prompts]
    for first in range(0, len(order), size):
        chunk = order[first : first + size]
        trie = TokenTrie([texts[n] for n in chunk])
        for row, logprobs in zip(
            scores, score_trie(open_session(model, scene), start, trie), strict=True
        ):
            for n, values in zip(chunk, logprobs, strict=True):
                row[n] = values
    return scores


def searcher(
    options: DecodingOptions, eos_ids: Collection[int], trie: TokenTrie | None = None
) -> Callable[[TextSession, Prompts], list[list[Generation]]]:
    """The search that the options name, as a function from a session and prompts to the texts of
    each prompt, best first.

    Args:
        trie: texts, each with its end token; only these are generated.
    """
    processor = chain([*processors_of(options, eos_ids), *([trie] if trie else [])])
    search = beam_search if options.num_beams > 1 else greedy_or_sample
    return partial(search, options=options, eos_ids=eos_ids, processor=processor)


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
            f"a prompt of {longest} tokens leaves no position for an answer: this model has "
            f"{positions} positions, expected a shorter question"
        )


def _check_options(options: DecodingOptions, config: GITConfig) -> None:
    _check_ids(options.suppress_tokens, config)
    n_left = config.decoder.vocab_size - len(set(options.suppress_tokens))
    if n_left == 0:
        raise GITError("suppress_tokens holds every token of the vocabulary, expected fewer")
    if options.num_beams > 1 and max(2, 1 + len(config.eos_ids)) * options.num_beams > n_left:
        share = max(2, 1 + len(config.eos_ids))
        if n_left < share:
            raise GITError(
                f"suppress_tokens leaves {n_left} of {config.decoder.vocab_size} tokens, expected "
                f"at least {share} for beam search"
            )
        raise GITError(
            f"num_beams is {options.num_beams}, expected at most {n_left // share}: each step "
            f"takes {share} x num_beams of the {n_left} tokens that may be generated"
        )


def _check_trie(trie: TokenTrie, options: DecodingOptions, config: GITConfig) -> None:
    if options.num_beams > 1:
        raise GITError(
            "num_beams and a trie do not go together, expected greedy search or sampling"
        )
    _check_ids((token for level in trie.levels for _, token in level), config)
    limit = min(options.max_new_tokens, options.max_length or options.max_new_tokens)
    if len(trie.levels) > limit:
        raise GITError(
            f"the longest text of the trie has {len(trie.levels)} tokens, more than the limit of "
            f"{limit}: expected a larger max_new_tokens"
        )


def _check_max_length(prompts: Sequence[Sequence[int]], options: DecodingOptions) -> None:
    longest = max(map(len, prompts))
    if options.max_length is not None and longest >= options.max_length:
        raise GITError(
            f"a prompt has {longest} tokens, but max_length is {options.max_length} with the "
            "prompt counted: expected a larger max_length"
        )


def _check_texts(
    prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], config: GITConfig
) -> None:
    if not texts or not all(texts):
        raise GITError("there is no text to score, expected at least one token")
    _check_ids((token for text in texts for token in text), config)
    longest = max(map(len, prompts)) + max(map(len, texts))
    if longest > config.decoder.positions:
        raise GITError(
            f"prompt and text have {longest} tokens, more than this model's "
            f"{config.decoder.positions} positions"
        )


def _check_ids(tokens: Iterable[int], config: GITConfig) -> None:
    size = config.decoder.vocab_size
    for token in tokens:
        if not isinstance(token, Integral):
            raise TypeError(f"a token is of type {type(token).__name__}, expected int: an id")
        if not 0 <= token < size:
            raise GITError(f"there is no token {token}, expected ids from 0 to {size - 1}")
