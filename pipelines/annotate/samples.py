"""A few rows of an output beside their texts, for the report of a user who asked for them.

Texts are read again from the inputs: neither the stages nor the commits carry them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.annotate.commit import part_name
from pipelines.annotate.plan import Plan, Shard
from pipelines.annotate.read import read_shard
from pipelines.annotate.schema import STATUS_FIELDS
from xlmr_core.errors import XLMRError

MOST_CHARACTERS = 300
_MOST_ITEMS = 8
_COUNTS = ("id", "status", "n_tokens")


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row.

    Attributes:
        id, status, n_tokens: As in the output.
        text: The first `MOST_CHARACTERS` characters; None where the input cannot be read as it was.
        annotations: Column and value, in words; vectors and nulls left out.
    """

    id: str
    status: str
    n_tokens: int
    text: str | None
    annotations: tuple[tuple[str, str], ...]


def sample_rows(root: Path, plan: Plan, committed: Iterable[int], count: int) -> list[SampleRow]:
    """The first rows of the first committed shards.

    Args:
        root: The output directory.
        plan: Of the job.
        committed: Shards that are committed.
        count: How many rows at most.
    """
    rows: list[SampleRow] = []
    for index in sorted(committed):
        if len(rows) >= count:
            break
        rows += _rows_of_shard(root, plan, plan.shards[index], count - len(rows))
    return rows


def _rows_of_shard(root: Path, plan: Plan, shard: Shard, count: int) -> Iterator[SampleRow]:
    try:
        with pq.ParquetFile(root / "data" / part_name(shard.index)) as parquet:
            schema = parquet.schema_arrow
            names = [field.name for field in schema if field.name in _COUNTS or _is_told(field, plan)]
            batch = next(parquet.iter_batches(batch_size=count, columns=names), None)
    except (OSError, pa.ArrowException):
        # Committed but not in place yet; the report of the finished job has it.
        return
    values = batch.to_pylist() if batch is not None else []
    texts = _texts(root, plan, shard, len(values))
    for value, text in zip(values, texts, strict=True):
        told = tuple((name, _words(value[name])) for name in names if name not in _COUNTS and value[name] is not None)
        yield SampleRow(str(value["id"]), value["status"], value["n_tokens"], text, told)


def _is_told(field: pa.Field, plan: Plan) -> bool:
    kinds = pa.types
    if field.name in (*plan.columns.keep, *(own.name for own in STATUS_FIELDS)):
        return False
    inner = field.type.value_type if kinds.is_list(field.type) else field.type
    return any(kind(inner) for kind in (kinds.is_string, kinds.is_floating, kinds.is_integer, kinds.is_struct))


def _words(value: Any) -> str:
    match value:
        case float():
            return f"{value:.3f}"
        case list():
            more = f", and {len(value) - _MOST_ITEMS} more" if len(value) > _MOST_ITEMS else ""
            return ", ".join(_words(item) for item in value[:_MOST_ITEMS]) + more or "none"
        case dict():
            return " ".join(_words(item) for item in value.values() if not isinstance(item, (list, dict)))
        case _:
            text = str(value)
            return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def _texts(root: Path, plan: Plan, shard: Shard, count: int) -> list[str | None]:
    """The texts of the first so many rows of a shard's data; rows in quarantine are none of these."""
    try:
        records = read_shard(shard, plan.columns)
        aside = root / "quarantine" / part_name(shard.index)
        rows = pq.read_table(aside, columns=["row"]).column("row").to_numpy() if aside.exists() else []
    except (OSError, pa.ArrowException, XLMRError):
        return [None] * count
    chosen = np.flatnonzero(~np.isin(records.rows, rows))[:count].tolist()
    texts = [records.texts[position] for position in chosen] + [None] * (count - len(chosen))
    return [text if text is None or len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…" for text in texts]
