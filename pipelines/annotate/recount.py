"""The ids of a job's records, read from its inputs a second time: by other code than the job's own.

Imports nothing of this project, on purpose; only `verify` uses it.
"""

import csv
import gzip
import io
import json
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_MAX_JSON_DEPTH = 200
_READ_BYTES = 1 << 20
# Of a damaged row group the job delivers the batches of 1024 rows that still decode: no larger ones are read here.
_BATCH_ROWS = 1024


class Rows:
    """A set of row numbers, kept as ranges: a broken file has them in long runs."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, row: int) -> None:
        """Adds a row; rows that come in order are cheap."""
        at = bisect_right(self._starts, row)
        if at and row < self._stops[at - 1]:
            return
        if at and self._stops[at - 1] == row:
            self._stops[at - 1] = row + 1
        else:
            self._starts.insert(at, row)
            self._stops.insert(at, row + 1)

    def __contains__(self, row: int) -> bool:
        at = bisect_right(self._starts, row)
        return at > 0 and row < self._stops[at - 1]

    def __bool__(self) -> bool:
        return bool(self._starts)


def selected_ids(manifest: dict[str, Any], unreadable: dict[str, Rows], problems: list[str]) -> Iterator[str]:
    """Yields the ids of a job's records, by reading its inputs from front to back.

    Args:
        manifest: Of the job.
        unreadable: Rows that the job found unreadable, by name of their file.
        problems: Gets a message for each file that the job called damaged and that is not.
    """
    limit, sample, seed = (manifest["selection"][key] for key in ("limit", "sample", "seed"))
    left = sys.maxsize if limit is None else limit
    global_row = 0
    for entry in manifest["inputs"]:
        if not left:
            return
        marked = unreadable.get(entry["name"], Rows())
        if marked and not _is_damaged(entry, manifest["columns"]):
            problems.append(f"{entry['path']}: rows are quarantined as unreadable, but the file reads well")
        for row, value in enumerate(_ids(entry, manifest, marked)):
            if sample >= 1.0 or _taken(global_row, sample, seed):
                yield f"{entry['name']}:{row}" if value is None or row in marked else value
                left -= 1
                if not left:
                    return
            global_row += 1


def _taken(row: int, sample: float, seed: int) -> bool:
    """Whether the sample takes a global row: splitmix64's next output from state row + seed * gamma."""
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15
    z = (row + seed * gamma + gamma) & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return (z ^ (z >> 31)) < int(sample * 2.0**53) << 11


def _ids(entry: dict[str, Any], manifest: dict[str, Any], marked: Rows) -> Iterator[str | None]:
    """Yields one id a record of the file, None where it has none that can be used."""
    column, bound = manifest["columns"]["id"], manifest["bounds"]["record_bytes"]
    integer = manifest["columns"]["id_type"] == "int64"
    if entry["format"] in ("parquet", "arrow"):
        groups = _parquet_ids(entry, column, marked) if entry["format"] == "parquet" else _arrow_ids(entry, column)
        for values in groups:
            yield from (_usable(value, integer) for value in values)
        return
    with _open(entry) as file:
        if file.peek(3)[:3] == b"\xef\xbb\xbf":
            file.read(3)
        if entry["format"] == "text":
            yield from (None for _ in _lines(file, bound))
        elif entry["format"] == "jsonl":
            for line in _lines(file, bound):
                if line not in (b"", b"\r"):
                    yield _usable(_json_value(line, column), integer) if len(line) <= bound else None
        else:
            for text in _csv_values(file, "," if entry["format"] == "csv" else "\t", column, bound):
                yield _usable(text or None, integer)


def _lines(file: io.BufferedReader, bound: int) -> Iterator[bytes]:
    """Yields lines without their line feeds, of longer ones than `bound` only the first `bound` + 1 bytes or so."""
    while line := file.readline(bound + 2):
        rest = line
        while len(rest) >= bound + 2 and not rest.endswith(b"\n"):
            rest = file.readline(bound + 2)
        yield line.removesuffix(b"\n")


def _usable(value: object, integer: bool) -> str | None:
    if type(value) is int:
        return str(value) if not integer or -(2**63) <= value < 2**63 else None
    if isinstance(value, str) and not integer:
        return None if any("\ud800" <= character <= "\udfff" for character in value) else value
    return None


