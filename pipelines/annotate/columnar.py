"""Parquet files and the Arrow files of saved `datasets`: checked first, read forward, only asked columns.

A Parquet page can be reached only by decoding its row group from the front, an Arrow stream only batch by
batch, so a `ColumnarCursor` stays where the last shard ended, like a `ForwardStream`.
"""

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.annotate.columns import Columns, FileTypes, missing_columns
from pipelines.annotate.inputs import InputFile
from pipelines.annotate.streams import unreadable
from xlmr_core.errors import InputError

MAX_SHARD_BYTES = 256 << 20
MAX_DECODED_BYTES = 2 << 30
_MAX_PAGE_RATIO = 1000
_BATCH_ROWS = 1024
_MAX_SCHEMA_BYTES = 256 << 20
# Whoever opens a file with pyarrow has already decoded its extension types, and with them run the code of
# whoever registered these: so the raw schema is searched first. Parquet holds it in base64, where the key
# looks different at each of three alignments; the characters that its neighbours decide are cut off.
_EXTENSION_KEY = b"ARROW:extension:name"
_ENCODED_EXTENSION_KEYS = [base64.b64encode(b"\0" * shift + _EXTENSION_KEY)[2 * shift : -4] for shift in range(3)]
BROKEN = (OSError, pa.ArrowException, UnicodeDecodeError, OverflowError)


def inspect_columnar(file: InputFile, columns: Columns) -> tuple[int, int, FileTypes]:
    """Checks that a Parquet or Arrow file can serve the asked columns.

    Returns:
        Its rows, how many of them fit into a shard at most, and the types the job must agree on.

    Raises:
        InputError: "unreadable", "empty_file", "extension_type", "missing_column", "duplicate_column",
            "wrong_type" or "decompression_bomb".
    """
    if file.size == 0:
        raise InputError(
            f"{file.path} is empty (0 bytes), {file.format} files have a header; leave it out",
            code="empty_file",
        )
    try:
        if file.format == "arrow":
            with pa.memory_map(os.fsencode(file.path)) as source:
                reader = open_arrow(file, source)
                types = _check_schema(file, reader.schema, columns)
                rows = sum(batch.num_rows for batch in reader)
            average = file.size // max(rows, 1)
        else:
            with open_parquet(file) as parquet:
                types = _check_schema(file, parquet.schema_arrow, columns)
                average = _check_pages(file, parquet.metadata)
                rows = parquet.metadata.num_rows
    except BROKEN as error:
        raise unreadable(file, error) from error
    return rows, max(1, MAX_SHARD_BYTES // max(average, 1)), types


def open_parquet(file: InputFile) -> pq.ParquetFile:
    """Opens a Parquet file whose footer was searched for extension types first."""
    path = os.fsencode(file.path)
    with open(path, "rb") as raw:
        raw.seek(-min(file.size, 8), os.SEEK_END)
        size = int.from_bytes(raw.read(4), "little")
        raw.seek(-min(file.size, size + 8), os.SEEK_END)
        footer = raw.read(min(size, _MAX_SCHEMA_BYTES))
    if any(pattern in footer for pattern in _ENCODED_EXTENSION_KEYS):
        raise _extension_error(file)
    return pq.ParquetFile(pa.OSFile(path), pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)


def open_arrow(file: InputFile, source: pa.NativeFile) -> pa.ipc.RecordBatchStreamReader:
    """Opens an Arrow stream whose first message, the schema, was searched for extension types first."""
    size = int.from_bytes(source.read(4), "little")
    if size == 0xFFFFFFFF:
        size = int.from_bytes(source.read(4), "little")
    if _EXTENSION_KEY in source.read(min(size, _MAX_SCHEMA_BYTES)):
        raise _extension_error(file)
    source.seek(0)
    return pa.ipc.open_stream(source)


def _extension_error(file: InputFile) -> InputError:
    return InputError(
        f"{file.path} has a column of an Arrow extension type, refused because decoding it can run foreign "
        "code; write the file again with plain types",
        code="extension_type",
    )


def _check_schema(file: InputFile, schema: pa.Schema, columns: Columns) -> FileTypes:
    doubled = [name for name in columns.asked() if schema.names.count(name) > 1]
    if doubled:
        raise InputError(
            f"{file.path} has column {', '.join(map(repr, doubled))} more than once; rename one",
            code="duplicate_column",
        )
    found = {name: _field_type(schema, name) for name in columns.asked()}
    missing = [name for name, type in found.items() if type is None]
    if missing:
        raise missing_columns(file, missing, _leaf_names(schema))
    wrong = [
        f"column {name!r} is {found[name]}, {what}"
        for name, fits, what in (
            (columns.text, _is_text, "texts must be strings"),
            *((name, _is_texts, "second texts must be strings or lists of strings") for name in columns.pair),
            (columns.id, _is_id, "ids must be integers or strings"),
            (columns.language, _is_text, "languages must be strings"),
        )
        if name is not None and not fits(found[name])
    ]
    if wrong:
        texts = [name for name in _leaf_names(schema) if _is_text(_field_type(schema, name))]
        raise InputError(
            f"{file.path}: {'; '.join(wrong)}; its string columns are: {', '.join(texts[:30]) or 'none'}",
            code="wrong_type",
        )
    integer = columns.id is not None and pa.types.is_integer(found[columns.id])
    id_type = None if columns.id is None else "int64" if integer and found[columns.id] != pa.uint64() else "string"
    return FileTypes(id_type, pa.schema([pa.field(name, _plain(found[name])) for name in columns.keep]))


def _field_type(schema: pa.Schema, name: str) -> pa.DataType | None:
    if name in schema.names:
        return schema.field(name).type
    first, *rest = name.split(".")
    type = schema.field(first).type if schema.names.count(first) == 1 else None
    for part in rest:
        if type is None or not pa.types.is_struct(type) or type.get_field_index(part) < 0:
            return None
        type = type.field(part).type
    return type


def _leaf_names(schema: pa.Schema) -> list[str]:
    names = []
    for field in schema:
        names.append(field.name)
        if pa.types.is_struct(field.type):
            names += [f"{field.name}.{field.type.field(i).name}" for i in range(field.type.num_fields)]
    return names


def _plain(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _is_text(type: pa.DataType) -> bool:
    type = _plain(type)
    return bool(is_string(type) or is_binary(type) or pa.types.is_null(type))


def _is_texts(type: pa.DataType) -> bool:
    return _is_text(type) or (is_list(type) and _is_text(type.value_type))


def _is_id(type: pa.DataType) -> bool:
    type = _plain(type)
    return bool(is_string(type) or pa.types.is_integer(type) or pa.types.is_null(type))


def is_string(type: pa.DataType) -> bool:
    """Whether an Arrow type is one of the string layouts."""
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type))


