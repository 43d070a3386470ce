from pathlib import Path

import pytest

import pipelines
from xlmr_core.errors import XLMRError

pytestmark = pytest.mark.usefixtures("local_ray")


def test_a_dataset_gains_columns_and_loses_no_row(tasks: list[str]):
    import ray

    texts = ["Hello world", None, "", "Grüße aus Köln", "Hello world"] * 20
    dataset = ray.data.from_items([{"text": text, "n": n} for n, text in enumerate(texts)])
    name, _, model = tasks[0].partition("=")
    annotated = pipelines.annotate(dataset, {name: model}, batch_size=16)
    rows = sorted(annotated.take_all(), key=lambda row: row["n"])
    assert [row["text"] for row in rows] == texts
    assert [row["status"] for row in rows[:5]] == ["ok", "failed", "empty", "ok", "ok"]
    assert rows[1]["error"] == "null: column 'text'"
    assert rows[0]["error"] is None
    assert rows[0]["topic_score"] == pytest.approx(rows[4]["topic_score"], abs=1e-5)
    assert rows[2]["topic_label"] is None


def test_problems_of_tasks_come_before_any_work():
    import ray

    with pytest.raises(XLMRError, match="nowhere"):
        pipelines.annotate(ray.data.range(3), ["topic=/nowhere"])


def test_the_function_has_the_packages_name_whatever_was_imported_first():
    import pipelines.annotate.job

    assert callable(pipelines.annotate)
    assert Path(pipelines.annotate.__file__).name == "__init__.py"
