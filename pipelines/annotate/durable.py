"""Writing so that a crash, or a power cut, leaves either the old state or the new one."""

import json
import os
from pathlib import Path
from typing import Any


def step(name: str) -> None:
    """Marks the point before each durable action; tests replace it to crash exactly there."""


def write(path: Path, data: bytes | memoryview) -> None:
    """Creates `path`, which must not exist, with `data` on the disk when this returns."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, values: Any) -> bytes:
    """Creates `path` with `values` as JSON, keys sorted, and returns the bytes."""
    data = (json.dumps(values, sort_keys=True, indent=1) + "\n").encode()
    write(path, data)
    return data


def replace(temporary: Path, path: Path) -> None:
    """Renames, and makes the new name last."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last; the content of its files is not its business."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