def is_binary(type: pa.DataType) -> bool:
    """Whether an Arrow type is one of the variable-length binary layouts."""
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type))


def is_list(type: pa.DataType) -> bool:
    """Whether an Arrow type is one of the list layouts."""
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type))


def as_binary(array: pa.Array) -> pa.Array:
    """The bytes of a string array, without copying them."""
    if pa.types.is_string_view(array.type):
        return array.view(pa.binary_view())
    return array.view(pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary())


def _check_pages(file: InputFile, metadata: pq.FileMetaData) -> int:
    """Returns the mean uncompressed bytes a row; refuses absurd compression.

    Only sums over all columns are looked at: what the footer says of a single column pyarrow decodes in a way that
    ends the process, without any exception, where the footer is damaged.
    """
    total = sum(int(metadata.row_group(group).total_byte_size) for group in range(metadata.num_row_groups))
    if total > 64 << 20 and total > _MAX_PAGE_RATIO * file.size:
        raise InputError(
            f"{file.path} unpacks {file.size} to {total} bytes, at most {_MAX_PAGE_RATIO} times is read; "
            "if it is sound, write it again with another compression",
            code="decompression_bomb",
        )
    return total // max(int(metadata.num_rows), 1)


@dataclass(frozen=True, slots=True)
class Damage:
    """Rows [start, stop) of a file that cannot be decoded, and why."""

    start: int
    stop: int
    message: str


