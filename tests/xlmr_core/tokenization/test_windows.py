from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.errors import TaskError
from xlmr_core.tokenization import (
    Encodings,
    SpecialTokens,
    Tokenizer,
    Windows,
    plan_windows,
    window_ids,
)
from xlmr_core.tokenization.encoding import bounds
from xlmr_core.tokenization.packing import Side

SPECIAL = SpecialTokens(bos=0, eos=2, pad=1, unk=3, mask=None)
counts = st.lists(st.integers(0, 60), max_size=8)


def fake(lengths: list[int], *, first: int = 10) -> Encodings:
    """Records of the given lengths whose tokens are all different."""
    splits = bounds(np.array(lengths, np.int64))
    return Encodings(np.arange(first, first + splits[-1], dtype=np.int32), splits)


def paired(lengths: list[tuple[int, int]]) -> tuple[Encodings, Encodings]:
    return fake([a for a, _ in lengths]), fake([b for _, b in lengths], first=10_000)


def cut(first: Encodings, second: Encodings | None = None, **options: Any) -> Windows:
    return plan_windows(first.lengths, None if second is None else second.lengths, **options)


def packed(
    windows: Windows, special: SpecialTokens, first: Encodings, second: Encodings | None = None, order: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.arange(len(windows)) if order is None else order
    sides = [None if side is None else Side(side, np.arange(len(side))) for side in (first, second)]
    return window_ids(sides[0], windows, chosen, special, second=sides[1])


class TestSingleTexts:
    @settings(deadline=None, max_examples=100)
    @given(lengths=counts, limit=st.integers(4, 30), data=st.data())
    def test_windows_cover_every_token_and_overlap_by_the_stride(
        self, lengths: list[int], limit: int, data: st.DataObject
    ) -> None:
        stride = data.draw(st.integers(0, limit - 3))
        windows = cut(fake(lengths), limit=limit, stride=stride, on_long="window")
        assert (windows.length <= limit).all()
        assert (windows.length == windows.end - windows.start + 2).all()
        for record, length in enumerate(lengths):
            mine = np.flatnonzero(windows.item == record)
            assert (len(mine) > 0) == (length > 0)
            if length:
                assert windows.start[mine[0]] == 0
                assert windows.end[mine[-1]] == length
                assert (windows.end[mine[:-1]] - windows.start[mine[1:]] == stride).all()

    @pytest.mark.parametrize(("limit", "stride"), [(16, 0), (16, 5), (12, 9), (512, 128)])
    def test_positions_equal_overflowing_tokens(
        self,
        ours: Tokenizer,
        theirs: transformers.PreTrainedTokenizerFast,
        sample_texts: list[str],
        limit: int,
        stride: int,
    ) -> None:
        texts = [text for text in sample_texts[:200] if text.strip()]
        expected = theirs(texts, truncation=True, max_length=limit, stride=stride, return_overflowing_tokens=True)
        encodings = ours.encode(texts)
        windows = cut(encodings, limit=limit, stride=stride, on_long="window")
        assert windows.item.tolist() == expected["overflow_to_sample_mapping"]
        ids, cu_seqlens = packed(windows, ours.special, encodings)
        assert [part.tolist() for part in np.split(ids, cu_seqlens[1:-1])] == expected["input_ids"]

    def test_truncate_keeps_the_first_window_alone(self) -> None:
        windows = cut(fake([3, 0, 50]), limit=10, stride=2, on_long="truncate")
        assert windows.item.tolist() == [0, 2]
        assert windows.end.tolist() == [3, 8]

    def test_error_refuses_what_is_too_long_and_nothing_else(self) -> None:
        windows = cut(fake([8, 9, 0]), limit=10, stride=2, on_long="error")
        assert windows.item.tolist() == [0]
        assert {row: error.code for row, error in windows.refused.items()} == {1: "too_long"}

    @pytest.mark.parametrize(("limit", "stride"), [(2, 0), (10, 8), (10, -1)])
    def test_a_limit_without_room_or_a_standing_window_is_refused(self, limit: int, stride: int) -> None:
        with pytest.raises(TaskError, match=f"limit {limit} with stride {stride}"):
            cut(fake([5]), limit=limit, stride=stride, on_long="window")


class TestPairs:
    @settings(deadline=None, max_examples=100)
    @given(
        lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8),
        limit=st.integers(8, 40),
    )
    def test_every_window_holds_the_shorter_text_whole(self, lengths: list[tuple[int, int]], limit: int) -> None:
        windows = cut(*paired(lengths), limit=limit, stride=3, on_long="window")
        assert windows.pair_start is not None
        assert windows.pair_end is not None
        assert (windows.length <= limit).all()
        for record, (first, second) in enumerate(lengths):
            mine = windows.item == record
            covered = {*zip(windows.start[mine].tolist(), windows.end[mine].tolist(), strict=True)}
            covered_pair = {*zip(windows.pair_start[mine].tolist(), windows.pair_end[mine].tolist(), strict=True)}
            room = limit - 4 - min(first, second)
            if record in windows.refused:
                assert first + second > limit - 4
                assert room * 4 < limit
                assert windows.refused[record].code == "pair_too_long"
                assert not mine.any()
            elif first + second:
                long, long_spans, short, short_spans = (
                    (first, covered, second, covered_pair)
                    if first >= second
                    else (second, covered_pair, first, covered)
                )
                assert short_spans == {(0, short)}
                assert {token for span in long_spans for token in range(*span)} == set(range(long))

    @pytest.mark.parametrize("limit", [16, 17, 24, 64])
    def test_truncation_is_longest_first(
        self,
        ours: Tokenizer,
        theirs: transformers.PreTrainedTokenizerFast,
        sample_texts: list[str],
        limit: int,
    ) -> None:
        texts = [text for text in sample_texts if text.strip()]
        first, second = texts[:150], texts[150:300]
        expected = theirs(first, second, truncation="longest_first", max_length=limit)["input_ids"]
        sides = ours.encode(first), ours.encode(second)
        windows = cut(*sides, limit=limit, stride=0, on_long="truncate")
        ids, cu_seqlens = packed(windows, ours.special, *sides)
        assert [part.tolist() for part in np.split(ids, cu_seqlens[1:-1])] == expected

    def test_sliding_equals_only_second(
        self, ours: Tokenizer, theirs: transformers.PreTrainedTokenizerFast, sample_texts: list[str]
    ) -> None:
        question, context = "Where is it?", " ".join(sample_texts[:20])
        expected = theirs(
            question,
            context,
            truncation="only_second",
            max_length=64,
            stride=16,
            return_overflowing_tokens=True,
        )["input_ids"]
        sides = ours.encode([question]), ours.encode([context])
        windows = cut(*sides, limit=64, stride=16, on_long="window")
        ids, cu_seqlens = packed(windows, ours.special, *sides)
        assert [part.tolist() for part in np.split(ids, cu_seqlens[1:-1])] == expected

    def test_error_counts_both_texts(self) -> None:
        windows = cut(*paired([(3, 3), (4, 3), (0, 0)]), limit=10, stride=0, on_long="error")
        assert windows.item.tolist() == [0]
        assert {row: error.code for row, error in windows.refused.items()} == {1: "too_long"}


