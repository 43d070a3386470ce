"""A shard's records: ids, texts, kept columns, and for every row that cannot be used the reason."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.annotate.columnar import BROKEN, MAX_SHARD_BYTES, ColumnarCursor, as_binary, is_list, is_string
from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import check_unchanged
from pipelines.annotate.lines import Problem, Values, is_int64, parse_records, read_header, too_long
from pipelines.annotate.plan import Shard
from pipelines.annotate.records import split_records
from pipelines.annotate.streams import ForwardStream
from xlmr_core.errors import InputError

# Second texts of one record: choices, documents to rank.
MAX_SECOND_TEXTS = 1_000

QUARANTINE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("stage", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one shard, in order; position i is the same row in every attribute.

    Attributes:
        shard: Where they come from.
        rows: Row numbers in the file, shape (R,).
        ids: Arrow string or int64 array of length R; null only at positions in `problems`.
        texts: Texts; None exactly at positions in `problems`.
        pairs: Second texts likewise, any number a record; None when the job reads none.
        keep: Kept columns in the job's types; None when none are kept.
        problems: Positions that cannot be used.
        languages: Languages, None where one is not known; None when the job reads none.
    """

    shard: Shard
    rows: npt.NDArray[np.int64]
    ids: pa.Array
    texts: list[str | None]
    pairs: list[list[str] | None] | None
    keep: pa.Table | None
    problems: dict[int, Problem]
    languages: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def id_text(self, position: int) -> str:
        """The id as text; for a row without a usable one, the id made from file and row."""
        value = self.ids[position].as_py()
        return made_id(self.shard, int(self.rows[position])) if value is None else str(value)

    def quarantine(self, problems: dict[int, Problem], stage: str) -> pa.Table:
        """Quarantine rows, in `QUARANTINE_SCHEMA`, for some positions."""
        chosen = sorted(problems)
        columns = [
            [self.id_text(position) for position in chosen],
            [self.shard.name] * len(chosen),
            [int(self.rows[position]) for position in chosen],
            [problems[position].code for position in chosen],
            [problems[position].message for position in chosen],
            [stage] * len(chosen),
        ]
        return pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, QUARANTINE_SCHEMA, strict=True)],
            schema=QUARANTINE_SCHEMA,
        )


def made_id(shard: Shard, row: int) -> str:
    """The id of a row whose file gives none."""
    return f"{shard.name}:{row}"


def read_shard(shard: Shard, columns: Columns) -> Records:
    """Reads one shard; see `ShardReader.read`. Whoever reads many keeps a `ShardReader`."""
    with ShardReader(columns) as reader:
        return reader.read(shard)


