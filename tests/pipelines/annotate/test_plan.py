import csv
import errno
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.annotate import plan as plan_module
from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import InputFile, expand_inputs
from pipelines.annotate.plan import Plan, Shard, make_plan
from pipelines.annotate.read import Records, ShardReader
from pipelines.annotate.records import RecordScanner
from xlmr_core.errors import InputError

COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: zstd(data),
}


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@contextmanager
def file_with(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


@contextmanager
def chunks_of(size: int) -> Iterator[None]:
    """Plans in chunks so small that every construct gets cut somewhere."""
    with mock.patch.object(plan_module, "CHUNK_BYTES", size):
        yield


def read_all(plan: Plan) -> list[Records]:
    with ShardReader(plan.columns) as reader:
        return [reader.read(shard) for shard in plan.shards]


def texts_of(path: Path, *, shard_rows: int, columns: Columns | None = None, **options: object) -> list[str | None]:
    plan = make_plan(expand_inputs([path]), columns or Columns(), shard_rows=shard_rows, **options)  # type: ignore[arg-type]
    assert not plan.unreadable
    assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))
    assert all(shard.rows > 0 for shard in plan.shards)
    records = read_all(plan)
    assert [len(one) for one in records] == [shard.rows for shard in plan.shards]
    return [text for one in records for text in one.texts]


# Files and other processes on the machine make timings meaningless.
relaxed = settings(deadline=None)
# No surrogates: they cannot be written as UTF-8.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SHARD_ROWS = st.integers(1, 7)
CHUNK = st.integers(1, 9)
SUFFIX = st.sampled_from(sorted(COMPRESS))


