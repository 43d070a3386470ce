"""Says how a run goes while Ray Train has the main thread: new lines of its metrics, with the time that is left."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


@contextmanager
def follow(file: Path, steps: int) -> Iterator[None]:
    """Logs the lines that are written to a file of metrics meanwhile.

    Args:
        file: One JSON object a line; need not exist yet.
        steps: Of the whole run.
    """
    stop, seen = threading.Event(), len(_lines(file))

    def watch() -> None:
        nonlocal seen
        began, first = time.monotonic(), 0
        while True:
            last_look = stop.wait(_POLL_SECONDS)
            for line in _lines(file)[seen:]:
                metrics = json.loads(line)
                seen += 1
                if not first:
                    began, first = time.monotonic(), metrics["step"]
                logger.info("%s", describe(metrics, steps, time.monotonic() - began, metrics["step"] - first))
            if last_look:
                return

    watcher = threading.Thread(target=watch, name="follow-metrics", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def describe(metrics: dict[str, float], steps: int, seconds: float, done: float) -> str:
    """A line of metrics for people.

    Args:
        metrics: What was logged.
        steps: Of the whole run.
        seconds: Since the first line.
        done: Steps since then.
    """
    left = f", {(steps - metrics['step']) * seconds / done / 60:.1f} min left" if done else ""
    return (
        f"step {metrics['step']:,.0f} of {steps:,} loss {metrics['loss']:.4f} "
        f"{metrics['tokens_per_second']:,.0f} tokens/s{left}"
    )


def _lines(file: Path) -> list[str]:
    """Whole lines; what is being written has no end yet."""
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []
