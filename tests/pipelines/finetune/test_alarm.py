"""When a run is said to have collapsed, on made curves and on trained models; and when not."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.finetune.alarm import Alarm, Watched

# The first example of a process may be slow.
relaxed = settings(deadline=None, max_examples=50)

STEPS = 1_000
WATCHED = Watched(STEPS, warmup_steps=100, learning_rate=5e-5, chance=math.log(3))


def warnings(losses, watched=WATCHED, alarm=None, every=10):
    """(step, warning) of a curve with a line every ten steps."""
    alarm, said = alarm or Alarm(), []
    for number, loss in enumerate(losses, 1):
        alarm, warning = alarm.after_loss(number * every, loss, watched)
        if warning:
            said.append((number * every, warning))
    return said


def noisy(curve, noise=0.03, seed=0):
    return np.array(curve) * np.random.default_rng(seed).normal(1, noise, len(curve))


FALLING = np.linspace(1.15, 0.3, 100)
LATE = np.concatenate([np.full(20, 1.10), np.linspace(1.10, 0.5, 80)])


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_stuck_at_chance_is_said_once_after_the_warm_up(seed):
    ((step, warning),) = warnings(noisy(np.full(100, 1.105), seed=seed))
    assert 300 <= step <= 350
    assert f"no better than chance (1.0986), after {step} of 1,000 steps" in warning
    assert warning.endswith("try a smaller training.learning_rate (now 5e-05) or more training.warmup (now 100 steps)")


@pytest.mark.parametrize("curve", [FALLING, LATE, np.full(100, 0.9), np.geomspace(8, 0.01, 100)])
@pytest.mark.parametrize("seed", range(5))
def test_learning_is_no_collapse(curve, seed):
    # What begins where it stays, but below half of chance, was learnt before.
    curve = curve * 0.4 if curve[0] == curve[-1] else curve
    assert not warnings(noisy(curve, seed=seed))


def test_a_collapse_after_learning_is_said_when_it_happens():
    curve = np.concatenate([np.linspace(1.15, 0.5, 60), np.full(40, 1.12)])
    ((step, warning),) = warnings(noisy(curve, 0.01))
    assert 600 < step <= 900
    assert "chance" in warning


def test_a_second_collapse_is_said_again():
    curve = np.concatenate([np.full(35, 1.1), np.full(30, 0.5), np.full(35, 1.1)])
    assert [step < 600 for step, _ in warnings(curve)] == [True, False]


def test_a_loss_that_wavers_about_the_limit_is_said_once():
    curve = np.tile([1.05, 1.10, 1.06, 1.09], 25)
    assert len(warnings(curve)) == 1


def test_without_a_chance_a_loss_that_does_not_fall_is_said():
    watched = Watched(STEPS, 0, 1e-3)
    ((step, warning),) = warnings(np.full(100, 4.0), watched)
    assert step == 300
    assert "it began at 4.0000 and has not fallen" in warning
    assert not warnings(np.linspace(4.0, 3.9, 100), watched)


@pytest.mark.parametrize("warmup", [300, 950])
def test_nothing_is_said_before_the_warm_up_is_well_over(warmup):
    said = warnings(np.full(100, 1.2), Watched(STEPS, warmup, 1e-5, math.log(3)))
    assert [step for step, _ in said] == [400 if warmup == 300 else 1_000]


def test_a_run_is_judged_at_its_end_at_the_latest_and_not_at_all_when_it_is_too_short_to_learn():
    said = warnings(np.full(12, 1.2), Watched(120, 100, 1e-5, math.log(3)))
    assert [step for step, _ in said] == [120]
    assert not warnings(np.full(6, 1.2), Watched(60, 5, 1e-5, math.log(3)))


def test_a_loss_that_fell_from_far_above_chance_and_stays_there_is_no_learning():
    falling = np.linspace(130.0, 39.0, 50)
    assert warnings(falling, every=STEPS // 50)


@pytest.mark.parametrize("every", [1, 10, 50])
def test_how_often_lines_are_written_does_not_matter(every):
    assert [step for step, _ in warnings(np.full(STEPS // every, 1.1), every=every)] == [300]


@relaxed
@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(0, 60))
def test_a_resumed_run_warns_as_one_that_was_not_stopped(losses, cut):
    watched, whole = Watched(60, 5, 1e-3, 2.0), []
    alarm = Alarm()
    for step, loss in enumerate(losses, 1):
        if step == cut + 1 and cut:
            alarm = Alarm(**json.loads(json.dumps(alarm.state())))
        alarm, warning = alarm.after_loss(step, loss, watched)
        whole.append(warning)
    assert whole == [dict(warnings(losses, watched, every=1)).get(step) for step in range(1, len(losses) + 1)]


def test_one_label_for_everything_is_said_once():
    gold = {"a": 30, "b": 30}
    alarm, early = Alarm().after_validation(100, gold, {"a": 60}, WATCHED)
    assert early is None
    alarm, warning = alarm.after_validation(300, gold, {"a": 60, "b": 0}, WATCHED)
    assert warning is not None
    assert warning.startswith("every validation record is 'a' after 300 of 1,000 steps, 2 labels occur; try a smaller")
    alarm, again = alarm.after_validation(400, gold, {"a": 60}, WATCHED)
    assert again is None
    alarm, well = alarm.after_validation(500, gold, {"a": 59, "b": 1}, WATCHED)
    assert well is None
    assert alarm.after_validation(600, gold, {}, WATCHED)[1].startswith("nothing is found in any validation record")


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [({"a": 10, "b": 9}, {"a": 19}), ({"a": 96, "b": 4}, {"a": 100}), ({"a": 50}, {"a": 50}), ({}, {})],
)
def test_few_records_or_one_gold_label_say_nothing(gold, predicted):
    assert Alarm().after_validation(900, gold, predicted, WATCHED)[1] is None
