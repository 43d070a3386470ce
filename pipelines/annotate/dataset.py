"""Annotation of any Ray Dataset: rows in, the same rows with more columns out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from ray.data import Dataset

from pipelines.annotate.encoded import encoded_from_cells, encoded_to_cells, table_from_cell, table_to_cell
from pipelines.annotate.model_thread import ModelThread
from pipelines.annotate.pools import cluster_pools, two_stages
from pipelines.annotate.rows import EncodedRows, annotated_rows, parse_tasks, tokenise_rows
from xlmr_core.graph import GraphPlan, Preprocessor


@dataclass(frozen=True, slots=True)
class RowSettings:
    """What every worker is told; see `annotate_dataset`."""

    plan: GraphPlan
    text_column: str
    pair_columns: tuple[str, ...]
    language_column: str | None
    device: str
    dtype: Literal["float32", "bfloat16"]
    threads: int


class TokeniseRows:
    """Tokenises a batch into one row, which carries the batch along."""

    def __init__(self, settings: RowSettings) -> None:
        self._settings = settings
        self._preprocess = Preprocessor(settings.plan)

    def __call__(self, table: pa.Table) -> pa.Table:
        """K rows to one row."""
        asked = self._settings
        rows = tokenise_rows(
            self._preprocess, table, asked.text_column, asked.pair_columns, language_column=asked.language_column
        )
        errors = [rows.errors.get(row) for row in range(table.num_rows)]
        carried = {
            "table": table_to_cell(table),
            "errors": pa.array([errors], pa.list_(pa.string())),
        }
        return pa.table(carried | encoded_to_cells(rows.encoded))


class AnnotateRows:
    """Computes tokenised batches."""

    def __init__(self, settings: RowSettings) -> None:
        self._plan = settings.plan
        self._model = ModelThread(settings.plan, device=settings.device, dtype=settings.dtype, threads=settings.threads)

    def __call__(self, row: pa.Table) -> pa.Table:
        """One row to K rows."""
        table = table_from_cell(row, "table")
        texts = row.column("errors")[0].as_py()
        errors = {position: text for position, text in enumerate(texts) if text is not None}
        usable = np.setdiff1d(np.arange(table.num_rows), list(errors))
        rows = EncodedRows(table, errors, usable, encoded_from_cells(row))
        outputs, _ = self._model.forward(rows.encoded)
        return annotated_rows(self._plan, rows, self._model.graph.decode(rows.encoded, outputs))


def annotate_dataset(
    dataset: Dataset,
    tasks: Sequence[str] | Mapping[str, str],
    *,
    text_column: str = "text",
    pair_column: str | Sequence[str] = (),
    language_column: str | None = None,
    on_long: Literal["window", "truncate", "error"] = "window",
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 1024,
    model_workers: int | None = None,
    tokenise_workers: int | None = None,
) -> Dataset:
    """Adds the columns of any number of annotations; lazy, like every transformation of a Dataset.

    Every row comes out again: `status` is ok, truncated, empty or failed, and `error` says why a row failed. Unlike the
    `xlmr annotate` job it commits nothing by itself; write the result as you write any Dataset.

    Args:
        dataset: Any Dataset with a text column.
        tasks: `["NAME=MODEL,key=value", ...]` or `{"NAME": "MODEL,key=value", ...}`.
        text_column: Text to annotate.
        pair_column: Second texts, for tasks that read two: a column of strings or of lists of strings, or several.
        language_column: Languages of the records, for models with thresholds by language; null where not known.
        on_long: What to do with texts longer than a window.
        dtype: Compute type.
        device: "auto" takes CUDA where the cluster has GPUs.
        batch_size: Rows that are sorted and packed together; fewer cost speed, more cost memory.
        model_workers: Default: one a GPU, or one a machine without GPUs.
        tokenise_workers: Default: what the other CPUs allow.

    Raises:
        XLMRError: All problems of the tasks at once; problems of columns come when the dataset is consumed.
    """
    plan = GraphPlan.resolve(parse_tasks(tasks), on_long=on_long, pairs=bool(pair_column))
    pools = cluster_pools(device=device, model_workers=model_workers, tokenise_workers=tokenise_workers)
    pair_columns = (pair_column,) if isinstance(pair_column, str) else tuple(pair_column)
    settings = RowSettings(plan, text_column, pair_columns, language_column, pools.device, dtype, pools.threads)
    return two_stages(dataset, pools, (TokeniseRows, AnnotateRows), (settings,), batch_size=batch_size)
