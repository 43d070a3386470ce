"""What every benchmark shares: the row it gives, taking turns on a noisy machine, the facts of that machine."""

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number.

    Attributes:
        benchmark: Name of the benchmark.
        name: What was measured.
        value: The median where it was measured several times.
        unit: Of `value`, such as "tokens/s" or "x" for a ratio.
        low, high: Smallest and largest of the repetitions; None where there was one.
        goal: What it should reach; None where nothing is promised.
        at_most: Whether the goal is a ceiling rather than a floor.
    """

    benchmark: str
    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    @classmethod
    def of(
        cls,
        benchmark: str,
        name: str,
        values: Sequence[float],
        unit: str,
        *,
        goal: float | None = None,
        at_most: bool = False,
    ) -> "Row":
        """Median, minimum and maximum of repeated measurements."""
        return cls(benchmark, name, statistics.median(values), unit, min(values), max(values), goal, at_most)


def take_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Times several actions, each once a round, so that a slow minute of the machine hits all of them.

    Args:
        contestants: Actions by name, already warm.
        rounds: How often each of them runs; every round begins with another one.
        say: Told what is being run.

    Returns:
        Seconds of each action, in the order of the rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            say(f"round {number + 1} of {rounds}: {name}")
            began = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Ratio of two measurements of the same round, for every round."""
    return [one / other for one, other in zip(over, under, strict=True)]


def cores() -> int:
    """Cores that this process may use; every contestant gets so many threads."""
    return len(os.sched_getaffinity(0))


def facts() -> dict[str, str | int]:
    """Where and with what the numbers were measured; no path and no host name."""
    libraries = {name: version(name) for name in ("torch", "ray", "transformers", "tokenizers", "numpy", "pyarrow")}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **libraries,
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
