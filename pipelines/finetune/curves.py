"""The metrics of a run as lines of JSON and as TensorBoard's events, both without steps that were taken twice.

The lines are the truth. A run that goes on from a checkpoint drops those of steps that it will take again, and writes
the events anew from the others: so there is one line and one point a step however often a run was killed.

A line has a `step`, an `event` ("train" where it says none) and numbers, by name or in groups by name. What is no
finite number is null in JSON, and no point in TensorBoard.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

TRAIN, EPOCH, VALIDATION, WARNING = "train", "epoch", "validation", "warning"
# What places a point and is none.
_PLACES = ("step", "steps", "event", "time")


class Curves:
    """Writes metrics; only one worker of a run does.

    Args:
        lines: File with a JSON object a line.
        tensorboard: Folder of its own for TensorBoard's events; None for none.
        step: Optimiser steps that were taken already; lines of later ones are dropped.
    """

    def __init__(self, lines: Path, tensorboard: Path | None = None, *, step: int = 0) -> None:
        self._lines = lines
        lines.parent.mkdir(parents=True, exist_ok=True)
        _drop_after(lines, step)
        self._events = None if tensorboard is None else _Events(tensorboard)
        if self._events is not None and lines.is_file():
            for line in read_lines(lines):
                self._events.draw(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line, with the time of now."""
        line = {**line, "time": time.time()}
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(line), ensure_ascii=False, allow_nan=False) + "\n")
        if self._events is not None:
            self._events.draw(line)

    def close(self) -> None:
        """Ends the events."""
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Events:
    """A file of TensorBoard's events, the only one of its folder."""

    def __init__(self, folder: Path) -> None:
        # Only the worker that writes needs it, and it takes a second to import.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self.close = self._writer.close

    def draw(self, line: Mapping[str, Any]) -> None:
        """One event with a point for each number."""
        points = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line)]
        when, step = line.get("time", 0.0), int(line["step"])
        self._writer.write_event(self._event(wall_time=when, step=step, summary=self._summary(value=points)))
        self._writer.flush()


def scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a line, with names such as "train/languages/de/loss"."""

    def walk(name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        for key, value in values.items():
            if isinstance(value, Mapping):
                yield from walk(f"{name}/{key}", value)
            elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield f"{name}/{key}", float(value)

    name = "/".join([line.get("event", TRAIN), *([line["goal"]] if "goal" in line else [])])
    yield from walk(name, {key: value for key, value in line.items() if key not in _PLACES})


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of metrics; one without an end, as a kill leaves it, is none."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _drop_after(file: Path, step: int) -> None:
    """Removes lines of later steps, and half a line at the end."""
    if not file.is_file():
        return
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as kept:
        for line in read_lines(file):
            if line["step"] <= step:
                kept.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    draft.replace(file)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(of_key) for key, of_key in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
