"""The records of a file, one after the other, whatever its format; a broken one spoils only itself."""

import os
from collections.abc import Iterator
from itertools import zip_longest

import pyarrow as pa

from pipelines.annotate.columnar import BROKEN, ColumnarCursor, open_arrow, open_parquet
from pipelines.annotate.inputs import InputFile, check_unchanged
from pipelines.annotate.lines import MAX_RECORD_BYTES, Problem, lookup, parse_records, read_header
from pipelines.annotate.records import RecordScanner
from pipelines.annotate.streams import ForwardStream, unreadable
from pipelines.examples.conll import conll_rows, conllu_rows
from pipelines.examples.example import Row
from pipelines.examples.files import ExampleFile, ReadSettings, document_rows
from xlmr_core.errors import InputError

_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 1024


def read_rows(file: ExampleFile, settings: ReadSettings) -> Iterator[Row]:
    """Yields every record of a file, in order.

    Raises:
        InputError: The file changed since it was listed, or cannot be read on.
    """
    bytes_of = [file.file, file.aligned] if file.aligned is not None else [file.file]
    for part in bytes_of:
        check_unchanged(part)
    match file.format:
        case "jsonl":
            yield from _json_lines(file)
        case "json":
            yield from _document(file)
        case "csv" | "tsv":
            yield from _separated(file) if file.quoted else _unquoted(file)
        case "parquet" | "arrow":
            yield from _columnar(file)
        case "conll":
            yield from conll_rows(_lines(file.file, file.start), settings)
        case "conllu":
            yield from conllu_rows(_lines(file.file, file.start))
        case "text":
            for number, line in _lines(file.file, file.start):
                if isinstance(line, Problem) or line.strip():
                    yield _row(number, {"text": line})
        case _:
            yield from _parallel(file)
    for part in bytes_of:
        check_unchanged(part)


def _row(place: int, values: dict[str, str | Problem]) -> Row:
    problem = next((value for value in values.values() if isinstance(value, Problem)), None)
    return Row(place, dict(values), problem)


def _raw_lines(file: InputFile, start: int) -> Iterator[list[tuple[int, bytes]]]:
    """Lines without their line feed, with their numbers from 1, some at a time."""
    number, rest = 1, b""
    with ForwardStream(file) as stream:
        stream.skip_to(start)
        while chunk := stream.read(_CHUNK_BYTES):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if len(rest) > MAX_RECORD_BYTES:
                raise _endless(file, number + len(lines))
            yield list(enumerate(lines, number))
            number += len(lines)
    if rest:
        yield [(number, rest)]


def _endless(file: InputFile, number: int) -> InputError:
    rule = f"at most {MAX_RECORD_BYTES} bytes are read; cut it, or close the quote that opens it"
    return InputError(f"{file.path}:{number} begins a record without end, {rule}", code="line_too_long")


def _lines(file: InputFile, start: int) -> Iterator[tuple[int, str | Problem]]:
    """Decoded lines with their numbers; CR LF ends a line too."""
    for batch in _raw_lines(file, start):
        for number, line in batch:
            try:
                yield number, line.decode().removesuffix("\r")
            except UnicodeDecodeError as error:
                yield number, Problem("undecodable", f"not UTF-8 at byte {error.start} of the line")


def _json_lines(file: ExampleFile) -> Iterator[Row]:
    names = file.columns.asked()
    for batch in _raw_lines(file.file, file.start):
        kept = [(number, line) for number, line in batch if line not in (b"", b"\r")]
        yield from _parsed(file, [number for number, _ in kept], [line for _, line in kept], names)


def _parsed(file: ExampleFile, numbers: list[int], records: list[bytes], names: tuple[str, ...]) -> Iterator[Row]:
    values = parse_records(file.format, records, names, file.header)
    columns = [values.columns[name] for name in names]
    for position, (number, row) in enumerate(zip(numbers, zip(*columns, strict=True), strict=True)):
        yield Row(number, dict(zip(names, row, strict=True)), values.problems.get(position))


