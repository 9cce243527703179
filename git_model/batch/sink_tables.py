"""The forms of one file for all records: JSON lines, CSV, Parquet, the original's TSV.

None of them is held in memory as a whole, neither when it is written nor when it is read.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from git_model.batch.input_items import one_line
from git_model.batch.records import Record
from git_model.data.manifests import DataError, decode, each, parse, text_of
from git_model.utils.errors import GITError

# The columns of CSV and Parquet; what a record lacks is empty there.
COLUMNS = ("file_name", "text", "question", "question_id", "answer", "logprob", "confidence",
           "frames", "rejected", "error", "model", "revision", "style", "decoding")  # fmt: skip
LISTS = ("text", "answer", "logprob", "confidence")  # of several texts about one input
ROWS = 1000  # of a group in Parquet


def read_jsonl(path: Path) -> Iterator[Record]:
    """The records in lines of JSON."""
    with path.open("rb") as lines:
        yield from each(lines, _json_line, f"{path}: line")


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """A line for each record. Half a character, which JSON can spell, is spelt so again."""
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(
            json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records
        )


def read_csv(path: Path) -> Iterator[Record]:
    """The records in a CSV file that `write_csv` wrote."""
    with path.open(encoding="utf-8", newline="", errors="surrogateescape") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            if "file_name" not in header:
                raise DataError(f"{path}: the first line has no column file_name, expected one")
            yield from each(rows, lambda row: _record(header, row), f"{path}: record")
        except csv.Error as error:
            raise DataError(f"{path}: line {rows.line_num}: {error}, expected CSV") from None


def write_csv(path: Path, records: Iterable[Record]) -> None:
    """A line for each record; lists, and tables within one, as JSON."""
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for record in records:
            rows.writerow([_cell(record.get(name)) for name in COLUMNS])


def read_parquet(path: Path) -> Iterator[Record]:
    """The records in a Parquet file."""
    parquet = _pyarrow(path)[1]
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            if "file_name" not in file.schema_arrow.names:
                raise DataError(f"{path}: there is no column file_name, expected one")
            for group in file.iter_batches(ROWS):
                yield from map(_without_blanks, group.to_pylist())
    except (GITError, OSError):
        raise
    except Exception as error:  # pyarrow has errors of its own for each kind of damage
        raise DataError(f"{path}: {one_line(str(error))}, expected Parquet") from None


def write_parquet(path: Path, records: Iterable[Record]) -> None:
    """A row for each record, in groups."""
    arrow, parquet = _pyarrow(path)
    stream = iter(records)
    group = list(islice(stream, ROWS))
    several = any(isinstance(record.get("logprob"), list) for record in group[:1])
    with parquet.ParquetWriter(path, _schema(arrow, several)) as file:
        while group:
            try:
                file.write_table(arrow_table(group, several=several))
            except (arrow.ArrowException, ValueError) as error:
                raise GITError(
                    f"{path.name}: the records do not fit together: {one_line(str(error))}: "
                    "expected several texts for each, or one; --overwrite, or name another file"
                ) from None
            group = list(islice(stream, ROWS))


def arrow_table(records: Iterable[Record], *, several: bool) -> Any:
    """Records as an Arrow table.

    Args:
        several: each of them has a list of texts.
    """
    arrow = _pyarrow(Path("Arrow"))[0]
    rows = [record | {"decoding": _cell(record.get("decoding"))} for record in records]
    return arrow.Table.from_pylist(rows, _schema(arrow, several))


def read_tsv(path: Path) -> Iterator[Record]:
    """The records in the original's form, of which it has only the texts."""
    with path.open("rb") as lines:
        for found in each(lines, _tsv_line, f"{path}: row"):
            yield from found


def write_tsv(path: Path, records: Iterable[Record]) -> None:
    """A row for each picture: its name, and JSON: [{"caption": …}] or [{"question": …, "answer":
    …, "question_id": …}] (the original's inference.py). Rejected texts are left out."""
    good = (record for record in records if "rejected" not in record)
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for name, group in groupby(good, key=lambda record: str(record["file_name"])):
            texts = [text for record in group for text in _original(record)]
            file.write(f"{one_line(name)}\t{json.dumps(texts)}\n")


Form = tuple[Callable[[Path], Iterator[Record]], Callable[[Path, Iterable[Record]], None]]
FORMS: dict[str, Form] = {
    ".jsonl": (read_jsonl, write_jsonl),
    ".csv": (read_csv, write_csv),
    ".parquet": (read_parquet, write_parquet),
    ".tsv": (read_tsv, write_tsv),
}


def _json_line(line: bytes) -> Record:
    return _checked(parse(decode(line)))


def _checked(record: Any) -> Record:
    """A record that is an object with the name of its input."""
    text_of(record, "file_name")
    return dict(record)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _record(header: list[str], row: list[str]) -> Record:
    if len(row) != len(header):
        raise DataError(f"{len(row)} columns, expected {len(header)}")
    cells = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    several = cells.get("logprob", "").startswith("[")
    coded = (
        "logprob",
        "confidence",
        "frames",
        "decoding",
        *(("text", "answer") if several else ()),
    )
    return _checked({name: parse(cell) if name in coded else cell for name, cell in cells.items()})


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise GITError(f"{path}: Parquet needs pyarrow: pip install 'git-model[parquet]'") from None
    return pyarrow, parquet


def _schema(arrow: Any, several: bool) -> Any:
    kinds = dict.fromkeys(COLUMNS, arrow.string())
    kinds |= {"logprob": arrow.float64(), "confidence": arrow.float64()}
    if several:
        kinds |= {name: arrow.list_(kinds[name]) for name in LISTS}
    kinds["frames"] = arrow.list_(arrow.int64())
    return arrow.schema(list(kinds.items()))


def _without_blanks(row: Record) -> Record:
    record = {name: value for name, value in row.items() if value is not None}
    return record | {"decoding": parse(record.get("decoding") or "{}")}


def _original(record: Record) -> list[Record]:
    """A record's texts in the original's form."""
    question = record.get("question")
    said = record["text" if question is None else "answer"]
    texts = said if isinstance(said, list) else [said]
    if question is None:
        return [{"caption": text} for text in texts]
    key = {"question_id": record["question_id"]} if "question_id" in record else {}
    return [{"question": question, "answer": text} | key for text in texts]


def _tsv_line(line: bytes) -> list[Record]:
    name, *rest = decode(line).rstrip("\n").split("\t")
    if len(rest) != 1:
        raise DataError(f"{1 + len(rest)} columns, expected two: a name and JSON")
    found = parse(rest[0])
    if not isinstance(found, list):
        raise DataError(f"{rest[0][:40]!r}, expected a JSON list")
    for one in found:
        if not isinstance(one, dict):
            raise DataError(f"found {one!r:.40}, expected an object")
    captions = [text_of(one, "caption") for one in found if "question" not in one]
    answers = [_checked({"file_name": name} | one) for one in found if "question" in one]
    whole = captions[0] if len(captions) == 1 else captions
    return ([{"file_name": name, "text": whole}] if captions else []) + answers
