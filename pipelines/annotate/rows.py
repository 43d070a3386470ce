"""Records in memory: a table with a text column in, the same rows with annotations out. No files, no Ray.

Letters: R records with a usable text, K rows of the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.annotate.schema import annotation_arrays, annotation_fields
from pipelines.annotate.tokenise import tokenise_usable
from xlmr_core.errors import InputError
from xlmr_core.graph import Annotations, EncodedRecords, GraphPlan, Preprocessor, Request
from xlmr_core.tokenization import text_problem

ERROR = pa.field("error", pa.string())


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """A tokenised table.

    Attributes:
        table: As it came (K rows).
        errors: Why a row cannot be used, by position.
        usable: Positions of the other rows (R,), int64.
        encoded: Their tokens.
    """

    table: pa.Table
    errors: dict[int, str]
    usable: np.ndarray
    encoded: EncodedRecords


def parse_tasks(tasks: Sequence[str] | Mapping[str, str]) -> list[Request]:
    """Reads `["NAME=MODEL,key=value", ...]` or `{"NAME": "MODEL,key=value", ...}`.

    Raises:
        TaskError: A text of another form.
    """
    texts = [f"{name}={model}" for name, model in tasks.items()] if isinstance(tasks, Mapping) else tasks
    return [Request.parse(text) for text in texts]


def tokenise_rows(
    preprocess: Preprocessor,
    table: pa.Table,
    text_column: str,
    pair_columns: Sequence[str] = (),
    language_column: str | None = None,
) -> EncodedRows:
    """Tokenises a table; rows without a usable text are noted, not dropped. A language may be null.

    Raises:
        InputError: A column is missing, or one of the columns to come is there already.
    """
    names = [text_column, *pair_columns, *([language_column] if language_column else [])]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        found = ", ".join(table.column_names)
        raise InputError(
            f"column {', '.join(map(repr, missing))} is missing, the dataset has {found}",
            code="missing_column",
        )
    ours = [field.name for field in (*annotation_fields(preprocess.plan), ERROR)]
    clash = [name for name in ours if name in table.column_names]
    if clash:
        raise InputError(
            f"column {', '.join(map(repr, clash))} is there already, annotations are written to it; rename it first",
            code="column_clash",
        )
    values = {name: _values(table.column(name)) for name in names}
    errors: dict[int, str] = {}
    for name in names:
        for row, value in enumerate(values[name]):
            if value is None and name == language_column:
                continue
            for part in value if isinstance(value, list) and name != text_column else [value]:
                if code := "undecodable" if isinstance(part, bytes) else text_problem(part):
                    errors.setdefault(row, f"{code}: column {name!r}")
    usable = np.setdiff1d(np.arange(table.num_rows), list(errors))
    texts = [str(values[text_column][row]) for row in usable.tolist()]
    pairs = [_second_texts([values[name][row] for name in pair_columns]) for row in usable.tolist()]
    languages = [values[language_column][row] for row in usable.tolist()] if language_column else None
    kept, encoded, problems = tokenise_usable(preprocess, texts, pairs if pair_columns else None, languages)
    errors |= {int(usable[position]): f"{problem.code}: {problem.message}" for position, problem in problems.items()}
    return EncodedRows(table, errors, usable[kept], encoded)


def annotated_rows(plan: GraphPlan, rows: EncodedRows, annotations: Annotations) -> pa.Table:
    """Adds status, counts, annotations and `error` to every row; a row with an error has status "failed"."""
    errors = dict(rows.errors)
    for record, error in annotations.failed.items():
        errors[int(rows.usable[record])] = f"{error.code}: {error}"
    count = rows.table.num_rows
    position_K = np.zeros(count, dtype=np.int64)
    position_K[rows.usable] = np.arange(len(rows.usable))
    done_K = np.ones(count, dtype=bool)
    done_K[list(errors)] = False
    take = pa.array(np.cumsum(done_K) - 1, mask=~done_K)
    arrays = annotation_arrays(plan, annotations, position_K[done_K])
    arrays = [array.take(take) for array in arrays]
    arrays[0] = arrays[0].fill_null("failed")
    error_K = pa.array([errors.get(row) for row in range(count)], pa.string())
    fields = [*rows.table.schema, *annotation_fields(plan), ERROR]
    return pa.table([*rows.table.columns, *arrays, error_K], schema=pa.schema(fields))


def _second_texts(values: list[object]) -> list[str]:
    """The strings of several values, each a string or a list of strings."""
    return [str(part) for value in values for part in (value if isinstance(value, list) else [value])]


def _values(column: pa.ChunkedArray) -> list[object]:
    """Python values; bytes where a string is not valid UTF-8."""
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_value(scalar) for scalar in column]
    return values


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return b""
