"""A tokenised shard as one Arrow row: what travels from a tokeniser to a model worker.

Arrays are list<...> columns, never padded and never pickled; the model worker reads them in place, out of the object
store. The row carries its shard, because Ray may merge or reorder blocks and a block has no name.

Letters: R records with a usable text, N tokens of all records.
"""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.annotate.lines import Problem
from pipelines.annotate.plan import Shard
from pipelines.annotate.read import Records
from xlmr_core.graph import EncodedRecords
from xlmr_core.tokenization import Encodings


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """A shard after tokenisation.

    Attributes:
        records: Ids, kept columns and problems of all its rows; texts stay behind.
        usable: Positions in `records` that were tokenised (R,), int64.
        encoded: Their tokens.
    """

    records: Records
    usable: np.ndarray
    encoded: EncodedRecords


def shard_row(shard: Shard) -> dict[str, str]:
    """The row that asks for a shard."""
    return {"shard": json.dumps(shard.to_dict())}


def read_shard_row(table: pa.Table) -> Shard:
    """The shard that a row asks for, or belongs to."""
    assert table.num_rows == 1
    return Shard.from_dict(json.loads(table.column("shard")[0].as_py()))


def to_row(shard: EncodedShard) -> pa.Table:
    """Packs a tokenised shard into a table of one row."""
    records = shard.records
    columns = {"shard": pa.array([json.dumps(records.shard.to_dict())])}
    columns["records"] = table_to_cell(_records_table(records))
    columns["usable"] = _cell(shard.usable)
    return pa.table(columns | encoded_to_cells(shard.encoded))


def from_row(table: pa.Table) -> EncodedShard:
    """The inverse of `to_row`; arrays are views of the row's memory."""
    shard = read_shard_row(table)
    records = _records_from_table(shard, table_from_cell(table, "records"))
    return EncodedShard(records, _values(table, "usable"), encoded_from_cells(table))


def encoded_to_cells(encoded: EncodedRecords) -> dict[str, pa.Array]:
    """One cell for each array of tokenised records."""
    cells: dict[str, pa.Array] = {}
    for index, (view, starts) in enumerate(zip(encoded.views, encoded.starts_word, strict=True)):
        cells[f"{index}.ids"] = _cell(view.ids)
        cells[f"{index}.splits"] = _cell(view.splits)
        if view.offsets is not None:
            cells[f"{index}.offsets"] = _cell(view.offsets.reshape(-1))
        if starts is not None:
            cells[f"{index}.starts_word"] = _cell(starts.view(np.uint8))
    if encoded.second_splits is not None:
        cells["second_splits"] = _cell(encoded.second_splits)
    if encoded.texts is not None:
        cells["texts"] = table_to_cell(pa.table({"text": pa.array(encoded.texts, pa.large_string())}))
    if encoded.languages is not None:
        languages = pa.array(encoded.languages, pa.string()).dictionary_encode()
        cells["languages"] = table_to_cell(pa.table({"language": languages}))
    return cells


def encoded_from_cells(table: pa.Table) -> EncodedRecords:
    """The inverse of `encoded_to_cells`."""
    views: list[Encodings] = []
    starts: list[np.ndarray | None] = []
    while f"{len(views)}.ids" in table.column_names:
        prefix = str(len(views))
        offsets = _values_if_any(table, f"{prefix}.offsets")
        words = _values_if_any(table, f"{prefix}.starts_word")
        spans = None if offsets is None else offsets.reshape(-1, 2)
        views.append(Encodings(_values(table, f"{prefix}.ids"), _values(table, f"{prefix}.splits"), spans))
        starts.append(None if words is None else words.view(np.bool_))
    second_splits = _values_if_any(table, "second_splits")
    texts, languages = (
        tuple(table_from_cell(table, name).column(0).to_pylist()) if name in table.column_names else None
        for name in ("texts", "languages")
    )
    return EncodedRecords(tuple(views), tuple(starts), second_splits, texts, languages)


def _cell(values: np.ndarray) -> pa.Array:
    """A list array of one list, without a copy."""
    flat = pa.array(values)
    return pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat)


def _values(table: pa.Table, name: str) -> np.ndarray:
    """The list of a one-row column, without a copy."""
    values: np.ndarray = table.column(name).chunk(0).flatten().to_numpy(zero_copy_only=True)
    return values


def _values_if_any(table: pa.Table, name: str) -> np.ndarray | None:
    return _values(table, name) if name in table.column_names else None


def _records_table(records: Records) -> pa.Table:
    problems = [records.problems.get(position) for position in range(len(records))]
    columns = {
        "row": pa.array(records.rows, pa.int64()),
        "id": records.ids,
        "code": pa.array([problem and problem.code for problem in problems], pa.string()),
        "message": pa.array([problem and problem.message for problem in problems], pa.string()),
    }
    fields = [pa.field(name, array.type) for name, array in columns.items()]
    arrays = list(columns.values())
    if records.keep is not None:
        fields += list(records.keep.schema)
        arrays += records.keep.columns
    return pa.table(arrays, schema=pa.schema(fields))


def _records_from_table(shard: Shard, table: pa.Table) -> Records:
    codes, messages = table.column(2), table.column(3)
    problems = {
        position: Problem(codes[position].as_py(), messages[position].as_py())
        for position in np.flatnonzero(codes.is_valid().to_numpy()).tolist()
    }
    # By position, since a kept column may have any name.
    keep = table.select(list(range(4, table.num_columns))) if table.num_columns > 4 else None
    rows = table.column(0).to_numpy()
    return Records(shard, rows, table.column(1).combine_chunks(), [], None, keep, problems)


def table_to_cell(table: pa.Table) -> pa.Array:
    """A table as one binary value: an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    bounds = pa.py_buffer(np.array([0, content.size], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, bounds, content])


def table_from_cell(row: pa.Table, name: str) -> pa.Table:
    """The inverse of `table_to_cell`, without a copy."""
    return pa.ipc.open_stream(row.column(name)[0].as_buffer()).read_all()
