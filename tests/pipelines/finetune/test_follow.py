"""What is said while a run goes."""

import json
import logging

from pipelines.finetune.follow import describe, follow

LINE = {"step": 10, "loss": 0.5, "tokens_per_second": 1234.5}


def test_new_lines_are_said_once_and_old_and_unfinished_ones_not(tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(LINE | {"step": 5}) + "\n")
    with caplog.at_level(logging.INFO, "pipelines"), follow(file, 100), file.open("a") as stream:
        stream.write(json.dumps(LINE) + "\n" + json.dumps(LINE | {"step": 20}) + "\n" + '{"step": 3')
        stream.flush()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0] == "step 10 of 100 loss 0.5000 1,234 tokens/s"
    assert said[1].startswith("step 20 of 100")


def test_the_time_left_follows_from_the_steps_done():
    assert describe(LINE | {"step": 40}, 100, seconds=60.0, done=30).endswith("tokens/s, 2.0 min left")


def test_a_run_that_writes_nothing_says_nothing(tmp_path, caplog):
    with caplog.at_level(logging.INFO), follow(tmp_path / "metrics.jsonl", 3):
        pass
    assert not caplog.records
