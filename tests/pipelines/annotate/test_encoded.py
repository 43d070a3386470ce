from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.annotate.encoded import EncodedShard, encoded_from_cells, encoded_to_cells, from_row, shard_row, to_row
from pipelines.annotate.inputs import InputFile
from pipelines.annotate.lines import Problem
from pipelines.annotate.plan import Shard
from pipelines.annotate.read import Records
from xlmr_core.graph import EncodedRecords
from xlmr_core.tokenization import Encodings

SHARD = Shard(7, InputFile("/corpus/a.txt", "text", None, 10, "a-1"), "a.txt", 0, 3, 0, 10, 0, 3)


def encodings(lengths: list[int], offsets: bool) -> Encodings:
    total = sum(lengths)
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    spans = np.arange(2 * total, dtype=np.int32).reshape(-1, 2) if offsets else None
    return Encodings(np.arange(total, dtype=np.int32), splits, spans)


def assert_same(left: Encodings | None, right: Encodings | None) -> None:
    if left is None or right is None:
        assert left is right
        return
    for name in ("ids", "splits", "offsets"):
        one, two = getattr(left, name), getattr(right, name)
        if one is None:
            assert two is None
        else:
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)


lists = st.lists(st.integers(0, 5), max_size=6)


@settings(deadline=None)
@given(lists, st.booleans(), st.booleans())
def test_tokens_come_out_as_they_went_in(lengths: list[int], offsets: bool, pair: bool):
    views = (encodings(lengths, offsets), encodings(lengths[::-1], False))
    splits = np.array([0, len(lengths)]) if pair else None
    starts = (np.arange(sum(lengths)) % 2 == 0) if offsets else None
    encoded = encoded_from_cells(pa.table(encoded_to_cells(EncodedRecords(views, (starts, None), splits))))
    assert len(encoded) == len(lengths)
    for before, after in zip(views, encoded.views, strict=True):
        assert_same(before, after)
    assert encoded.starts_word[1] is None
    assert (encoded.second_splits is None) == (splits is None)
    if splits is not None:
        np.testing.assert_array_equal(encoded.second_splits, splits)
    if starts is not None:
        np.testing.assert_array_equal(encoded.starts_word[0], starts)
        assert encoded.starts_word[0].dtype == np.bool_


def test_a_shard_survives_its_journey_with_problems_and_kept_columns():
    keep = pa.table({"row": ["x", None, "z"], "id": [1.5, 2.5, None]})
    problems = {1: Problem("null", "column 'text' is null")}
    ids = pa.array(["a", "b", "c"])
    records = Records(SHARD, np.array([0, 1, 2]), ids, ["one", None, "three"], None, keep, problems)
    encoded = EncodedRecords((encodings([1, 2], False),), (None,))
    row = to_row(EncodedShard(records, np.array([0, 2]), encoded))
    assert row.num_rows == 1
    back = from_row(row)
    assert (back.records.shard, back.records.problems) == (SHARD, problems)
    assert back.records.ids.equals(ids)
    assert back.records.keep.equals(keep)
    assert back.records.quarantine(problems, "read").equals(records.quarantine(problems, "read"))
    assert back.usable.tolist() == [0, 2]


def test_texts_stay_where_they_were_read():
    records = Records(SHARD, np.array([0]), pa.array(["a"]), ["a very private text"], None, None, {})
    row = to_row(EncodedShard(records, np.array([0]), EncodedRecords((encodings([1], False),), (None,))))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as writer:
        writer.write_table(row)
    assert b"private" not in sink.getvalue().to_pybytes()


def test_arrays_are_read_in_place():
    records = Records(SHARD, np.array([0]), pa.array(["a"]), ["a"], None, None, {})
    row = to_row(EncodedShard(records, np.array([0]), EncodedRecords((encodings([4], False),), (None,))))
    assert not from_row(row).encoded.views[0].ids.flags.owndata
    assert Path(from_row(row).records.shard.file.path) == Path("/corpus/a.txt")
    assert set(shard_row(SHARD)) == {"shard"}


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_texts_travel_where_a_task_needs_them(texts: list[str]):
    views = (encodings([1] * len(texts), False),)
    with_texts = EncodedRecords(views, (None,), None, tuple(texts))
    assert encoded_from_cells(pa.table(encoded_to_cells(with_texts))).texts == tuple(texts)
    without = EncodedRecords(views, (None,), None)
    assert encoded_from_cells(pa.table(encoded_to_cells(without))).texts is None
