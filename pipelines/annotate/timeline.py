"""Tokens over time, added up shard by shard in bounded memory, in any order."""

import math
from dataclasses import dataclass, field

# Seconds since 1970 on the clocks of the workers.
Interval = tuple[float, float]

_FINEST_SECONDS = 0.25
_MOST_SPANS = 1_024
_LEAST_SECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class Rate:
    """Speed in some interval.

    Attributes:
        run: Which run of the job, counted from 0.
        start, end: Seconds of work since the job began, pauses between runs left out.
        tokens_per_s: Mean.
    """

    run: int
    start: float
    end: float
    tokens_per_s: float


@dataclass(slots=True)
class Timeline:
    """Tokens in spans of equal width; it doubles when they become too many.

    Spans begin at multiples of their width, so the order of what is added does not matter.

    Attributes:
        width: Of a span, in seconds.
        tokens: By number of the span.
        runs: From the first to the last sign of work under each lease.
    """

    width: float = _FINEST_SECONDS
    tokens: dict[int, float] = field(default_factory=dict)
    runs: dict[str, Interval] = field(default_factory=dict)

    def add(self, lease: str, began: float, ended: float, tokens: int) -> None:
        """Spreads tokens evenly over the time in which they were computed."""
        began = min(began, ended - _LEAST_SECONDS)
        first, last = self.runs.get(lease, (began, ended))
        self.runs[lease] = (min(first, began), max(last, ended))
        while (ended - began) / self.width > _MOST_SPANS / 2:
            self._double()
        for span in range(math.floor(began / self.width), math.floor(ended / self.width) + 1):
            shared = min(ended, (span + 1) * self.width) - max(began, span * self.width)
            self.tokens[span] = self.tokens.get(span, 0.0) + tokens * shared / (ended - began)
        while len(self.tokens) > _MOST_SPANS:
            self._double()

    def _double(self) -> None:
        self.width *= 2
        halves, self.tokens = self.tokens, {}
        for span, tokens in halves.items():
            self.tokens[span // 2] = self.tokens.get(span // 2, 0.0) + tokens

    def work(self) -> list[Interval]:
        """When the job was at work, in order; runs that overlap count as one."""
        merged: list[Interval] = []
        for start, end in sorted(self.runs.values()):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def seconds(self) -> float:
        """How long the job was at work."""
        return sum(end - start for start, end in self.work())

    def mean(self) -> float:
        """Tokens per second of work; 0.0 without work."""
        return sum(self.tokens.values()) / max(self.seconds(), _LEAST_SECONDS)

    def rates(self, most: int) -> list[Rate]:
        """Speed over time, about `most` intervals; one in which nothing was computed has 0."""
        work = self.work()
        scale = 1
        while sum((end - start) / (self.width * scale) for start, end in work) > most:
            scale *= 2
        width = self.width * scale
        tokens: dict[int, float] = {}
        for span, count in self.tokens.items():
            tokens[span // scale] = tokens.get(span // scale, 0.0) + count
        # Runs close to each other may share a span.
        worked: dict[int, float] = {}
        pieces: list[tuple[int, int, float, float]] = []
        elapsed = 0.0
        for run, (start, end) in enumerate(work):
            for span in range(math.floor(start / width), math.ceil(end / width)):
                low, high = max(start, span * width), min(end, (span + 1) * width)
                worked[span] = worked.get(span, 0.0) + high - low
                pieces.append((run, span, elapsed + low - start, elapsed + high - start))
            elapsed += end - start
        return [
            Rate(run, low, high, tokens.get(span, 0.0) / max(worked[span], _LEAST_SECONDS))
            for run, span, low, high in pieces
            if high > low
        ]
