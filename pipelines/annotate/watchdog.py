"""Signs of life: model workers leave them beside what they write, the driver looks for them.

A shard may take long, one record of it alone may; so a finished shard is not the only sign. The heartbeat files lie in
the folder of the driver's lease and go away with it. Only whether a time changed counts: clocks may differ.
"""

import contextlib
import time
from pathlib import Path

_EVERY_SECONDS = 1.0
# A leading dot: no attempt at a shard has such a name.
_PREFIX = ".heartbeat-"


class Heartbeat:
    """A worker's sign of life, for `ModelGraph.forward(on_batch=...)`."""

    def __init__(self, folder: Path, worker: str) -> None:
        """Args: folder: `run/tmp/<token>`. worker: Tells workers apart."""
        self._path = folder / f"{_PREFIX}{worker}"
        self._last = float("-inf")

    def __call__(self) -> None:
        """Touches the file, at most once a second."""
        now = time.monotonic()
        if now - self._last >= _EVERY_SECONDS:
            self._last = now
            # A folder that is gone or full shows in the next commit.
            with contextlib.suppress(OSError):
                self._path.touch()


class Watchdog:
    """How long there was no sign of life."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: As for `Heartbeat`."""
        self._folder = folder
        self._heard = self._looked = time.monotonic()
        self._beats: dict[str, int] = {}

    def heard(self) -> None:
        """Notes a sign of life that came another way."""
        self._heard = time.monotonic()

    def silence(self) -> float:
        """Seconds since the last sign of life."""
        now = time.monotonic()
        if now - self._looked >= _EVERY_SECONDS:
            self._looked = now
            beats = self._look()
            if beats != self._beats:
                self._beats, self._heard = beats, now
        return now - self._heard

    def _look(self) -> dict[str, int]:
        beats = {}
        for path in self._folder.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                beats[path.name] = path.stat().st_mtime_ns
        return beats