class ShardReader:
    """Reads shards; keeps its place in the last file, so that reading shards in order skips nothing twice."""

    def __init__(self, columns: Columns) -> None:
        """Args: columns: Of the plan, that is with the types all files agree on."""
        self._columns = columns
        self._cursor: ColumnarCursor | ForwardStream | None = None
        self._etag = ""
        self._path = ""
        self._header: tuple[str, ...] = ()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file it stands in."""
        if self._cursor is not None:
            self._cursor.close()
        self._cursor = None

    def read(self, shard: Shard) -> Records:
        """Returns the shard's records; exactly `shard.rows` of them.

        A row that cannot be used has a Problem with one of the codes "null", "not_a_string", "undecodable",
        "lone_surrogate", "bad_json", "bad_csv", "line_too_long", "null_id", "bad_id"; where bytes are broken the
        rows have "unreadable": those of the damaged row group in Parquet, all of the shard elsewhere.

        Raises:
            InputError: Code "input_changed" when the file is not what was planned.
            OSError: When the system, not the file's content, is at fault.
        """
        check_unchanged(shard.file)
        rows = shard.selected()[: shard.rows]
        columnar = shard.byte_start is None or shard.byte_stop is None
        try:
            records = self._columnar(shard, rows) if columnar else self._lines(shard, rows)
        except (InputError, *BROKEN) as error:
            cause = error.__cause__ if isinstance(error, InputError) else error
            # An errno is the system failing, not the file: it may pass, so it must not condemn rows.
            if getattr(cause, "errno", None) or (isinstance(error, InputError) and error.code != "unreadable"):
                # What it was about to read next is lost, so that a retry must open the file again.
                self.close()
                raise
            check_unchanged(shard.file)
            records = self._broken(shard, rows, str(error).split("\n")[0])
        check_unchanged(shard.file)
        return records

    def _broken(self, shard: Shard, rows: npt.NDArray[np.int64], message: str) -> Records:
        self.close()
        values: list[object] = [None] * len(rows)
        problems = dict.fromkeys(range(len(rows)), _unreadable(message))
        broken = Values(dict.fromkeys(self._columns.asked(), values), problems)
        schema = self._columns.keep_schema()
        keep = pa.table([pa.nulls(len(rows), field.type) for field in schema], schema=schema)
        return self._assemble(shard, rows, broken, keep)

    def _columnar(self, shard: Shard, rows: npt.NDArray[np.int64]) -> Records:
        cursor = self._cursor
        same = isinstance(cursor, ColumnarCursor) and (self._path, self._etag) == (
            shard.file.path,
            shard.file.etag,
        )
        if not same or not isinstance(cursor, ColumnarCursor) or cursor.position > shard.row_start:
            self.close()
            cursor = ColumnarCursor(shard.file, self._columns.asked(), shard.row_start)
            self._remember(shard, cursor)
        table, damaged = cursor.take(shard.row_start, shard.row_stop)
        if table.num_rows != shard.row_stop - shard.row_start:
            raise pa.ArrowInvalid(f"{table.num_rows} rows where {shard.row_stop - shard.row_start} were planned")
        if len(rows) != table.num_rows:
            table = table.take(pa.array(rows - shard.row_start))
        columns = self._columns
        names = dict.fromkeys(name for name in (columns.text, *columns.pair, columns.id, columns.language) if name)
        problems = {
            position: _unreadable(damage.message)
            for damage in damaged
            for position in np.flatnonzero((rows >= damage.start) & (rows < damage.stop)).tolist()
        }
        values = Values({name: _to_values(table.column(name)) for name in names}, problems)
        kept = [_valid(table.column(name)) for name in self._columns.keep]
        return self._assemble(shard, rows, values, pa.table(kept, names=list(self._columns.keep)))

    def _lines(self, shard: Shard, rows: npt.NDArray[np.int64]) -> Records:
        start, stop = shard.byte_start or 0, shard.byte_stop or 0
        if stop - start > MAX_SHARD_BYTES:
            # The planner gives a record of this size a shard of its own; it is not even read.
            giant = Values({name: [None] for name in self._columns.asked()}, {0: too_long(stop - start)})
            return self._assemble(shard, rows, giant, _text_table(giant, self._columns.keep))
        stream = self._cursor
        if (
            not isinstance(stream, ForwardStream)
            or self._path != shard.file.path
            or self._etag != shard.file.etag
            or (stream.position > start)
        ):
            self.close()
            with ForwardStream(shard.file) as head:
                self._header = read_header(shard.file, head).names
            stream = ForwardStream(shard.file)
            self._remember(shard, stream)
        stream.skip_to(start)
        data = stream.read(stop - start)
        records, unterminated = split_records(shard.file.format, data)
        if len(data) != stop - start or len(records) < shard.row_stop - shard.row_start:
            raise pa.ArrowInvalid(f"{len(records)} records where {shard.row_stop - shard.row_start} were planned")
        chosen = [records[row] for row in (rows - shard.row_start).tolist()]
        values = parse_records(shard.file.format, chosen, self._columns.asked(), self._header)
        last = int(rows[-1]) - shard.row_start if len(rows) else -1
        if unterminated and last == len(records) - 1:
            values.problems[len(rows) - 1] = Problem("bad_csv", "a quote opens a field that nothing closes")
        return self._assemble(shard, rows, values, _text_table(values, self._columns.keep))

    def _remember(self, shard: Shard, cursor: ColumnarCursor | ForwardStream) -> None:
        self._cursor, self._path, self._etag = cursor, shard.file.path, shard.file.etag

    def _assemble(self, shard: Shard, rows: npt.NDArray[np.int64], values: Values, keep: pa.Table) -> Records:
        columns, problems = self._columns, dict(values.problems)
        ids = _ids(shard, rows, values, columns, problems)
        texts = _texts(values.columns[columns.text], f"column {columns.text!r}", problems)
        pairs = _second_texts(values, columns.pair, problems) if columns.pair else None
        languages = _languages(values, columns.language, problems) if columns.language else None
        for position in problems:
            texts[position] = None
            if pairs is not None:
                pairs[position] = None
        kept = keep.cast(columns.keep_schema()) if columns.keep else None
        return Records(shard, rows, ids, texts, pairs, kept, problems, languages)


def _unreadable(message: str) -> Problem:
    return Problem("unreadable", f"bytes cannot be decoded: {message[:300]}")


def _to_values(column: pa.ChunkedArray) -> list[object]:
    """Python values of a column; a string that is not UTF-8 stays bytes."""
    if is_string(column.type):
        try:
            for chunk in column.chunks:
                chunk.validate(full=True)
            values: list[object] = column.to_pylist()
            return values
        except pa.ArrowInvalid:
            return [_decoded(value) for chunk in column.chunks for value in as_binary(chunk).to_pylist()]
    if is_list(column.type) and is_string(column.type.value_type):
        # As bytes, since one string that is not UTF-8 must not spoil the others.
        column = column.cast(pa.list_(pa.binary()))
        return [row and [_decoded(value) for value in row] for row in column.to_pylist()]
    values = column.to_pylist()
    return values


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _valid(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A kept column as it is, or, where a string is not UTF-8, with U+FFFD for the broken bytes."""
    values = _to_values(column) if is_string(column.type) else []
    if not any(isinstance(value, bytes) for value in values):
        return column
    repaired = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
    return pa.chunked_array([pa.array(repaired, pa.string())])


