"""One driver at a time on one output: a numbered lease, taken by compare-and-swap.

The lease with the highest number counts. To take over is to create the next number with `os.link`, which one
of any number of contenders can do; a lease file is never removed, so no number is ever taken twice. Whoever
lost its lease may still run, stopped and continued for example: it cannot do harm, since its workers write
below `run/tmp/<token>`, which the new holder moves away first, and commits are first-wins in any case.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.annotate import durable
from xlmr_core.errors import XLMRError

TERM_SECONDS = 60.0

logger = logging.getLogger(__name__)


class OutputError(XLMRError):
    """An output directory that cannot be used: another job's, another driver's, damaged, or not writable."""


@dataclass(frozen=True, slots=True)
class _Holder:
    token: str
    host: str
    boot: str
    pid: int
    process_start: str
    heartbeat: float
    term: float
    released: bool = False

    def is_gone(self) -> bool:
        """Whether the holder can no longer be at work.

        On this machine its process decides, however old its heartbeat; elsewhere only the heartbeat can.
        """
        if self.released:
            return True
        if self.host != _host():
            return time.time() - self.heartbeat > self.term
        return self.boot != _boot_id() or _process_start(self.pid) not in (self.process_start, "?")

    def __str__(self) -> str:
        age = max(0.0, time.time() - self.heartbeat)
        return f"process {self.pid} on {self.host.split('/')[0]} (last heartbeat {age:.0f} s ago)"


class Lease:
    """The right to write one output directory, kept alive by a thread until `release`.

    Attributes:
        token: Identity of this holding; also the name of its folder below `run/tmp`.
    """

    def __init__(self, folder: Path, number: int, token: str, term: float) -> None:
        self.token = token
        self._folder = folder
        self._path = folder / f"{number:08d}.json"
        self._next = folder / f"{number + 1:08d}.json"
        self._term = term
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another driver has taken over."""
        return self._next.exists()

    def check(self) -> None:
        """Raises OutputError when the lease was lost."""
        if self.lost:
            raise OutputError(
                f"{self._folder.parent.parent}: another driver took over after this one gave no sign of "
                f"life for {self._term:.0f} s; let that one finish, nothing is lost"
            )

    def release(self) -> None:
        """Gives the lease back, so that the next driver need not wait; safe to call twice.

        Never raises: it comes last, when the job is done or a more telling error is on its way.
        """
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            try:
                self._write(released=True)
            except OSError as error:
                logger.warning("lease not released, the next driver may have to wait error=%s", error.strerror)

    def _beat(self) -> None:
        while not self._stop.wait(self._term / 6):
            try:
                self._write(released=False)
            except OSError:
                # A full or absent disk shows in the next commit; a late heartbeat alone is no reason to die.
                continue

    def _write(self, *, released: bool) -> None:
        temporary = self._folder / f".{self.token}"
        temporary.write_text(json.dumps(asdict(_holder(self.token, self._term, released=released))))
        os.replace(temporary, self._path)


def acquire(folder: Path, *, term: float = TERM_SECONDS) -> Lease:
    """Takes the lease whose files lie in `folder`, at once or not at all.

    Args:
        folder: Created when absent.
        term: Seconds without heartbeat after which another machine may take over.

    Raises:
        OutputError: When somebody holds it, saying who.
    """
    folder.mkdir(exist_ok=True)
    token = uuid.uuid4().hex
    temporary = folder / f".{token}"
    durable.write_json(temporary, asdict(_holder(token, term, released=False)))
    try:
        while True:
            numbers = [int(path.stem) for path in folder.glob("*.json")]
            number = max(numbers, default=0)
            if numbers and not (holder := _read(folder / f"{number:08d}.json")).is_gone():
                raise OutputError(
                    f"{folder.parent.parent} is in use by {holder}, one driver may write it; wait for it or "
                    "stop it, then run the same command again"
                )
            durable.step("lease:link")
            try:
                os.link(temporary, folder / f"{number + 1:08d}.json")
            except FileExistsError:
                continue
            except OSError as error:
                raise OutputError(
                    f"{folder}: hard links do not work here ({error.strerror}), commits need them; "
                    "choose an --output on another file system"
                ) from error
            durable.sync_folder(folder)
            return Lease(folder, number + 1, token, term)
    finally:
        temporary.unlink(missing_ok=True)


def newest_token(folder: Path) -> str | None:
    """Token of the lease that counts; None where no lease can be seen."""
    newest = max(folder.glob("*.json"), default=None)
    return _read(newest).token if newest is not None else None


def _read(path: Path) -> _Holder:
    try:
        return _Holder(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{path} is damaged; when no other driver runs, delete it and try again") from error


def _holder(token: str, term: float, *, released: bool) -> _Holder:
    pid = os.getpid()
    return _Holder(token, _host(), _boot_id(), pid, _process_start(pid), time.time(), term, released)


def _host() -> str:
    """Host and process namespace: containers may share a name, or number their processes alike."""
    try:
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """Start time of a process, which tells it from a later one of the same number.

    "" when there is none, or it has ended and only awaits its parent; "?" when it runs but is hidden.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            return "?"
        return "?"
