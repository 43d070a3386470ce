"""A run that is killed again and again is watched as one that was not."""

import io
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.evaluate.scores import Scores
from pipelines.finetune.alarm import Watched
from pipelines.finetune.best import Aim
from pipelines.finetune.curves import Curves, read_lines
from pipelines.finetune.validation import LanguageLoss
from pipelines.finetune.watch import Watch, WatchedGoal
from xlmr_core.metrics import Classification

STEPS = 40
RUN = Watched(STEPS, 4, 1e-4, math.log(2))
GOALS = {"topic": WatchedGoal(("de", "fr"), RUN, "macro_f1"), "mlm": WatchedGoal(("", "sw", "xx"), RUN, "loss")}
TIMES = ("time", "seconds", "tokens_per_second")


def sums(goal, step):
    """What a step says: pure in its number."""
    generator = torch.Generator().manual_seed(step * 10 + len(goal))
    return torch.rand(len(GOALS[goal].languages), 3, generator=generator, dtype=torch.float64)


def scores(step, right):
    generator = torch.Generator().manual_seed(step)
    found = Scores()
    for language in ("de", "fr"):
        found.by_language[language] = counts = Classification()
        for number in range(20):
            hit = torch.rand((), generator=generator) < right
            counts.add("ab"[number % 2], "ab"[number % 2] if hit else "a")
    return found


def go(watch, first, last, *, saves=()):
    """Takes steps; what the newest checkpoint holds, and whether it is time to stop."""
    saved = None
    for step in range(first + 1, last + 1):
        watch.after_step({"loss": 1 / step, "grad_norm": 2.0}, {goal: sums(goal, step) for goal in GOALS})
        if step % 8 == 0:
            # Better up to the middle, then worse.
            right = step / STEPS if step <= STEPS / 2 else 0.0
            watch.after_validation(
                step, {"topic": scores(step, right), "mlm": LanguageLoss(GOALS["mlm"].languages, sums("mlm", step))}
            )
        if step % 5 == 0:
            watch.write_line(step, learning_rate=1e-4)
        if step % 10 == 0:
            watch.end_epoch(step, step // 10)
        if step in saves:
            buffer = io.BytesIO()
            torch.save({"step": step, "watch": watch.state()}, buffer)
            saved = buffer
    return saved


def without_times(file):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_lines(file)]


@pytest.fixture(scope="module", autouse=True)
def _alarm_of_short_runs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.finetune.alarm._FIRST_STEPS", 1)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / "metrics.jsonl"
    watch = Watch(GOALS, Aim(True, 3), Curves(file))
    go(watch, 0, STEPS)
    return without_times(file), watch.state()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, STEPS), max_size=4), st.integers(1, 9))
def test_a_run_that_is_killed_is_watched_as_one_that_is_not(tmp_path, whole, deaths, every):
    file = tmp_path / "metrics.jsonl"
    file.unlink(missing_ok=True)
    done, state = 0, None
    for last in [*deaths, STEPS]:
        watch = Watch(GOALS, Aim(True, 3), Curves(file, step=done), state)
        saved = go(watch, done, last, saves=range(every, STEPS + 1, every))
        if saved is not None:
            saved.seek(0)
            checkpoint = torch.load(saved, weights_only=True)
            done, state = checkpoint["step"], checkpoint["watch"]
    expected, known = whole
    assert without_times(file) == expected
    assert {key: watch.state()[key] for key in ("best", "alarms")} == {key: known[key] for key in ("best", "alarms")}


def test_lines_say_what_steps_said(tmp_path, whole):
    lines, known = whole
    first = next(line for line in lines if "event" not in line)
    together = sum(sums("topic", step) for step in range(1, 6))
    assert first["loss"] == pytest.approx(sum(1 / step for step in range(1, 6)) / 5)
    topic = first["goals"]["topic"]
    assert topic["loss"] == pytest.approx(float(together[:, 0].sum() / together[:, 1].sum()))
    assert topic["languages"]["fr"]["tokens"] == pytest.approx(float(together[1, 2]))
    assert set(first["goals"]["mlm"]["languages"]) == {"(none)", "sw", "xx"}
    epochs = [line for line in lines if line.get("event") == "epoch"]
    assert [line["step"] for line in epochs] == [10, 20, 30, 40]
    best = [line["step"] for line in lines if line.get("best") and line["goal"] == "topic"]
    assert best[-1] == known["best"]["step"] == 16
    warnings = [line for line in lines if line.get("event") == "warning"]
    assert any(line["message"].startswith("topic: every validation record is 'a'") for line in warnings)


def test_it_says_when_to_stop(tmp_path):
    watch = Watch(GOALS, Aim(True, patience=2), Curves(tmp_path / "metrics.jsonl"))
    found = [
        watch.after_validation(step, {"topic": scores(1, right)}).stop for step, right in ((8, 1), (16, 0), (24, 0))
    ]
    assert found == [False, False, True]
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["stop"] for line in lines if line["event"] == "validation"] == found


def test_one_goal_alone_has_no_name_in_its_lines(tmp_path):
    watch = Watch({"task": GOALS["topic"]}, Aim(True), Curves(tmp_path / "metrics.jsonl"))
    watch.after_step({"loss": 1.0}, {"task": sums("topic", 1)})
    watch.write_line(1)
    watch.after_validation(1, {"task": scores(1, 1.0)})
    watch.end_epoch(1, 1)
    trained, validated, ended = read_lines(tmp_path / "metrics.jsonl")
    assert (trained["loss"], set(trained["languages"])) == (1.0, {"de", "fr"})
    assert "goal" not in validated
    assert validated["best"]
    assert ended["loss"] == pytest.approx(float(sums("topic", 1)[:, 0].sum() / sums("topic", 1)[:, 1].sum()))
