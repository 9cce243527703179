"""Our tokenizer against Transformers' BertTokenizer, and what it refuses."""

import json
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import TokenizerError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789éüñßœλжщא中文日本の가😀️"]
WORDS = "man riding on top it is isn n't 's do does not don the cat Cat dog É Hello hello"
PIECES_TO_CLEAN_UP = ["##'t", "##'m", "##'s", "##'ve", "##'re", "##.", "##?", "##!", "##,", "##'"]
VOCAB = [
    *SPECIAL,
    *("[unused0]", "un", "used", "##used", "##ing", "##able"),
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2013—…«»“”。、",
    *LETTERS,
    *("##" + letter for letter in LETTERS),
    *WORDS.split(),
    *("", "n", "##n't", *PIECES_TO_CLEAN_UP),
]
VOCAB = list(dict.fromkeys(VOCAB))
ODD = [
    *("[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", "[sep]", "[ SEP ]", "[unused0]", "[SEP", "##s"),
    *("\x00", "\ufffd", "\u200b", "\u200d", "\ufeff", "\u00ad", "\x85", "\u2028", "\u3000", "\r\n"),
    *("e\u0301", "\u0301", "İ", "ﬁ", "ẞ", "Σ", "中文", "\U00020000", "👩‍👩‍👧", "가", "\U000e0001"),
    *("a" * 100, "a" * 101, "don't", "it's", " n't", " ' ", "...", "Hello CATS!", "\t", " "),
]
texts = st.lists(st.one_of(st.text(), st.sampled_from(ODD), st.sampled_from(VOCAB))).map("".join)
spaced = st.lists(st.sampled_from(ODD + VOCAB)).map(" ".join)
tidy = st.sampled_from([VOCAB.index(token) for token in ("", "n", "a", "'", *PIECES_TO_CLEAN_UP)])
ids = st.lists(st.integers(0, len(VOCAB) - 1)) | st.lists(tidy)
quick = settings(deadline=None, max_examples=150)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def reference(bert_folder):
    return BertTokenizer.from_pretrained(bert_folder)


@pytest.fixture(scope="module")
def ours(bert_folder):
    return Tokenizer.from_folder(bert_folder)


def write_settings(folder, **values):
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def saved(reference, folder, **changes):
    """A folder as Transformers saves it, its tokenizer.json changed."""
    reference.save_pretrained(folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(data | changes), encoding="utf-8")
    return folder


def assert_refused(folder, *parts):
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_folder(folder)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert str(part) in str(caught.value)


@quick
@given(text=st.one_of(texts, spaced))
def test_every_text_gets_the_ids_that_transformers_gives(ours, reference, text):
    assert ours.encode(text) == reference.encode(text, add_special_tokens=False)


def test_every_character_of_unicode_is_read_as_transformers_reads_it(ours, reference):
    # planes 3 to 13 hold no characters, 15 and 16 are for private use: a block of each will do
    blocks = [*range(0, 0x30000, 256), *range(0x30000, sys.maxunicode, 0x10000), 0xE0000, 0xE0100]
    for first in blocks:
        characters = [chr(i) for i in range(first, first + 256) if not 0xD800 <= i < 0xE000]
        text = " ".join(f"a{character}b {character}" for character in characters)
        assert ours.encode(text) == reference.encode(text, add_special_tokens=False), hex(first)


def test_the_pipeline_is_the_one_that_transformers_builds(ours, reference):
    mine, theirs = json.loads(ours.to_json()), json.loads(reference.backend_tokenizer.to_str())
    del mine["post_processor"], theirs["post_processor"]  # the same thing in two spellings
    assert mine == theirs


@quick
@given(ids=ids)
def test_all_ids_become_the_text_that_transformers_makes_of_them(ours, reference, ids):
    assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True)


@settings(deadline=None, max_examples=25)
@given(text=texts, ids=ids)
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("letters", [(True, None), (False, True), (True, False)])
@pytest.mark.parametrize("clean_up", [True, False])
def test_tokenizer_config_is_obeyed_as_in_transformers(
    cached_pair, lower, letters, clean_up, text, ids
):
    ours, reference = cached_pair(
        do_lower_case=lower,
        tokenize_chinese_chars=letters[0],
        strip_accents=letters[1],
        clean_up_tokenization_spaces=clean_up,
    )
    assert ours.encode(text) == reference.encode(text, add_special_tokens=False)
    assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True)


