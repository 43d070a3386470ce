"""The columns of the output: predictions of numpy to Arrow, with the same types in every shard.

Letters: R records, P annotated records, K rows of the output.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from xlmr_core.graph import Annotations, GraphPlan
from xlmr_core.tasks.columns import Column, Entities, Field, LabelLists, Labels

ENTITY = pa.struct([("label", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("score", pa.float32())])
STATUS_FIELDS = [
    pa.field("status", pa.string()),
    pa.field("n_tokens", pa.int32()),
    pa.field("n_tokens_used", pa.int32()),
    pa.field("n_windows", pa.int32()),
]


def arrow_type(field: Field) -> pa.DataType:
    """Type of an annotation's column."""
    match field.kind:
        case "label":
            return pa.string()
        case "labels":
            return pa.list_(pa.string())
        case "score":
            return pa.float32()
        case "vector":
            return pa.list_(pa.float16() if field.half else pa.float32(), field.size)
        case "entities":
            return pa.list_(ENTITY)


def annotation_fields(plan: GraphPlan) -> list[pa.Field]:
    """What the annotations add: status and counts, then the columns of each, in the user's order."""
    fields = [pa.field(f.name, arrow_type(f)) for f in _fields(plan)]
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
    metadata = {
        "xlmr.fingerprint": fingerprint,
        "xlmr.annotations": json.dumps(about, ensure_ascii=False),
        "xlmr.offsets": "codepoint",
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
        arrays.append(_arrow(field, annotations.columns[field.name]).take(position_K))
    return arrays


def _fields(plan: GraphPlan) -> list[Field]:
    return [field for a in plan.annotations for field in a.task.fields(a.name)]


def _arrow(field: Field, column: Column) -> pa.Array:
    """A column of the P annotated records."""
    match column:
        case Labels():
            return _names(column.names, column.codes)
        case LabelLists():
            return _lists(column.splits, _names(column.names, column.codes))
        case Entities():
            children = [_names(column.names, column.codes), column.start, column.end, column.score]
            arrays = [pa.array(child, part.type) for child, part in zip(children, ENTITY, strict=True)]
            return _lists(column.splits, pa.StructArray.from_arrays(arrays, fields=list(ENTITY)))
        case _ if field.kind == "vector":
            width = np.float16 if field.half else np.float32
            flat = pa.array(np.ascontiguousarray(column, dtype=width).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(flat, field.size)
        case _:
            return pa.array(column, pa.float32())


def _names(names: tuple[str, ...], codes: np.ndarray) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(codes, pa.int32()))


def _lists(splits: np.ndarray, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(splits, pa.int32()), values)
