import gzip
import json
import os
import struct
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.annotate import columnar, lines, plan, read
from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.lines import parse_records
from pipelines.annotate.plan import Plan, make_plan
from pipelines.annotate.read import QUARANTINE_SCHEMA, Records, ShardReader, read_shard
from pipelines.annotate.recount import _json_value
from xlmr_core.errors import InputError


def plan_of(path: Path, columns: Columns | None = None, *, shard_rows: int = 100) -> Plan:
    made = make_plan(expand_inputs([path]), columns or Columns(), shard_rows=shard_rows)
    assert not made.unreadable, made.unreadable
    return made


def only(path: Path, columns: Columns | None = None) -> Records:
    made = plan_of(path, columns)
    (shard,) = made.shards
    return read_shard(shard, made.columns)


def codes(records: Records) -> dict[int, str]:
    for problem in records.problems.values():
        assert "secret" not in problem.message
    return {position: problem.code for position, problem in sorted(records.problems.items())}


def test_bad_lines_of_json_leave_their_neighbours_alone(tmp_path: Path):
    deep = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    rows = [
        (b'{"id": "a", "text": "good"}', None),
        (b'{"id": "b", "text": null}', "null"),
        (b'{"id": "c"}', "null"),
        (b'{"id": "d", "text": 7}', "not_a_string"),
        (b'{"id": "e", "text": NaN}', "not_a_string"),
        (b'{"id": "f", "text": ["secret"]}', "not_a_string"),
        (b'{"id": "g", "text": "\\ud800"}', "lone_surrogate"),
        (b'{"id": "h", "text": "secret\xff"}', "undecodable"),
        (b'{"id": "i", "text": "\xed\xa0\x80"}', "undecodable"),
        (b'{"id": "j", "text": "secret', "bad_json"),
        (b"[1]", "bad_json"),
        (b"  ", "bad_json"),
        (deep, "bad_json"),
        (b'{"id": null, "text": "x"}', "null_id"),
        (b'{"text": "x"}', "null_id"),
        (b'{"id": 1.5, "text": "x"}', "bad_id"),
        (b'{"id": 17, "text": ""}', None),
        (b'{"id": "k", "text": "a", "text": "last wins"}', None),
        (b'{"id": "l", "text": "\\ud83d\\ude00 \\u0000"}', None),
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n\r\n".join(row for row, _ in rows))
    records = only(tmp_path, Columns(id="id"))
    assert codes(records) == {i: code for i, (_, code) in enumerate(rows) if code}
    assert [text for text in records.texts if text is not None] == ["good", "", "last wins", "\U0001f600 \0"]
    assert [i for i, text in enumerate(records.texts) if text is None] == sorted(records.problems)
    assert [records.id_text(i) for i in (0, 1, 9, 10, 14, 16)] == [
        "a",
        "b",
        "a.jsonl:9",
        "a.jsonl:10",
        "a.jsonl:14",
        "17",
    ]
    table = records.quarantine(records.problems, "read")
    assert table.schema == QUARANTINE_SCHEMA
    assert table["row"].to_pylist() == sorted(records.problems)
    assert set(table["file"].to_pylist()) == {"a.jsonl"}


def test_bad_rows_of_csv_leave_their_neighbours_alone(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(
        b"id,text\n1,a\n2,b,c\n3\n\n4,\xff\n,d\n5,x\ry\n6," + b"z" * 200_000 + b'\n7,"q""\n'
        b'r"\n8,nul\0\n9,\n10,"open\nmore\n'
    )
    records = only(tmp_path, Columns(id="id"))
    assert codes(records) == {
        1: "bad_csv", 2: "bad_csv", 3: "undecodable", 4: "null_id", 6: "bad_csv", 11: "bad_csv"
    }  # fmt: skip
    good = [text for text in records.texts if text is not None]
    assert good == ["a", "x", "z" * 200_000, 'q"\nr', "nul\0", ""]
    assert records.ids.to_pylist()[7:11] == ["6", "7", "8", "9"]


def test_bad_lines_of_text_leave_their_neighbours_alone(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\xff\xfe\n\n  \n\xc0\xaf\nlast")
    records = only(tmp_path)
    assert records.texts == ["one", None, "", "  ", None, "last"]
    assert codes(records) == {1: "undecodable", 4: "undecodable"}
    assert records.ids.to_pylist() == [f"a.txt:{i}" for i in range(6)]


def test_overlong_records_are_flagged_and_not_even_held(tmp_path: Path):
    rows = [b'{"text": "a"}', b'{"text": "' + b"x" * 150 + b'"}', b'{"text": "' + b"y" * 900 + b'"}', b'{"text": "b"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    with (
        mock.patch.object(lines, "MAX_RECORD_BYTES", 100),
        mock.patch.object(plan, "MAX_SHARD_BYTES", 400),
        mock.patch.object(read, "MAX_SHARD_BYTES", 400),
    ):
        made = plan_of(tmp_path)
        records = [read_shard(shard, made.columns) for shard in made.shards]
    assert [one.texts for one in records] == [["a", None], [None], ["b"]]
    assert codes(records[0]) == {1: "line_too_long"}
    assert codes(records[1]) == {0: "line_too_long"}


def test_parquet_rows_that_cannot_be_used_are_flagged(tmp_path: Path):
    good = "grüße"
    text = pa.array([good.encode(), None, b"\xff", b"", b"\xed\xa0\x80"], pa.binary())
    for name, array in (("bytes", text), ("string", text.view(pa.string())), ("large", text.cast(pa.large_binary()))):
        table = pa.table({"text": array, "id": pa.array([1, 2, None, 4, 5], pa.int32())})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        records = only(tmp_path / f"{name}.parquet", Columns(id="id"))
        assert records.texts == [good, None, None, "", None]
        assert codes(records) == {1: "null", 2: "null_id", 4: "undecodable"}
        assert records.ids.type == pa.int64()
        assert records.ids.to_pylist() == [1, 2, None, 4, 5]
        assert records.id_text(2) == f"{name}.parquet:2"
        assert len(records.quarantine(records.problems, "read")) == 3


def test_an_id_or_kept_string_that_is_no_utf8_spoils_only_its_row(tmp_path: Path):
    odd = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": ["x", "y", "z"], "id": odd, "kept": odd}), tmp_path / "a.parquet")
    records = only(tmp_path / "a.parquet", Columns(id="id", keep=("kept",)))
    assert codes(records) == {1: "bad_id"}
    assert records.ids.to_pylist() == ["a", None, "c"]
    assert records.keep is not None
    assert records.keep["kept"].to_pylist() == ["a", "\ufffd", "c"]


def test_dictionary_and_null_columns_are_texts(tmp_path: Path):
    pq.write_table(pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()}), tmp_path / "a.parquet")
    assert only(tmp_path / "a.parquet").texts == ["a", "b", "a"]
    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "b.parquet")
    assert codes(only(tmp_path / "b.parquet")) == {0: "null", 1: "null"}


