"""The report of an output directory: unfinished, of an older version, damaged, or none at all."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.lease import OutputError
from pipelines.annotate.output import open_output
from pipelines.annotate.plan import make_plan
from pipelines.annotate.read import read_shard
from pipelines.annotate.report import gather, report_path, write_report


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """Two of three shards committed, by a version that counted nothing."""
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"<{i}>"}) + "\n" for i in range(6)))
    plan = make_plan(expand_inputs([tmp_path / "in.jsonl"]), Columns(), shard_rows=2)
    with open_output(tmp_path / "out", {"model": {"order": ["x"], "annotations": {"x": {}}}}) as output:
        output.save_plan(plan)
        for shard in plan.shards[:2]:
            records = read_shard(shard, plan.columns)
            table = pa.table({"id": records.ids, "status": ["ok", "ok"], "n_tokens": [3, 4], "x_label": ["<a>", "b"]})
            output.writer().commit(shard.index, 2, table)
    return tmp_path / "out"


def test_an_output_is_reported_whoever_wrote_it_and_however_far(unfinished: Path):
    path = write_report(unfinished, samples=3)
    assert path == report_path(unfinished) == unfinished / "report.html"
    assert [(row.id, row.text) for row in gather(unfinished, samples=3).samples] == [
        ("in.jsonl:0", "<0>"),
        ("in.jsonl:1", "<1>"),
        ("in.jsonl:2", "<2>"),
    ]
    assert "&lt;2&gt;" in path.read_text()
    assert "&lt;2&gt;" not in write_report(unfinished).read_text()
    assert not list(unfinished.glob(".*"))
    # A new driver takes the directory for its own as before.
    open_output(unfinished, {"model": {"order": ["x"], "annotations": {"x": {}}}}).close()


def test_what_is_no_output_or_damaged_is_said(tmp_path: Path, unfinished: Path):
    with pytest.raises(OutputError, match="is no output of xlmr annotate"):
        write_report(tmp_path / "nowhere")
    record = unfinished / "run" / "commits" / "000001.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"stats": {"codes": {"null": "many"}}}))
    with pytest.raises(OutputError, match="commit record of shard 1 is damaged"):
        write_report(unfinished)
    (unfinished / "run" / "plan.json").write_text("{}")
    with pytest.raises(OutputError, match=r"plan\.json: plan cannot be read"):
        write_report(unfinished)