class TestPacking:
    @settings(deadline=None, max_examples=100)
    @given(lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6), data=st.data())
    def test_packed_windows_equal_a_plain_loop(self, lengths: list[tuple[int, int]], data: st.DataObject) -> None:
        pairs = data.draw(st.booleans())
        texts = paired(lengths) if pairs else (fake([first for first, _ in lengths]),)
        windows = cut(*texts, limit=20, stride=2, on_long="window")
        order = np.array(data.draw(st.permutations(range(len(windows)))), dtype=np.int64)
        order = order[: data.draw(st.integers(0, len(order)))]
        ids, cu_seqlens = packed(windows, SPECIAL, *texts, order=order)
        expected: list[list[int]] = []
        for window in order:
            item = windows.item[window]
            spans = [(windows.start, windows.end), (windows.pair_start, windows.pair_end)]
            parts = [
                side.ids[side.splits[item] + s[window] : side.splits[item] + e[window]]
                for side, (s, e) in zip(texts, spans, strict=False)
            ]
            framed = [0, *parts[0], 2] if len(parts) == 1 else [0, *parts[0], 2, 2, *parts[1], 2]
            expected.append(framed)
        assert np.diff(cu_seqlens).tolist() == [len(one) for one in expected] == windows.length[order].tolist()
        assert ids.tolist() == [int(token) for one in expected for token in one]

    def test_a_pair_is_framed_as_the_family_does(self) -> None:
        sides = paired([(2, 1)])
        windows = cut(*sides, limit=16, stride=0, on_long="window")
        ids, cu_seqlens = packed(windows, SPECIAL, *sides)
        assert ids.tolist() == [0, 10, 11, 2, 2, 10_000, 2]
        assert cu_seqlens.tolist() == [0, 7]
