import errno
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.annotate import durable
from pipelines.annotate.commit import ShardWriter, commit_path, multiset_hash, publish, read_commit
from pipelines.annotate.lease import OutputError
from pipelines.annotate.output import open_output
from pipelines.annotate.read import QUARANTINE_SCHEMA


def data(*ids: str) -> pa.Table:
    return pa.table({"id": list(ids), "status": ["ok"] * len(ids), "n_tokens": pa.array([3] * len(ids), pa.int32())})


def quarantine(*ids: str) -> pa.Table:
    rows = [{"id": i, "file": "a", "row": 0, "code": "null", "message": "m", "stage": "read"} for i in ids]
    return pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("run/tmp/lease", "run/commits", "data", "quarantine"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def writer(root: Path) -> ShardWriter:
    return ShardWriter(root, "lease")


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "run/tmp/lease").iterdir())


def test_a_commit_says_what_it_holds_and_its_files_are_in_place(root: Path, writer: ShardWriter):
    commit = writer.commit(3, 4, data("a", "b", "b"), quarantine("c"), {"seconds": 1.5})
    assert (commit.planned, commit.ok, commit.quarantined, commit.tokens) == (4, 3, 1, 9)
    assert commit.statuses == {"ok": 3}
    assert commit.stats == {"seconds": 1.5}
    assert [file.path for file in commit.files] == ["data/part-000003.parquet", "quarantine/part-000003.parquet"]
    assert pq.read_table(root / "data/part-000003.parquet") == data("a", "b", "b")
    assert read_commit(commit_path(root, 3)) == commit == writer.committed(3)
    assert leftovers(root) == []


def test_without_quarantined_rows_there_is_no_quarantine_file(root: Path, writer: ShardWriter):
    writer.commit(0, 1, data("a"), quarantine())
    assert not list((root / "quarantine").iterdir())
    assert writer.committed(1) is None


def test_equal_rows_make_equal_bytes(root: Path, writer: ShardWriter):
    one, two = (writer.commit(shard, 2, data("a", "b")).files[0].sha256 for shard in (0, 1))
    assert one == two


def test_the_second_attempt_gets_the_winners_record_and_leaves_nothing(
    root: Path, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
):
    def overtake(name: str) -> None:
        if name == "commit:link":
            monkeypatch.setattr(durable, "step", lambda name: None)
            winners.append(writer.commit(0, 1, data("first")))

    winners: list[Any] = []
    monkeypatch.setattr(durable, "step", overtake)
    assert writer.commit(0, 1, data("second")) == winners[0]
    assert pq.read_table(root / "data/part-000000.parquet")["id"].to_pylist() == ["first"]
    assert writer.commit(0, 1, data("third")) == winners[0]
    assert leftovers(root) == []


