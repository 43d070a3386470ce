import gzip
import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.output import open_output
from pipelines.annotate.plan import make_plan
from pipelines.annotate.read import ShardReader
from pipelines.annotate.recount import Rows, _lines, _taken
from pipelines.annotate.selection import sampled
from pipelines.annotate.verify import Report, verify


def annotate(inputs: Path, out: Path, columns: Columns | None = None, **options: Any) -> Report:
    """A whole job without a model."""
    plan = make_plan(expand_inputs([inputs]), columns or Columns(), **{"shard_rows": 3} | options)
    with open_output(out, {"job": 1}) as output, ShardReader(plan.columns) as reader:
        output.save_plan(plan)
        for shard in plan.shards:
            records = reader.read(shard)
            good = pa.array([i for i in range(len(records)) if i not in records.problems], pa.int64())
            count = pa.array([4] * len(good), pa.int32())
            table = pa.table(
                {
                    "id": records.ids.take(good),
                    "status": pa.array(["ok"] * len(good), pa.string()),
                    "n_tokens": count,
                    "n_tokens_used": count,
                }
            )
            output.writer().commit(shard.index, shard.rows, table, records.quarantine(records.problems, "read"))
        output.finalise(plan)
    return verify(out)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    rows = [{"id": i % 5, "text": None if i == 4 else f"text {i}"} for i in range(10)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = annotate(tmp_path / "in.jsonl", tmp_path / "out", Columns(id="id"))
    assert report.passed, report.problems
    assert (report.shards, report.rows, report.ok, report.quarantined) == (4, 10, 9, 1)
    assert report.inputs_rechecked
    return tmp_path / "out"


def reseal(out: Path) -> None:
    """Makes hashes and counts of a changed output agree again: what only a rereading of the inputs can find."""
    manifest = json.loads((out / "manifest.json").read_text())
    totals = {"ok": 0, "quarantined": 0, "tokens": 0, "statuses": {}, "ids_ok": 0, "ids_quarantined": 0}
    for entry in manifest["shards"]:
        for file in entry["files"]:
            kind = "ok" if file["path"].startswith("data") else "quarantined"
            content, table = (out / file["path"]).read_bytes(), pq.read_table(out / file["path"])
            ids = sum(
                int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=16).digest(), "little")
                for value in table["id"].to_pylist()
            )
            entry[f"ids_{kind}"] = f"{ids % 2**128:032x}"
            entry[kind] = len(table)
            totals[f"ids_{kind}"] += ids
            totals[kind] += len(table)
            if kind == "ok":
                entry["tokens"] = sum(table["n_tokens"].to_pylist())
                entry["statuses"] = {"ok": len(table)} if len(table) else {}
                totals["tokens"] += entry["tokens"]
                totals["statuses"]["ok"] = totals["statuses"].get("ok", 0) + len(table)
            file |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "rows": len(table)}
        entry["planned"] = entry["ok"] + entry["quarantined"]
        commit = out / f"run/commits/{entry['shard']:06d}.json"
        record = json.loads(commit.read_text()) | entry
        del record["commit_sha256"]
        commit.write_text(json.dumps(record))
        entry["commit_sha256"] = hashlib.sha256(commit.read_bytes()).hexdigest()
    plan = json.loads((out / "run/plan.json").read_text())
    for shard, entry in zip(plan["shards"], manifest["shards"], strict=True):
        shard[-1] = entry["planned"]
    (out / "run/plan.json").write_text(json.dumps(plan))
    manifest["run_sha256"]["plan.json"] = hashlib.sha256((out / "run/plan.json").read_bytes()).hexdigest()
    totals["rows"] = totals["ok"] + totals["quarantined"]
    for key in ("ids_ok", "ids_quarantined"):
        totals[key] = f"{totals[key] % 2**128:032x}"
    manifest["totals"] |= totals
    (out / "manifest.json").write_text(json.dumps(manifest))
    digest = hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    (out / "_SUCCESS").write_text(f"{digest}  manifest.json\n")


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path, compression="zstd")


def with_ids(*ids: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(0, "id", pa.array(ids))


def test_resealing_alone_is_no_damage(out: Path):
    reseal(out)
    assert verify(out).passed


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda table: table.slice(1), "hold 9 rows, the inputs 10"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "hold 11 rows, the inputs 10"),
        (with_ids(0, 1, 1), "not the same ids"),
        (with_ids(0, 1, 7), "not the same ids"),
    ],
)
def test_rows_lost_doubled_or_swapped_are_found_even_when_all_hashes_agree(
    out: Path, change: Callable[[pa.Table], pa.Table], found: str
):
    rewrite(out / "data/part-000000.parquet", change)
    before = verify(out)
    assert "data/part-000000.parquet" in before.problems[0]
    reseal(out)
    assert len(verify(out).problems) == 1
    assert found in verify(out).problems[0]
    assert verify(out, recheck_inputs=False).passed


