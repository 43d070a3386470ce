"""Temperature against scipy's search, thresholds against every threshold there is, calibration error bin by bin."""

import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics import Calibration, fit_temperature, fit_thresholds
from xlmr_core.metrics.calibration import negative_log_likelihood

QUICK = settings(max_examples=25, deadline=None)
EXACT = {"rel": 1e-12, "abs": 1e-12}


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(seed, records=400, labels=5, temperature=1.0):
    """Logits, and gold labels that follow their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(records, labels))
    scores = softmax(logits / temperature)
    return logits, np.array([rng.choice(labels, p=row) for row in scores])


@QUICK
@given(st.integers(0, 1000))
def test_likelihood_equals_scikit_learn(seed):
    logits, gold = drawn(seed, records=20)
    expected = oracle.log_loss(gold, softmax(logits), labels=range(5))
    assert negative_log_likelihood(logits, gold) == pytest.approx(expected, rel=1e-9)
    several = np.random.default_rng(seed).integers(0, 2, logits.shape)
    score = 1 / (1 + np.exp(-logits))
    expected = -(np.log(np.where(several == 1, score, 1 - score))).sum() / len(logits)
    assert negative_log_likelihood(logits, several) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, gold = drawn(0, records=4000, temperature=temperature)
    # Its standard error over 4,000 records is about 3 %.
    assert fit_temperature(logits, gold) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_equals_that_of_scipy(several):
    for seed in range(5):
        logits, gold = drawn(seed, records=60)
        if several:
            gold = (np.random.default_rng(seed).random(logits.shape) < 1 / (1 + np.exp(-logits / 2))).astype(int)
        best = scipy.optimize.minimize_scalar(
            lambda log, logits=logits, gold=gold: negative_log_likelihood(logits / np.exp(log), gold),
            bounds=(math.log(1e-2), math.log(1e2)),
            method="bounded",
            options={"xatol": 1e-9},
        )
        # The valley is flat: costs within rounding of each other lie this far apart.
        assert fit_temperature(logits, gold) == pytest.approx(math.exp(best.x), rel=1e-5)


def test_where_no_temperature_is_best_it_is_an_end_of_the_range():
    right = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(right, np.array([1, 0])) == pytest.approx(100, rel=1e-5)
    assert fit_temperature(right / 100, np.array([0, 1])) == pytest.approx(0.01, rel=1e-5)
    assert 0.01 <= fit_temperature(right * 1e300, np.array([0, 1])) <= 100.1


def test_logits_that_do_not_fit_are_refused():
    logits = np.zeros((2, 3))
    for gold, message in (
        (np.zeros(3, int), "must be"),
        (np.array([0, -100]), "labels are 0 to 2"),
        (np.array([0, 3]), "labels are 0 to 2"),
    ):
        with pytest.raises(ArgumentError, match=message):
            fit_temperature(logits, gold)
    with pytest.raises(ArgumentError, match="N > 0"):
        fit_temperature(logits[:0], np.zeros(0, int))
    with pytest.raises(ArgumentError, match="nan"):
        fit_temperature(logits * np.nan, np.zeros(2, int))


SCORES = st.lists(st.tuples(st.integers(0, 12).map(lambda value: value / 12), st.booleans()), min_size=1, max_size=20)


def f1(holds, given):
    return 2 * (holds & given).sum() / max(1, holds.sum() + given.sum())


@QUICK
@given(SCORES, SCORES)
def test_no_threshold_has_a_larger_f1_than_the_fitted_one(one, other):
    labels = (one, other)
    count = min(map(len, labels))
    scores = np.array([[score for score, _ in label[:count]] for label in labels]).T
    gold = np.array([[holds for _, holds in label[:count]] for label in labels]).T
    for score, holds, threshold in zip(scores.T, gold.T, fit_thresholds(scores, gold), strict=True):
        fitted = oracle.f1_score(holds, score >= threshold, zero_division=0)
        assert fitted == pytest.approx(max(f1(holds, score >= other) for other in {*score, 2.0}), **EXACT)
        assert threshold == 0.5 or holds.any()


@QUICK
@given(SCORES)
def test_the_fitted_threshold_is_the_best_point_of_scikit_learns_curve(rows):
    score, holds = np.array([score for score, _ in rows]), np.array([holds for _, holds in rows])
    if not holds.any():
        return
    precision, recall, _ = oracle.precision_recall_curve(holds, score)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    (threshold,) = fit_thresholds(score[:, None], holds[:, None])
    assert f1(holds, score >= threshold) == pytest.approx(best, **EXACT)


@QUICK
@given(SCORES, st.floats(0, 1), st.floats(0, 100))
def test_few_records_move_a_threshold_little_from_its_prior(rows, prior, strength):
    scores, gold = np.array([[score] for score, _ in rows]), np.array([[holds] for _, holds in rows])
    (alone,), holds = fit_thresholds(scores, gold, prior=prior), gold.sum()
    (fitted,) = fit_thresholds(scores, gold, prior=prior, strength=strength)
    expected = (holds * alone + strength * prior) / (holds + strength) if holds else prior
    assert fitted == pytest.approx(expected, **EXACT)
    with pytest.raises(ArgumentError, match="strength -1"):
        fit_thresholds(scores, gold, strength=-1)


def test_every_label_may_have_a_prior_of_its_own():
    gold = np.zeros((4, 2))
    assert fit_thresholds(gold, gold, prior=np.array([0.2, 0.7]), strength=5).tolist() == [0.2, 0.7]


def test_a_threshold_keeps_its_distance_from_scores():
    scores, gold = np.array([[0.9], [0.7], [0.3], [0.1]]), np.array([[1], [1], [0], [0]])
    assert fit_thresholds(scores, gold) == pytest.approx([0.5])
    assert fit_thresholds(scores, 0 * gold, prior=0.4) == pytest.approx([0.4])
    assert fit_thresholds(scores, np.ones_like(gold)) == pytest.approx([0.1])
    # Equal scores are given together, however good the first of them would be alone.
    assert fit_thresholds(np.array([[0.5], [0.5], [0.5], [0.2]]), np.array([[1], [0], [0], [1]])) == pytest.approx(
        [0.2]
    )
    assert fit_thresholds(np.zeros((0, 2)), np.zeros((0, 2))).tolist() == [0.5, 0.5]


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="records, labels"):
        fit_thresholds(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ArgumentError, match="nan"):
        fit_thresholds(np.full((1, 1), np.nan), np.zeros((1, 1)))


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 20).map(lambda value: value / 20) | st.floats(0, 1), st.booleans()), min_size=1),
    st.sampled_from([1, 3, 5, 10, 20]),
)
def test_calibration_error_is_the_mean_gap_of_the_bins(rows, bins):
    calibration = Calibration(bins)
    calibration.add(*zip(*rows, strict=True))
    result = calibration.result()
    gaps = []
    for place in range(bins):
        inside = [
            (score, right) for score, right in rows if place / bins < score <= (place + 1) / bins or place == score == 0
        ]
        if inside:
            score, right = np.mean(inside, axis=0)
            gaps.append((len(inside), abs(score - right)))
    expected = sum(count * gap for count, gap in gaps) / len(rows)
    assert result["expected_calibration_error"] == pytest.approx(expected, **EXACT)
    assert result["maximum_calibration_error"] == pytest.approx(max(gap for _, gap in gaps), **EXACT)


def test_a_fitted_temperature_calibrates():
    logits, gold = drawn(0, records=4000, temperature=3.0)

    def error(logits):
        calibration = Calibration()
        scores = softmax(logits)
        calibration.add(scores.max(axis=1), scores.argmax(axis=1) == gold)
        return calibration.result()["expected_calibration_error"]

    assert error(logits) > 0.2
    assert error(logits / fit_temperature(logits, gold)) < 0.03


def test_what_is_no_score_is_refused():
    for wrong in ([1.5], [-0.1], [math.nan]):
        with pytest.raises(ArgumentError, match="0 to 1"):
            Calibration().add(wrong, [True])
    with pytest.raises(ArgumentError, match="one list"):
        Calibration().add([0.5], [True, False])
    with pytest.raises(ArgumentError, match="1 or more"):
        Calibration(0)
    with pytest.raises(ArgumentError, match="as many"):
        Calibration(2).merge(Calibration(3))
    assert math.isnan(Calibration().result()["expected_calibration_error"])
