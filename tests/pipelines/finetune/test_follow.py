"""What is said while a run goes."""

import json
import logging

import pytest

from pipelines.finetune.curves import Curves
from pipelines.finetune.follow import describe, follow

LINE = {"step": 10, "steps": 100, "loss": 0.5, "tokens_per_second": 1234.5}
VALIDATION = {
    "event": "validation",
    "step": 20,
    "metric": "macro_f1",
    "mean": {"macro_f1": 0.5},
    "all": {},
    "languages": {"de": 0.6, "sw": 0.4, "xx": None},
}


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "pipelines")
    return lambda: [record.getMessage() for record in caplog.records]


def test_new_lines_are_said_once_and_old_and_unfinished_ones_not(tmp_path, said):
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(LINE | {"step": 5}) + "\n")
    with follow(file), file.open("a") as stream:
        stream.write(json.dumps(LINE) + "\n" + json.dumps(LINE | {"step": 20}) + "\n" + '{"step": 3')
        stream.flush()
    assert len(said()) == 2
    assert said()[0] == "step 10 of 100 (10%) loss 0.5000 1,234 tokens/s"
    assert said()[1].startswith("step 20 of 100 (20%)")


def test_steps_that_a_resumed_run_takes_again_are_not_said_again(tmp_path, said, monkeypatch):
    monkeypatch.setattr("pipelines.finetune.follow._POLL_SECONDS", 0.01)
    file = tmp_path / "metrics.jsonl"
    with follow(file):
        for start in (0, 10):
            curves = Curves(file, step=start)
            for step in range(start + 10, start + 31, 10):
                curves.write(LINE | {"step": step})
            curves.write(VALIDATION | {"step": start + 30})
    assert [line.split(" of")[0] for line in said() if "of 100" in line] == [f"step {n}" for n in (10, 20, 30, 40)]
    assert [line for line in said() if "validation" in line][-1].startswith("step 40")


def test_the_time_left_is_said_shortly():
    assert describe(LINE | {"step": 40}, 120.0).endswith("tokens/s, 2 min left")
    assert describe(LINE, 9000.0).endswith("2 h 30 min left")
    assert describe(LINE, 12.0).endswith("12 s left")
    assert describe(LINE, 89.0).endswith(", 89 s left")
    assert describe(LINE, 90.0).endswith(", 2 min left")


def test_of_several_heads_each_loss_is_said():
    goals = {"topic": {"loss": 1.5}, "lm": {"loss": None}}
    assert describe(LINE | {"goals": goals}) == (
        "step 10 of 100 (10%) loss 0.5000 (topic 1.5000, lm none) 1,234 tokens/s"
    )


def test_the_time_left_follows_from_the_steps_since_the_first_line(tmp_path, said, monkeypatch):
    times = iter([100.0, 160.0])
    monkeypatch.setattr("pipelines.finetune.follow.time.monotonic", lambda: next(times))
    file = tmp_path / "metrics.jsonl"
    with follow(file):
        file.write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | {"step": 40}) + "\n")
    assert said()[-1].endswith(", 2 min left")


def test_validations_are_said_by_their_mean_and_their_ends():
    expected = "step 20 validation: macro_f1 0.5000, mean of 2 languages, 0.4000 (sw) to 0.6000 (de)"
    assert describe(VALIDATION) == expected
    assert describe(VALIDATION | {"best": True, "goal": "topic"}) == (
        expected.replace("validation", "validation topic") + ", the best so far"
    )
    assert describe(VALIDATION | {"languages": {"de": None}, "mean": {}}) == "step 20 validation: macro_f1 none"


def test_an_early_end_is_said():
    assert describe(VALIDATION | {"best": False, "stop": True}).endswith(
        ", training.patience is at its end and so is the run"
    )
    assert "patience" not in describe(VALIDATION | {"best": False, "stop": False})


def test_epochs_are_said_with_their_losses():
    line = {"event": "epoch", "step": 9, "epoch": 2}
    assert describe(line | {"loss": 0.25, "languages": {}}) == "step 9: epoch 2 done, loss 0.2500"
    several = {"topic": {"loss": 0.5}, "mlm": {"loss": None}}
    assert describe(line | {"goals": several}) == "step 9: epoch 2 done, topic loss 0.5000, mlm loss none"


def test_warnings_are_warnings(tmp_path, caplog):
    with follow(tmp_path / "metrics.jsonl"):
        curves = Curves(tmp_path / "metrics.jsonl")
        curves.write({"event": "warning", "step": 7, "message": "the loss is 1.1"})
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "step 7: the loss is 1.1")


def test_a_run_that_writes_nothing_says_nothing(tmp_path, said):
    with follow(tmp_path / "metrics.jsonl"):
        pass
    assert not said()