def _separated(file: ExampleFile) -> Iterator[Row]:
    """Records of CSV and quoted TSV, which may have line feeds inside quotes."""
    names = file.columns.asked()
    with ForwardStream(file.file) as stream:
        before = stream.read(file.start)
        number = 1 + _breaks(before)
        scanner = RecordScanner(file.format, start=file.start)
        base, rest = file.start, b""
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            ends = (scanner.feed(chunk) if chunk else scanner.finish()).tolist()
            rest += chunk
            numbers, records, begin = [], [], 0
            for end in ends:
                raw = rest[begin : end - base]
                record = raw.lstrip(b"\r\n")
                numbers.append(number + _breaks(raw[: len(raw) - len(record)]))
                number += _breaks(raw)
                records.append(record.rstrip(b"\r\n"))
                begin = end - base
            open_quote = not chunk and scanner.inside_quotes
            for row in _parsed(file, numbers, records, names):
                if open_quote and row.place == numbers[-1]:
                    row.problem = Problem("bad_csv", "a quote opens a field that nothing closes")
                yield row
            rest, base = rest[begin:], base + begin
            if len(rest) > MAX_RECORD_BYTES:
                raise _endless(file.file, number)
            if not chunk:
                return


def _breaks(data: bytes) -> int:
    """Line breaks: LF, CR LF, or CR alone."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _unquoted(file: ExampleFile) -> Iterator[Row]:
    """Records of TSV whose quotes are letters."""
    names = file.columns.asked()
    places = [(name, file.header.index(name)) for name in names]
    skipped = 1
    for number, line in _lines(file.file, file.start):
        # `start` is behind the header.
        place = number + skipped
        if isinstance(line, Problem):
            yield Row(place, {}, line)
        elif line:
            fields = line.split("\t")
            if len(fields) == len(file.header):
                yield Row(place, {name: fields[at] for name, at in places})
            else:
                wrong = f"{len(fields)} fields, the header has {len(file.header)}"
                yield Row(place, {}, Problem("bad_csv", wrong))


def _document(file: ExampleFile) -> Iterator[Row]:
    names = file.columns.asked()
    for number, record in enumerate(document_rows(file.file)):
        if not isinstance(record, dict):
            yield Row(f"[{number}]", {}, Problem("bad_json", "JSON, but not an object"))
            continue
        found = {name: lookup(record, name) for name in names}
        values: dict[str, object] = {name: value if isinstance(value, _JSON) else None for name, value in found.items()}
        yield Row(str(record[""]), values)


_JSON = (str, int, float, list, dict)


def _columnar(file: ExampleFile) -> Iterator[Row]:
    names = file.columns.asked()
    try:
        if file.format == "arrow":
            with pa.memory_map(os.fsencode(file.file.path)) as source:
                count = sum(batch.num_rows for batch in open_arrow(file.file, source))
        else:
            with open_parquet(file.file) as parquet:
                count = parquet.metadata.num_rows
        cursor = ColumnarCursor(file.file, names, 0)
        try:
            for start in range(0, count, _BATCH_ROWS):
                table, damaged = cursor.take(start, min(start + _BATCH_ROWS, count))
                columns = [_cells(table.column(name)) for name in names]
                for number, row in enumerate(zip(*columns, strict=True), start):
                    problem = next((value for value in row if isinstance(value, Problem)), None)
                    if any(damage.start <= number < damage.stop for damage in damaged):
                        problem = Problem("unreadable", "its row group is damaged")
                    yield Row(number + 1, dict(zip(names, row, strict=True)), problem)
        finally:
            cursor.close()
    except BROKEN as error:
        raise unreadable(file.file, error) from error


def _cells(column: pa.ChunkedArray) -> list[object]:
    """Python values; a Problem in place of one that is not UTF-8."""
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_cell(value) for value in column]
    return values


def _cell(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return Problem("undecodable", "a string is not UTF-8")


def _parallel(file: ExampleFile) -> Iterator[Row]:
    """Lines of two files side by side."""
    assert file.aligned is not None
    with ForwardStream(file.aligned) as stream:
        start = read_header(file.aligned, stream).start
    pairs = zip_longest(_lines(file.file, file.start), _lines(file.aligned, start))
    for first, second in pairs:
        if first is None or second is None:
            number = (first or second)[0]
            ended = file.file.path if first is None else file.aligned.path
            yield Row(number, {}, Problem("not_aligned", f"{ended} has no such line, aligned files are equally long"))
            return
        texts = {"text": first[1], "pair": second[1]}
        if any(isinstance(text, Problem) or text.strip() for text in texts.values()):
            yield _row(first[0], texts)
