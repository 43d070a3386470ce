"""What is fitted equals brute force and known truth, and what does not help on other records is not kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from pipelines.evaluate.fitting import LabelledLogits, Parameters, fit, measure
from xlmr_core.errors import TaskError

QUICK = settings(max_examples=8, deadline=None)
LABELS = ("a", "b", "c")


def single(count, *, temperature, seed=0):
    """Logits whose softmax at a temperature is the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 3), scale=2).astype(np.float32)
    powers = np.exp(logits / temperature)
    gold = np.array([rng.choice(3, p=row / row.sum()) for row in powers])
    return LabelledLogits(logits * 1, gold, np.full(count, "", dtype=object))


def several(count, *, shift=(0.0, 0.0, 0.0), of_language=None, temperature=1.0, seed=0):
    """Labels that hold where a noisy logit is over a limit of its own, which may depend on the language."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 3), scale=2).astype(np.float32)
    languages = np.array([("de", "fr")[n % 2] for n in range(count)], dtype=object)
    limit = np.tile(np.array(shift), (count, 1))
    for language, own in (of_language or {}).items():
        limit[languages == language] = own
    gold = (rng.logistic(size=logits.shape) * 0.3 < logits - limit).astype(np.float32)
    return LabelledLogits(logits * temperature, gold, languages)


def names(fitted):
    return [step.name for step in fitted.steps if step.kept]


def test_the_temperature_of_the_truth_is_found_and_kept():
    fitted = fit(single(3000, temperature=2.5), LABELS)
    # Its standard error over 3,000 records is about 3 %.
    assert fitted.parameters.temperature == pytest.approx(2.5, rel=0.1)
    assert fitted.parameters.thresholds is None
    before, after = (step.measures for step in fitted.steps)
    assert names(fitted) == ["as it is", "temperature"]
    assert after["negative_log_likelihood"] < before["negative_log_likelihood"]
    assert after["expected_calibration_error"] < 0.05 < before["expected_calibration_error"]
    # One number for all labels never changes which is first.
    assert after["accuracy"] == before["accuracy"]


def test_scores_that_are_right_already_are_left_alone():
    fitted = fit(single(200, temperature=1.0, seed=4), LABELS)
    if fitted.parameters.temperature == 1.0:
        assert names(fitted) == ["as it is"]
    assert fitted.parameters.temperature == pytest.approx(1.0, rel=0.3)


def test_where_no_temperature_is_best_none_is_kept():
    records = single(200, temperature=1.0)
    perfect = LabelledLogits(records.logits, records.logits.argmax(axis=1), records.languages)
    fitted = fit(perfect, LABELS)
    assert fitted.parameters == Parameters()
    assert [step.kept for step in fitted.steps] == [True, False]


def test_thresholds_follow_the_limit_of_each_label():
    shift = (-1.5, 0.0, 1.5)
    fitted = fit(several(2000, shift=shift), LABELS)
    assert "thresholds" in names(fitted)
    scale = fitted.parameters.temperature
    limits = np.log(fitted.parameters.thresholds / (1 - fitted.parameters.thresholds)) * scale
    np.testing.assert_allclose(limits, shift, atol=0.4)
    steps = {step.name: step.measures for step in fitted.steps}
    assert steps["thresholds"]["macro_f1"] > steps["temperature"]["macro_f1"] + 0.05


@QUICK
@given(st.integers(0, 10_000))
def test_thresholds_are_between_the_common_one_and_that_of_brute_force(seed):
    records = several(120, shift=(-1, 0.5, 2), seed=seed)
    fitted = fit(records, LABELS).parameters
    if fitted.thresholds is None:
        return
    scores = records.scores(fitted.temperature).astype(np.float64)

    def best(score, holds):
        # Of equally good ones the largest, half way to the next lower score.
        values = sorted(set(score.tolist()), reverse=True)
        middles = [(one + other) / 2 for one, other in itertools.pairwise([*values, values[-1]])]
        f1 = [2 * (holds * (score >= value)).sum() / (holds.sum() + (score >= value).sum()) for value in values]
        return middles[int(np.argmax(np.round(f1, 12)))]

    common = best(scores.reshape(-1), records.gold.reshape(-1))
    for label in range(3):
        holds = int(records.gold[:, label].sum())
        alone = best(scores[:, label], records.gold[:, label]) if holds else common
        assert fitted.thresholds[label] == pytest.approx((holds * alone + 20 * common) / (holds + 20), rel=1e-9)


def test_languages_have_their_own_only_with_enough_records_and_only_if_it_helps():
    records = several(2000, of_language={"de": (-1.5, 0, 0), "fr": (1.5, 0, 0)})
    # Hardly ever in French: too few to say anything.
    records.gold[(records.languages == "fr") & (np.arange(2000) > 30), 2] = 0
    fitted = fit(records, LABELS, per_language=True)
    assert names(fitted)[-1] == "thresholds by language"
    by_language = fitted.parameters.by_language
    assert by_language["de"][0] < fitted.parameters.thresholds[0] < by_language["fr"][0]
    assert by_language["de"].keys() == {0, 1, 2}
    assert by_language["fr"].keys() == {0, 1}
    of_record = fitted.parameters.of_records(records.part(np.array([0, 1])))
    assert of_record[1, 2] == np.float32(fitted.parameters.thresholds[2])
    assert of_record[0, 0] == np.float32(by_language["de"][0])
    assert "thresholds by language" not in [step.name for step in fit(records, LABELS).steps]
    # Where languages do not differ, thresholds of their own are noise.
    same = fit(several(300, seed=3), LABELS, per_language=True)
    last = same.steps[-1]
    assert last.kept == (last.measures["macro_f1"] > max(step.measures["macro_f1"] for step in same.steps[:-1]))


def test_a_step_that_does_not_help_other_records_is_not_kept():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(150, 3)).astype(np.float32)
    # Labels that the logits tell already: no threshold can be better than 0.5.
    records = LabelledLogits(logits, (logits > 0).astype(np.float32), np.full(150, "", dtype=object))
    fitted = fit(records, LABELS, per_language=True)
    assert "thresholds" not in names(fitted)
    assert fitted.parameters.thresholds is None


def test_no_record_is_measured_with_what_was_fitted_on_it():
    """Of a label that nothing foretells, the best thresholds look good on their own records, and on others do not."""
    rng = np.random.default_rng(2)
    records = LabelledLogits(
        rng.normal(size=(120, 3)).astype(np.float32),
        (rng.random((120, 3)) < 0.15).astype(np.float32),
        np.full(120, "", dtype=object),
    )
    parameters = fit(records, LABELS).parameters
    thresholds = parameters.of_records(records)
    cold = LabelledLogits(records.logits / np.float32(parameters.temperature), records.gold, records.languages)
    own = measure(cold, thresholds, LABELS)["macro_f1"]
    shown = {step.name: step.measures["macro_f1"] for step in fit(records, LABELS).steps}
    assert shown["thresholds"] < own or parameters.thresholds is None


@QUICK
@given(st.integers(0, 1000), st.booleans())
def test_measures_equal_scikit_learn(seed, many):
    records = several(60, seed=seed) if many else single(60, temperature=2.0, seed=seed)
    thresholds = np.full((60, 3), 0.4, np.float32)
    found = measure(records, thresholds, LABELS)
    if many:
        given_labels = records.scores(1.0) >= thresholds
        assert found["micro_f1"] == pytest.approx(oracle.f1_score(records.gold, given_labels, average="micro"))
        expected = oracle.f1_score(records.gold, given_labels, average="macro")
    else:
        best = records.logits.argmax(axis=1)
        assert found["accuracy"] == pytest.approx(oracle.accuracy_score(records.gold, best))
        expected = oracle.f1_score(records.gold, best, average="macro")
        loss = oracle.log_loss(records.gold, records.scores(1.0), labels=range(3))
        assert found["negative_log_likelihood"] == pytest.approx(loss, rel=1e-5)
    assert found["macro_f1"] == pytest.approx(expected)


def test_too_few_records_are_refused():
    with pytest.raises(
        TaskError, match="got 99 labelled records that the model can read, a temperature needs at least"
    ):
        fit(single(99, temperature=1.0), LABELS)


def test_a_language_has_measures_of_its_own():
    fitted = fit(several(200), LABELS)
    assert fitted.steps[0].by_language.keys() == {"de", "fr"}
    assert fit(single(200, temperature=1.0), LABELS).steps[0].by_language == {}
