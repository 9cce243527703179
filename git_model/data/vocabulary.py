"""A WordPiece vocabulary from the texts of a data set, trained by the tokenizers library."""

from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import trainers

from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import CLS, MASK, PAD, SEP, UNK, bert
from git_model.utils.errors import GITError

SPECIAL = [PAD, UNK, CLS, SEP, MASK]
PREFIX = "##"  # of a piece that does not begin a word
MAX_VOCABULARY = 2**20


def words_of(text: str, core: tokenizers.Tokenizer) -> list[str]:
    """The words of a text as a BERT tokenizer splits it: lowercase, punctuation alone."""
    words = core.pre_tokenizer.pre_tokenize_str(core.normalizer.normalize_str(text))
    return [word for word, _ in words]


def train_vocabulary(texts: Iterable[str], size: int, min_count: int = 2) -> Tokenizer:
    """A lowercase WordPiece tokenizer, as bert-base-uncased's, with a vocabulary of its own: the
    same for the same texts, in any order. It spells every word of the texts.

    Args:
        size: maximum number of tokens; there are fewer if the texts have fewer pieces.
        min_count: two pieces are merged if they stand side by side at least this many times.

    Raises:
        GITError: the texts have no words, or their letters alone make more than `size` tokens.
    """
    core = bert({token: index for index, token in enumerate(SPECIAL)})
    counts = Counter(word for text in texts for word in words_of(text, core))
    alphabet = sorted({letter for word in counts for letter in _letters(word)})
    if not counts:
        raise GITError("there are no words in the texts, expected some")
    if len(SPECIAL) + len(alphabet) > size:
        raise GITError(
            f"size is {size}, but the letters of the texts alone make "
            f"{len(SPECIAL) + len(alphabet)} tokens: expected at least as many"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_count,
        # The library numbers letters in a random order, and by these numbers it decides between
        # pairs of equal counts; special tokens keep their order.
        special_tokens=[*SPECIAL, *alphabet],
        continuing_subword_prefix=PREFIX,
        show_progress=False,
    )
    words = (word for word, count in sorted(counts.items()) for _ in range(count))
    core.train_from_iterator(words, trainer)
    tokens = core.get_vocab()
    return Tokenizer.from_vocab(sorted(tokens, key=tokens.__getitem__))


def _letters(word: str) -> list[str]:
    return [word[0], *(f"{PREFIX}{letter}" for letter in word[1:])]
