"""Each term of the field is defined where a reader of the chapters meets it first."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
GLOSSARY = (DOCS / "glossary.md").read_text()
ENTRY = re.compile(
    r"^## (.+)\n\n(.+) \[Chapter (\d+)\]\((walkthrough/(\d+)-\w+\.md)\)$", re.MULTILINE
)
ENTRIES = ENTRY.findall(GLOSSARY)
# The terms that a beginner must be given, as the chapters spell them.
NEEDED = (
    "query|key|value|heads|softmax|perplexity|autoregressive|prefill|layernorm|wordpiece",
    "[cls]|[sep]|[pad]|class token|scaled dot product|residual connection|self-attention",
    "multi-head attention|feed-forward network|position embedding|prefix language model",
    "seq2seq mask|kv cache|teacher forcing|cross-entropy|exposure bias|nucleus sampling",
    "logit lens|attention rollout|occlusion|transformer|language model|causal|cross-attention",
    "tokenizer|pretrained|clip|bert|coco|[unk]",
)
# Plain words that are terms in one chapter and words before it, or parts of longer terms.
WORDS = {
    "mask", "key", "value", "heads", "embedding", "sampling", "temperature", "parity", "held out",
    "patches", "tokens", "encoder", "decoder",
}  # fmt: skip


def prose(path: Path) -> str:
    """A chapter's sentences: no code, no equations, no headings, no preview, no link targets, and
    not the library Transformers, whose name is no term."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(#|>|\||Next:).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"`transformers`|\bTransformers\b", "", text)
    return " ".join(text.split())


CHAPTERS = {
    int(path.stem.split("-")[0]): prose(path) for path in (DOCS / "walkthrough").glob("*.md")
}


def test_the_glossary_is_complete_sorted_and_every_entry_names_its_chapter() -> None:
    names = [name for name, *_ in ENTRIES]
    assert len(names) == GLOSSARY.count("\n## ")
    assert names == sorted(names, key=lambda name: name.lower().strip("["))
    needed = {term for line in NEEDED for term in line.split("|")}
    assert needed <= {name.lower() for name in names}
    for _, _, number, target, file_number in ENTRIES:
        assert number == file_number
        assert (DOCS / target).is_file()


@pytest.mark.parametrize(("name", "number"), [(entry[0], int(entry[2])) for entry in ENTRIES])
def test_a_term_is_defined_where_it_first_occurs(name: str, number: int) -> None:
    word = re.escape(name.removesuffix("s").lower())
    table = (DOCS / "walkthrough").glob(f"{number}-*.md")
    text = next(table).read_text()
    assert re.search(rf"\*\*\[?`?{word}", text, re.IGNORECASE), f"{name} is not bold"
    if name.lower() in WORDS:
        return
    for earlier in range(1, number):
        assert not re.search(rf"(?<![\w-]){word}", CHAPTERS[earlier], re.IGNORECASE), earlier
    if f"**{name.lower()}" in CHAPTERS[number].lower():
        first = re.search(rf"(?<![\w-]){word}", CHAPTERS[number], re.IGNORECASE)
        assert first is not None
        assert CHAPTERS[number][: first.start()].endswith("**"), CHAPTERS[number][
            first.start() - 80 : first.end() + 20
        ]
