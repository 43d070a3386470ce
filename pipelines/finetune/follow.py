"""Says how a run goes while Ray Train has the main thread: new lines of its metrics, with the time that is left."""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.finetune.curves import TRAIN, VALIDATION, WARNING

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


@contextmanager
def follow(file: Path) -> Iterator[None]:
    """Logs the lines that are written to a file of metrics meanwhile; warnings as such.

    Args:
        file: One JSON object a line; need not exist yet. A run that goes on may write it anew.
    """
    stop, lines, said = threading.Event(), _NewLines(file), _Said()
    for line in lines():
        said.new(line)

    def watch() -> None:
        clock = _Clock()
        while True:
            last_look = stop.wait(_POLL_SECONDS)
            for line in lines():
                if said.new(line):
                    level = logging.WARNING if line.get("event") == WARNING else logging.INFO
                    logger.log(level, "%s", describe(line, clock.left(line)))
            if last_look:
                return

    watcher = threading.Thread(target=watch, name="follow-metrics", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def describe(line: Mapping[str, Any], seconds_left: float | None = None) -> str:
    """A line of metrics for people.

    Args:
        line: See `curves`.
        seconds_left: Of the run.
    """
    match line.get("event", TRAIN):
        case "warning":
            return f"step {line['step']:,}: {line['message']}"
        case "validation":
            return _describe_validation(line)
        case "epoch":
            losses = {"": line["loss"]} if "loss" in line else {g: found["loss"] for g, found in line["goals"].items()}
            said = ", ".join(f"{goal} loss {_number(loss)}".strip() for goal, loss in losses.items())
            return f"step {line['step']:,}: epoch {line['epoch']:,} done, {said}"
        case _:
            steps = line["steps"]
            left = "" if seconds_left is None else f", {_duration(seconds_left)} left"
            of_heads = ", ".join(f"{goal} {_number(found['loss'])}" for goal, found in line.get("goals", {}).items())
            loss = f"loss {_number(line['loss'])}" + (f" ({of_heads})" if of_heads else "")
            speed = f"{line['tokens_per_second']:,.0f} tokens/s{left}"
            return f"step {line['step']:,} of {steps:,} ({line['step'] / steps:.0%}) {loss} {speed}"


def _describe_validation(line: Mapping[str, Any]) -> str:
    metric, goal = line["metric"], f" {line['goal']}" if line.get("goal") else ""
    found = {name: value for name, value in line["languages"].items() if value is not None}
    text = f"step {line['step']:,} validation{goal}: {metric} {_number(line['mean'].get(metric))}"
    if len(found) > 1:
        (lowest, least), (highest, most) = min(found.items(), key=_value), max(found.items(), key=_value)
        text += f", mean of {len(found)} languages, {_number(least)} ({lowest}) to {_number(most)} ({highest})"
    stops = ", training.patience is at its end and so is the run" if line.get("stop") else ""
    return text + (", the best so far" if line.get("best") else "") + stops


def _value(item: tuple[str, float]) -> float:
    return item[1]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class _Clock:
    """How long a run will take, by the steps since its first line; the first of all steps are no measure."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    def left(self, line: Mapping[str, Any]) -> float | None:
        """Seconds until the end, if that can be said."""
        if line.get("event", TRAIN) != TRAIN:
            return None
        now, step = time.monotonic(), line["step"]
        if self._began is None:
            self._began = now, step
            return None
        began, first = self._began
        return (line["steps"] - step) * (now - began) / (step - first) if step > first else None


class _Said:
    """Which lines were said: a run that goes on takes some steps again."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], int] = {}

    def new(self, line: Mapping[str, Any]) -> bool:
        """Whether this line was not said before; it is from now on."""
        event = line.get("event", TRAIN)
        about = (event, str(line.get("goal", ""))) if event == VALIDATION else (event, str(line.get("message", "")))
        if line["step"] <= self._last.get(about, -1):
            return False
        self._last[about] = line["step"]
        return True


class _NewLines:
    """Lines of a growing file, each once; all of them again when there is another file of that name."""

    def __init__(self, file: Path) -> None:
        self._file, self._inode, self._place = file, 0, 0

    def __call__(self) -> list[dict[str, Any]]:
        """Those since the last call; what is being written has no end yet."""
        try:
            with self._file.open("rb") as stream:
                status = self._file.stat()
                if status.st_ino != self._inode or status.st_size < self._place:
                    self._inode, self._place = status.st_ino, 0
                stream.seek(self._place)
                whole, newline, _ = stream.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._place += len(whole) + len(newline)
        return [json.loads(line) for line in whole.split(b"\n") if line]