@relaxed
@given(
    st.lists(TEXT, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    SHARD_ROWS,
    CHUNK,
    SUFFIX,
)
def test_shards_of_text_are_the_lines_of_the_file(lines, end, closed, mark, shard_rows, chunk, suffix):
    content = end.join(lines) + (end if closed else "")
    data = (b"\xef\xbb\xbf" if mark else b"") + content.encode()
    expected = content.split("\n")
    if not expected[-1]:
        expected.pop()
    # A byte order mark that stands in the text itself is one, too.
    if not mark and expected and expected[0].startswith("\ufeff"):
        expected[0] = expected[0][1:]
        if expected == [""]:
            expected = []
    with file_with(COMPRESS[suffix](data), f"a.txt{suffix}") as path, chunks_of(chunk):
        if not data and suffix:
            return
        assert texts_of(path, shard_rows=shard_rows) == [line.removesuffix("\r") for line in expected]


@relaxed
@given(
    st.lists(st.none() | TEXT, max_size=12),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
    SHARD_ROWS,
    CHUNK,
    SUFFIX,
)
def test_shards_of_json_lines_are_its_objects(texts, end, closed, shard_rows, chunk, suffix):
    lines = [json.dumps({"text": text}, ensure_ascii=len(text or "") % 2 == 0) for text in texts]
    data = (end.join(lines) + (end if closed else "")).encode()
    with file_with(COMPRESS[suffix](data), f"a.jsonl{suffix}") as path, chunks_of(chunk):
        if not data and suffix:
            return
        assert texts_of(path, shard_rows=shard_rows) == texts


@relaxed
@given(
    st.lists(st.tuples(TEXT, TEXT), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.booleans(),
    SHARD_ROWS,
    CHUNK,
    SUFFIX,
    st.sampled_from(["csv", "tsv"]),
)
def test_shards_of_csv_are_the_rows_that_were_written(rows, end, quoting, mark, shard_rows, chunk, suffix, format):
    # Python 3.11 does not quote a lone return in front of a bare line feed: what it writes then is ambiguous.
    assume(end != "\n" or quoting != csv.QUOTE_MINIMAL or not any("\r" in left + right for left, right in rows))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator=end, quoting=quoting, delimiter="," if format == "csv" else "\t")
    writer.writerows([("id", "text"), *(("i" + left, right) for left, right in rows)])
    data = (b"\xef\xbb\xbf" if mark else b"") + sink.getvalue().encode()
    with file_with(COMPRESS[suffix](data), f"a.{format}{suffix}") as path, chunks_of(chunk):
        assert texts_of(path, shard_rows=shard_rows) == [right for _, right in rows]


@settings(max_examples=400, deadline=None)
@given(st.text(st.sampled_from('a",\r\n'), max_size=40), SHARD_ROWS, CHUNK)
def test_any_csv_however_broken_is_cut_where_python_cuts_it(body, shard_rows, chunk):
    whole = io.StringIO("text\n" + body + "\nend", newline="")
    expected = [row[0] if len(row) == 1 else None for row in list(csv.reader(whole))[1:] if row]
    unterminated = expected[-1] != "end"
    if unterminated:
        expected[-1] = None
    with file_with(b"text\n" + body.encode() + b"\nend", "a.csv") as path, chunks_of(chunk):
        assert texts_of(path, shard_rows=shard_rows) == expected


@relaxed
@given(st.lists(st.binary(max_size=6), max_size=9), st.sampled_from(["text", "jsonl", "csv", "tsv"]))
def test_where_records_end_does_not_depend_on_chunks(chunks, format):
    def ends(pieces: list[bytes]) -> tuple[list[int], bool]:
        scanner = RecordScanner(format)
        found = [scanner.feed(piece) for piece in pieces]
        return np.concatenate([*found, scanner.finish()]).tolist(), scanner.inside_quotes

    assert ends(chunks) == ends([b"".join(chunks)])


@relaxed
@given(st.integers(0, 60), st.integers(1, 30), SHARD_ROWS)
def test_shards_of_parquet_are_its_rows(count, group_rows, shard_rows):
    texts = [f"text {i}" for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=group_rows)
        assert texts_of(path, shard_rows=shard_rows) == texts


@relaxed
@given(
    st.integers(1, 70), SHARD_ROWS, SHARD_ROWS, st.floats(0.05, 1.0), st.integers(0, 9), st.none() | st.integers(1, 80)
)
def test_sample_and_limit_do_not_depend_on_shard_size(count, one, two, sample, seed, limit):
    with file_with("".join(f"{i}\n" for i in range(count)).encode(), "a.txt") as path:
        options = {"sample": sample, "seed": seed}
        everything = texts_of(path, shard_rows=one, **options)
        assert texts_of(path, shard_rows=two, limit=limit, **options) == everything[:limit]


def test_a_sample_takes_about_its_share_and_depends_on_its_seed(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{i}\n" for i in range(20_000)))
    first, second = (texts_of(path, shard_rows=500, sample=0.1, seed=seed) for seed in (1, 2))
    assert 1800 < len(first) < 2200
    assert first != second
    assert 100 < len(set(first) & set(second)) < 320


def test_limit_counts_over_all_files(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{i}\n" for i in range(10)))
    assert texts_of(tmp_path, shard_rows=4, limit=13) == [f"a{i}" for i in range(10)] + ["b0", "b1", "b2"]


def test_the_same_inputs_in_any_order_make_the_same_plan(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" * 5)
    one = make_plan(expand_inputs([tmp_path / "a.txt", tmp_path / "b.txt"]), Columns(), shard_rows=2)
    two = make_plan(expand_inputs([tmp_path / "b.txt", tmp_path / "a.txt"]), Columns(), shard_rows=2)
    other = make_plan(expand_inputs([tmp_path / "b.txt", tmp_path / "c.txt"]), Columns(), shard_rows=2)
    assert one == two
    assert one.to_json() == two.to_json()
    assert one.inputs_digest() == two.inputs_digest() != other.inputs_digest()
    coarse = make_plan(expand_inputs([tmp_path / "a.txt", tmp_path / "b.txt"]), Columns(), shard_rows=9)
    assert coarse.inputs_digest() == one.inputs_digest()


def test_a_plan_survives_its_json(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x\n" * 9)
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"")
    for columns in (Columns(), Columns(keep=("n",))):
        plan = make_plan(expand_inputs([tmp_path]), columns, shard_rows=2, limit=9, sample=0.5, seed=3)
        assert plan.unreadable
        assert Plan.from_json(plan.to_json()) == plan
        assert all(Shard.from_dict(json.loads(json.dumps(shard.to_dict()))) == shard for shard in plan.shards)
    with pytest.raises(InputError, match="plan cannot be read"):
        Plan.from_json('{"version": 0}')


def test_large_records_make_smaller_shards(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x" * 60 + "\n" + "y" * 10 + "\n" + "z" * 500 + "\n" + "w\n" * 3)
    with mock.patch.object(plan_module, "MAX_SHARD_BYTES", 100):
        plan = make_plan(expand_inputs([tmp_path]), Columns(), shard_rows=50)
    assert [shard.rows for shard in plan.shards] == [2, 1, 3]


def test_every_file_that_cannot_be_read_is_reported_and_the_rest_is_planned(tmp_path: Path):
    good = pa.table({"text": ["a"], "lang": ["de"]})
    pq.write_table(good, tmp_path / "good.parquet")
    pq.write_table(good.rename_columns(["txet", "lang"]), tmp_path / "missing.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "number.parquet")
    whole = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    (tmp_path / "magic.parquet").write_bytes(b"PAR0" + whole[4:-4] + b"PAR0")
    (tmp_path / "zero.parquet").write_bytes(b"")
    (tmp_path / "footer.parquet").write_bytes(whole[:-8] + b"\xff\xff\xff\x7fPAR1")
    (tmp_path / "zero.csv").write_bytes(b"")
    (tmp_path / "zero.txt.gz").write_bytes(b"")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"a\nb\n" * 999)[:-9])
    (tmp_path / "cut.txt.zst").write_bytes(zstd(b"a\nb\n" * 999)[:-3])
    (tmp_path / "plain.txt.gz").write_bytes(b"not compressed")
    (tmp_path / "wide.txt").write_bytes("a\n".encode("utf-16"))
    (tmp_path / "array.json").write_bytes(b'[{"text": "a"}]')
    (tmp_path / "pretty.json").write_bytes(json.dumps({str(i): i for i in range(20)}, indent=1).encode())
    (tmp_path / "keys.jsonl").write_bytes(b'{"txt": "a", "o": {"text": "b"}}\n')
    (tmp_path / "double.csv").write_bytes(b"text,text\na,b\n")
    (tmp_path / "fine.txt").write_bytes(b"")
    plan = make_plan(expand_inputs([tmp_path]), Columns(), shard_rows=10)
    assert plan.names == ("fine.txt", "good.parquet")
    assert {Path(entry.path).name: entry.code for entry in plan.unreadable} == {
        "array.json": "not_json_lines",
        "cut.parquet": "unreadable",
        "cut.txt.gz": "unreadable",
        "cut.txt.zst": "unreadable",
        "double.csv": "duplicate_column",
        "footer.parquet": "unreadable",
        "keys.jsonl": "missing_column",
        "magic.parquet": "unreadable",
        "missing.parquet": "missing_column",
        "number.parquet": "wrong_type",
        "plain.txt.gz": "unreadable",
        "pretty.json": "not_json_lines",
        "wide.txt": "not_utf8",
        "zero.csv": "empty_file",
        "zero.parquet": "empty_file",
        "zero.txt.gz": "empty_file",
    }
    for entry in plan.unreadable:
        assert entry.path in entry.message
        assert "; " in entry.message
    missing = next(entry for entry in plan.unreadable if "missing.parquet" in entry.path)
    assert missing.usage
    assert "'text' is perhaps 'txet'" in missing.message
    assert "txet, lang" in missing.message


@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
def test_a_file_we_may_not_read_is_reported(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    files = opened_with(errno.EACCES, tmp_path / name, monkeypatch)
    (entry,) = make_plan(files, Columns(), shard_rows=1).unreadable
    assert (entry.code, entry.usage) == ("unreadable", False)
    assert "Permission denied" in entry.message


@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOENT])
def test_a_failing_system_ends_the_planning_and_drops_no_file(
    tmp_path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
):
    files = opened_with(number, tmp_path / name, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(number)):
        make_plan(files, Columns(), shard_rows=1)


def opened_with(number: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[InputFile]:
    """A file whose opening fails as the system says."""
    path.write_bytes(b"a\n")
    files = expand_inputs([path])

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pa, "OSFile", fail)
    monkeypatch.setattr("builtins.open", fail)
    return files


def test_a_file_that_changes_while_it_is_planned_ends_the_planning(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a\n")
    files = expand_inputs([tmp_path])
    (tmp_path / "a.txt").write_text("a\nb\n")
    with pytest.raises(OSError, match="changed after it was planned"):
        make_plan(files, Columns(), shard_rows=1)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_decompression_bomb_is_refused_early(tmp_path: Path, suffix: str):
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESS[suffix](bytes(100 << 20)))
    (entry,) = make_plan(expand_inputs([tmp_path]), Columns(), shard_rows=1).unreadable
    assert entry.code == "decompression_bomb"


FLIP_EVERY_FOOTER_BYTE = """
import sys
from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.plan import make_plan
with open(sys.argv[1], "rb") as file:
    sound = file.read()
footer = int.from_bytes(sound[-8:-4], "little")
for at in range(len(sound) - 8 - footer, len(sound) - 8):
    for bit in (1, 4):
        damaged = bytearray(sound)
        damaged[at] ^= bit
        with open(sys.argv[1], "wb") as file:
            file.write(damaged)
        make_plan(expand_inputs([sys.argv[1]]), Columns(), shard_rows=1 << 62)
"""


def test_a_parquet_bomb_is_refused_early(tmp_path: Path):
    texts = pa.array(["x" * (1 << 20)]).take(pa.array([0] * 100))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    (entry,) = make_plan(expand_inputs([tmp_path]), Columns(), shard_rows=1).unreadable
    assert entry.code == "decompression_bomb"


def test_no_damage_to_a_parquet_footer_ends_the_process(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x", "y"]}), path, row_group_size=1)
    done = subprocess.run([sys.executable, "-c", FLIP_EVERY_FOOTER_BYTE, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kept_columns_take_the_type_that_fits_all_files(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "n": pa.array([2], pa.int64())}), tmp_path / "b.parquet")
    plan = make_plan(expand_inputs([tmp_path]), Columns(keep=("n",)), shard_rows=5)
    kept = [one.keep for one in read_all(plan)]
    assert [table.schema.field("n").type for table in kept] == [pa.int64(), pa.int64()]
    (tmp_path / "c.jsonl").write_text('{"text": "c", "n": 3}\n')
    with pytest.raises(InputError, match=r"'n' is string in .*c\.jsonl but int64"):
        make_plan(expand_inputs([tmp_path]), Columns(keep=("n",)), shard_rows=5)


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (pa.int64(), pa.float64(), None),
        (pa.timestamp("ms"), pa.timestamp("ns"), None),
        (pa.int64(), pa.uint64(), None),
        (pa.list_(pa.int64()), pa.list_(pa.float64()), None),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.timestamp("ms"), pa.timestamp("ms")),
        (pa.list_(pa.int8()), pa.list_(pa.int16()), pa.list_(pa.int16())),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.decimal128(5, 2), pa.decimal128(9, 2), pa.decimal128(9, 2)),
    ],
)
def test_a_kept_column_has_a_type_that_holds_every_value_or_none(
    tmp_path: Path, first: pa.DataType, second: pa.DataType, common: pa.DataType | None
):
    for name, type in (("a", first), ("b", second)):
        table = pa.table({"text": ["x"], "n": pa.nulls(1, type)})
        with pa.OSFile(str(tmp_path / f"{name}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    files = expand_inputs([tmp_path / "a.arrow", tmp_path / "b.arrow"], format="arrow")
    if common is None:
        with pytest.raises(InputError, match="one type must hold every value") as caught:
            make_plan(files, Columns(keep=("n",)), shard_rows=5)
        assert caught.value.code == "keep_types"
    else:
        plan = make_plan(files, Columns(keep=("n",)), shard_rows=5)
        assert plan.columns.keep_schema().field("n").type == common
        assert not any(one.problems for one in read_all(plan))


@pytest.mark.parametrize(
    "options", [{"shard_rows": 0}, {"shard_rows": 1, "limit": 0}, {"shard_rows": 1, "sample": 0.0}]
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, options: dict[str, int]):
    with pytest.raises(InputError, match="must be"):
        make_plan([], Columns(), **options)  # type: ignore[arg-type]
