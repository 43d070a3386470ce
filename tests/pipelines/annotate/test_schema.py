import json

import numpy as np
import pyarrow as pa
import pytest

from pipelines.annotate.rows import parse_tasks
from pipelines.annotate.schema import annotation_arrays, annotation_fields, clashes, data_schema
from xlmr_core.graph import Annotations, GraphPlan, ModelGraph, Preprocessor


@pytest.fixture(scope="module")
def plan(tasks: list[str]) -> GraphPlan:
    return GraphPlan.resolve(parse_tasks([tasks[0], f"{tasks[1]},offsets=utf16", f"{tasks[2]},output=float16"]))


@pytest.fixture(scope="module")
def annotations(plan: GraphPlan) -> Annotations:
    return ModelGraph(plan)(Preprocessor(plan)(["Hello world", "", "Grüße", "  "]))


def test_every_column_has_its_declared_type_even_without_rows(plan: GraphPlan, annotations: Annotations):
    types = [field.type for field in annotation_fields(plan)]
    for rows in ([], [1], [0, 1, 2, 3]):
        arrays = annotation_arrays(plan, annotations, np.array(rows, dtype=np.int64))
        assert [array.type for array in arrays] == types
        assert {len(array) for array in arrays} == {len(rows)}
    assert types[-1] == pa.list_(pa.float16(), 32)


def test_empty_records_have_null_annotations_and_keep_their_place(plan: GraphPlan, annotations: Annotations):
    fields = annotation_fields(plan)
    arrays = annotation_arrays(plan, annotations, np.array([2, 1, 0]))
    rows = pa.table(arrays, schema=pa.schema(fields)).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "empty", "ok"]
    assert rows[1] == {"status": "empty", "n_tokens": 0, "n_tokens_used": 0, "n_windows": 0} | {
        field.name: None for field in fields[4:]
    }
    straight = pa.table(annotation_arrays(plan, annotations, np.arange(3)), schema=pa.schema(fields)).to_pylist()
    assert rows == straight[::-1]


def test_a_reader_of_the_file_learns_labels_offsets_and_job(plan: GraphPlan):
    schema = data_schema(plan, pa.int64(), pa.schema([("url", pa.string())]), "abc")
    assert schema.names[:2] == ["id", "status"]
    assert schema.names[-1] == "url"
    about = json.loads(schema.metadata[b"xlmr.annotations"])
    assert about["topic"]["labels"] == ["a", "b", "c"]
    assert json.loads(schema.metadata[b"xlmr.offsets"]) == {"names": "utf16"}
    assert schema.metadata[b"xlmr.fingerprint"] == b"abc"


def test_kept_columns_must_not_hide_ours(plan: GraphPlan):
    assert clashes(plan, ["url", "id", "topic_label", "n_windows"]) == ["id", "topic_label", "n_windows"]
