"""Text, JSON lines, CSV and TSV: what a file's first records say, and records to values.

JSON numbers, lists and objects of kept columns become JSON text, so that a column has one type in every part.
"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.annotate.columns import Columns, FileTypes, missing_columns
from pipelines.annotate.inputs import InputFile
from pipelines.annotate.records import BOM, DELIMITERS, RecordScanner, split_records
from pipelines.annotate.streams import ForwardStream
from xlmr_core.errors import InputError

MAX_RECORD_BYTES = 64 << 20
MAX_JSON_DEPTH = 200
_PROBE_BYTES = 4 << 20
_PROBE_RECORDS = 1000
_HEADER_CHUNK_BYTES = 1 << 16
_MAX_HEADER_BYTES = 16 << 20
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ABSENT = object()
# A string, which may hold brackets, or a bracket.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be used.

    Attributes:
        code: Short snake_case reason, the quarantine's `code`.
        message: One sentence without any of the row's own text.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Header:
    """Where a file's records begin.

    Attributes:
        start: Offset of the first record in uncompressed bytes, behind a byte order mark and a header row.
        names: Column names of a CSV or TSV file, empty for other formats.
    """

    start: int
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class Values:
    """Raw values of some records.

    Attributes:
        columns: For each asked name one value a record; None where the record has none.
        problems: By position, the records that could not be parsed at all.
    """

    columns: dict[str, list[object]]
    problems: dict[int, Problem] = field(default_factory=dict)


def read_header(file: InputFile, stream: ForwardStream) -> Header:
    """Reads the byte order mark and, for CSV and TSV, the header row.

    Raises:
        InputError: "empty_file" without a header row, "not_utf8" for UTF-16, "unreadable".
    """
    data = stream.read(_HEADER_CHUNK_BYTES)
    if data.startswith(_UTF16_MARKS):
        raise InputError(f"{file.path} is UTF-16, must be UTF-8; convert it with iconv", code="not_utf8")
    start = len(BOM) if data.startswith(BOM) else 0
    if file.format not in DELIMITERS:
        return Header(start)
    scanner = RecordScanner(file.format, start=start)
    ends = scanner.feed(data[start:])
    while not len(ends):
        chunk = stream.read(_HEADER_CHUNK_BYTES)
        ends = scanner.feed(chunk) if chunk else scanner.finish()
        data += chunk
        if not len(ends) and (not chunk or len(data) > _MAX_HEADER_BYTES):
            raise InputError(
                f"{file.path} ({file.size} bytes) has no header row; add one, or leave it out",
                code="empty_file",
            )
    row = data[start : int(ends[0])]
    values = parse_csv([row.lstrip(b"\r\n")], DELIMITERS[file.format])[0]
    if isinstance(values, Problem):
        raise InputError(f"{file.path}: header row cannot be used: {values.message}; repair it", code="unreadable")
    return Header(int(ends[0]), tuple(values))


def inspect_lines(file: InputFile, columns: Columns) -> tuple[Header, FileTypes]:
    """Checks from its first records that a text-like file can serve the asked columns.

    Raises:
        InputError: As `read_header`, and "missing_column", "duplicate_column", "not_json_lines".
    """
    if file.size == 0 and (file.compression or file.format in DELIMITERS):
        raise InputError(
            f"{file.path} is empty (0 bytes), {file.compression or file.format} files have a header; leave it out",
            code="empty_file",
        )
    with ForwardStream(file) as stream:
        header = read_header(file, stream)
    id_type: str | None = "string"
    if file.format == "jsonl":
        existing, id_type = _probe_json(file, columns, header.start)
    else:
        existing = ["text"] if file.format == "text" else list(header.names)
    asked = columns.asked()
    missing = [name for name in asked if name not in existing] if existing is not None else []
    if missing and existing is not None:
        where = f" in its first {_PROBE_RECORDS:,} records" if file.format == "jsonl" else ""
        raise missing_columns(file, missing, existing, where)
    doubled = [name for name in asked if header.names.count(name) > 1]
    if doubled:
        raise InputError(
            f"{file.path} has column {', '.join(map(repr, doubled))} more than once; rename one",
            code="duplicate_column",
        )
    keep = pa.schema([pa.field(name, pa.string()) for name in columns.keep])
    return header, FileTypes(id_type if columns.id else None, keep)


def _probe_json(file: InputFile, columns: Columns, start: int) -> tuple[list[str] | None, str | None]:
    """Returns the keys of the first records (None where there are none) and the type of their ids."""
    with ForwardStream(file) as stream:
        stream.skip_to(start)
        data = stream.read(_PROBE_BYTES)
    records, _ = split_records("jsonl", data)
    if len(data) == _PROBE_BYTES and len(records) > 1:
        records.pop()
    keys: dict[str, None] = {}
    ids: list[object] = []
    parsed = 0
    for record in records[:_PROBE_RECORDS]:
        value = _parse_json(record)
        if isinstance(value, Problem):
            continue
        parsed += 1
        keys.update(dict.fromkeys(value))
        for name in columns.asked():
            if name not in value and lookup(value, name) is not _ABSENT:
                keys[name] = None
        if columns.id is not None and (found := lookup(value, columns.id)) not in (None, _ABSENT):
            ids.append(found)
    if not parsed and data.lstrip()[:1] == b"[":
        raise InputError(
            f"{file.path} is one JSON array, must be one object a line; convert it with jq -c '.[]'",
            code="not_json_lines",
        )
    if not parsed and len(records) >= 10:
        raise InputError(
            f"{file.path}: none of the first {len(records[:_PROBE_RECORDS])} lines is a JSON object; "
            "write one object a line, or pass --format",
            code="not_json_lines",
        )
    id_type = None if not ids else "int64" if all(is_int64(value) for value in ids) else "string"
    return (list(keys) if parsed else None), id_type


def is_int64(value: object) -> bool:
    """Whether a JSON value is an integer that int64 holds."""
    return type(value) is int and -(2**63) <= value < 2**63


def lookup(record: dict[str, object], name: str) -> object:
    """The value of a key, or of a dotted path through nested objects; `_ABSENT` where there is none."""
    if name in record:
        return record[name]
    value: object = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def parse_records(format: str, records: Sequence[bytes], names: Sequence[str], header: Sequence[str]) -> Values:
    """Turns records into the values of the asked columns; a broken record spoils only itself."""
    if format == "text":
        values = Values({name: [] for name in names})
        texts: list[object] = []
        for row, record in enumerate(records):
            decoded = _decode(record.removesuffix(b"\r"))
            texts.append(None if isinstance(decoded, Problem) else decoded)
            if isinstance(decoded, Problem):
                values.problems[row] = decoded
        values.columns = dict.fromkeys(names, texts)
        return values
    if format == "jsonl":
        parsed: Sequence[object] = [_parse_json(record) for record in records]
        problems = {row: value for row, value in enumerate(parsed) if isinstance(value, Problem)}
        columns: dict[str, list[object]] = {}
        for name in names:
            found = [lookup(value, name) if isinstance(value, dict) else None for value in parsed]
            columns[name] = [None if value is _ABSENT else value for value in found]
        return Values(columns, problems)
    rows = parse_csv(records, DELIMITERS[format], width=len(header))
    problems = {row: value for row, value in enumerate(rows) if isinstance(value, Problem)}
    positions = [(name, header.index(name)) for name in names]
    return Values(
        {name: [None if isinstance(row, Problem) else row[at] for row in rows] for name, at in positions},
        problems,
    )


def _decode(record: bytes) -> str | Problem:
    if len(record) > MAX_RECORD_BYTES:
        return too_long(len(record))
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        return Problem("undecodable", f"not UTF-8 at byte {error.start} of the record")


def too_long(size: int) -> Problem:
    """The Problem of a record beyond `MAX_RECORD_BYTES`."""
    return Problem("line_too_long", f"record of {size} bytes, at most {MAX_RECORD_BYTES} are read")


def _parse_json(record: bytes) -> dict[str, object] | Problem:
    decoded = _decode(record)
    if isinstance(decoded, Problem):
        return decoded
    if decoded.count("{") + decoded.count("[") > MAX_JSON_DEPTH and _depth(decoded) > MAX_JSON_DEPTH:
        # Python's own limit depends on how deep the caller stands; a reader elsewhere would not agree.
        return Problem("bad_json", f"JSON nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        value = json.loads(decoded)
    except json.JSONDecodeError as error:
        return Problem("bad_json", f"not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Problem("bad_json", f"JSON nested too deep or number too long ({type(error).__name__})")
    if not isinstance(value, dict):
        return Problem("bad_json", "JSON, but not an object")
    return value


def _depth(text: str) -> int:
    """How deep objects and lists of a JSON text lie in each other."""
    deepest = depth = 0
    for token in _BRACKETS.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        deepest = max(deepest, depth)
    return deepest


def parse_csv(records: Sequence[bytes], delimiter: str, width: int | None = None) -> list[list[str] | Problem]:
    """Splits records, each whole with the line feeds in its quotes, into fields as Python's `csv` does."""
    # The module's own limit of 128 KiB a field is global; records are bounded here instead.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    decoded = [_decode(record) for record in records]
    lines = [value if isinstance(value, str) else "" for value in decoded]
    rows: list[list[str] | Problem] = []
    for line, value in zip(lines, decoded, strict=True):
        if isinstance(value, Problem):
            rows.append(value)
            continue
        try:
            row = next(csv.reader((line,), delimiter=delimiter))
        except (csv.Error, StopIteration) as error:
            rows.append(Problem("bad_csv", f"not {'TSV' if delimiter != ',' else 'CSV'}: {error or 'blank'}"))
            continue
        if width is not None and len(row) != width:
            rows.append(Problem("bad_csv", f"{len(row)} fields, the header has {width}"))
        else:
            rows.append(row)
    return rows
