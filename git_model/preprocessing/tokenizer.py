"""Text to token ids and back: BERT's WordPiece tokenizer.

Every released GIT has bert-base-uncased's vocabulary (`BertTokenizer` in the original's
inference.py). The ids equal those of Transformers' `BertTokenizer`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import tokenizers
from tokenizers.models import WordPiece

from git_model.config import GITConfig
from git_model.preprocessing.tokenizer_files import (
    MASK,
    NEEDED,
    TokenizerError,
    bert,
    find_vocabulary,
    read_core,
    require_tokens,
)


class Tokenizer:
    """BERT's tokenizer.

    Args:
        core: a WordPiece tokenizer of the `tokenizers` library. It is changed: its special tokens
            are marked as such, and truncation and padding, which files may set, are turned off.

    Raises:
        TokenizerError: `core` is of another kind, or its vocabulary lacks a token of `NEEDED`.
    """

    def __init__(self, core: tokenizers.Tokenizer) -> None:
        if not isinstance(core.model, WordPiece):
            raise TokenizerError(f"a {type(core.model).__name__} tokenizer, expected WordPiece")
        vocab = core.get_vocab()
        require_tokens(vocab, *NEEDED)
        require_tokens(core.get_vocab(with_added_tokens=False), core.model.unk_token)
        special = {
            token.content for token in core.get_added_tokens_decoder().values() if token.special
        }
        core.add_special_tokens([t for t in (*NEEDED, MASK) if t in vocab and t not in special])
        core.no_truncation()
        core.no_padding()
        self._core = core
        self._tokens = {index: token for token, index in vocab.items()}

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """The tokenizer in a folder of this project's format or of Hugging Face's: tokenizer.json,
        else vocab.txt.

        As in Transformers, a tokenizer_config.json beside it overrules it, and added tokens are
        read.

        Raises:
            TokenizerError: neither file exists, or a file is damaged; the message names it.
        """
        path = find_vocabulary(Path(folder))
        core = read_core(path)
        try:
            return cls(core)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def from_vocab(cls, tokens: Iterable[str]) -> Self:
        """A tokenizer in which these tokens have the ids 0, 1, …; lowercase, as bert-base-uncased.

        Raises:
            TokenizerError: a token occurs twice, or one of `NEEDED` is missing.
        """
        vocab: dict[str, int] = {}
        for token in tokens:
            if token in vocab:
                raise TokenizerError(f"the vocabulary has {token!r} twice, expected it once")
            vocab[token] = len(vocab)
        return cls(bert(vocab))

    def check_fit(self, config: GITConfig) -> None:
        """Refuse the vocabulary of another model.

        Raises:
            TokenizerError: it has more tokens than the model's vocab_size, or lacks one of the
                model's special ids.
        """
        size = config.decoder.vocab_size
        if len(self) > size:
            raise TokenizerError(
                f"the vocabulary has {len(self)} tokens, but the model's vocab_size is {size}"
            )
        special = {"bos_id": [config.bos_id], "eos_id": config.eos_ids, "pad_id": [config.pad_id]}
        for name, ids in special.items():
            for index in ids:
                if index not in self._tokens:
                    raise TokenizerError(
                        f"the model's {name} {index} is no token of the vocabulary of {len(self)} "
                        "tokens, expected the model's own vocabulary"
                    )

    def to_json(self) -> str:
        """The text of a tokenizer.json, which `from_folder` and Transformers can read."""
        return self._core.to_str(pretty=True)

    def __len__(self) -> int:
        """One more than the highest id: the smallest vocab_size of a model for it."""
        return 1 + max(self._tokens)

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id."""
        return {token: index for index, token in self._tokens.items()}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end tokens.

        A special token's name in the text, such as "[SEP]", becomes that token, as in the
        references.

        Raises:
            TokenizerError: the text has lone surrogates, which are not characters.
        """
        try:
            return self._core.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise TokenizerError(f"{text!r} is not a text, expected Unicode characters") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, without special tokens.

        Raises:
            TokenizerError: an id is not in the vocabulary (Transformers skips it silently).
        """
        self.tokens(ids)
        return self._core.decode(ids, skip_special_tokens=True)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens with these ids, special tokens included, as the vocabulary spells them.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        try:
            return [self._tokens[index] for index in ids]
        except KeyError as error:
            raise TokenizerError(
                f"no token has the id {error}, expected 0 to {len(self) - 1}"
            ) from None

    def token_id(self, token: str) -> int:
        """The id of a token such as "[CLS]".

        Raises:
            TokenizerError: the vocabulary does not have it.
        """
        index = self._core.token_to_id(token)
        if index is None:
            raise TokenizerError(f"the vocabulary has no token {token!r}")
        return index


def prompt_tokens(question: str, tokenizer: Tokenizer, config: GITConfig) -> list[int]:
    """The prompt of a question: the start token and the question's tokens.

    In the microsoft style the question has at most 38 tokens: the last 38 of its first 40
    (inference.py).

    Raises:
        TokenizerError: the question is empty, or longer than the model's positions.
    """
    tokens = tokenizer.encode(question)
    if not tokens:
        raise TokenizerError(f"the question {question!r} is empty, expected some words")
    if config.style == "microsoft":
        tokens = tokens[:40][-38:]
    limit = config.decoder.positions - 2  # less the start token and one token of an answer
    if len(tokens) > limit:
        raise TokenizerError(
            f"the question that begins {question[:40]!r} has {len(tokens)} tokens, "
            f"expected at most {limit}"
        )
    return [config.bos_id, *tokens]
