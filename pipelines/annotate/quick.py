"""A few texts, at once and in this process, as lines of JSON."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from pipelines.annotate.rows import annotated_rows, parse_tasks, tokenise_rows
from pipelines.config import ModelSection
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor

_BATCH_ROWS = 256


def annotate_lines(texts: Iterable[str], model: ModelSection) -> Iterator[str]:
    """Annotates texts.

    Args:
        texts: Any number; they are worked through in portions.
        model: What to compute; `device` is the CPU unless it says otherwise.

    Yields:
        One JSON object a text, without its null fields and without the text.

    Raises:
        XLMRError: All problems of the tasks at once.
    """
    plan = GraphPlan.resolve(parse_tasks(model.tasks), on_long=model.on_long)
    preprocess = Preprocessor(plan)
    graph = ModelGraph(plan, device="cuda" if model.device == "cuda" else "cpu", dtype=model.dtype)
    remaining = iter(texts)
    while portion := list(islice(remaining, _BATCH_ROWS)):
        # A lone surrogate cannot be an Arrow string; as None it becomes a row that failed.
        table = pa.table({"text": pa.array([_encodable(text) for text in portion], pa.string())})
        rows = tokenise_rows(preprocess, table, "text")
        result = annotated_rows(plan, rows, graph(rows.encoded)).drop_columns(["text"])
        for row in result.to_pylist():
            yield json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)


def _encodable(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text
