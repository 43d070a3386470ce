"""Numbers against scipy and scikit-learn."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics import Regression

QUICK = settings(max_examples=25, deadline=None)
# What the oracles themselves round.
TOLERANCE = {"rel": 1e-9, "abs": 1e-12}
NUMBERS = st.floats(-5, 5, allow_subnormal=False).map(lambda value: round(value, 2))


def counted(gold, predicted, **options):
    scores = Regression(**options)
    scores.add(gold, predicted)
    return scores.result()


@QUICK
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2))
def test_errors_and_correlations_equal_scipy(rows):
    gold, predicted = np.array(rows).T
    result = counted(gold, predicted)
    assert result["mse"] == pytest.approx(oracle.mean_squared_error(gold, predicted), **TOLERANCE)
    assert result["mae"] == pytest.approx(oracle.mean_absolute_error(gold, predicted), **TOLERANCE)
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        assert math.isnan(result["pearson"])
        assert math.isnan(result["spearman"])
    else:
        assert result["pearson"] == pytest.approx(scipy.stats.pearsonr(gold, predicted)[0], **TOLERANCE)
        assert result["spearman"] == pytest.approx(scipy.stats.spearmanr(gold, predicted)[0], **TOLERANCE)


def test_a_large_mean_does_not_cost_digits():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 1000, 300) / 1024
    predicted = gold + rng.integers(0, 1000, 300) / 1024
    # Both shifts are exact, so the correlation must not move at all.
    assert counted(gold + 2.0**40, predicted + 2.0**40)["pearson"] == counted(gold, predicted)["pearson"]


@QUICK
@given(st.floats(1e-30, 1e30), st.integers(2, 50))
def test_what_is_constant_correlates_with_nothing(value, count):
    result = counted([value] * count, range(count))
    assert math.isnan(result["pearson"])
    assert math.isnan(result["spearman"])


def test_more_pairs_than_are_kept_give_a_fair_sample_of_the_ranks():
    rng = np.random.default_rng(1)
    gold = rng.normal(size=40_000)
    predicted = gold + rng.normal(size=40_000)
    result = counted(gold, predicted, sample=4_000)
    assert result["spearman_total"] == 4_000
    assert result["total"] == 40_000
    # Three standard errors of a correlation over 4,000 pairs.
    assert result["spearman"] == pytest.approx(scipy.stats.spearmanr(gold, predicted)[0], abs=3 / math.sqrt(4_000))
    assert result["pearson"] == pytest.approx(scipy.stats.pearsonr(gold, predicted)[0], **TOLERANCE)


def test_memory_stays_within_twice_the_sample():
    scores = Regression(sample=10)
    for start in range(0, 1000, 5):
        scores.add(range(start, start + 5), range(5))
        assert len(scores.pairs) <= 2 * 2 * 10


def test_what_cannot_be_counted_is_refused():
    for wrong in ([math.nan], [math.inf], [1e300]):
        with pytest.raises(ArgumentError, match="leave such records out"):
            Regression().add([1.0], wrong)
    with pytest.raises(ArgumentError, match="one list"):
        Regression().add([1.0], [1.0, 2.0])
    with pytest.raises(ArgumentError, match="as many"):
        Regression(sample=1).merge(Regression(sample=2))


def test_nothing_to_count_is_not_a_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = counted([], [])
    assert all(math.isnan(result[name]) for name in ("mse", "mae", "pearson", "spearman"))
    assert result["total"] == 0