def _open(entry: dict[str, Any]) -> io.BufferedReader:
    if entry["compression"] == "gzip":
        return io.BufferedReader(gzip.open(entry["path"]))
    if entry["compression"] == "zstd":
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(os.fsencode(entry["path"])), "zstd"))
    return open(entry["path"], "rb")


def _json_value(line: bytes, column: str | None) -> object:
    if column is None:
        return None
    try:
        text = line.decode()
        if _is_nested_too_deep(text):
            return None
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and column in value:
        return value[column]
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _is_nested_too_deep(text: str) -> bool:
    """Whether objects and lists lie deeper in each other than the format of a job allows."""
    if text.count("[") + text.count("{") <= _MAX_JSON_DEPTH:
        return False
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            quoted, escaped = escaped or character != '"', character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > _MAX_JSON_DEPTH:
                return True
        elif character in "]}":
            depth -= 1
    return False


def _csv_values(file: io.BufferedReader, delimiter: str, column: str | None, bound: int) -> Iterator[str | None]:
    """Yields the id field of each row; bytes are parsed as Latin-1, so that no row can stop the parser."""
    csv.field_size_limit(sys.maxsize)
    size, ended = 0, False

    def lines() -> Iterator[str]:
        nonlocal size, ended
        with io.TextIOWrapper(file, encoding="latin-1", newline="") as text:
            for line in text:
                size += len(line)
                yield line
        # A quote that nothing closes swallows this line too; otherwise it is a row of its own.
        ended = True
        yield f"the{delimiter}end"

    rows = csv.reader(lines(), delimiter=delimiter)
    header: list[str] | None = None
    previous: tuple[str | None] | None = None
    while True:
        size = 0
        try:
            row: Sequence[str] | None = next(rows)
        except StopIteration:
            return
        except csv.Error:
            row = None
        if row is not None and not row:
            continue
        if previous is not None:
            yield previous[0]
        if row is not None and header is None:
            header = [name.encode("latin-1").decode() for name in row]
            continue
        previous = (None if row is None or size - 1 > bound else _csv_id(row, header or [], column),)
        if ended:
            if row != ["the", "end"]:
                yield None
            return


def _csv_id(row: Sequence[str], header: list[str], column: str | None) -> str | None:
    if column is None or len(row) != len(header):
        return None
    try:
        return [text.encode("latin-1").decode() for text in row][header.index(column)]
    except UnicodeDecodeError:
        return None


def _parquet_ids(entry: dict[str, Any], column: str | None, marked: Rows) -> Iterator[list[object]]:
    with pq.ParquetFile(entry["path"]) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            values: list[object] = []
            if column is not None:
                try:
                    for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
                        values += _python(batch, column)
                except (OSError, pa.ArrowException):
                    if any(row not in marked for row in range(first + len(values), first + rows)):
                        raise
            yield (values + [None] * (rows - len(values)))[:rows]
            first += rows


def _arrow_ids(entry: dict[str, Any], column: str | None) -> Iterator[list[object]]:
    with pa.memory_map(os.fsencode(entry["path"])) as source:
        for batch in pa.ipc.open_stream(source):
            batch.validate(full=False)
            yield [None] * batch.num_rows if column is None else _python(batch, column)


def _python(batch: pa.RecordBatch, column: str) -> list[object]:
    first, *rest = [column] if column in batch.schema.names else column.split(".")
    values = []
    for scalar in batch.column(first):
        try:
            value = scalar.as_py()
        except UnicodeDecodeError:
            value = None
        for part in rest:
            value = value.get(part) if isinstance(value, dict) else None
        values.append(value)
    return values


def _is_damaged(entry: dict[str, Any], columns: dict[str, Any]) -> bool:
    asked = [name for name in (columns["text"], *columns["pair"], columns["id"], *columns["keep"]) if name]
    try:
        if entry["format"] == "parquet":
            with pq.ParquetFile(entry["path"], page_checksum_verification=True) as parquet:
                for group in range(parquet.num_row_groups):
                    batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=asked)
                    # Pages that a damaged footer hides are missing without any exception.
                    if sum(batch.num_rows for batch in batches) != parquet.metadata.row_group(group).num_rows:
                        return True
        elif entry["format"] == "arrow":
            with pa.memory_map(os.fsencode(entry["path"])) as source:
                for batch in pa.ipc.open_stream(source):
                    batch.validate(full=True)
        else:
            with _open(entry) as file:
                while file.read(_READ_BYTES):
                    pass
    except (OSError, pa.ArrowException, EOFError):
        return True
    return False
