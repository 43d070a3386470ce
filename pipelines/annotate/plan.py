"""The plan of a job: its files cut into shards, the unit of work, retry, commit and resume.

Planning reads plain text-like files once at disk speed, compressed ones once in full, of Parquet only the
footers; it keeps one `Shard` a shard and nothing a row. The same files and options always give the same plan.
"""

import dataclasses
import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.annotate.columnar import MAX_SHARD_BYTES, inspect_columnar
from pipelines.annotate.columns import Columns, FileTypes, agree, encode_schema
from pipelines.annotate.inputs import InputFile, check_unchanged, relative_names
from pipelines.annotate.lines import inspect_lines
from pipelines.annotate.records import Positions, RecordScanner
from pipelines.annotate.selection import sampled
from pipelines.annotate.streams import CHUNK_BYTES, ForwardStream
from xlmr_core.errors import InputError

_VERSION = 1
USAGE_CODES = frozenset({"missing_column", "wrong_type", "duplicate_column", "not_utf8", "not_json_lines"})


@dataclass(frozen=True, slots=True)
class Shard:
    """A row range of one file, with all that a worker needs to read it.

    Attributes:
        index: Position in the plan.
        file: The file, as it was when planned.
        name: Its path below the inputs' common folder, the first half of made ids.
        row_start, row_stop: Rows of the file, numbered from 0.
        byte_start, byte_stop: Where these rows lie in the uncompressed bytes; None for Parquet and Arrow.
        first: Global row number of `row_start`.
        rows: Records of the job in this shard; fewer than row_stop - row_start where it is sampled.
        sample, seed: Fraction and seed of the job's sample.
    """

    index: int
    file: InputFile
    name: str
    row_start: int
    row_stop: int
    byte_start: int | None
    byte_stop: int | None
    first: int
    rows: int
    sample: float = 1.0
    seed: int = 0

    def selected(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Numbers, in the file, of the rows that belong to the job: shape (rows,)."""
        count = self.row_stop - self.row_start
        if self.sample >= 1.0:
            return np.arange(self.row_start, self.row_stop, dtype=np.int64)
        return np.flatnonzero(sampled(self.first, count, self.sample, self.seed)) + self.row_start

    def to_dict(self) -> dict[str, Any]:
        """The shard as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Shard":
        """The inverse of `to_dict`."""
        return cls(**{**values, "file": InputFile(**values["file"])})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file the plan had to leave out: what is wrong with it, and what to do."""

    path: str
    code: str
    message: str

    @property
    def usage(self) -> bool:
        """Whether the command is at fault (exit code 2) rather than the file."""
        return self.code in USAGE_CODES


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job will do.

    Attributes:
        files: Readable files in order; `rows` is None from where `limit` stopped the planning.
        names: Their paths below the common folder.
        columns: As asked, with the types all files agree on.
        shards: In order of files and rows, none empty.
        unreadable: Files left out; the caller decides whether the job may go on without them.
        shard_rows, limit, sample, seed: As given to `make_plan`.
    """

    files: tuple[InputFile, ...]
    names: tuple[str, ...]
    columns: Columns
    shards: tuple[Shard, ...]
    unreadable: tuple[Unreadable, ...]
    shard_rows: int
    limit: int | None = None
    sample: float = 1.0
    seed: int = 0

    @property
    def rows(self) -> int:
        """Records of the job."""
        return sum(shard.rows for shard in self.shards)

    def inputs_digest(self) -> str:
        """SHA-256 of the files the job reads: names, formats, sizes and etags, and which were left out.

        Neither the order the inputs were typed in nor the shard size matters; which of their records and columns the
        job takes is not part of it.
        """
        facts = [
            [
                (name, file.format, file.compression, file.size, file.etag)
                for name, file in zip(self.names, self.files, strict=True)
            ],
            sorted(entry.path for entry in self.unreadable),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The plan as JSON text, one line a shard."""
        number = {file.path: i for i, file in enumerate(self.files)}
        head = {
            "version": _VERSION,
            "columns": dataclasses.asdict(self.columns),
            "shard_rows": self.shard_rows,
            "limit": self.limit,
            "sample": self.sample,
            "seed": self.seed,
            "names": self.names,
            "files": [dataclasses.asdict(file) for file in self.files],
            "unreadable": [dataclasses.asdict(entry) for entry in self.unreadable],
        }
        lines = (
            json.dumps([number[s.file.path], s.row_start, s.row_stop, s.byte_start, s.byte_stop, s.first, s.rows])
            for s in self.shards
        )
        return f'{json.dumps(head)[:-1]}, "shards": [\n' + ",\n".join(lines) + "\n]}\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Plan":
        """The inverse of `to_json`.

        Raises:
            InputError: Code "bad_plan", when the text is no plan of this version.
        """
        try:
            values = json.loads(text)
            if values["version"] != _VERSION:
                raise ValueError(f"version {values['version']}")
            files = tuple(InputFile(**file) for file in values["files"])
            # Shards hold the files as they were before their rows were counted.
            planned = [dataclasses.replace(file, rows=None) for file in files]
            names, sample, seed = tuple(values["names"]), values["sample"], values["seed"]
            columns = Columns(
                **{**values["columns"], **{name: tuple(values["columns"][name]) for name in ("pair", "keep")}}
            )
            shards = tuple(
                Shard(i, planned[at], names[at], start, stop, byte_start, byte_stop, first, rows, sample, seed)
                for i, (at, start, stop, byte_start, byte_stop, first, rows) in enumerate(values["shards"])
            )
            unreadable = tuple(Unreadable(**entry) for entry in values["unreadable"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"plan cannot be read ({error!r}), must be one of version {_VERSION}; "
                "delete the output directory and start again",
                code="bad_plan",
            ) from error
        return cls(files, names, columns, shards, unreadable, values["shard_rows"], values["limit"], sample, seed)


def make_plan(
    inputs: Sequence[InputFile],
    columns: Columns,
    *,
    shard_rows: int,
    limit: int | None = None,
    sample: float = 1.0,
    seed: int = 0,
) -> Plan:
    """Cuts files into shards of about `shard_rows` records, fewer where these are large.

    Args:
        inputs: From `expand_inputs`.
        columns: What to read; every file must have all of them.
        shard_rows: Records of the job a shard, at least 1.
        limit: Take only the job's first so many records (of the sample, when there is one).
        sample: Fraction of records to take, in (0, 1].
        seed: Chooses which ones.

    Raises:
        InputError: "bad_option" for a number out of range, "keep_types" for kept columns no type fits.
        OSError: The system, not a file, is at fault, or a file changed meanwhile; nothing may be left out for that.
    """
    _check_numbers(shard_rows, limit, sample)
    names = dict(zip((file.path for file in inputs), relative_names(inputs), strict=True))
    layouts: list[_Layout] = []
    unreadable: list[Unreadable] = []
    for file in inputs:
        try:
            layouts.append(_inspect(file, columns))
        except InputError as error:
            unreadable.append(_own_fault(file, error))
    id_type, keep = agree(columns, [(layout.file, layout.types) for layout in layouts])
    cutter = _Cutter(shard_rows, limit, sample, seed)
    files = []
    for layout in layouts:
        try:
            files.append(cutter.add(layout, names[layout.file.path]))
        except InputError as error:
            unreadable.append(_own_fault(layout.file, error))
    resolved = dataclasses.replace(columns, id_type=id_type, keep_types=encode_schema(keep) if columns.keep else "")
    return Plan(
        files=tuple(files),
        names=tuple(names[file.path] for file in files),
        columns=resolved,
        shards=tuple(cutter.shards),
        unreadable=tuple(sorted(unreadable, key=lambda entry: entry.path)),
        shard_rows=shard_rows,
        limit=limit,
        sample=sample,
        seed=seed,
    )


def _own_fault(file: InputFile, error: InputError) -> Unreadable:
    """The entry of a file that is broken, empty, unfit or forbidden to us; any other error is raised."""
    number = getattr(error.__cause__, "errno", None)
    if error.code == "input_changed" or (number and number not in (errno.EACCES, errno.EPERM)):
        raise OSError(f"while inputs were planned: {error}") from error
    return Unreadable(file.path, error.code, str(error))


def _check_numbers(shard_rows: int, limit: int | None, sample: float) -> None:
    for name, value, fits, rule in (
        ("shard_rows", shard_rows, shard_rows >= 1, "at least 1"),
        ("limit", limit, limit is None or limit >= 1, "at least 1"),
        ("sample", sample, 0.0 < sample <= 1.0, "over 0 and at most 1"),
    ):
        if not fits:
            raise InputError(f"{name} {value}, must be {rule}", code="bad_option")


@dataclass(frozen=True, slots=True)
class _Layout:
    file: InputFile
    types: FileTypes
    start: int
    rows: int
    rows_at_most: int


def _inspect(file: InputFile, columns: Columns) -> _Layout:
    if file.format in ("parquet", "arrow"):
        rows, rows_at_most, types = inspect_columnar(file, columns)
        return _Layout(file, types, 0, rows, rows_at_most)
    header, types = inspect_lines(file, columns)
    return _Layout(file, types, header.start, 0, 0)


# row_start, row_stop, byte_start, byte_stop
_Cut = tuple[int, int, int | None, int | None]


class _Cutter:
    """Collects shards over all files; a file that turns out broken half-way leaves none."""

    def __init__(self, shard_rows: int, limit: int | None, sample: float, seed: int) -> None:
        self.shards: list[Shard] = []
        self._span = max(1, round(shard_rows / sample))
        self._left = limit
        self._sample, self._seed = sample, seed
        self._first = 0

    def add(self, layout: _Layout, name: str) -> InputFile:
        """Adds a file's shards and returns it with its row count."""
        file = layout.file
        cuts = _row_cuts(layout, self._span) if layout.rows_at_most else _byte_cuts(layout, self._span)
        left, rows = self._left, 0
        taken: list[Shard] = []
        for row_start, row_stop, byte_start, byte_stop in () if left == 0 else cuts:
            shard = Shard(
                len(self.shards) + len(taken),
                file,
                name,
                row_start,
                row_stop,
                byte_start,
                byte_stop,
                self._first + row_start,
                row_stop - row_start,
                self._sample,
                self._seed,
            )
            selected = shard.selected() if self._sample < 1.0 else None
            count = shard.rows if selected is None else len(selected)
            if left is not None and count >= left:
                stop = row_start + left if selected is None else int(selected[left - 1]) + 1
                shard, count = dataclasses.replace(shard, row_stop=stop), left
            if count:
                taken.append(dataclasses.replace(shard, rows=count))
            rows = row_stop
            if left is not None:
                left -= count
                if left == 0:
                    break
        check_unchanged(file)
        self.shards += taken
        self._first += rows
        self._left = left
        return dataclasses.replace(file, rows=None if left == 0 else rows)


def _row_cuts(layout: _Layout, span: int) -> Iterator[_Cut]:
    span = min(span, layout.rows_at_most)
    for start in range(0, layout.rows, span):
        yield start, min(start + span, layout.rows), None, None


def _byte_cuts(layout: _Layout, span: int) -> Iterator[_Cut]:
    scanner = RecordScanner(layout.file.format, start=layout.start)
    cutter = _ByteCutter(layout.start, span)
    with ForwardStream(layout.file) as stream:
        stream.skip_to(layout.start)
        while chunk := stream.read(CHUNK_BYTES):
            yield from cutter.add(scanner.feed(chunk))
        yield from cutter.add(scanner.finish())
    yield from cutter.finish()


class _ByteCutter:
    """Cuts after `span` records, or before the record that would make more than `MAX_SHARD_BYTES`.

    So a longer byte range is always one single record, far beyond what a record may be.
    """

    def __init__(self, start: int, span: int) -> None:
        self._span = span
        self._row = self._rows = 0
        self._start = self._end = start

    def add(self, ends: Positions) -> Iterator[_Cut]:
        at = 0
        while at < len(ends):
            stop = min(len(ends), at + self._span - self._rows)
            fits = int(np.searchsorted(ends, self._start + MAX_SHARD_BYTES, side="right"))
            full = fits < stop or self._rows + stop - at == self._span
            if fits < stop:
                stop = fits if self._rows + fits - at else at + 1
            if stop > at:
                self._end = int(ends[stop - 1])
                self._rows += stop - at
            if full:
                yield from self.finish()
            at = stop

    def finish(self) -> Iterator[_Cut]:
        """Closes the open shard, if it has a record."""
        if self._rows:
            yield self._row, self._row + self._rows, self._start, self._end
        self._row += self._rows
        self._rows = 0
        self._start = self._end