def test_rows_that_changed_places_between_files_are_no_loss(out: Path):
    rewrite(out / "data/part-000000.parquet", with_ids(2, 1, 0))
    reseal(out)
    assert verify(out).passed


def test_a_flipped_bit_in_any_file_is_found_and_the_file_is_named(out: Path):
    chance = random.Random(0)
    files = [path for path in out.rglob("*") if path.is_file() and "lease" not in path.parts]
    assert len(files) == 4 + 1 + 4 + 2 + 2
    for path in files:
        content = path.read_bytes()
        for at in sorted({0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(12))}):
            flipped = bytearray(content)
            flipped[at] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            assert any(path.name in problem for problem in verify(out).problems), (path, at)
        path.write_bytes(content)
    assert verify(out).passed


@pytest.mark.parametrize(
    "name",
    ["_SUCCESS", "manifest.json", "run/plan.json", "run/fingerprint.json", "run/commits/000001.json",
     "data/part-000002.parquet", "quarantine/part-000001.parquet"],
)  # fmt: skip
def test_a_missing_file_is_named(out: Path, name: str):
    (out / name).unlink()
    report = verify(out)
    assert any(name in problem for problem in report.problems)


@pytest.mark.parametrize("name", ["data/part-000099.parquet", "quarantine/x.parquet", "run/commits/000099.json"])
def test_a_stray_file_is_named(out: Path, name: str):
    shutil.copy(out / "data/part-000000.parquet", out / name)
    (problem,) = verify(out).problems
    assert name in problem


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("status", ["ok", "odd", "ok"], "has status ['odd']"),
        ("n_tokens", [4, -1, 4], "n_tokens is null or negative"),
        ("n_tokens_used", [4, 5, 4], "over n_tokens"),
        ("id", [0, None, 2], "rows without id"),
    ],
)
def test_senseless_columns_are_found(out: Path, column: str, values: list[Any], found: str):
    path = out / "data/part-000000.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    rewrite(path, lambda table: table.set_column(at, column, pa.array(values, table.schema.field(at).type)))
    reseal(out)
    assert any(found in problem for problem in verify(out).problems)


def test_a_changed_input_cannot_be_compared(out: Path):
    with (out.parent / "in.jsonl").open("a") as file:
        file.write("\n")
    (problem,) = verify(out).problems
    assert "input changed since the job" in problem
    assert verify(out, recheck_inputs=False).passed


def test_an_output_that_is_none_is_a_problem_not_a_crash(tmp_path: Path):
    assert not verify(tmp_path).passed
    for content in (b"{}", b"[]", b"\xff", b"null"):
        (tmp_path / "manifest.json").write_bytes(content)
        (tmp_path / "_SUCCESS").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
        assert not verify(tmp_path).passed


JSON_VALUE = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
LINES = st.lists(
    st.builds(lambda i, t: json.dumps({"id": i, "text": t}).encode(), JSON_VALUE, JSON_VALUE) | st.binary(max_size=8),
    max_size=12,
)
CELLS = st.lists(st.text('a1",\n\r', max_size=8) | st.just("i,t"), max_size=8)


@settings(deadline=None, max_examples=40)
@given(LINES, st.sampled_from([None, "id"]), st.sampled_from([1.0, 0.6]), st.none() | st.integers(1, 9))
def test_both_readers_of_json_lines_count_the_same_ids(tmp_path_factory, lines, id_column, sample, limit):
    folder = tmp_path_factory.mktemp("job")
    # With a good first line the columns exist, whatever follows.
    (folder / "a.jsonl").write_bytes(b"\n".join([b'{"id": "x", "text": "y"}', *lines]))
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"\n".join(lines))) if id_column is None else None
    report = annotate(folder, folder / "out", Columns(id=id_column), sample=sample, limit=limit)
    assert report.problems == []


@settings(deadline=None, max_examples=60)
@given(CELLS, st.sampled_from(["csv", "tsv"]), st.sampled_from([None, "id"]), st.booleans())
def test_both_readers_of_csv_count_the_same_ids(tmp_path_factory, cells, format, id_column, broken):
    folder = tmp_path_factory.mktemp("job")
    head = "id,text\n" if format == "csv" else "id\ttext\n"
    data = (head + "\n".join(cells)).encode() + (b"\n\xff,x\n" if broken else b"")
    (folder / f"a.{format}").write_bytes(data)
    report = annotate(folder, folder / "out", Columns(id=id_column))
    assert report.problems == []


