import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.annotate import lease
from pipelines.annotate.lease import OutputError, acquire

HOLD = """
import sys, time
from pathlib import Path
from pipelines.annotate.lease import acquire
acquire(Path(sys.argv[1]), term=0.6)
print("held", flush=True)
time.sleep(60)
"""


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "lease"


def test_a_second_driver_is_refused_at_once_and_told_who_holds_it(folder: Path):
    held = acquire(folder)
    started = time.monotonic()
    with pytest.raises(OutputError, match=r"in use by process \d+ on .*heartbeat"):
        acquire(folder)
    assert time.monotonic() - started < 1
    held.release()
    held.release()
    acquire(folder).release()


def test_a_dead_driver_is_succeeded_at_once_but_a_stopped_one_is_not(folder: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.8)
        with pytest.raises(OutputError, match=f"process {child.pid}"):
            acquire(folder)
        child.kill()
        # Not waited for: a zombie is dead, too.
        deadline = time.monotonic() + 5
        while True:
            try:
                taken = acquire(folder)
                break
            except OutputError:
                assert time.monotonic() < deadline
        taken.check()
        taken.release()


def test_a_process_that_reuses_the_number_of_a_dead_one_is_not_taken_for_it(folder: Path):
    acquire(folder, term=0.1)._stop.set()
    edit(folder / "00000001.json", process_start="1")
    acquire(folder).release()


@pytest.mark.parametrize("change", [{"boot": "another"}, {"released": True}])
def test_a_lease_from_before_a_reboot_or_given_back_is_free(folder: Path, change: dict[str, object]):
    acquire(folder)._stop.set()
    edit(folder / "00000001.json", **change)
    acquire(folder).release()


def test_another_machine_keeps_its_lease_as_long_as_its_heart_beats(folder: Path):
    old = acquire(folder, term=30)
    old._stop.set()
    edit(folder / "00000001.json", host="elsewhere", heartbeat=time.time() - 20)
    with pytest.raises(OutputError, match="on elsewhere"):
        acquire(folder)
    edit(folder / "00000001.json", heartbeat=time.time() - 31)
    new = acquire(folder)
    assert old.lost
    with pytest.raises(OutputError, match="took over"):
        old.check()
    new.check()
    new.release()


def test_the_heart_beats(folder: Path):
    held = acquire(folder, term=0.3)
    first = json.loads((folder / "00000001.json").read_text())["heartbeat"]
    time.sleep(0.5)
    assert json.loads((folder / "00000001.json").read_text())["heartbeat"] > first
    held.release()


def test_of_many_contenders_for_a_free_lease_one_gets_it(folder: Path):
    for number in range(1, 8):
        barrier, won, refused = threading.Barrier(8), [], []

        def contend(barrier=barrier, won=won, refused=refused) -> None:
            barrier.wait()
            try:
                won.append(acquire(folder))
            except OutputError as error:
                refused.append(error)

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(refused)) == (1, 7)
        won[0].release()
        assert len(list(folder.glob("*.json"))) == number
    assert not list(folder.glob(".*"))


def test_a_damaged_lease_is_named(folder: Path):
    folder.mkdir()
    (folder / "00000001.json").write_text("{")
    with pytest.raises(OutputError, match=r"00000001\.json is damaged"):
        acquire(folder)


def test_a_file_system_without_hard_links_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lease.os, "link", refuse)
    with pytest.raises(OutputError, match="hard links do not work"):
        acquire(folder)