def _texts(values: Sequence[object], where: str, problems: dict[int, Problem]) -> list[str | None]:
    texts: list[str | None] = []
    for position, value in enumerate(values):
        if type(value) is str and value.isascii():
            texts.append(value)
            continue
        found = _text(value, where)
        if isinstance(found, Problem):
            problems.setdefault(position, found)
            texts.append(None)
        else:
            texts.append(found)
    return texts


def _second_texts(values: Values, names: tuple[str, ...], problems: dict[int, Problem]) -> list[list[str] | None]:
    """The second texts of each row: those of all columns, in order."""
    rows: list[list[str] | None] = []
    for position, row in enumerate(zip(*(values.columns[name] for name in names), strict=True)):
        texts: list[str] = []
        for name, value in zip(names, row, strict=True):
            where = f"column {name!r}"
            several = value if isinstance(value, list) else [value]
            found = [_text(part, where) for part in several[: MAX_SECOND_TEXTS + 1]]
            wrong = [part for part in found if isinstance(part, Problem)]
            if len(several) > MAX_SECOND_TEXTS:
                wrong = [Problem("too_many_pairs", f"{where} has {len(several)} texts, at most {MAX_SECOND_TEXTS}")]
            if wrong:
                problems.setdefault(position, wrong[0])
            texts += [part for part in found if isinstance(part, str)]
        rows.append(texts)
    return rows


def _languages(values: Values, name: str, problems: dict[int, Problem]) -> list[str | None]:
    """The language of each row; one that is null is not known."""
    languages: list[str | None] = []
    for position, value in enumerate(values.columns[name]):
        found = None if value is None else _text(value, f"column {name!r}")
        if isinstance(found, Problem):
            problems.setdefault(position, found)
        languages.append(found if isinstance(found, str) else None)
    return languages


def _text(value: object, where: str) -> str | Problem:
    if value is None:
        return Problem("null", f"{where} is null")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            return Problem("undecodable", f"{where} is not UTF-8 at byte {error.start}")
    if not isinstance(value, str):
        return Problem("not_a_string", f"{where} is a {type(value).__name__}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return Problem("lone_surrogate", f"{where} has half a surrogate pair at character {error.start}")
    return value


def _ids(
    shard: Shard,
    rows: npt.NDArray[np.int64],
    values: Values,
    columns: Columns,
    problems: dict[int, Problem],
) -> pa.Array:
    if columns.id is None:
        return pa.array([made_id(shard, row) for row in rows.tolist()], pa.string())
    integer = columns.id_type == "int64"
    ids: list[object] = []
    for position, value in enumerate(values.columns[columns.id]):
        found: object = None
        if position in values.problems:
            pass
        elif value is None or (value == "" and shard.file.format in ("csv", "tsv")):
            problems.setdefault(position, Problem("null_id", f"column {columns.id!r} is null"))
        elif integer and is_int64(value):
            found = value
        elif not integer and type(value) is int:
            found = str(value)
        elif not integer and isinstance(value, (str, bytes)):
            text = _text(value, f"column {columns.id!r}")
            if isinstance(text, Problem):
                problems.setdefault(position, Problem("bad_id", text.message))
            else:
                found = text
        else:
            kind = "an integer of 64 bits" if integer else "a string or integer"
            problems.setdefault(
                position,
                Problem("bad_id", f"column {columns.id!r} is {type(value).__name__}, must be {kind}"),
            )
        ids.append(found)
    return pa.array(ids, pa.int64() if integer else pa.string())


def _text_table(values: Values, keep: Sequence[str]) -> pa.Table:
    arrays = [pa.array([_as_text(value) for value in values.columns[name]], pa.string()) for name in keep]
    return pa.table(arrays, names=list(keep))


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()
