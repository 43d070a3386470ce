import pyarrow as pa
import pytest

from pipelines.annotate.rows import annotated_rows, parse_tasks, tokenise_rows
from xlmr_core.errors import InputError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor


@pytest.fixture(scope="module")
def graph(tasks: list[str]) -> ModelGraph:
    return ModelGraph(GraphPlan.resolve(parse_tasks(tasks[:1]), on_long="error"))


def annotated(graph: ModelGraph, values: pa.Array) -> list[dict[str, object]]:
    rows = tokenise_rows(Preprocessor(graph.plan), pa.table({"text": values}), "text")
    return annotated_rows(graph.plan, rows, graph(rows.encoded)).to_pylist()


def test_rows_that_fail_anywhere_stay_in_place_with_their_reason(graph: ModelGraph):
    rows = annotated(graph, pa.array(["fine", None, "much too long " * 100, "", "fine"]))
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "empty", "ok"]
    assert rows[2]["error"].startswith("too_long: ")
    assert rows[0]["topic_label"] == rows[4]["topic_label"] is not None
    assert rows[2]["topic_label"] is None


def test_bytes_that_are_no_text_spoil_only_their_row(graph: ModelGraph):
    broken = pa.array([b"fine", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    assert [row["status"] for row in annotated_without_text(graph, broken)] == ["ok", "failed", "ok"]


def annotated_without_text(graph: ModelGraph, values: pa.Array) -> list[dict[str, object]]:
    rows = tokenise_rows(Preprocessor(graph.plan), pa.table({"text": values}), "text")
    return annotated_rows(graph.plan, rows, graph(rows.encoded)).drop_columns(["text"]).to_pylist()


@pytest.mark.parametrize("values", [pa.array([], pa.string()), pa.array([None, None], pa.string())])
def test_a_table_without_a_usable_row_is_fine(graph: ModelGraph, values: pa.Array):
    assert [row["status"] for row in annotated(graph, values)] == ["failed"] * len(values)


def test_columns_are_checked(graph: ModelGraph):
    preprocess = Preprocessor(graph.plan)
    with pytest.raises(InputError, match="column 'text' is missing, the dataset has body"):
        tokenise_rows(preprocess, pa.table({"body": ["x"]}), "text")
    with pytest.raises(InputError, match="column 'status' is there already"):
        tokenise_rows(preprocess, pa.table({"text": ["x"], "status": ["y"]}), "text")


def test_tasks_are_lists_or_mappings():
    expected = parse_tasks(["topic=model,merge=max"])
    assert parse_tasks({"topic": "model,merge=max"}) == expected