class ColumnarCursor:
    """Rows of the asked columns of one file, front to back.

    Attributes:
        position: Row number of the next row.
    """

    def __init__(self, file: InputFile, names: Sequence[str], row: int) -> None:
        """Starts at or before `row`: at its row group for Parquet, at the front for Arrow."""
        self._names = list(names)
        self._rest: pa.RecordBatch | Damage | None = None
        if file.format == "arrow":
            self.position = 0
            self._source = pa.memory_map(os.fsencode(file.path))
            self._batches = self._arrow_batches(file)
            return
        self._source = open_parquet(file)
        metadata = self._source.metadata
        group, self.position = 0, 0
        while group < metadata.num_row_groups and self.position + metadata.row_group(group).num_rows <= row:
            self.position += metadata.row_group(group).num_rows
            group += 1
        self._batches = self._parquet_batches(range(group, metadata.num_row_groups))

    def _parquet_batches(self, groups: range) -> Iterator[pa.RecordBatch | Damage]:
        # One row group at a time, so that a broken one cannot spoil a batch that begins in the one before it.
        start = sum(self._source.metadata.row_group(group).num_rows for group in range(groups.start))
        for group in groups:
            stop = start + self._source.metadata.row_group(group).num_rows
            try:
                for batch in self._source.iter_batches(
                    batch_size=_BATCH_ROWS, row_groups=[group], columns=self._names, use_threads=False
                ):
                    if start + batch.num_rows > stop:
                        raise pa.ArrowInvalid("a row group decodes to more rows than the footer says")
                    start += batch.num_rows
                    yield batch
                # A damaged footer may hide pages without any exception; rows behind must keep their numbers.
                if start < stop:
                    raise pa.ArrowInvalid("a row group decodes to fewer rows than the footer says")
            except BROKEN as error:
                # An errno is the system failing, not the file.
                if getattr(error, "errno", None) or start >= stop:
                    raise
                yield Damage(start, stop, str(error).split("\n")[0])
            start = stop

    def _arrow_batches(self, file: InputFile) -> Iterator[pa.RecordBatch]:
        reader = open_arrow(file, self._source)
        top = [name if name in reader.schema.names else name.split(".")[0] for name in self._names]
        for batch in reader:
            chosen = batch.select(list(dict.fromkeys(top)))
            for array in chosen.columns:
                # Offsets come from outside: unchecked, a crafted one reads memory that is not the file's.
                # Whether strings are UTF-8 is each row's own matter, so they are checked as bytes.
                (as_binary(array) if is_string(array.type) else array).validate(full=True)
            yield chosen

    def take(self, start: int, stop: int) -> tuple[pa.Table, list[Damage]]:
        """Reads rows [start, stop); `start` must not lie behind `position`.

        Returns:
            One column a asked name; and those of the rows that lie in a damaged Parquet row group, from the first
            batch on that cannot be decoded. These are null.

        Raises:
            OSError, pa.ArrowException: When the file itself is broken, or the rows decode to more memory than any
                text should.
        """
        pieces, damaged, size = [], [], 0
        while self.position < stop:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                break
            if isinstance(batch, Damage):
                begin, end = max(start, self.position), min(stop, batch.stop)
                if end > begin:
                    pieces.append(self._nulls(end - begin))
                    damaged.append(Damage(begin, end, batch.message))
                self._rest, self.position = (batch if end < batch.stop else None), end
                continue
            begin = min(max(start - self.position, 0), batch.num_rows)
            end = min(stop - self.position, batch.num_rows)
            if end > begin:
                pieces.append(_flat(batch.slice(begin, end - begin), self._names))
                size += pieces[-1].nbytes
                if size > MAX_DECODED_BYTES:
                    raise pa.ArrowInvalid(f"rows {start} to {stop} decode to over {MAX_DECODED_BYTES >> 20} MiB")
            self._rest = batch.slice(end) if end < batch.num_rows else None
            self.position += end
        if not pieces:
            raise pa.ArrowInvalid(f"no row {start}")
        return pa.Table.from_batches(pieces), damaged

    def _nulls(self, count: int) -> pa.RecordBatch:
        types = [_plain(_field_type(self._source.schema_arrow, name)) for name in self._names]
        return pa.RecordBatch.from_arrays([pa.nulls(count, type) for type in types], names=self._names)

    def close(self) -> None:
        """Closes the file."""
        self._source.close()


def _flat(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    arrays = []
    for name in names:
        if name in batch.schema.names:
            array = batch.column(name)
        else:
            first, *rest = name.split(".")
            array = pc.struct_field(batch.column(first), rest)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, names=list(names))
