import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.annotate import stages
from pipelines.annotate.columns import Columns
from pipelines.annotate.commit import Commit, ShardWriter, commit_path
from pipelines.annotate.encoded import shard_row
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.plan import Plan, make_plan
from pipelines.annotate.rows import parse_tasks
from pipelines.annotate.stages import ModelStage, Receipt, StageSettings, TokeniseStage
from xlmr_core.graph import GraphPlan

pytestmark = pytest.mark.usefixtures("local_ray")


class SlowWriter(ShardWriter):
    """Commits when it may, and says when it would like to."""

    wants, may = threading.Event(), threading.Event()

    def commit(self, *arguments: Any) -> Commit:
        self.wants.set()
        self.may.wait(10)
        return super().commit(*arguments)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "in.txt").write_text("eins\nzwei\ndrei\n")
    return make_plan(expand_inputs([tmp_path / "in.txt"]), Columns(), shard_rows=1)


@pytest.fixture
def settings(tmp_path: Path, plan: Plan, tasks: list[str]) -> StageSettings:
    for folder in ("run/tmp/lease", "run/commits", "data", "quarantine"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    return StageSettings(
        plan=GraphPlan.resolve(parse_tasks(tasks[:1])),
        columns=plan.columns,
        writer=ShardWriter(tmp_path / "out", "lease"),
        stop=tmp_path / "out/run/tmp/lease/.stop",
        fingerprint="f",
        fail_on_error=False,
        device="cpu",
        dtype="float32",
        max_tokens=None,
        threads=1,
    )


def request(plan: Plan, index: int) -> pa.Table:
    return pa.Table.from_pylist([shard_row(plan.shards[index])])


def receipt(table: pa.Table) -> Receipt:
    (one,) = Receipt.from_table(table)
    return one


@pytest.mark.parametrize("stopped_at", ["tokenise", "model"])
def test_a_worker_skips_a_shard_only_after_the_one_it_computed_is_committed(
    settings: StageSettings, plan: Plan, stopped_at: str
):
    SlowWriter.wants.clear()
    SlowWriter.may.clear()
    settings = replace(settings, writer=SlowWriter(settings.writer.root, "lease"))
    tokenise, model = TokeniseStage(settings), ModelStage(settings)
    first, second = (tokenise(request(plan, index)) for index in range(2))
    done: dict[str, Receipt] = {}

    def call(name: str, row: pa.Table) -> threading.Thread:
        thread = threading.Thread(target=lambda: done.update({name: receipt(model(row))}))
        thread.start()
        return thread

    computing = call("first", first)
    assert SlowWriter.wants.wait(30)
    settings.stop.touch()
    if stopped_at == "tokenise":
        second = tokenise(request(plan, 1))
    skipping = call("second", second)
    time.sleep(0.2)
    assert not done, "the driver takes a skipped shard for the worker's last word"
    SlowWriter.may.set()
    computing.join()
    skipping.join()
    assert (done["first"].state, done["second"].state) == ("committed", "skipped")
    assert commit_path(settings.writer.root, 0).exists()
    assert not commit_path(settings.writer.root, 1).exists()


def test_what_an_unforeseen_exception_says_is_for_debugging_only(
    settings: StageSettings, plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise KeyError("words of a user")

    row = TokeniseStage(settings)(request(plan, 0))
    monkeypatch.setattr(stages, "annotation_arrays", fail)
    got = receipt(ModelStage(settings)(row))
    assert got.state == "failed"
    assert "KeyError" in got.error
    assert "words of a user" not in got.error + caplog.text
    assert "words of a user" in got.details
    refusal = TokeniseStage(replace(settings, columns=replace(settings.columns, text="text")))
    monkeypatch.setattr(refusal._reader, "read", fail)
    values = json.loads(refusal(request(plan, 0)).column("refusal")[0].as_py())
    assert "words of a user" not in values["error"] + caplog.text


def test_a_computing_worker_gives_signs_of_life(settings: StageSettings, plan: Plan):
    ModelStage(settings)(TokeniseStage(settings)(request(plan, 0)))
    assert [path.name.split("-")[0] for path in settings.writer.folder.iterdir()] == [".heartbeat"]
