import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.annotate.timeline import _MOST_SPANS, Timeline

SHARDS = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(1e9, 1e9 + 1e6), st.floats(0, 5_000), st.integers(0, 10**7)),
    min_size=1,
    max_size=40,
)


def timeline(shards: list[tuple[str, float, float, int]]) -> Timeline:
    line = Timeline()
    for lease, began, seconds, tokens in shards:
        line.add(lease, began, began + seconds, tokens)
    return line


@given(SHARDS, st.randoms(use_true_random=False))
def test_the_order_of_shards_does_not_matter(shards: list[tuple[str, float, float, int]], chance: random.Random):
    one = timeline(shards)
    chance.shuffle(shards)
    two = timeline(shards)
    assert (one.width, one.runs, one.tokens.keys()) == (two.width, two.runs, two.tokens.keys())
    assert list(one.tokens.values()) == pytest.approx([two.tokens[span] for span in one.tokens], abs=1e-3)


@given(SHARDS, st.integers(1, 200))
def test_no_token_is_lost_in_time_and_memory_is_bounded(shards: list[tuple[str, float, float, int]], most: int):
    line = timeline(shards)
    rates = line.rates(most)
    total = sum(tokens for *_, tokens in shards)
    assert sum(line.tokens.values()) == pytest.approx(total, abs=1e-2)
    assert len(line.tokens) <= _MOST_SPANS
    assert len(rates) <= most + 2 * len(line.runs)
    # A millisecond is the least that is told apart.
    assert sum(rate.tokens_per_s * max(rate.end - rate.start, 1e-3) for rate in rates) == pytest.approx(total, rel=0.01)
    assert rates[0].start == 0
    assert rates[-1].end == pytest.approx(line.seconds(), abs=1e-3)
    assert all(rate.end >= rate.start for rate in rates)


def test_two_workers_at_once_are_twice_as_fast_and_pauses_between_runs_do_not_count():
    line = timeline([("a", 1000, 10, 1_000), ("a", 1000, 10, 1_000), ("b", 9000, 10, 500)])
    assert line.work() == [(1000, 1010), (9000, 9010)]
    assert line.seconds() == 20
    assert line.mean() == pytest.approx(125)
    rates = line.rates(20)
    assert {rate.run: round(rate.tokens_per_s) for rate in rates} == {0: 200, 1: 50}
    assert [rate.run for rate in rates] == sorted(rate.run for rate in rates)


def test_a_pause_within_a_run_is_time_in_which_nothing_was_computed():
    line = timeline([("a", 0, 1, 100), ("a", 9, 1, 100)])
    assert line.seconds() == 10
    assert [round(rate.tokens_per_s) for rate in line.rates(10)] == [100, *[0] * 8, 100]


def test_nothing_has_no_rates():
    assert Timeline().rates(10) == []
    assert Timeline().mean() == 0
