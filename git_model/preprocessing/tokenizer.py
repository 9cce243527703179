"""Text to token ids and back, as BERT does it: WordPiece, from tokenizer.json or vocab.txt.

Every released GIT speaks bert-base-uncased's vocabulary (`BertTokenizer` in the original's
inference.py). Equal to Transformers' `BertTokenizer` on every text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from git_model.config import GITConfig
from git_model.utils.errors import ConfigError, GITError
from git_model.utils.serialize import is_file, read_mapping, require_file

JSON, VOCAB, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
NEEDED = (PAD, UNK, CLS, SEP)  # GIT never masks

# What tokenizer_config.json may say about a text's letters, and `BertNormalizer`'s name for it.
LETTERS = {
    "do_lower_case": "lowercase",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "strip_accents": "strip_accents",  # null: if lowercase
}

# Transformers' `clean_up_tokenization`: off by default since its version 5, but version 4 wrote it
# as on into the tokenizer_config.json of the models that it saved.
CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


LARGEST = 2**24  # bytes of a file; those of released models have at most some MB

# The steps that a tokenizer.json may have around its words. Regular expressions are not among them:
# one can be written that takes years for a line of text.
STEPS = ("Sequence", "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip",
         "StripAccents", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation",
         "WordPiece", "Fuse", "Replace")  # fmt: skip


class TokenizerError(GITError):
    """A vocabulary, a text or an id that cannot be used; the message names it."""


class Tokenizer:
    """BERT's tokenizer.

    Args:
        core: a WordPiece tokenizer of the `tokenizers` library. It is changed: its special tokens
            are marked as such, and truncation and padding, which files may carry, end here.

    Raises:
        TokenizerError: `core` is of another kind, or its vocabulary lacks a token of `NEEDED`.
    """

    def __init__(self, core: tokenizers.Tokenizer) -> None:
        if not isinstance(core.model, WordPiece):
            raise TokenizerError(f"a {type(core.model).__name__} tokenizer, expected WordPiece")
        vocab = core.get_vocab()
        _require(vocab, *NEEDED)
        _require(core.get_vocab(with_added_tokens=False), core.model.unk_token)
        core.add_special_tokens([token for token in (*NEEDED, MASK) if token in vocab])
        core.no_truncation()
        core.no_padding()
        self._core = core
        self._tokens = {index: token for token, index in vocab.items()}

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """The tokenizer in a folder of ours or of Hugging Face's: tokenizer.json, else vocab.txt.

        As in Transformers, a tokenizer_config.json beside it overrules it.

        Raises:
            TokenizerError: neither is there, or a file is damaged; the message names it.
        """
        paths = [Path(folder, name) for name in (JSON, VOCAB)]
        path = next((path for path in paths if is_file(path)), None)
        if path is None:
            raise TokenizerError(f"{folder}: no {JSON} and no {VOCAB}, expected one of them")
        core = _read(path)
        settings = path.with_name(SETTINGS)
        if is_file(settings):
            _configure(core, settings)
        try:
            return cls(core)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def from_vocab(cls, tokens: Iterable[str]) -> Self:
        """A tokenizer in which these tokens have the ids 0, 1, …; lowercase, as bert-base-uncased.

        Raises:
            TokenizerError: a token comes twice, or one of `NEEDED` is missing.
        """
        vocab: dict[str, int] = {}
        for token in tokens:
            if token in vocab:
                raise TokenizerError(f"the vocabulary has {token!r} twice, expected it once")
            vocab[token] = len(vocab)
        return cls(_bert(vocab))

    def check_fit(self, config: GITConfig) -> None:
        """Refuse a vocabulary that is of another model.

        Raises:
            TokenizerError: it has more tokens than the model, or the model's special ids are none
                of its tokens.
        """
        size = config.decoder.vocab_size
        if len(self) > size:
            raise TokenizerError(
                f"the vocabulary has {len(self)} tokens, but the model knows {size}"
            )
        for name in ("bos_id", "eos_id", "pad_id"):
            if getattr(config, name) not in self._tokens:
                raise TokenizerError(
                    f"the model's {name} {getattr(config, name)} is no token of the vocabulary of "
                    f"{len(self)} tokens, expected that of the model"
                )

    def to_json(self) -> str:
        """The text of a tokenizer.json, which `from_folder` and Transformers can read."""
        return self._core.to_str(pretty=True)

    def __len__(self) -> int:
        """One more than the highest id: the least vocab_size a model for it can have."""
        return 1 + max(self._tokens)

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id."""
        return {token: index for index, token in self._tokens.items()}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with nothing put around them.

        A special token's name in the text, such as "[SEP]", becomes that token, as in the
        references.

        Raises:
            TokenizerError: the text has lone surrogates, which are no characters.
        """
        try:
            return self._core.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise TokenizerError(f"{text!r} is not a text, expected Unicode characters") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens left out.

        Raises:
            TokenizerError: an id is not in the vocabulary (Transformers leaves it out silently).
        """
        self.tokens(ids)
        return self._core.decode(ids, skip_special_tokens=True)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens with these ids, special ones too, as the vocabulary spells them.

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

    In the microsoft style at most 38 of them: the last of the first 40 (inference.py).

    Raises:
        TokenizerError: it is empty, or longer than the model's positions.
    """
    tokens = tokenizer.encode(question)
    if not tokens:
        raise TokenizerError(f"the question {question!r} is empty, expected some words")
    if config.style == "microsoft":
        tokens = tokens[:40][-38:]
    limit = config.decoder.positions - 2  # the start token, and one of an answer
    if len(tokens) > limit:
        raise TokenizerError(
            f"the question that begins {question[:40]!r} has {len(tokens)} tokens, "
            f"expected at most {limit}"
        )
    return [config.bos_id, *tokens]


def _require(vocab: Mapping[str, int], *tokens: str) -> None:
    for token in tokens:
        if token not in vocab:
            raise TokenizerError(f"the vocabulary has no {token}, expected {', '.join(NEEDED)}")


def _bert(vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """The pipeline of bert-base-uncased around a vocabulary."""
    _require(vocab, *NEEDED)
    core = tokenizers.Tokenizer(WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=100))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")
    # `encode` has no use for this, but other programs that read our tokenizer.json expect it
    core.post_processor = processors.BertProcessing((SEP, vocab[SEP]), (CLS, vocab[CLS]))
    return core


def _read(path: Path) -> tokenizers.Tokenizer:
    """What a vocab.txt or a tokenizer.json holds."""
    try:
        require_file(path, LARGEST)
        if path.name == VOCAB:
            return _bert(WordPiece.read_file(str(path)))
        core = tokenizers.Tokenizer.from_file(str(path))
        for part in (core.normalizer, core.pre_tokenizer, core.decoder):
            _require_known_steps(part and json.loads(part.__getstate__()))
    except ConfigError as error:
        raise TokenizerError(str(error)) from None
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None
    except Exception as error:  # the library raises nothing more specific
        raise TokenizerError(f"{path}: not a tokenizer: {error}") from None
    core.decoder = core.decoder or decoders.WordPiece()  # a file may leave it out
    return core


def _require_known_steps(part: Any) -> None:
    """Refuse a step that BERT has not, and a replacement that makes the text longer: forty of them
    that double it fill any memory."""
    if isinstance(part, list):
        for step in part:
            _require_known_steps(step)
    elif isinstance(part, dict) and "type" in part:
        if part["type"] not in STEPS:
            raise TokenizerError(f"it has a step {part['type']}, expected BERT's")
        if part["type"] == "Replace":
            plain = part["pattern"].get("String")  # else it is a regular expression
            if plain is None or len(part["content"]) > len(plain):
                raise TokenizerError("it replaces by a pattern or by more letters than there were")
        for steps in part.values():
            _require_known_steps(steps)


def _configure(core: tokenizers.Tokenizer, path: Path) -> None:
    """Make a tokenizer do what a tokenizer_config.json says."""
    try:
        settings = read_mapping(path)
    except ConfigError as error:
        raise TokenizerError(str(error)) from None
    letters = {name: settings[key] for key, name in LETTERS.items() if key in settings}
    if letters:
        _set_letters(core, letters, path)
    if settings.get("clean_up_tokenization_spaces"):
        replace = [decoders.Replace(text, text.strip()) for text in CLEAN_UP]
        core.decoder = decoders.Sequence([core.decoder, decoders.Fuse(), *replace])


def _set_letters(core: tokenizers.Tokenizer, letters: Mapping[str, Any], path: Path) -> None:
    if not isinstance(core.normalizer, normalizers.BertNormalizer):
        kind = type(core.normalizer).__name__
        raise TokenizerError(f"{path}: made for a BertNormalizer, but {JSON} has a {kind}")
    try:
        for name, value in letters.items():
            setattr(core.normalizer, name, value)
    except TypeError as error:
        keys = ", ".join(LETTERS)
        raise TokenizerError(f"{path}: {error}, expected true or false for {keys}") from None