def test_parquet_with_odd_ids_and_a_broken_page_is_verified_and_false_alarms_are_found(tmp_path: Path):
    (tmp_path / "in").mkdir()
    ids = pa.array([b"a", None, b"\xff", b"d"] * 25, pa.binary()).view(pa.string())
    path = tmp_path / "in" / "a.parquet"
    texts = [f"{i:050d}" for i in range(100)]
    pq.write_table(
        pa.table({"id": ids, "text": texts}), path, row_group_size=25, write_page_checksum=True, use_dictionary=False
    )
    sound = path.read_bytes()
    chunk = pq.read_metadata(path).row_group(2).column(1)
    damaged = bytearray(sound)
    damaged[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(damaged)
    report = annotate(tmp_path / "in", tmp_path / "out", Columns(id="id"), shard_rows=10)
    assert report.problems == []
    assert report.quarantined > 25
    stat = path.stat()
    path.write_bytes(sound)
    __import__("os").utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert any("reads well" in problem for problem in verify(tmp_path / "out").problems)


@pytest.mark.parametrize("shard_rows", [700, 5000])
def test_parquet_whose_ids_are_damaged_half_way_is_verified(tmp_path: Path, shard_rows: int):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.parquet"
    table = pa.table({"id": [f"{i:020d}" for i in range(5000)], "text": ["x"] * 5000})
    pq.write_table(table, path, write_page_checksum=True, use_dictionary=False, compression="none", data_page_size=1024)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    damaged = bytearray(path.read_bytes())
    # A page header, which is damaged for every reader, whether it looks at checksums or not.
    at = chunk.data_page_offset + chunk.total_compressed_size // 2
    damaged[at : at + 3000] = b"\xff" * 3000
    path.write_bytes(damaged)
    report = annotate(tmp_path / "in", tmp_path / "out", Columns(id="id"), shard_rows=shard_rows)
    assert report.problems == []
    assert 0 < report.quarantined < 5000


@pytest.mark.parametrize("shard_rows", [70, 500])
def test_rows_that_a_damaged_footer_hides_are_unreadable_and_the_others_keep_their_numbers(
    tmp_path: Path, shard_rows: int
):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.parquet"
    table = pa.table({"id": [f"p{row}" for row in range(300)], "text": ["words"] * 300})
    pq.write_table(table, path, row_group_size=100)
    data = path.read_bytes()
    # The 100 values of the first column chunk become a negative number: pyarrow reads none and raises nothing.
    count = data.index(b"\x16\xc8\x01", len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    path.write_bytes(data[:count] + b"\x16\xcf\x01" + data[count + 3 :])
    report = annotate(tmp_path / "in", tmp_path / "out", Columns(id="id"), shard_rows=shard_rows)
    assert report.problems == []
    assert (report.ok, report.quarantined) == (200, 100)
    ids = pq.read_table(tmp_path / "out" / "data")["id"].to_pylist()
    assert sorted(ids) == sorted(f"p{row}" for row in range(100, 300))


def test_a_saved_dataset_is_verified(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": list("abc"), "id": [1, 2, 3]}).save_to_disk(tmp_path / "in")
    assert annotate(tmp_path / "in", tmp_path / "out", Columns(id="id")).problems == []


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 2**70), st.floats(0.0, 0.999))
def test_both_samplers_take_the_same_rows(first, seed, fraction):
    assert sampled(first, 20, fraction, seed).tolist() == [
        _taken(row, fraction, seed) for row in range(first, first + 20)
    ]


@given(st.lists(st.integers(0, 30)))
def test_ranges_of_rows_hold_what_a_set_holds(rows):
    ranges = Rows()
    for row in rows:
        ranges.add(row)
    assert [row in ranges for row in range(32)] == [row in set(rows) for row in range(32)]
    assert bool(ranges) == bool(rows)


def test_a_broken_file_of_a_million_rows_is_one_range():
    ranges = Rows()
    for row in range(1_000_000):
        ranges.add(row)
    assert ranges._starts == [0]
    assert ranges._stops == [1_000_000]


@given(st.lists(st.sampled_from([b"", b"a", b"abcd", b"abcde", b"abcdef", b"a" * 13, b"\r"])), st.booleans())
def test_lines_of_any_size_are_counted_without_being_held(lines, closed):
    data = b"\n".join(lines) + b"\n" * closed
    got = list(_lines(io.BufferedReader(io.BytesIO(data)), 4))
    whole = io.BytesIO(data).readlines()
    assert [line[:5] for line in got] == [line.removesuffix(b"\n")[:5] for line in whole]
    assert all(len(line) <= 6 for line in got)