@pytest.fixture(scope="module", params=["vocab.txt", "tokenizer.json"])
def cached_pair(request, tmp_path_factory, reference):
    """Settings -> both tokenizers of a folder with these settings; the vocabulary in either file,
    where tokenizer.json's own settings are the default ones."""
    pairs = {}

    def pair(**values):
        key = tuple(values.values())
        if key not in pairs:
            folder = tmp_path_factory.mktemp("pair")
            if request.param == "vocab.txt":
                (folder / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
            else:
                reference.save_pretrained(folder)
            write_settings(folder, **values)
            pairs[key] = Tokenizer.from_folder(folder), BertTokenizer.from_pretrained(folder)
        return pairs[key]

    return pair


def test_clean_up_joins_what_the_word_piece_decoder_leaves_apart(ours, cached_pair):
    ids = ours.encode("it's a dog")
    assert ours.decode(ids) == "it ' s a dog"
    cleaning, _ = cached_pair(
        do_lower_case=True,
        tokenize_chinese_chars=True,
        strip_accents=None,
        clean_up_tokenization_spaces=True,
    )
    assert cleaning.decode(ids) == "it's a dog"


def test_a_folder_that_transformers_saved_opens(tmp_path, reference, ours):
    tokenizer = Tokenizer.from_folder(saved(reference, tmp_path))
    assert tokenizer.encode("Hello [SEP] CATS") == ours.encode("Hello [SEP] CATS")
    assert len(tokenizer) == len(reference) == len(VOCAB)


def test_tokenizer_json_goes_before_vocab_txt(tmp_path, reference):
    saved(reference, tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "cat"]))
    assert len(Tokenizer.from_folder(tmp_path)) == len(VOCAB)


def test_truncation_and_padding_in_the_file_have_no_effect(tmp_path, reference, ours):
    core = tokenizers.Tokenizer.from_str(reference.backend_tokenizer.to_str())
    core.enable_truncation(3)
    core.enable_padding(length=40)
    core.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path)
    for text in ("a", "a b c d e f g h"):
        assert tokenizer.encode(text) == ours.encode(text)
    written = json.loads(tokenizer.to_json())
    assert written["truncation"] is None
    assert written["padding"] is None


def test_special_tokens_that_the_file_does_not_mark_are_special_all_the_same(tmp_path, reference):
    tokenizer = Tokenizer.from_folder(saved(reference, tmp_path, added_tokens=[]))
    ids = tokenizer.encode("[CLS] cat [SEP]")
    assert tokenizer.tokens(ids) == ["[CLS]", "cat", "[SEP]"]
    assert tokenizer.decode(ids) == "cat"


def test_a_file_without_a_decoder_still_joins_word_pieces(tmp_path, reference):
    tokenizer = Tokenizer.from_folder(saved(reference, tmp_path, decoder=None))
    assert tokenizer.decode(tokenizer.encode("cats")) == "cats"


@pytest.mark.parametrize(
    "config", [{}, {"do_lower_case": False, "clean_up_tokenization_spaces": 1}]
)
def test_what_we_write_reads_back_the_same(tmp_path, bert_folder, config):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "vocab.txt").write_bytes((bert_folder / "vocab.txt").read_bytes())
    write_settings(folder, **config)
    before = Tokenizer.from_folder(folder)
    (tmp_path / "tokenizer.json").write_text(before.to_json(), encoding="utf-8")
    after = Tokenizer.from_folder(tmp_path)
    assert after.to_json() == before.to_json()
    text = "It's Hello É [MASK] 中文, isn't it?"
    assert after.encode(text) == before.encode(text)
    assert after.decode(after.encode(text)) == before.decode(before.encode(text))


def test_transformers_reads_what_we_write(tmp_path, ours, reference):
    (tmp_path / "tokenizer.json").write_text(ours.to_json(), encoding="utf-8")
    theirs = BertTokenizer.from_pretrained(tmp_path)
    core = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("Hello cats, don't!", "a [SEP] b"):
        assert theirs.encode(text) == reference.encode(text) == core.encode(text).ids