def test_ids_keep_their_type_unless_files_differ(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a"], "id": [7]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "b", "id": 8}\n{"text": "c", "id": 9}\n')
    made = plan_of(tmp_path, Columns(id="id"))
    assert [read_shard(shard, made.columns).ids for shard in made.shards] == [pa.array([7]), pa.array([8, 9])]
    pq.write_table(pa.table({"text": ["d"], "id": ["x"]}), tmp_path / "c.parquet")
    made = plan_of(tmp_path, Columns(id="id"))
    assert [read_shard(shard, made.columns).ids.to_pylist() for shard in made.shards] == [["7"], ["8", "9"], ["x"]]


def test_an_id_that_does_not_fit_the_integer_ids_of_a_job_is_flagged(tmp_path: Path):
    rows = '{"text": "a", "id": 1}\n' * 1000
    (tmp_path / "a.jsonl").write_text(rows + '{"text": "b", "id": "one"}\n{"text": "c", "id": 9223372036854775808}\n')
    made = plan_of(tmp_path, Columns(id="id"), shard_rows=2000)
    records = read_shard(made.shards[0], made.columns)
    assert codes(records) == {1000: "bad_id", 1001: "bad_id"}


def test_nested_columns_pairs_and_kept_columns_are_read(tmp_path: Path):
    rows = [
        {"doc": {"text": "a", "n": 1}, "b": "x", "m": {"k": [1]}},
        {"doc": {"text": "c", "n": 2}, "b": None, "m": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    columns = Columns(text="doc.text", pair=("b",), keep=("doc.n", "m"))
    records = only(tmp_path / "a.parquet", columns)
    assert (records.texts, records.pairs) == (["a", None], [["x"], None])
    assert codes(records) == {1: "null"}
    assert records.keep is not None
    assert records.keep.to_pylist() == [{"doc.n": 1, "m": {"k": [1]}}, {"doc.n": 2, "m": None}]
    (tmp_path / "b.jsonl").write_text(
        '{"doc": {"text": "a"}, "b": "x", "doc.n": 1.5, "m": {"k": "é"}}\n{"doc": 3, "b": "y"}\n'
    )
    records = only(tmp_path / "b.jsonl", columns)
    assert (records.texts, codes(records)) == (["a", None], {1: "null"})
    assert records.keep is not None
    assert records.keep.to_pylist() == [{"doc.n": "1.5", "m": '{"k": "é"}'}, {"doc.n": None, "m": None}]


def test_a_column_with_a_dot_in_its_name_wins_over_a_nested_one(tmp_path: Path):
    pq.write_table(pa.table({"a.b": ["flat"], "a": [{"b": "nested"}]}), tmp_path / "a.parquet")
    assert only(tmp_path, Columns(text="a.b")).texts == ["flat"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "arrow"])
@pytest.mark.parametrize("order", ["forward", "backward", "every other", "fresh"])
def test_shards_can_be_read_in_any_order(tmp_path: Path, name: str, order: str):
    texts = [f"text {i} {'x' * (i % 40)}" for i in range(3000)]
    body = "".join(f'{{"text": "{text}"}}\n' for text in texts).encode()
    if name == "arrow":
        pytest.importorskip("datasets").Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / name)
    elif name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), tmp_path / name, row_group_size=700)
    else:
        (tmp_path / name).write_bytes(gzip.compress(body) if name.endswith("gz") else body)
    made = plan_of(tmp_path / name, shard_rows=300)
    indices = list(range(len(made.shards)))
    indices = {"backward": indices[::-1], "every other": indices[::2] + indices[1::2]}.get(order, indices)
    found: dict[int, list[Any]] = {}
    with ShardReader(made.columns) as reader:
        for index in indices:
            found[index] = (reader.read if order != "fresh" else lambda s: read_shard(s, made.columns))(
                made.shards[index]
            ).texts
    assert [text for index in sorted(found) for text in found[index]] == texts


