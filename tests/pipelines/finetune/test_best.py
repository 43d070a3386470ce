"""Best by a measure and early stopping, beside the transformers callback."""

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EarlyStoppingCallback, TrainerControl, TrainerState

from pipelines.finetune.best import Aim, Best, deciding, decisive_value, greater_is_better, measures_of, settle_metric
from xlmr_core.errors import TaskError

# The first example of a process may be slow.
relaxed = settings(deadline=None, max_examples=50)

VALUES = st.lists(st.integers(0, 6).map(lambda n: n / 2), max_size=20)


def states(values, aim, best=None):
    """What is known after each value, steps counted in tens."""
    known, found = best or Best(), []
    for number, value in enumerate(values, 1):
        known = known.after(number * 10, value, aim)
        found.append(known)
    return found


@relaxed
@given(VALUES, st.booleans(), st.integers(1, 4))
def test_it_stops_where_the_callback_of_transformers_stops(values, greater, patience):
    callback, state, control = EarlyStoppingCallback(patience), TrainerState(), TrainerControl()
    arguments = SimpleNamespace(
        metric_for_best_model="m", greater_is_better=greater, load_best_model_at_end=True, save_strategy="best"
    )
    for value, known in zip(values, states(values, Aim(greater, patience)), strict=True):
        callback.on_evaluate(arguments, state, control, {"eval_m": value})
        # What the Trainer does between two validations.
        if state.best_metric is None or (value > state.best_metric if greater else value < state.best_metric):
            state.best_metric = value
        assert known.stop == control.should_training_stop
        assert known.value == state.best_metric
        if known.stop:
            return


@relaxed
@given(VALUES, st.booleans(), st.integers(0, 20), st.sampled_from([0.0, 0.5, 0.7]))
def test_a_resumed_run_decides_as_one_that_was_not_stopped(values, greater, cut, min_delta):
    aim = Aim(greater, 3, min_delta)
    whole = states(values, aim)
    first = min(cut, len(values))
    # Through a checkpoint's plain values.
    known = Best(**json.loads(json.dumps(whole[first - 1].state()))) if first else Best()
    for number, value in list(enumerate(values, 1))[first:]:
        known = known.after(number * 10, value, aim)
        assert known == whole[number - 1]


@relaxed
@given(st.lists(st.integers(0, 6), min_size=1))
def test_the_best_is_the_first_of_the_highest(values):
    last = states(values, Aim(True))[-1]
    assert (last.value, last.step) == (max(values), (values.index(max(values)) + 1) * 10)
    assert not last.stop


def test_small_steps_together_begin_the_waiting_anew_but_each_is_the_best():
    found = states([0.50, 0.54, 0.58, 0.62], Aim(True, patience=3, min_delta=0.1))
    assert [k.improved for k in found] == [True] * 4
    assert [k.waited for k in found] == [0, 1, 2, 0]
    assert not any(k.stop for k in found)


def test_nan_is_never_better_and_counts_as_waiting():
    found = states([math.nan, 0.3, math.nan, math.nan], Aim(True, patience=2))
    assert [k.stop for k in found] == [False, False, False, True]
    assert (found[-1].value, found[-1].step) == (0.3, 20)


def test_every_task_has_a_measure_that_its_validation_gives():
    labelled = ("sequence-classification", "token-classification", "question-answering", "multiple-choice")
    for task in (*labelled, "fill-mask", "embedding"):
        assert settle_metric(None, task) in measures_of(task)
    for kind in ("multi_label_classification", "regression"):
        assert settle_metric(None, "sequence-classification", kind) in measures_of("sequence-classification", kind)
    assert not greater_is_better(settle_metric(None, "sequence-classification", "regression"))
    assert settle_metric("weighted_f1", "token-classification") == "weighted_f1"


def test_a_measure_that_a_task_does_not_have_is_refused():
    with pytest.raises(TaskError, match=r"^metric=exact_match, multiple-choice is measured by acc"):
        settle_metric("exact_match", "multiple-choice")


def test_goals_decide_together_where_their_measures_point_one_way():
    metrics = {"topic": "macro_f1", "mlm": "loss", "pos": "accuracy"}
    assert deciding(metrics) == {"topic": "macro_f1", "pos": "accuracy"}
    assert deciding({"mlm": "loss"}) == {"mlm": "loss"}
    measures = {"topic": {"macro_f1": 0.5}, "pos": {"accuracy": 0.7}, "mlm": {"loss": 3.0}}
    assert decisive_value(measures, deciding(metrics)) == pytest.approx(0.6)
    assert math.isnan(decisive_value({"topic": {"macro_f1": 0.5}}, deciding(metrics)))
