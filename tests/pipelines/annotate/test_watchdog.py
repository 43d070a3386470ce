import os
from pathlib import Path

import pytest

from pipelines.annotate import watchdog
from pipelines.annotate.interrupt import Interrupt
from pipelines.annotate.watchdog import Heartbeat, Watchdog


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    return clock


def test_a_batch_of_any_worker_breaks_the_silence(tmp_path: Path, clock: Clock):
    watch = Watchdog(tmp_path)
    one, two = Heartbeat(tmp_path, "one"), Heartbeat(tmp_path, "two")
    clock.now += 60
    assert watch.silence() == 60
    for beat in (one, two):
        beat()
        clock.now += 5
        assert watch.silence() == 0
        clock.now += 5
        assert watch.silence() == 5
    # Another machine's clock may be years behind.
    os.utime(tmp_path / ".heartbeat-one", (1, 1))
    assert watch.silence() == 5
    clock.now += 5
    assert watch.silence() == 0
    clock.now += 5
    watch.heard()
    assert watch.silence() == 0


def test_a_heart_beats_at_most_once_a_second_and_never_fails(tmp_path: Path, clock: Clock):
    beat = Heartbeat(tmp_path, "one")
    path = tmp_path / ".heartbeat-one"
    beat()
    path.unlink()
    beat()
    assert not path.exists()
    clock.now += 1
    beat()
    assert path.exists()
    Heartbeat(tmp_path / "gone", "one")()


def test_workers_can_be_stopped_without_a_signal_and_even_without_a_folder(tmp_path: Path):
    with Interrupt(tmp_path / ".stop") as interrupt:
        interrupt.stop_workers()
    # It stays: workers that are still there must not go on.
    assert (tmp_path / ".stop").exists()
    Interrupt(tmp_path / "gone" / ".stop").stop_workers()
