"""Ctrl-C and SIGTERM: the first lets shards at work finish, the second ends at once."""

import contextlib
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Turns a signal into a file that workers look for before they begin a shard.

    Attributes:
        signal: The first signal that came; None before.
    """

    def __init__(self, stop: Path) -> None:
        """Args: stop: The file; it must be where all workers see it, and goes away with the folder it lies in."""
        self.signal: signal.Signals | None = None
        self._stop = stop
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        # Only the main thread may have handlers; elsewhere the caller's own way of stopping stays.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stop_workers(self) -> None:
        """Lets workers begin no further shard."""
        # Without the file they are waited for in vain, which ends too; the reason to stop counts more.
        with contextlib.suppress(OSError):
            self._stop.touch()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self.stop_workers()
