"""The formats of one file for all records: JSON lines, CSV, Parquet, the original's TSV.

No file is held in memory as a whole, neither when it is written nor when it is read.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from git_model.batch.items import OutputRecord, record_identity
from git_model.batch.journal import disk_owners
from git_model.batch.source_files import SOURCE_FILE
from git_model.batch.table_readers import require_bounded_group
from git_model.data.manifests import DataError, decode, parse, parse_each, text_of
from git_model.utils.errors import GITError

# The columns of CSV and Parquet; a field that a record lacks is empty.
COLUMNS = ("file_name", "text", "question", "question_id", "answer", "logprob", "confidence",
           "frames", "truncated", "rejected", "warning", "error", "model", "revision", "style",
           "decoding", "options", SOURCE_FILE)  # fmt: skip
TABLES = ("decoding", "options", SOURCE_FILE)  # JSON in a column of text
MULTIPLE = ("text", "answer", "logprob", "confidence")  # lists if an input has several texts
GROUP_ROWS = 1000  # of a row group in Parquet
MAX_RECORD_BYTES = 1 << 24
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # the beginning of a cell that a spreadsheet may run
# Characters that would break a line of a TSV or control a terminal, and their spelling in a TSV.
ESCAPES = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029)
}


class TableFormat(NamedTuple):
    """How the records of a file are read and written.

    is_whole: whether the file has all fields of a record, and not the texts alone.
    """

    read: Callable[[Path], Iterator[OutputRecord]]
    write: Callable[[Path, Iterable[OutputRecord]], None]
    is_whole: bool = True


def read_jsonl(path: Path) -> Iterator[OutputRecord]:
    """The records in lines of JSON."""
    yield from parse_each(_bounded_lines(path), _json_line, f"{path}: line")


def write_jsonl(path: Path, records: Iterable[OutputRecord]) -> None:
    """A line for each record. A lone surrogate is written as JSON spells it."""
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for record in records:
            write_jsonl_line(file, record)


def write_jsonl_line(file: TextIO, record: OutputRecord) -> None:
    """Write a record as a line of JSON."""
    file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def read_csv(path: Path, *, safe: bool = True) -> Iterator[OutputRecord]:
    """The records in a CSV file that `write_csv` wrote."""
    plain = (line.removeprefix(codecs.BOM_UTF8) for line in _bounded_lines(path))
    lines = (line.decode("utf-8", "surrogateescape") for line in plain)
    rows = csv.reader(lines, strict=True)
    try:
        header = next(rows, [])
        if "file_name" not in header:
            raise DataError(f"{path}: the first line has no column file_name, expected one")
        read_row = partial(_csv_record, header, safe=safe)
        yield from parse_each(rows, read_row, f"{path}: record")
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: {error}, expected CSV") from None


def write_csv(path: Path, records: Iterable[OutputRecord], *, safe: bool = True) -> None:
    """A line for each record; lists, and tables within one, as JSON.

    Args:
        safe: for spreadsheets: the file begins with a byte order mark (BOM), without which letters
            such as "ö" are misread, and a text that would be run as a formula begins with an
            apostrophe. `read_csv` removes both.
    """
    encoding = "utf-8-sig" if safe else "utf-8"
    with path.open("w", encoding=encoding, newline="", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for record in records:
            cells = (record.get(name) for name in COLUMNS)
            rows.writerow([_csv_cell(value) if safe else _cell(value) for value in cells])


def read_parquet(path: Path) -> Iterator[OutputRecord]:
    """The records in a Parquet file."""
    parquet = _pyarrow(path)[1]
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            if "file_name" not in file.schema_arrow.names:
                raise DataError(f"{path}: there is no column file_name, expected one")
            for number in range(file.num_row_groups):
                require_bounded_group(file.metadata.row_group(number))
                for batch in file.iter_batches(GROUP_ROWS // 10, row_groups=[number]):
                    yield from map(_parquet_record, batch.to_pylist())
    except (GITError, OSError):
        raise
    except Exception as error:  # pyarrow has errors of its own for each kind of damage
        raise DataError(f"{path}: {error}, expected Parquet") from None


def write_parquet(path: Path, records: Iterable[OutputRecord]) -> None:
    """A row for each record, in groups."""
    arrow, parquet = _pyarrow(path)
    stream = iter(records)
    group = list(islice(stream, GROUP_ROWS))
    multiple = any(isinstance(record.get("logprob"), list) for record in group[:1])
    with parquet.ParquetWriter(path, _schema(arrow, multiple)) as file:
        while group:
            try:
                file.write_table(arrow_table(group, multiple=multiple))
            except (arrow.ArrowException, ValueError) as error:
                raise GITError(
                    f"{path.name}: the records do not fit together: {error}: "
                    "expected several texts for each, or one; --overwrite, or name another file"
                ) from None
            group = list(islice(stream, GROUP_ROWS))


def arrow_table(records: Iterable[OutputRecord], *, multiple: bool) -> Any:
    """Records as an Arrow table.

    Args:
        multiple: each of them has a list of texts.
    """
    arrow = _pyarrow(Path("Arrow"))[0]
    rows = [
        record | {name: _cell(record[name]) for name in TABLES if name in record}
        for record in records
    ]
    return arrow.Table.from_pylist(rows, _schema(arrow, multiple))


def read_tsv(path: Path) -> Iterator[OutputRecord]:
    """The records in the original's format, which has only their texts."""
    for records in parse_each(_bounded_lines(path), _tsv_records, f"{path}: row"):
        yield from records


