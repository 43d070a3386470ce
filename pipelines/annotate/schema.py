"""The columns of the output: predictions of numpy to Arrow, with the same types in every shard.

Letters: R records, P annotated records, K rows of the output.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from xlmr_core.graph import Annotations, GraphPlan
from xlmr_core.tasks.columns import Column, Field, Labels, ListOf, Lists, StructOf, Structs, Type, VectorOf

_SCALARS = {"text": pa.string(), "int32": pa.int32(), "float32": pa.float32(), "float16": pa.float16()}
STATUS_FIELDS = [
    pa.field("status", pa.string()),
    pa.field("n_tokens", pa.int32()),
    pa.field("n_tokens_used", pa.int32()),
    pa.field("n_windows", pa.int32()),
]


def arrow_type(type: Type) -> pa.DataType:
    """The Arrow type of a column's type."""
    match type:
        case VectorOf():
            return pa.list_(arrow_type(type.of), type.size)
        case ListOf():
            return pa.list_(arrow_type(type.of))
        case StructOf():
            return pa.struct([pa.field(name, arrow_type(of)) for name, of in type.fields])
        case _:
            return _SCALARS[type]


def annotation_fields(plan: GraphPlan) -> list[pa.Field]:
    """What the annotations add: status and counts, then the columns of each, in the user's order."""
    fields = [pa.field(f.name, arrow_type(f.type)) for f in _fields(plan)]
    return [*STATUS_FIELDS, *fields]


def clashes(plan: GraphPlan, keep: Sequence[str]) -> list[str]:
    """Kept columns that have the name of a column of ours."""
    ours = {"id", *(field.name for field in annotation_fields(plan))}
    return [name for name in keep if name in ours]


def data_schema(plan: GraphPlan, id_type: pa.DataType, keep: pa.Schema, fingerprint: str) -> pa.Schema:
    """Schema of every data file of a job, with what a reader needs to know as metadata.

    Args:
        plan: What is computed.
        id_type: int64 or string.
        keep: The kept columns.
        fingerprint: Hash of the job's identity.
    """
    about = {
        a.name: {"model": a.model, "task": a.kind, "labels": list(getattr(a.task, "labels", ()))}
        for a in plan.annotations
    }
    units = {a.name: a.task.reading.unit for a in plan.annotations if a.task.reading.offsets}
    metadata = {
        "xlmr.fingerprint": fingerprint,
        "xlmr.annotations": json.dumps(about, ensure_ascii=False),
        "xlmr.offsets": json.dumps(units),
    }
    return pa.schema([pa.field("id", id_type), *annotation_fields(plan), *keep], metadata)


def annotation_arrays(plan: GraphPlan, annotations: Annotations, rows_K: np.ndarray) -> list[pa.Array]:
    """Arrays for `annotation_fields(plan)`.

    Args:
        plan: What was computed.
        annotations: Predictions for R records.
        rows_K: Which records are wanted, in which order (K,). An empty record has null annotations.
    """
    counts = (annotations.n_tokens, annotations.n_tokens_used, annotations.n_windows)
    arrays = [pa.array(annotations.status[rows_K], pa.string())]
    arrays += [pa.array(values[rows_K], pa.int32()) for values in counts]
    position_R = np.cumsum(annotations.annotated) - 1
    position_K = pa.array(position_R[rows_K], mask=~annotations.annotated[rows_K])
    for field in _fields(plan):
        arrays.append(_arrow(field.type, annotations.columns[field.name]).take(position_K))
    return arrays


def _fields(plan: GraphPlan) -> list[Field]:
    return [field for a in plan.annotations for field in a.task.fields(a.name)]


def _arrow(type: Type, column: Column) -> pa.Array:
    """Values of a column as Arrow."""
    match type, column:
        case _, Labels():
            return pa.array(column.names, pa.string()).take(pa.array(column.codes, pa.int32()))
        case ListOf(), Lists():
            return pa.ListArray.from_arrays(pa.array(column.splits, pa.int32()), _arrow(type.of, column.values))
        case StructOf(), Structs():
            children = [_arrow(of, column.fields[name]) for name, of in type.fields]
            return pa.StructArray.from_arrays(children, fields=list(arrow_type(type)))
        case VectorOf(), np.ndarray():
            flat = pa.array(np.ascontiguousarray(column, dtype=type.of).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(flat, type.size)
        case _:
            return pa.array(column, arrow_type(type))
