"""A few texts, at once and in this process, as lines of JSON."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from pipelines.annotate.rows import annotated_rows, parse_tasks, tokenise_rows
from pipelines.config import ModelSection
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor
from xlmr_core.tokenization import text_problem

_BATCH_ROWS = 256


def annotate_lines(texts: Iterable[str], model: ModelSection) -> Iterator[str]:
    """Annotates texts.

    Args:
        texts: Any number; they are worked through in portions. Bytes that are not UTF-8 are expected as
            `surrogateescape` leaves them.
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
        problems = {row: _problem(text) for row, text in enumerate(portion) if text_problem(text)}
        # A lone surrogate cannot be an Arrow string.
        texts_or_null = [None if row in problems else text for row, text in enumerate(portion)]
        rows = tokenise_rows(preprocess, pa.table({"text": pa.array(texts_or_null, pa.string())}), "text")
        rows.errors.update(problems)
        result = annotated_rows(plan, rows, graph(rows.encoded)).drop_columns(["text"])
        for row in result.to_pylist():
            yield json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False)


def _problem(text: str) -> str:
    if any("\udc80" <= character <= "\udcff" for character in text):
        return "undecodable: the text is not UTF-8"
    return "lone_surrogate: the text has half a surrogate pair"