def test_only_asked_columns_are_read(tmp_path: Path):
    table = pa.table({"text": ["a"] * 5000, "other": [os.urandom(50) for _ in range(5000)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="none")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    at = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(1).data_page_offset
    content[at : at + 50] = b"\xff" * 50
    (tmp_path / "a.parquet").write_bytes(content)
    assert plan_of(tmp_path).rows == 5000
    made = plan_of(tmp_path, shard_rows=5000)
    assert read_shard(made.shards[0], made.columns).texts == ["a"] * 5000


def test_rows_of_a_broken_page_are_unreadable_and_other_row_groups_are_not(tmp_path: Path):
    texts = [f"{i:05d} {os.urandom(8).hex()}" for i in range(400)]
    table = pa.table({"id": pa.array(range(400)), "text": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100, write_page_checksum=True, use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    chunk = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(1)
    content[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    (tmp_path / "a.parquet").write_bytes(content)
    made = plan_of(tmp_path, Columns(id="id", keep=("id",)), shard_rows=50)
    with ShardReader(made.columns) as reader:
        records = [reader.read(shard) for shard in made.shards]
    broken = [i for i, one in enumerate(records) if one.problems]
    assert broken == [2, 3]
    assert codes(records[2]) == dict.fromkeys(range(50), "unreadable")
    assert [records[2].id_text(i) for i in (0, 49)] == ["a.parquet:100", "a.parquet:149"]
    assert records[4].texts == texts[200:250]
    assert records[4].ids.to_pylist() == list(range(200, 250))


@pytest.mark.parametrize("shard_rows", [30, 100, 250, 10_000])
def test_what_a_damaged_row_group_spoils_does_not_depend_on_the_shards(tmp_path: Path, shard_rows: int):
    texts = [f"{i:05d}" for i in range(400)]
    table = pa.table({"id": pa.array(range(400)), "doc": [{"text": text, "n": 1} for text in texts]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True, use_dictionary=False)
    content = bytearray(path.read_bytes())
    columns = pq.read_metadata(path).row_group(1)
    chunk = next(columns.column(i) for i in range(3) if columns.column(i).path_in_schema == "doc.text")
    content[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    path.write_bytes(content)
    made = plan_of(tmp_path, Columns(text="doc.text", id="id", keep=("doc.n",)), shard_rows=shard_rows)
    rows: dict[int, tuple[str | None, str, Any]] = {}
    with ShardReader(made.columns) as reader:
        for records in map(reader.read, made.shards):
            assert records.keep is not None
            assert set(codes(records).values()) <= {"unreadable"}
            kept = records.keep["doc.n"].to_pylist()
            found = zip(records.rows.tolist(), records.texts, range(len(records)), kept, strict=True)
            rows |= {row: (text, records.id_text(i), n) for row, text, i, n in found}
    expected = {row: (text, str(row), 1) for row, text in enumerate(texts)}
    assert rows == expected | {row: (None, f"a.parquet:{row}", None) for row in range(100, 200)}


def test_of_a_damaged_row_group_the_batches_before_the_damage_are_read(tmp_path: Path):
    texts = [f"{i:05d} {os.urandom(8).hex()}" for i in range(5000)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, write_page_checksum=True, use_dictionary=False, data_page_size=1024)
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(0)
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    for shard_rows in (700, 5000):
        made = plan_of(tmp_path, shard_rows=shard_rows)
        with ShardReader(made.columns) as reader:
            found = [text for shard in made.shards for text in reader.read(shard).texts]
        assert found == texts[:2048] + [None] * 2952


def test_an_id_that_is_no_text_says_why(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"id": "\\ud800", "text": "x"}\n')
    records = only(tmp_path, Columns(id="id"))
    assert codes(records) == {0: "bad_id"}
    assert "half a surrogate pair" in records.problems[0].message


def test_a_file_that_changed_after_planning_stops_the_job(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n")
    made = plan_of(path)
    path.write_text("a\nc\n")
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed after it was planned") as error:
        read_shard(made.shards[0], made.columns)
    assert error.value.code == "input_changed"
    path.unlink()
    with pytest.raises(InputError, match="cannot be read now"):
        read_shard(made.shards[0], made.columns)


class Canary(pa.ExtensionType):  # type: ignore[misc]
    """Would run whatever its file says, if it were ever decoded."""

    decoded = 0

    def __init__(self) -> None:
        super().__init__(pa.string(), "test.canary")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"payload"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> "Canary":
        cls.decoded += 1
        return cls()


def test_extension_types_are_refused_before_they_are_decoded(tmp_path: Path):
    array = pa.ExtensionArray.from_storage(Canary(), pa.array(["a"]))
    table = pa.table({"text": ["a"], "x": array})
    pa.register_extension_type(Canary())
    try:
        pq.write_table(table, tmp_path / "a.parquet")
        Canary.decoded = 0
        (entry,) = make_plan(expand_inputs([tmp_path]), Columns(), shard_rows=1).unreadable
        assert entry.code == "extension_type"
        assert Canary.decoded == 0
    finally:
        pa.unregister_extension_type("test.canary")


def test_an_arrow_file_with_offsets_out_of_bounds_is_unreadable_not_a_crash(tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (folder / "dataset_info.json").write_text("{}")
    table = pa.table({"text": ["aaaa", "bbbb"]})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = (folder / "data.arrow").read_bytes()
    offsets = struct.pack("<3i", 0, 4, 8)
    assert content.count(offsets) == 1
    (folder / "data.arrow").write_bytes(content.replace(offsets, struct.pack("<3i", 0, 4, 2**30)))
    assert codes(only(folder)) == {0: "unreadable", 1: "unreadable"}


def test_a_dictionary_bomb_is_unreadable(tmp_path: Path):
    texts = pa.DictionaryArray.from_arrays(np.zeros(5000, np.int32), ["x" * 10_000])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with mock.patch.object(columnar, "MAX_DECODED_BYTES", 20_000_000):
        made = plan_of(tmp_path, shard_rows=5000)
        records = read_shard(made.shards[0], made.columns)
    assert set(codes(records).values()) == {"unreadable"}


def test_a_failing_system_does_not_condemn_rows(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a\n")
    made = plan_of(tmp_path)
    with (
        mock.patch.object(pa, "OSFile", side_effect=OSError(24, "Too many open files")),
        pytest.raises(InputError, match="Too many open files"),
    ):
        read_shard(made.shards[0], made.columns)


def test_an_extension_type_in_a_saved_dataset_is_refused_before_it_is_decoded(tmp_path: Path):
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (tmp_path / "dataset_info.json").write_text("{}")
    table = pa.table({"text": ["a"], "x": pa.ExtensionArray.from_storage(Canary(), pa.array(["a"]))})
    pa.register_extension_type(Canary())
    try:
        with pa.OSFile(str(tmp_path / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        Canary.decoded = 0
        (entry,) = make_plan(expand_inputs([tmp_path]), Columns(), shard_rows=1).unreadable
        assert entry.code == "extension_type"
        assert Canary.decoded == 0
    finally:
        pa.unregister_extension_type("test.canary")


@given(text=st.text('[]{}"\\a', max_size=20), depth=st.integers(195, 205), shape=st.integers(0, 1))
def test_reader_and_verifier_agree_on_how_deep_json_may_be(text: str, depth: int, shape: int):
    value: object = text
    for _ in range(depth - 1):
        value = [text, value] if shape else {text: value}
    line = json.dumps({"id": "a", "text": text, "more": value}).encode()
    (parsed,) = parse_records("jsonl", [line], ["id"], ()).columns["id"]
    assert (parsed == "a") == (_json_value(line, "id") == "a") == (depth <= lines.MAX_JSON_DEPTH)
