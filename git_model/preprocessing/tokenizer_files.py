"""The files of a BERT tokenizer, as Transformers reads them: tokenizer.json or vocab.txt, and
tokenizer_config.json, added_tokens.json and special_tokens_map.json beside it.

Source: transformers/tokenization_utils_base.py, `_from_pretrained`, version 5.24.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from git_model.utils.errors import ConfigError, GITError
from git_model.utils.serialize import is_file, read_mapping, require_file, short_repr

JSON, VOCAB, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
ADDED, SPECIAL = "added_tokens.json", "special_tokens_map.json"  # of older versions of Transformers
FILES = (JSON, VOCAB, SETTINGS, ADDED, SPECIAL)
DECODER = "added_tokens_decoder"  # a key of tokenizer_config.json; it replaces the older files
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
NEEDED = (PAD, UNK, CLS, SEP)  # GIT never masks

# What tokenizer_config.json may say about normalization, and `BertNormalizer`'s name for it.
NORMALIZATION = {
    "do_lower_case": "lowercase",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "strip_accents": "strip_accents",  # null: if lowercase
}
# Transformers' `clean_up_tokenization`: off by default since its version 5, but version 4 wrote it
# as on into the tokenizer_config.json of the models that it saved.
CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
# The keys of tokenizer_config.json and special_tokens_map.json that name special tokens.
ADDITIONAL = "additional_special_tokens"
SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
                "mask_token", ADDITIONAL, "extra_special_tokens")  # fmt: skip
NUMBER = re.compile("0|[1-9][0-9]{0,9}")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an AddedToken

MAX_BYTES = 2**24  # of a vocabulary; those of released models have at most some MB
# The steps that a tokenizer.json may have around its words. Regular expressions are not among them:
# some take years for one line of text.
STEPS = ("Sequence", "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip",
         "StripAccents", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation",
         "WordPiece", "Fuse", "Replace")  # fmt: skip


class TokenizerError(GITError):
    """A vocabulary, a text or an id that cannot be used; the message names it."""


def find_vocabulary(folder: Path) -> Path:
    """The file with the vocabulary in a folder: tokenizer.json, else vocab.txt.

    Raises:
        TokenizerError: neither exists.
    """
    path = next((folder / name for name in (JSON, VOCAB) if is_file(folder / name)), None)
    if path is None:
        raise TokenizerError(f"{folder}: no {JSON} and no {VOCAB}, expected one of them")
    return path


def read_core(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer in a tokenizer.json or a vocab.txt, with what the files beside it say.

    Raises:
        TokenizerError: a file is damaged; the message names it.
    """
    core = _read(path)
    settings = _table(path.with_name(SETTINGS))
    _configure(core, settings, path.with_name(SETTINGS))
    _add_tokens(core, settings, path.parent)
    return core


def bert(vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """The pipeline of bert-base-uncased around a vocabulary.

    Raises:
        TokenizerError: the vocabulary lacks a token of `NEEDED`.
    """
    require_tokens(vocab, *NEEDED)
    core = tokenizers.Tokenizer(WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=100))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")
    # `encode` does not use this, but other programs that read the tokenizer.json expect it
    core.post_processor = processors.BertProcessing((SEP, vocab[SEP]), (CLS, vocab[CLS]))
    return core


def require_tokens(vocab: Mapping[str, int], *tokens: str) -> None:
    """Refuse a vocabulary without these tokens."""
    for token in tokens:
        if token not in vocab:
            raise TokenizerError(f"the vocabulary has no {token}, expected {', '.join(NEEDED)}")


