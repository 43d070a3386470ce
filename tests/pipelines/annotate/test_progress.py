import io
import logging

import pytest
from rich.console import Console

from pipelines.annotate.progress import Display, Tally, duration


def one_shard(tally: Tally) -> None:
    tally.add(rows=10, quarantined=1, tokens=500, windows=12, busy_s=0.5)


def test_a_line_says_what_is_done_and_what_is_left():
    tally = Tally(rows=100, shards=10, rows_done=20, shards_done=2)
    one_shard(tally)
    line = tally.line()
    for part in ("rows 30/100", "shards 3/10", "padding 0%", "quarantined 1", "ETA"):
        assert part in line
    assert tally.rates()[1] > tally.rates()[0] > 0


def test_nothing_done_has_no_end_in_sight():
    assert "ETA unknown" in Tally(rows=100, shards=10).line()


def test_a_terminal_gets_a_live_line():
    stream = io.StringIO()
    tally = Tally(rows=100, shards=10)
    with Display(tally, Console(file=stream, force_terminal=True, width=200)) as display:
        one_shard(tally)
        display.note("stopping [now]")
    assert "rows 10/100" in stream.getvalue()
    assert "stopping [now]" in stream.getvalue()


def test_anything_else_gets_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipelines.annotate.progress._LOG_SECONDS", 0.0)
    stream = io.StringIO()
    tally = Tally(rows=100, shards=10)
    with caplog.at_level(logging.INFO), Display(tally, Console(file=stream)) as display:
        one_shard(tally)
        display.refresh()
    assert "rows 10/100" in caplog.text
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (59.4, "59.4 s"), (60, "1 min 00 s"), (3725, "1 h 02 min")]
)
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text
