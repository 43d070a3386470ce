"""The banded search for the likeliest spans against the whole square of starts and ends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xlmr_core.tasks import answer_spans
from xlmr_core.tasks.answer_spans import Candidates, best_spans, rank
from xlmr_core.tasks.columns import to_list
from xlmr_core.tasks.spans import WindowedRecords


@given(
    sizes=st.lists(st.integers(1, 12), max_size=5),
    longest=st.integers(1, 14),
    count=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_best_spans_are_those_of_the_whole_square(sizes, longest, count, seed):
    sizes = np.array(sizes, dtype=np.int64)
    chances = np.random.default_rng(seed).random((sizes.sum(), 2)).astype(np.float32)
    chances[chances < 0.2] = 0
    found = best_spans(chances, sizes, longest=longest, count=count)
    expected, begin = [], 0
    for window, size in enumerate(sizes.tolist()):
        start, end = chances[begin : begin + size].T
        square = [
            (-start[first] * end[last], begin + first, begin + last)
            for first in range(size)
            for last in range(first, min(first + longest, size))
            if start[first] * end[last] > 0
        ]
        expected += [(window, first, last, -score) for score, first, last in sorted(square)[:count]]
        begin += size
    assert list(zip(*(getattr(found, name).tolist() for name in found.__slots__), strict=True)) == expected


def test_many_windows_are_searched_in_portions(monkeypatch):
    sizes = np.random.default_rng(1).integers(1, 40, 50)
    chances = np.random.default_rng(2).random((sizes.sum(), 2)).astype(np.float32)
    together = best_spans(chances, sizes, longest=7, count=9)
    monkeypatch.setattr(answer_spans, "_CELLS", 700)
    in_portions = best_spans(chances, sizes, longest=7, count=9)
    for name in together.__slots__:
        np.testing.assert_array_equal(getattr(together, name), getattr(in_portions, name))


def test_equal_answers_of_an_item_are_one_and_no_answer_stands_behind_its_equals():
    # Two records of one item each; the first has two windows. Every letter is a token.
    texts = ("The cat, the dog", "THE")
    letters = np.concatenate([[[i, i + 1] for i in range(len(text))] for text in texts])
    records = WindowedRecords(
        item=np.array([0, 0, 1]),
        start=np.array([0, 8, 0]),
        end=np.array([8, 16, 3]),
        length=np.array([15, 15, 10]),
        splits=np.array([0, 16, 19]),
        ids=np.zeros(19, np.int32),
        offsets=letters,
        texts=texts,
    )
    spans = np.array([[0, 3], [4, 7], [4, 4], [9, 12], [13, 16], [0, 3]])
    places = np.arange(len(spans))
    score = np.array([0.25, 0.125, 0.5, 0.25, 0.125, 0.5], np.float32)
    found = Candidates(np.array([0, 0, 0, 1, 1, 2]), places, places, score)
    (first, second) = to_list(rank(found, spans, records, np.array([0.125, 0.75]), top_k=3))
    assert [tuple(answer.values()) for answer in first] == [(0, 3, 0.5), (4, 7, 0.125), (13, 16, 0.125)]
    assert [tuple(answer.values()) for answer in second] == [(0, 0, 0.75), (0, 3, 0.5)]
    (first, second) = to_list(rank(found, spans, records, np.array([0.125, 0.75]), top_k=4))
    assert tuple(first[3].values()) == (0, 0, 0.125)
