"""Metrics as lines and as TensorBoard's events: nothing twice, nothing that is no number, however often a run dies."""

import json
import math
import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from pipelines.finetune.curves import Curves, read_lines, scalars

LINE = {"loss": 0.5, "languages": {"de": {"loss": 0.25, "tokens": 7.0}}}


def events(folder):
    """(step, tag, value) of all events of a folder, read as TensorBoard reads them."""
    (file,) = folder.iterdir()
    data, at, found = file.read_bytes(), 0, []
    assert file.name.startswith("events.out.tfevents.")
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        assert struct.unpack("<I", data[at + 8 : at + 12])[0] == masked(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        assert struct.unpack("<I", data[at + 12 + length : at + 16 + length])[0] == masked(body)
        event = Event.FromString(body)
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        at += 16 + length
    return found


def masked(data):
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_lines_and_events_say_the_same(tmp_path):
    with Curves(tmp_path / "metrics.jsonl", tmp_path / "tensorboard") as curves:
        curves.write(LINE | {"step": 10, "steps": 100})
        curves.write({"event": "validation", "step": 10, "mean": {"f1": 0.75}, "best": True, "metric": "f1"})
        curves.write({"event": "warning", "step": 10, "message": "the loss"})
    first, second, third = read_lines(tmp_path / "metrics.jsonl")
    assert first["languages"] == LINE["languages"]
    assert second["best"] is True
    assert third["message"] == "the loss"
    assert first["time"] <= second["time"]
    assert events(tmp_path / "tensorboard") == [
        (10, "train/loss", 0.5),
        (10, "train/languages/de/loss", 0.25),
        (10, "train/languages/de/tokens", 7.0),
        (10, "validation/mean/f1", 0.75),
    ]


def test_what_is_no_number_is_null_and_no_point(tmp_path):
    with Curves(tmp_path / "metrics.jsonl", tmp_path / "tensorboard") as curves:
        curves.write({"step": 1, "loss": math.nan, "languages": {"de": {"loss": math.inf}}})
    (line,) = (json.loads(text, parse_constant=None) for text in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (line["loss"], line["languages"]["de"]["loss"]) == (None, None)
    assert not events(tmp_path / "tensorboard")
    assert not list(scalars(line))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(1, 12), max_size=4), st.integers(1, 4), st.booleans())
def test_a_run_that_is_killed_leaves_one_line_and_one_point_a_step(tmp_path, deaths, every, torn):
    """Steps 1 to 12, a checkpoint after each `every`-th; killed after some steps, perhaps while it writes a line."""
    lines, folder = tmp_path / "metrics.jsonl", tmp_path / "tensorboard"
    lines.unlink(missing_ok=True)
    kept = 0
    for last in [*deaths, 12]:
        curves = Curves(lines, folder, step=kept)
        for step in range(kept + 1, max(last, kept) + 1):
            curves.write({"step": step, "loss": 1 / step})
            kept = step if step % every == 0 else kept
        curves.close()
        if torn and last != 12:
            with lines.open("a") as file:
                file.write('{"step": 1')
    # The last start goes on from the last checkpoint as well.
    steps = [line["step"] for line in read_lines(lines)]
    assert steps == [step for step, _, _ in events(folder)]
    assert steps == list(range(1, 13))


def test_without_a_folder_there_are_no_events(tmp_path):
    Curves(tmp_path / "metrics.jsonl").write({"step": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
