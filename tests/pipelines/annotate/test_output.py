import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.lease import OutputError
from pipelines.annotate.output import Output, open_output
from pipelines.annotate.plan import Plan, make_plan
from pipelines.annotate.read import read_shard
from pipelines.annotate.verify import verify

JOB = {"model": {"sha256": "a" * 64, "dtype": "float32"}, "max_length": 512, "text_column": "text"}


def commit_all(output: Output, plan: Plan, shards: range | None = None) -> None:
    for index in shards or range(len(plan.shards)):
        records = read_shard(plan.shards[index], plan.columns)
        good = [i for i in range(len(records)) if i not in records.problems]
        table = pa.table(
            {"id": records.ids.take(pa.array(good, pa.int64())), "status": pa.array(["ok"] * len(good), pa.string())}
        )
        output.writer().commit(index, len(records), table, records.quarantine(records.problems, "read"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": null}\n{"text": "c"}\n{"text": "d"}\n{"text": "e"}\n')
    return make_plan(expand_inputs([tmp_path / "in.jsonl"]), Columns(), shard_rows=2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def test_a_job_goes_from_new_over_resumable_to_finished(out: Path, plan: Plan):
    with open_output(out, JOB) as output:
        assert output.state == "new"
        output.save_plan(plan)
        commit_all(output, plan, range(1))
    with open_output(out, JOB) as output:
        assert output.state == "resumable"
        assert output.load_plan() == plan
        assert output.committed() == {0}
        commit_all(output, plan, range(1, 3))
        manifest = output.finalise(plan)
    assert manifest["totals"]["rows"] == 5
    assert (manifest["totals"]["ok"], manifest["totals"]["quarantined"]) == (4, 1)
    assert manifest["fingerprint"] == JOB
    assert [commit.shard for commit in output.commits()] == [0, 1, 2]
    done = subprocess.run(["sha256sum", "-c", "_SUCCESS"], cwd=out, capture_output=True, check=False)
    assert done.returncode == 0
    with open_output(out, dict(reversed(JOB.items()))) as output:
        assert output.state == "finished"
    assert not list((out / "run/tmp").iterdir())


def test_the_same_job_with_other_input_files_is_told_so(out: Path, plan: Plan):
    with open_output(out, JOB | {"inputs": {"sha256": "b" * 64, "files": 3}}) as output:
        output.save_plan(plan)
    with pytest.raises(OutputError, match=r"job of other input files: some were added, removed or changed.*put them"):
        open_output(out, JOB | {"inputs": {"sha256": "c" * 64, "files": 2}})


def test_another_job_is_refused_with_every_difference(out: Path, plan: Plan):
    open_output(out, JOB).close()
    other = {"model": {"sha256": "b" * 64, "dtype": "float32"}, "max_length": 128, "pair_column": "b"}
    with pytest.raises(OutputError) as error:
        open_output(out, other)
    lines = str(error.value).splitlines()
    assert "another --output, or delete" in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        "max_length: 512 there, 128 asked now",
        f"model.sha256: {'a' * 64} there, {'b' * 64} asked now",
        "pair_column: (absent) there, b asked now",
        "text_column: text there, (absent) asked now",
    ]
    open_output(out, JOB).close()


def test_a_second_driver_is_refused_while_the_first_works(out: Path):
    with open_output(out, JOB), pytest.raises(OutputError, match="in use by process"):
        open_output(out, JOB)


@pytest.mark.parametrize("name", ["notes.txt", "data/part-000000.parquet", "run/notes.txt", ".hidden"])
def test_a_directory_that_is_not_ours_is_left_alone(out: Path, name: str):
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("precious")
    with pytest.raises(OutputError, match="not empty and not an output"):
        open_output(out, JOB)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / name]


def test_unusable_places_are_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        open_output(tmp_path / "file", JOB)
    with pytest.raises(OutputError, match="cannot be used as output"):
        open_output(tmp_path / "file" / "below", JOB)
    with pytest.raises(OutputError, match="must be JSON values"):
        open_output(tmp_path / "out", {"path": tmp_path})


def test_what_is_missing_or_wrong_stops_the_manifest(out: Path, plan: Plan):
    with open_output(out, JOB) as output:
        output.save_plan(plan)
        commit_all(output, plan, range(2))
        with pytest.raises(OutputError, match=r"1 shards are not committed \[2\]"):
            output.finalise(plan)
    with open_output(out, JOB) as output:
        commit_all(output, plan)
        stray = out / "data/part-x.parquet"
        stray.write_text("")
        with pytest.raises(OutputError, match=r"did not write.*part-x\.parquet"):
            output.finalise(plan)
        stray.unlink()
        part = out / "data/part-000001.parquet"
        content = part.read_bytes()
        part.write_bytes(content + b"x")
        with pytest.raises(OutputError, match=r"part-000001\.parquet has \d+ bytes"):
            output.finalise(plan)
        part.unlink()
        with pytest.raises(OutputError, match=r"part-000001\.parquet is committed but cannot be read"):
            output.finalise(plan)
        assert not (out / "_SUCCESS").exists()
        part.write_bytes(content)
        output.finalise(plan)


def test_a_job_without_records_finishes(tmp_path: Path, out: Path):
    (tmp_path / "empty.txt").write_text("")
    plan = make_plan(expand_inputs([tmp_path / "empty.txt"]), Columns(), shard_rows=2)
    with open_output(out, JOB) as output:
        output.save_plan(plan)
        assert output.finalise(plan)["totals"]["rows"] == 0


def test_the_manifest_lasts_before_the_sign_of_success_appears(out: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append(f"rename {target.name}")
        replace(source, target)

    with open_output(out, JOB) as output:
        output.save_plan(plan)
        commit_all(output, plan)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", renamed)
        output.finalise(plan)
        monkeypatch.undo()
    assert events[-6:] == [
        "sync .manifest.json.tmp", "rename manifest.json", "sync out",
        "sync ._SUCCESS.tmp", "rename _SUCCESS", "sync out",
    ]  # fmt: skip


CRASHES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pyarrow.parquet, pyarrow.compute
from pipelines.annotate import durable
from pipelines.annotate.output import open_output
from pipelines.annotate.plan import make_plan
from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.verify import verify
from test_output import JOB, commit_all

source, folder, twice = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "twice"

def run(out, crash_at):
    count = 0
    def step(name):
        nonlocal count
        if count == crash_at:
            os.write(1, (name + "\\n").encode())
            os._exit(137)
        count += 1
    durable.step = step
    with open_output(out, JOB) as output:
        if output.state == "finished":
            return
        if output.state == "new":
            output.save_plan(make_plan(expand_inputs([source]), Columns(), shard_rows=2))
        plan = output.load_plan()
        for index in sorted(set(range(len(plan.shards))) - output.committed()):
            commit_all(output, plan, range(index, index + 1))
        output.finalise(plan)

def forked(out, crash_at):
    pid = os.fork()
    if pid == 0:
        try:
            run(out, crash_at)
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 137), code
    return code == 137

def check(out):
    report = verify(out)
    assert report.passed and report.inputs_rechecked and report.rows == 5, report
    assert not list((out / "run/tmp").iterdir())

# Whatever libraries load on first use is loaded before the first fork.
run(folder / "warm", -1)
check(folder / "warm")
first = 0
while True:
    crashed, second = True, 0
    while crashed:
        out = folder / f"{first}-{second}"
        crashed = forked(out, first)
        if not crashed:
            break
        again = twice and forked(out, second)
        assert not forked(out, -1)
        check(out)
        second += 1
        if not again:
            break
    if not crashed:
        check(out)
        break
    first += 1
os.write(1, f"{first} steps\\n".encode())
"""


def crash_everywhere(tmp_path: Path, plan: Plan, mode: str) -> list[str]:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, here, plan.files[0].path, tmp_path, mode],
        capture_output=True, text=True, timeout=600, check=False, cwd=here.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_after_a_crash_at_any_step_a_second_run_finishes_with_every_row_once(tmp_path: Path, plan: Plan):
    *steps, _ = crash_everywhere(tmp_path, plan, "once")
    kinds = {step.split(":")[0] for step in steps}
    assert kinds >= {"open", "lease", "install", "commit", "publish", "recover", "finalise"}
    assert len(steps) > 35


@pytest.mark.slow
def test_after_crashes_at_any_two_steps_a_third_run_finishes_with_every_row_once(tmp_path: Path, plan: Plan):
    assert len(crash_everywhere(tmp_path, plan, "twice")) > 1000


def test_the_manifest_is_json_that_names_inputs_and_parts(out: Path, plan: Plan):
    with open_output(out, JOB) as output:
        output.save_plan(plan)
        commit_all(output, plan)
        output.finalise(plan)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["inputs"][0]["name"] == "in.jsonl"
    assert manifest["inputs"][0]["rows"] == 5
    assert [file["path"] for file in manifest["shards"][0]["files"]] == [
        "data/part-000000.parquet",
        "quarantine/part-000000.parquet",
    ]


def test_what_a_network_file_system_keeps_of_open_files_harms_nothing(out: Path, plan: Plan):
    with open_output(out, JOB) as output:
        output.save_plan(plan)
        commit_all(output, plan)
        (output.writer().folder / ".nfs0001").touch()
        (out / "data/.nfs0002").touch()
    with open_output(out, JOB) as output:
        output.finalise(plan)
    assert verify(out).passed


def test_a_lease_that_cannot_be_given_back_hides_no_error(
    out: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    output = open_output(out, JOB)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RuntimeError, match="the real one"), output:
        raise RuntimeError("the real one")
    assert "lease not released" in caplog.text