def with_whole_records(
    texts: Iterable[OutputRecord], records: Iterable[OutputRecord]
) -> Iterator[OutputRecord]:
    """The records of a TSV, whole where another file has them with the same texts.

    Args:
        texts: the records of the TSV.
        records: whole ones, of the same run.
    """
    with disk_owners() as stored:
        for record in records:
            if "rejected" not in record:
                stored.claim(_tsv_key(record), json.dumps(record).encode())
        for record in texts:
            data = stored.claim(_tsv_key(record), b"{}")
            whole = json.loads(data)
            is_same = bool(whole) and _tsv_texts(whole) == _tsv_texts(record)
            yield whole if is_same else record


def _tsv_key(record: OutputRecord) -> bytes:
    """Equal for a record and for what a TSV keeps of it."""
    return record_identity(record | {"file_name": record["file_name"].translate(ESCAPES)})


def write_tsv(path: Path, records: Iterable[OutputRecord]) -> None:
    """A row for each image: its name, and JSON: [{"caption": …}] or [{"question": …, "answer":
    …, "question_id": …}] (the original's inference.py). Rejected texts are left out."""
    good = (record for record in records if "rejected" not in record)
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for name, group in groupby(good, key=lambda record: str(record["file_name"])):
            texts = [text for record in group for text in _tsv_texts(record)]
            file.write(f"{name.translate(ESCAPES)}\t{json.dumps(texts)}\n")


TABLE_FORMATS = {
    ".jsonl": TableFormat(read_jsonl, write_jsonl),
    ".csv": TableFormat(read_csv, write_csv),
    ".parquet": TableFormat(read_parquet, write_parquet),
    ".tsv": TableFormat(read_tsv, write_tsv, is_whole=False),
}


# Texts as they are, formulas too.
UNESCAPED_CSV = TableFormat(partial(read_csv, safe=False), partial(write_csv, safe=False))


def _bounded_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, with their ends."""
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(MAX_RECORD_BYTES)
            if not line:
                return
            if len(line) == MAX_RECORD_BYTES:
                raise DataError(
                    f"{path}: line {number}: too long, expected fewer than {MAX_RECORD_BYTES} bytes"
                )
            yield line


def _json_line(line: bytes) -> OutputRecord:
    return _checked(parse(decode(line)))


def _checked(record: Any) -> OutputRecord:
    """A record, if it is an object with the name of its input."""
    text_of(record, "file_name")
    return dict(record)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _csv_cell(value: Any) -> str:
    cell = _cell(value)
    return f"'{cell}" if isinstance(value, str) and FORMULA.match(cell) else cell


def _csv_value(cell: str) -> str:
    """A text without the apostrophe that `_csv_cell` put before it."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _csv_record(header: list[str], row: list[str], *, safe: bool) -> OutputRecord:
    if len(row) != len(header):
        raise DataError(f"{len(row)} columns, expected {len(header)}")
    cells = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    as_json = {"logprob", "confidence", "frames", "truncated", *TABLES}
    if cells.get("logprob", "").startswith("["):
        as_json |= {"text", "answer"}
    values = {
        name: parse(cell) if name in as_json else _csv_value(cell) if safe else cell
        for name, cell in cells.items()
    }
    return _checked(values)


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise GITError(f"{path}: Parquet needs pyarrow: pip install 'git-model[parquet]'") from None
    return pyarrow, parquet


def _schema(arrow: Any, multiple: bool) -> Any:
    types = dict.fromkeys(COLUMNS, arrow.string())
    types |= {"logprob": arrow.float64(), "confidence": arrow.float64()}
    if multiple:
        types |= {name: arrow.list_(types[name]) for name in MULTIPLE}
    types |= {"frames": arrow.list_(arrow.int64()), "truncated": arrow.bool_()}
    return arrow.schema(list(types.items()))


def _parquet_record(row: OutputRecord) -> OutputRecord:
    """A row without its empty columns."""
    record = {name: value for name, value in row.items() if value is not None}
    return record | {name: parse(record[name]) for name in TABLES if record.get(name)}


def _tsv_texts(record: OutputRecord) -> list[OutputRecord]:
    """A record's texts in the original's format."""
    question = record.get("question")
    text = record["text" if question is None else "answer"]
    texts = text if isinstance(text, list) else [text]
    if question is None:
        return [{"caption": text} for text in texts]
    key = {"question_id": record["question_id"]} if "question_id" in record else {}
    return [{"question": question, "answer": text} | key for text in texts]


def _tsv_records(line: bytes) -> list[OutputRecord]:
    """The records of a row in the original's format: one of its captions, one for each answer."""
    name, *columns = decode(line).rstrip("\n").split("\t")
    if len(columns) != 1:
        raise DataError(f"{1 + len(columns)} columns, expected two: a name and JSON")
    texts = parse(columns[0])
    if not isinstance(texts, list):
        raise DataError(f"{columns[0][:40]!r}, expected a JSON list")
    for text in texts:
        if not isinstance(text, dict):
            raise DataError(f"found {text!r:.40}, expected an object")
    captions = [text_of(text, "caption") for text in texts if "question" not in text]
    answers = [_checked({"file_name": name} | text) for text in texts if "question" in text]
    value = captions[0] if len(captions) == 1 else captions
    return ([{"file_name": name, "text": value}] if captions else []) + answers