def test_a_list_of_tokens_is_a_vocabulary(ours):
    tokenizer = Tokenizer.from_vocab(VOCAB)
    assert tokenizer.to_json() == ours.to_json()
    assert tokenizer.token_id("[CLS]") == 2
    assert tokenizer.tokens([2, tokenizer.token_id("cat"), 3]) == ["[CLS]", "cat", "[SEP]"]


def test_nothing_is_put_around_a_text(ours):
    assert ours.encode("") == []
    assert ours.decode([]) == ""
    assert ours.tokens(ours.encode("Cat")) == ["cat"]


def test_the_size_leaves_room_for_the_highest_id(tmp_path):
    lines = [*VOCAB, "twice", "twice"]  # Transformers keeps the later id, and so leaves a hole
    (tmp_path / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert len(tokenizer) == len(lines)
    assert tokenizer.encode("twice") == [len(lines) - 1]


def test_a_vocabulary_without_mask_is_enough():
    tokenizer = Tokenizer.from_vocab([*SPECIAL[:4], "a", "b"])
    assert len(tokenizer) == 6
    assert tokenizer.encode("a b") == [4, 5]


@pytest.mark.parametrize("bad", [-1, len(VOCAB), 2**40])
def test_an_id_without_a_token_is_refused(ours, bad):
    for method in (ours.decode, ours.tokens):
        with pytest.raises(TokenizerError, match=f"no token has the id {bad}, expected 0 to"):
            method([5, bad])


def test_a_lone_surrogate_is_refused_in_plain_words(ours):
    with pytest.raises(TokenizerError, match="is not a text, expected Unicode characters"):
        ours.encode("caf\udce9")


def test_asking_for_an_unknown_token_is_an_error(ours):
    with pytest.raises(TokenizerError, match="the vocabulary has no token '<image>'"):
        ours.token_id("<image>")


def test_a_token_that_comes_twice_is_refused():
    with pytest.raises(TokenizerError, match="has 'a' twice"):
        Tokenizer.from_vocab([*SPECIAL, "a", "a"])


@pytest.mark.parametrize("missing", SPECIAL[:4])
def test_a_vocabulary_without_a_special_token_is_refused(tmp_path, missing):
    words = [word for word in VOCAB if word != missing]
    with pytest.raises(TokenizerError, match=rf"has no \{missing}, expected \[PAD\]"):
        Tokenizer.from_vocab(words)
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    assert_refused(tmp_path, tmp_path / "vocab.txt", f"has no {missing}")


def test_a_folder_without_a_vocabulary_is_refused(tmp_path):
    assert_refused(tmp_path, tmp_path, "no tokenizer.json and no vocab.txt")
    assert_refused(tmp_path / "nowhere", "nowhere", "no tokenizer.json and no vocab.txt")


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}", b"[1, 2]", b"{" * 5000])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path, tmp_path / name)


def test_an_unknown_token_that_the_vocabulary_lacks_is_refused(tmp_path, reference):
    model = json.loads(reference.backend_tokenizer.to_str())["model"]
    saved(reference, tmp_path, model=model | {"unk_token": "<unk>"})
    assert_refused(tmp_path, "tokenizer.json", "the vocabulary has no <unk>")


def test_settings_for_a_normalizer_that_is_not_berts_are_refused(tmp_path, reference):
    saved(reference, tmp_path, normalizer={"type": "Lowercase"})
    assert_refused(tmp_path, "tokenizer_config.json: made for a BertNormalizer", "a Lowercase")


def test_another_kind_of_tokenizer_is_refused(tmp_path, reference):
    byte_pairs = {"type": "BPE", "vocab": dict.fromkeys(SPECIAL, 0), "merges": []}
    saved(reference, tmp_path, model=byte_pairs, added_tokens=[], post_processor=None)
    assert_refused(tmp_path, "tokenizer.json", "a BPE tokenizer, expected WordPiece")


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a table"),
        ('{"do_lower_case": "no"}', "expected true or false for do_lower_case"),
    ],
)
def test_a_damaged_tokenizer_config_is_named(tmp_path, bert_folder, config, part):
    (tmp_path / "vocab.txt").write_bytes((bert_folder / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(config)
    assert_refused(tmp_path, tmp_path / "tokenizer_config.json", part)
