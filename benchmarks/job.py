"""Runs `xlmr annotate` as a user does, in a process of its own, and reads what it leaves behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import pipelines

_ROOT = Path(pipelines.__file__).parents[1]
_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver process of a job that ended well.

    Attributes:
        seconds: From the start of the process to its end.
        peak_bytes: Most memory that was resident at once in it alone, workers not counted.
    """

    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class CommitTimes:
    """When shards were committed and what was in them.

    Attributes:
        when: Seconds, ascending, one a shard.
        tokens: Tokens that went through encoders, one number a shard.
    """

    when: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def steady_seconds(self) -> float:
        """From the first commit to the last: without start-up, model load and closing."""
        return self.when[-1] - self.when[0]

    @property
    def steady_rate(self) -> float:
        """Tokens a second between the first commit and the last; the first shard was computed before."""
        return sum(self.tokens[1:]) / self.steady_seconds


def write_texts(path: Path, texts: Sequence[str], *, row_group: int) -> None:
    """Writes a Parquet file with the columns id and text."""
    ids = pa.array(range(len(texts)), pa.int64())
    pq.write_table(pa.table({"id": ids, "text": pa.array(texts, pa.string())}), path, row_group_size=row_group)


def annotate(source: Path, output: Path, task: str, *, shard_rows: int | None = None) -> Driver:
    """Annotates a Parquet file.

    Args:
        source: From `write_texts`.
        output: A directory that does not exist.
        task: As after `--task`.
        shard_rows: Rows of a shard; None lets the job choose, as everything else.

    Raises:
        RuntimeError: The job failed; the message is what it said.
    """
    command = [sys.executable, "-m", "pipelines", "annotate", str(source), "--output", str(output)]
    command += ["--id-column", "id", "--task", task]
    command += ["--shard-rows", str(shard_rows)] if shard_rows is not None else []
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    log = output.with_suffix(".log")
    began = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _high_water(process.pid))
            time.sleep(_SAMPLE_SECONDS)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise RuntimeError(f"annotate ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")
    return Driver(seconds, peak)


def committed_rows(output: Path) -> int:
    """Rows of the finished output, counted in its files."""
    return sum(int(pq.read_metadata(path).num_rows) for path in (output / "data").glob("*.parquet"))


def commit_times(output: Path) -> CommitTimes:
    """Reads the commit records; one is written when its shard's data is durable."""
    records = []
    for path in (output / "run" / "commits").glob("*.json"):
        stats = json.loads(path.read_bytes())["stats"]
        records.append((path.stat().st_mtime, int(stats["encoder_tokens"])))
    records.sort()
    return CommitTimes(tuple(when for when, _ in records), tuple(tokens for _, tokens in records))


def _high_water(process: int) -> int:
    """Largest resident size so far, bytes; the kernel keeps it, so no peak is missed between two looks."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kilobytes[0] * 1024 if kilobytes else 0