def _read(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer in a vocab.txt or a tokenizer.json."""
    try:
        require_file(path, MAX_BYTES)
        if path.name == VOCAB:
            return bert(WordPiece.read_file(str(path)))
        core = tokenizers.Tokenizer.from_file(str(path))
        for part in (core.normalizer, core.pre_tokenizer, core.decoder):
            _require_steps(part and json.loads(part.__getstate__()))
    except ConfigError as error:
        raise TokenizerError(str(error)) from None
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None
    except Exception as error:  # the library raises nothing more specific
        raise TokenizerError(f"{path}: not a tokenizer: {error}") from None
    core.decoder = core.decoder or decoders.WordPiece()  # a file may leave it out
    return core


def _require_steps(part: Any) -> None:
    """Refuse a step that BERT does not have, and a replacement that makes the text longer: forty
    that double its length fill any memory."""
    if isinstance(part, list):
        for step in part:
            _require_steps(step)
    elif isinstance(part, dict) and "type" in part:
        if part["type"] not in STEPS:
            raise TokenizerError(f"it has a step {part['type']}, expected BERT's")
        if part["type"] == "Replace":
            text = part["pattern"].get("String")  # else it is a regular expression
            if text is None or len(part["content"]) > len(text):
                raise TokenizerError("it replaces a regular expression, or a text by a longer text")
        for steps in part.values():
            _require_steps(steps)


def _table(path: Path) -> dict[str, Any]:
    """The table in a JSON file; empty without the file."""
    try:
        return read_mapping(path) if is_file(path) else {}
    except ConfigError as error:
        raise TokenizerError(str(error)) from None


# tokenizer_config.json


def _configure(core: tokenizers.Tokenizer, settings: Mapping[str, Any], path: Path) -> None:
    """Set normalization and clean-up as tokenizer_config.json says; it overrules tokenizer.json."""
    options = {name: settings[key] for key, name in NORMALIZATION.items() if key in settings}
    if options:
        _set_normalization(core, options, path)
    if settings.get("clean_up_tokenization_spaces"):
        replace = [decoders.Replace(text, text.strip()) for text in CLEAN_UP]
        core.decoder = decoders.Sequence([core.decoder, decoders.Fuse(), *replace])


def _set_normalization(core: tokenizers.Tokenizer, options: Mapping[str, Any], path: Path) -> None:
    if not isinstance(core.normalizer, normalizers.BertNormalizer):
        name = type(core.normalizer).__name__
        raise TokenizerError(f"{path}: made for a BertNormalizer, but {JSON} has a {name}")
    try:
        for name, value in options.items():
            setattr(core.normalizer, name, value)
    except TypeError as error:
        keys = ", ".join(NORMALIZATION)
        raise TokenizerError(f"{path}: {error}, expected true or false for {keys}") from None


# Added tokens


def _add_tokens(core: tokenizers.Tokenizer, settings: Mapping[str, Any], folder: Path) -> None:
    """Add the tokens that the files list with their ids, and mark the special tokens they name.

    A named special token without an id in any file is not added: the model has no row for it.
    """
    if DECODER in settings:
        path = folder / SETTINGS
        names = _special_tokens(settings, path)
        tokens = _from_decoder(settings[DECODER], path, names)
        new = tokens
    else:
        path, older = folder / ADDED, _table(folder / SPECIAL)
        additional = {ADDITIONAL: older.pop(ADDITIONAL, None)}  # Transformers 5 forgets these here
        names = _special_tokens({**settings, **older}, folder / (SPECIAL if older else SETTINGS))
        tokens = _from_added_tokens(_table(path), path, names)
        names |= _special_tokens(additional, folder / SPECIAL)
        old = core.get_added_tokens_decoder()  # of tokenizer.json, whose flags count
        new = {index: token for index, token in tokens.items() if index not in old}
    token_of = {index: token for token, index in core.get_vocab().items()}
    core.add_tokens([new[index] for index in sorted(new)])
    for index, token in tokens.items():
        _require_id(core, token.content, index, token_of, path)
    listed = {token.content for token in tokens.values()}
    unlisted = core.get_vocab().keys() - listed
    core.add_tokens([token for content, token in names.items() if content in unlisted])


def _require_id(
    core: tokenizers.Tokenizer, content: str, index: int, token_of: Mapping[int, str], path: Path
) -> None:
    """Refuse a token that did not get its id: the library gives each the next free id, whatever the
    file says, and so does Transformers, which then mixes up the rows of the model."""
    actual = core.token_to_id(content)
    if actual != index or token_of.get(index, content) != content:
        raise TokenizerError(
            f"{path}: the added token {content!r} has the id {index}, but would get {actual}: "
            "expected ids that follow the vocabulary without a gap"
        )


def _from_decoder(
    decoder: Any, path: Path, names: Mapping[str, AddedToken]
) -> dict[int, AddedToken]:
    """The added tokens of tokenizer_config.json by their ids."""
    if not isinstance(decoder, dict):
        raise TokenizerError(f"{path}: {DECODER} is {short_repr(decoder)}, expected a table")
    tokens = {}
    for key, value in decoder.items():
        token = _added_token(value, f"{path}: {DECODER}: {short_repr(key)}")
        token.special = token.special or token.content in {*names, *NEEDED, MASK}
        tokens[_id(int(key) if NUMBER.fullmatch(key) else key, path)] = token
    return tokens


def _from_added_tokens(
    table: Mapping[str, Any], path: Path, names: Mapping[str, AddedToken]
) -> dict[int, AddedToken]:
    """The tokens of added_tokens.json by their ids; the file has no flags."""
    tokens: dict[int, AddedToken] = {}
    for content, index in table.items():
        flags = {"normalized": content not in names, "special": content in {*names, *NEEDED, MASK}}
        token = _added_token({"content": content, **flags}, f"{path}: the token")
        if tokens.setdefault(_id(index, path), token) is not token:
            raise TokenizerError(f"{path}: two tokens have the id {index}, expected distinct ids")
    return tokens


def _special_tokens(settings: Mapping[str, Any], path: Path) -> dict[str, AddedToken]:
    """The special tokens that a file names, by their text."""
    tokens = {}
    for key in SPECIAL_KEYS:
        value = settings.get(key)
        if isinstance(value, dict) and "content" not in value:
            value = list(value.values())  # names of its own, such as image_token
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                table = {"content": item} if isinstance(item, str) else item
                token = _added_token(table, f"{path}: {key}", special=True)
                tokens[token.content] = token
    return tokens


def _added_token(value: Any, where: str, **defaults: bool) -> AddedToken:
    """A table as Transformers writes an AddedToken: its content, and flags."""
    table = {**defaults, **value} if isinstance(value, dict) else {}
    table.pop("__type", None)
    content = table.pop("content", None)
    try:
        if content and all(type(flag) is bool and key in FLAGS for key, flag in table.items()):
            token = AddedToken(content, **table)
            token.special = token.special or defaults.get("special", False)
            return token
    except (TypeError, ValueError):  # no text, or lone surrogates
        pass
    raise TokenizerError(
        f"{where} is {short_repr(value)}, expected a table of content and true or false for "
        f"{', '.join(FLAGS)}"
    )


def _id(value: Any, path: Path) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise TokenizerError(f"{path}: {short_repr(value)} is no id of a token, expected a number")
    return value