def test_of_attempts_at_the_same_time_one_counts(root: Path, writer: ShardWriter):
    for shard in range(20):
        barrier, commits = threading.Barrier(4), []

        def attempt(i: int, barrier=barrier, commits=commits, shard=shard) -> None:
            barrier.wait()
            commits.append(writer.commit(shard, 2, data(f"attempt {i}"), quarantine("q")))

        threads = [threading.Thread(target=attempt, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({commit.attempt for commit in commits}) == 1
        assert len(commits) == 4
        assert multiset_hash(pq.read_table(root / commits[0].files[0].path)["id"]) == commits[0].ids_ok
    assert leftovers(root) == []


def test_a_link_that_succeeded_but_was_reported_failed_still_wins(
    root: Path, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
):
    real = os.link

    def repeated(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "as a network file system repeats it")

    monkeypatch.setattr(os, "link", repeated)
    writer.commit(0, 1, data("a"))
    assert pq.read_table(root / "data/part-000000.parquet")["id"].to_pylist() == ["a"]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_full_disk_leaves_nothing_and_the_shard_can_be_committed_later(
    root: Path, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch, failing: int
):
    real, calls = durable.write, []

    def full(path: Path, content: Any) -> None:
        calls.append(path)
        real(path, content[: len(content) // 2])
        if len(calls) > failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        with pytest.raises(OutputError, match=r"No space left on device.*make room"):
            writer.commit(0, 2, data("a"), quarantine("b"))
    assert leftovers(root) == []
    assert writer.committed(0) is None
    writer.commit(0, 2, data("a"), quarantine("b"))


def test_an_error_after_the_link_keeps_the_committed_files(
    root: Path, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
):
    def fail(name: str) -> None:
        if name == "publish:data":
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "step", fail)
        with pytest.raises(OutputError, match="Input/output error"):
            writer.commit(0, 1, data("a"))
    commit = writer.committed(0)
    assert commit is not None
    publish(root, root / "run/tmp/lease", commit)
    publish(root, root / "run/tmp/lease", commit)
    assert (root / "data/part-000000.parquet").stat().st_size == commit.files[0].size
    (root / "data/part-000000.parquet").unlink()
    with pytest.raises(OutputError, match="committed but missing"):
        publish(root, root / "run/tmp/lease", commit)


def test_files_are_on_the_disk_before_the_record_that_names_them(
    root: Path, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def kind(path: str | Path) -> str:
        path = Path(path)
        return path.name if path.is_dir() else path.name.split(".", 2)[-1]

    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(f"sync {kind(os.readlink(f'/proc/self/fd/{fd}'))}"), fsync(fd))
    )
    monkeypatch.setattr(os, "link", lambda a, b: (events.append("link"), link(a, b)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(f"rename {kind(a)}"), replace(a, b)))
    writer.commit(0, 2, data("a"), quarantine("b"))
    assert events == [
        "sync data.parquet", "sync quarantine.parquet", "sync json", "sync lease",
        "link", "sync commits",
        "rename data.parquet", "sync data", "rename quarantine.parquet", "sync quarantine",
    ]  # fmt: skip


def take_over(root: Path) -> Any:
    output = open_output(root, {"job": 1})
    assert output.lease is not None
    return output


@pytest.mark.parametrize("step", ["commit:data", "commit:record", "commit:sync", "commit:link"])
def test_a_driver_that_lost_its_lease_cannot_commit_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    root = tmp_path / "out"
    old = take_over(root)
    zombie = old.writer()
    old.close()
    successors = []

    def stopped_here(name: str) -> None:
        if name == step:
            monkeypatch.setattr(durable, "step", lambda name: None)
            successors.append(take_over(root))

    monkeypatch.setattr(durable, "step", stopped_here)
    with pytest.raises(OutputError, match="lease was lost"):
        zombie.commit(0, 1, data("zombie"))
    successor = successors[0]
    assert successor.committed() == set()
    successor.writer().commit(0, 1, data("successor"))
    assert zombie.commit(0, 1, data("zombie")).ids_ok == multiset_hash(data("successor")["id"])
    successor.close()


@pytest.mark.parametrize("step", ["commit:linked", "publish:data", "publish:data-sync"])
def test_what_a_driver_committed_before_it_lost_its_lease_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    root = tmp_path / "out"
    old = take_over(root)
    zombie = old.writer()
    old.close()
    successors = []

    def stopped_here(name: str) -> None:
        if name == step:
            monkeypatch.setattr(durable, "step", lambda name: None)
            successors.append(take_over(root))

    monkeypatch.setattr(durable, "step", stopped_here)
    commit = zombie.commit(0, 2, data("a"), quarantine("b"))
    successor = successors[0]
    assert successor.writer().commit(0, 2, data("c"), quarantine("d")) == commit
    assert pq.read_table(root / "data")["id"].to_pylist() == ["a"]
    assert pq.read_table(root / "quarantine")["id"].to_pylist() == ["b"]
    successor.close()


def test_an_output_that_a_worker_cannot_see_is_not_a_lost_lease(tmp_path: Path):
    with pytest.raises(OutputError, match=r"not visible on this worker.* must be on a file system all workers share"):
        ShardWriter(tmp_path / "out", "lease").commit(0, 1, data("a"))
    held = take_over(tmp_path / "out")
    (tmp_path / "out/run/tmp" / held.lease.token).rmdir()
    with pytest.raises(OutputError, match="not visible on this worker"):
        held.writer().commit(0, 1, data("a"))
    held.close()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3)), st.randoms())
def test_the_multiset_hash_ignores_order_and_nothing_else(ids, random):
    shuffled = list(ids)
    random.shuffle(shuffled)
    assert multiset_hash(pa.array(ids, pa.string())) == multiset_hash(pa.array(shuffled, pa.string()))
    assert multiset_hash(pa.array(ids, pa.string())) != multiset_hash(pa.array([*ids, "x"], pa.string()))


def test_integer_ids_hash_as_their_digits():
    assert multiset_hash(pa.array([1, 22])) == multiset_hash(pa.array(["22", "1"]))
    assert multiset_hash(pa.array(["a", "a"])) != multiset_hash(pa.array(["a"]))


def test_a_damaged_record_is_named(root: Path, writer: ShardWriter):
    writer.commit(0, 1, data("a"))
    commit_path(root, 0).write_text("{}")
    with pytest.raises(OutputError, match=r"000000\.json is damaged"):
        writer.committed(0)


def test_nothing_can_be_committed_between_the_last_look_and_the_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "out"
    old = take_over(root)
    zombie = old.writer()
    old.close()
    written = zombie._write(0, "attempt", data("zombie"), None, {})
    tried = []

    def link_now(name: str) -> None:
        if name == "recover:delete":
            tried.append(name)
            with pytest.raises(FileNotFoundError):
                zombie._link(written)

    monkeypatch.setattr(durable, "step", link_now)
    successor = take_over(root)
    assert tried
    assert successor.committed() == set()
    successor.close()
