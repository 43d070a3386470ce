"""Merging and stitching windows against a plain loop over every window and token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xlmr_core.tasks.spans import WindowedRecords


@st.composite
def windowed(draw):
    """Records cut into windows of at most `room` tokens that overlap by `stride`."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    room = draw(st.integers(2, 9))
    stride = draw(st.integers(0, room - 1))
    record, start, end = [], [], []
    for number, size in enumerate(sizes):
        first = 0
        while True:
            record.append(number), start.append(first), end.append(min(first + room, size))
            if first + room >= size:
                break
            first += room - stride
    record, start, end = np.array(record), np.array(start), np.array(end)
    splits = np.concatenate([[0], np.cumsum(sizes)])
    return WindowedRecords(record, start, end, end - start + 2, splits, ids=np.zeros(splits[-1], np.int32))


@given(windowed())
def test_every_token_is_read_where_it_is_farthest_from_an_edge(records):
    raw = np.arange(records.length.sum(), dtype=np.float32)[:, None]
    stitched = records.stitch_tokens(raw)[:, 0]
    sizes = np.diff(records.splits)
    begins = np.cumsum(records.length) - records.length
    expected = []
    for record, size in enumerate(sizes):
        for token in range(size):
            best = None
            for window in np.flatnonzero(records.item == record):
                start, end = records.start[window], records.end[window]
                if not start <= token < end:
                    continue
                left = np.inf if start == 0 else token - start
                right = np.inf if end == size else end - 1 - token
                margin = min(left, right)
                if best is None or margin > best[0]:
                    best = (margin, raw[begins[window] + 1 + token - start, 0])
            expected.append(best[1])
    np.testing.assert_array_equal(stitched, expected)


@given(windowed(), st.sampled_from(["mean", "max", "tokens"]))
def test_merged_windows_equal_a_plain_reduction(records, how):
    raw = np.random.default_rng(0).normal(size=(len(records.item), 3)).astype(np.float32)
    merged = records.merge_windows(raw, how)
    for record in range(len(records.splits) - 1):
        mine = records.item == record
        weights = (records.end - records.start)[mine] if how == "tokens" else None
        expected = raw[mine].max(0) if how == "max" else np.average(raw[mine], axis=0, weights=weights)
        np.testing.assert_allclose(merged[record], expected, atol=1e-6)


@given(windowed())
def test_noisy_or_is_the_chance_that_any_window_has_the_label(records):
    probability = np.random.default_rng(0).random((len(records.item), 3)).astype(np.float32)
    probability[probability < 0.1], probability[probability > 0.9] = 0, 1
    merged = records.merge_windows(probability, "noisy_or")
    for record in range(len(records.splits) - 1):
        expected = 1.0
        for window in np.flatnonzero(records.item == record):
            expected = expected * (1 - probability[window].astype(np.float64))
        np.testing.assert_allclose(merged[record], 1 - expected, atol=1e-7)
