"""What a user sees of a running job and of its end: numbers, names of files, never a word of the texts."""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipelines.annotate.commit import Commit

logger = logging.getLogger(__name__)

_RATE_SECONDS = 60.0
_LOG_SECONDS = 10.0


@dataclass(slots=True)
class Tally:
    """Counts of a running job.

    Attributes:
        rows, shards: Of the whole job.
        rows_done, shards_done: Committed so far, earlier runs included.
        run_rows, quarantined, tokens, windows: Of this run.
        busy_s: Seconds of all models in this run.
    """

    rows: int
    shards: int
    rows_done: int = 0
    shards_done: int = 0
    run_rows: int = 0
    quarantined: int = 0
    tokens: int = 0
    windows: int = 0
    busy_s: float = 0.0
    _recent: deque[tuple[float, int, int]] = field(default_factory=lambda: deque([(time.monotonic(), 0, 0)]))

    def add(self, *, rows: int, quarantined: int, tokens: int, windows: int, busy_s: float) -> None:
        """Counts one committed shard."""
        self.rows_done += rows
        self.run_rows += rows
        self.shards_done += 1
        self.quarantined += quarantined
        self.tokens += tokens
        self.windows += windows
        self.busy_s += busy_s
        now = time.monotonic()
        self._recent.append((now, rows, tokens))
        while len(self._recent) > 2 and self._recent[1][0] < now - _RATE_SECONDS:
            self._recent.popleft()

    def rates(self) -> tuple[float, float]:
        """Rows and tokens a second, of the last minute."""
        # The first entry only opens the interval; its own rows were done before it.
        rows = sum(entry[1] for entry in list(self._recent)[1:])
        tokens = sum(entry[2] for entry in list(self._recent)[1:])
        seconds = max(time.monotonic() - self._recent[0][0], 1e-3)
        return rows / seconds, tokens / seconds

    def line(self) -> str:
        """Everything in one line.

        Padding is a constant: an `xlmr_core.batch.PackedBatch` has no place for any.
        """
        rows_s, tokens_s = self.rates()
        left = self.rows - self.rows_done
        eta = duration(left / rows_s) if rows_s > 0 else "unknown"
        return (
            f"rows {self.rows_done:,}/{self.rows:,}  shards {self.shards_done:,}/{self.shards:,}  "
            f"{rows_s:,.0f} rows/s  {tokens_s:,.0f} tokens/s  padding 0%  "
            f"quarantined {self.quarantined:,}  ETA {eta}"
        )


class Display:
    """Shows a tally: a live line on a terminal, else a line of the log every ten seconds."""

    def __init__(self, tally: Tally, console: Console | None = None) -> None:
        self._tally = tally
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._note = ""
        self._logged = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self.refresh()
            self._live.stop()

    def note(self, text: str) -> None:
        """Says something beside the numbers, until the next note."""
        self._note = text
        if text and self._live is None:
            logger.info("%s", text)
        self.refresh()

    def refresh(self) -> None:
        """Brings the display up to date; cheap enough for every receipt."""
        if self._live is not None:
            self._live.update(Text("  ".join(filter(None, (self._tally.line(), self._note)))), refresh=True)
        elif time.monotonic() - self._logged >= _LOG_SECONDS:
            self._logged = time.monotonic()
            logger.info("progress %s", self._tally.line())


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a job.

    Attributes:
        output: Where the results are.
        finished_before: Whether an earlier run had done everything.
        shards: Committed shards.
        rows: All records.
        statuses: Records of the data by status.
        codes: Records set aside, by reason.
        tokens, windows: That went through encoders, over all runs.
        busy_s: Seconds of all models, over all runs.
        run_rows, run_tokens: Of this run.
        seconds: This run took.
        unreadable: Files that could not be read, with reasons.
    """

    output: Path
    finished_before: bool
    shards: int
    rows: int
    statuses: dict[str, int]
    codes: dict[str, int]
    tokens: int
    windows: int
    busy_s: float
    run_rows: int
    run_tokens: int
    seconds: float
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of_commits(
        cls,
        commits: Iterable[Commit],
        *,
        output: Path,
        finished_before: bool,
        tally: Tally | None,
        seconds: float,
        unreadable: tuple[str, ...],
    ) -> Self:
        """Adds up what was committed, in this run and before."""
        totals, statuses, codes = Counter[str](), Counter[str](), Counter[str]()
        busy_s = 0.0
        for commit in commits:
            totals.update(shards=1, rows=commit.planned)
            totals.update(tokens=commit.stats["encoder_tokens"], windows=commit.stats["windows"])
            statuses.update(commit.statuses)
            codes.update(commit.stats["codes"])
            busy_s += commit.stats["busy_s"]
        return cls(
            output=output,
            finished_before=finished_before,
            shards=totals["shards"],
            rows=totals["rows"],
            statuses=dict(statuses),
            codes=dict(codes),
            tokens=totals["tokens"],
            windows=totals["windows"],
            busy_s=busy_s,
            run_rows=tally.run_rows if tally else 0,
            run_tokens=tally.tokens if tally else 0,
            seconds=seconds,
            unreadable=unreadable,
        )

    def table(self) -> Table:
        """The summary for a terminal."""
        table = Table(show_header=False, box=None, pad_edge=False, highlight=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_column()
        table.add_row("rows", f"{self.rows:,}", f"in {self.shards:,} shards")
        for status, count in sorted(self.statuses.items()):
            table.add_row(f"  {status}", f"{count:,}", f"{count / max(self.rows, 1):.2%}")
        for code, count in sorted(self.codes.items()):
            table.add_row(f"  quarantined: {code}", f"{count:,}", f"{count / max(self.rows, 1):.2%}")
        table.add_row("tokens", f"{self.tokens:,}", f"in {self.windows:,} windows, none padded")
        if self.finished_before:
            table.add_row("time", duration(self.seconds), "an earlier run had finished this job; nothing to do")
        else:
            rate = f"{self.run_rows / self.seconds:,.0f} rows/s, {self.run_tokens / self.seconds:,.0f} tokens/s"
            table.add_row("time", duration(self.seconds), f"{rate}, start-up included")
        for message in self.unreadable:
            table.add_row("left out", "", escape(message), style="bold red")
        table.add_row("output", "", escape(str(self.output / "data")))
        if (self.output / "report.html").exists():
            table.add_row("report", "", escape(str(self.output / "report.html")))
        table.add_row("to check it", "", escape(f"xlmr verify {self.output}"))
        return table


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
