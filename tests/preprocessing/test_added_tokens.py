"""Tokens added to a vocabulary, in each file that may list them, against Transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import TokenizerError

VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[unused0]",
    "[unused1]",
    "a",
    "cat",
    "##s",
    "obj",
]
VOCAB += ["<", ">", "two", "b"]
N = len(VOCAB)
PLAIN = {"<OBJ>": N, "zebra": N + 1, "Red Panda": N + 2}


def flags(content: str, **changes: bool) -> dict[str, Any]:
    usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
    return {"content": content, "special": False} | usual | changes


DECODER = {
    "2": flags("[CLS]", normalized=False, special=True),
    "5": flags("[unused0]", normalized=False, special=True),
    str(N): flags("<OBJ>", normalized=False, special=True),
    str(N + 1): flags("zebra", single_word=True),
    str(N + 2): flags("Red Panda", lstrip=True, rstrip=True),
}
# Each case: file name -> content, beside vocab.txt.
CASES: dict[str, dict[str, Any]] = {
    "added_tokens": {"added_tokens.json": PLAIN},
    "added_tokens with special ones": {
        "added_tokens.json": PLAIN | {"[MASK]": 4},
        "special_tokens_map.json": {
            "cls_token": "[CLS]",
            "bos_token": flags("[unused1]", lstrip=True, special=True),
            "additional_special_tokens": ["<OBJ>", "[unused0]"],
        },
    },
    "added_tokens and extra special tokens": {
        "added_tokens.json": PLAIN,
        "tokenizer_config.json": {"extra_special_tokens": ["zebra"], "do_lower_case": False},
    },
    "decoder": {"tokenizer_config.json": {"added_tokens_decoder": DECODER}},
    "decoder before older files": {
        "tokenizer_config.json": {"added_tokens_decoder": DECODER, "eos_token": "Red Panda"},
        "added_tokens.json": {"never": N},
        "special_tokens_map.json": {"additional_special_tokens": ["zebra"]},
    },
    "flags of the mask": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"4": flags("[MASK]", lstrip=True, special=True)}
        },
    },
}
WORDS = [*VOCAB, *PLAIN, "red panda", "ZEBRA", "zebras", "<obj>", "[mask]", "Cat", " ", "  ", "\t"]
texts = st.lists(st.sampled_from(WORDS)).map("".join) | st.lists(st.sampled_from(WORDS)).map(
    " ".join
)


def folder_of(folder: Path, files: dict[str, Any], vocab: list[str] = VOCAB) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocab))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    folder = folder_of(tmp_path_factory.mktemp("added"), CASES[request.param])
    return Tokenizer.from_folder(folder), BertTokenizer.from_pretrained(folder)


def test_every_token_has_the_id_that_transformers_gives_it(pair) -> None:
    ours, theirs = pair
    assert ours.vocabulary() == theirs.get_vocab()
    assert len(ours) == len(theirs)


@settings(deadline=None, max_examples=75)
@given(text=texts)
def test_a_text_with_added_tokens_gets_the_ids_that_transformers_gives(pair, text: str) -> None:
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)


@settings(deadline=None, max_examples=75)
@given(ids=st.lists(st.integers(0, N - 1)))
def test_ids_decode_as_in_transformers(pair, ids: list[int]) -> None:
    ours, theirs = pair
    ids = [*ids, len(ours) - 1, *ids]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_a_caption_with_an_added_token_decodes(tmp_path: Path) -> None:
    ours = Tokenizer.from_folder(folder_of(tmp_path, CASES["added_tokens"]))
    assert ours.decode([2, 7, N + 1, 3]) == "a zebra"
    assert ours.encode("a zebra") == [7, N + 1]
    assert ours.tokens([N + 2]) == ["Red Panda"]


def test_added_tokens_travel_in_our_own_file(pair, tmp_path: Path) -> None:
    ours, theirs = pair
    (tmp_path / "tokenizer.json").write_text(ours.to_json(), encoding="utf-8")
    again = Tokenizer.from_folder(tmp_path)
    core = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("a <OBJ> zebra Red Panda s", "[MASK][unused0] red panda"):
        expected = theirs.encode(text, add_special_tokens=False)
        assert again.encode(text) == core.encode(text, add_special_tokens=False).ids == expected


def test_a_folder_that_transformers_saved_keeps_its_added_tokens(pair, tmp_path: Path) -> None:
    ours, theirs = pair
    theirs.save_pretrained(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert again.vocabulary() == ours.vocabulary()
    assert again.encode("two zebra <OBJ>") == ours.encode("two zebra <OBJ>")
    ids = list(range(len(ours)))
    assert again.decode(ids) == ours.decode(ids)


def test_tokenizer_json_beside_added_tokens_keeps_its_own_flags(tmp_path: Path) -> None:
    theirs = BertTokenizer.from_pretrained(folder_of(tmp_path / "old", CASES["decoder"]))
    theirs.save_pretrained(tmp_path / "new")
    (tmp_path / "new" / "added_tokens.json").write_text(json.dumps(PLAIN | {"last": N + 3}))
    ours = Tokenizer.from_folder(tmp_path / "new")
    again = BertTokenizer.from_pretrained(tmp_path / "new")
    for text in ("zebras and <obj> <OBJ>", "a  red panda  b last"):
        assert ours.encode(text) == again.encode(text, add_special_tokens=False)


def test_a_named_token_that_has_no_id_is_not_added(tmp_path: Path) -> None:
    """Transformers gives it an id for which the model has no embedding."""
    folder = folder_of(tmp_path, {"tokenizer_config.json": {"bos_token": "<s>"}})
    assert len(Tokenizer.from_folder(folder)) == N
    assert len(BertTokenizer.from_pretrained(folder)) == N + 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"added_tokens.json": {"zebra": N + 1}}, [f"'zebra' has the id {N + 1}", f"get {N}"]),
        ({"added_tokens.json": {"zebra": 4}}, ["'zebra' has the id 4", f"would get {N}"]),
        ({"added_tokens.json": {"cat": N}}, [f"'cat' has the id {N}, but would get 8"]),
        ({"added_tokens.json": {"x": N, "y": N}}, [f"two tokens have the id {N}"]),
        ({"added_tokens.json": {"x": "15"}}, ["'15' is no id of a token"]),
        ({"added_tokens.json": {"x": True}}, ["True is no id"]),
        ({"added_tokens.json": {"x": -1}}, ["-1 is no id"]),
        ({"added_tokens.json": {"": N}}, ["the token is", "expected a table of content"]),
        ({"added_tokens.json": {"\ud800": N}}, ["the token is", "expected a table of content"]),
        ({"added_tokens.json": [1]}, ["expected a table"]),
        ({"special_tokens_map.json": {"cls_token": 5}}, ["cls_token is 5, expected a table"]),
        ({"tokenizer_config.json": {"added_tokens_decoder": []}}, ["added_tokens_decoder is []"]),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"a": flags("x")}}}, ["'a' is no id"]),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"15": "x"}}}, ["'15' is 'x'"]),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"15": flags("x", lstrip=1)}}},
            ["true or false for single_word, lstrip"],
        ),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"15": flags("x", other=True)}}},
            ["true or false for single_word, lstrip"],
        ),
    ],
)
def test_tokens_that_cannot_be_added_are_refused(
    files: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, files)
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_folder(folder)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in [*words, str(folder / next(iter(files)))])


def test_a_gap_in_the_vocabulary_is_refused_where_transformers_gives_one_id_twice(
    tmp_path: Path,
) -> None:
    vocab = [*VOCAB, "twice", "twice"]
    folder = folder_of(tmp_path, {"added_tokens.json": {"new": N + 1}}, vocab)
    theirs = BertTokenizer.from_pretrained(folder)
    assert theirs.get_vocab()["new"] == theirs.get_vocab()["twice"]
    with pytest.raises(TokenizerError, match="'new' has the id"):
        Tokenizer.from_folder(folder)


def test_many_added_tokens_are_added_at_once(tmp_path: Path) -> None:
    """One by one they would take hours: each call builds the library's automaton anew."""
    many = {f"<{n}>": N + n for n in range(30_000)}
    ours = Tokenizer.from_folder(folder_of(tmp_path, {"added_tokens.json": many}))
    assert ours.encode("a <29999>") == [7, N + 29_999]
