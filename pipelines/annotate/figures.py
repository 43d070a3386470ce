"""The figures of a report: counts to a chart, a sentence about it, and the table under it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.annotate.progress import duration
from pipelines.annotate.statistics import LENGTH_EDGES, NO_LANGUAGE, NOT_A_CODE, SCORE_EDGES, Counts, Totals
from pipelines.page.charts import Bar, Bin, Part, Step, Tick, bar_chart, compact, histogram, step_chart
from pipelines.page.document import MOST_TABLE_ROWS, Figure, Table, percent

_MOST_BARS = 10
_TIME_STEPS = 120
_TICKS, _TICK_DISTANCE = 6, 0.12
# Key of the counts, class of the style sheet, and name; a row has at most one of the first two.
_TROUBLE = (
    ("quarantined", "red", "quarantined"),
    ("truncated", "amber", "truncated"),
    ("long", "soft", "in several windows"),
)
_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200)


def span(seconds: float) -> str:
    """Seconds in words; a dash for none."""
    return duration(seconds) if seconds else "–"


def labels(column: str, counts: Counts) -> Figure:
    """How often each label was given."""
    ranked = sorted(counts["labels"].items(), key=lambda entry: (-entry[1], entry[0]))
    total = sum(count for _, count in ranked) + counts.get("others", 0)
    bars = [
        Bar(label, (Part(count, "main"),), f"{count:,}", percent(count, total)) for label, count in ranked[:_MOST_BARS]
    ]
    rest = ranked[_MOST_BARS:]
    note = f"{total:,} given, {len(ranked):,} different" if ranked else "No label was given"
    if rest:
        note += f"; the {len(bars)} most frequent are {percent(sum(c for _, c in ranked[:_MOST_BARS]), total)} of them"
    rows = [(label, f"{count:,}", percent(count, total)) for label, count in ranked[:MOST_TABLE_ROWS]]
    if counts.get("others"):
        rows.append(("any other", f"{counts['others']:,}", percent(counts["others"], total)))
    svg = bar_chart(bars, f"Labels of {column}", note) if bars else ""
    return Figure("Labels", svg, f"{note}.", column, (), Table(("Label", "Count", "Share"), rows, 2))


def scores(column: str, counts: Counts) -> Figure:
    """How the scores are spread: twentieths where all lie from 0 to 1, else finer near 0 and coarser far from it."""
    found = {int(key): count for key, count in counts["scores"].items()}
    zero = int(np.searchsorted(SCORE_EDGES, 0.0))
    unit = all(zero < key <= zero + 20 for key in found)
    first, last = (zero + 1, zero + 20) if unit or not found else (min(found), max(found))
    bins = [Bin(_range(SCORE_EDGES, key, unit), found.get(key, 0)) for key in range(first, last + 1)]
    total = sum(found.values())
    ticks = _score_ticks(first, last)
    note = f"{total:,} scores"
    if unit:
        high = sum(count for key, count in found.items() if key > zero + 18)
        low = sum(count for key, count in found.items() if key <= zero + 10)
        note += f", {percent(high, total)} over 0.9, {percent(low, total)} up to 0.5" if total else ""
    else:
        note += "; the axis is not linear beyond 1"
    if counts.get("not_finite"):
        note += f"; {counts['not_finite']:,} more are not finite"
    rows = [(entry.name, f"{entry.count:,}", percent(entry.count, total)) for entry in bins if entry.count]
    svg = histogram(bins, ticks, (), f"Scores of {column}", note) if found else ""
    return Figure("Scores", svg, f"{note}.", column, (), Table(("Score", "Count", "Share"), rows, 2))


def lengths(totals: Totals, windows: Mapping[int, str]) -> Figure | None:
    """Tokens of a row, with the limit of a window."""
    found = {int(key): count for key, count in totals.counts.get("lengths", {}).items() if int(key) > 0}
    if not found:
        return None
    total = sum(found.values())
    last = max(*found, *(int(np.searchsorted(LENGTH_EDGES, limit)) for limit in windows), 0)
    bins = [Bin(_tokens(key), found.get(key, 0)) for key in range(1, last + 1)]
    powers = [key for key in range(1, min(last + 1, len(LENGTH_EDGES))) if np.log2(LENGTH_EDGES[key]) % 1 == 0]
    every = -(-len(powers) // (_TICKS + 3))
    ticks = [Tick(key / last, _size(LENGTH_EDGES[key])) for key in powers[::-1][::every]]
    several = len(windows) > 1
    limits = [
        Tick(_place(LENGTH_EDGES, limit) / last, f"window of {limit}" + (f" ({name})" if several else ""))
        for limit, name in sorted(windows.items())
    ]
    long, cut = totals.counts.get("long", 0), totals.statuses["truncated"]
    note = "Every text went through whole, in one window."
    if long or cut:
        note = (
            f"Of the rows with a text, {percent(long, total)} needed several windows, {percent(cut, total)} were cut."
        )
    rows = [(entry.name, f"{entry.count:,}", percent(entry.count, total)) for entry in bins if entry.count]
    svg = histogram(bins, ticks, limits, "Tokens of a row", note)
    return Figure("Tokens of a row", svg, note, "n_tokens", (), Table(("Tokens", "Rows", "Share"), rows, 2))


def speed(totals: Totals) -> Figure | None:
    """Tokens a second over the time at work."""
    rates = totals.timeline.rates(_TIME_STEPS)
    if not rates:
        return None
    total = rates[-1].end
    steps = [
        Step(rate.start / total, rate.end / total, rate.tokens_per_s, _rate_words(rate.start, rate.tokens_per_s))
        for rate in rates
    ]
    unit = next((step for step in _SECONDS if total / step <= _TICKS), 86_400 * max(1, round(total / _TICKS / 86_400)))
    ticks = [Tick(at * unit / total, _clock(at * unit)) for at in range(int(total / unit) + 1)]
    starts = [after.start for before, after in pairwise(rates) if after.run != before.run]
    breaks = [Tick(start / total, "resumed" if len(starts) < 4 else "") for start in starts]
    note = f"{totals.timeline.mean():,.0f} on average, over {span(total)} at work"
    if starts:
        note += f" in {len(starts) + 1} runs; the pauses between them are left out"
    rows = [(_clock(rate.start), f"{rate.tokens_per_s:,.0f}") for rate in rates]
    svg = step_chart(steps, ticks, breaks, "Tokens per second over time", note)
    return Figure("Tokens per second", svg, f"{note}.", "", (), Table(("After", "Tokens per second"), rows, 1))


def quarantine(totals: Totals) -> Figure:
    """Why rows were set aside."""
    ranked = totals.codes.most_common()
    if not ranked:
        return Figure("Quarantine", note="No row was set aside.")
    bars = [
        Bar(code, (Part(count, "red"),), f"{count:,}", percent(count, totals.rows))
        for code, count in ranked[:_MOST_BARS]
    ]
    note = f"{totals.quarantined:,} of {totals.rows:,} rows, {percent(totals.quarantined, totals.rows)}"
    rows = [(code, f"{count:,}", percent(count, totals.rows)) for code, count in ranked]
    svg = bar_chart(bars, "Quarantined rows by reason", note)
    return Figure("Quarantine", svg, f"{note}.", "code", (), Table(("Reason", "Rows", "Share of all"), rows, 2))


def rows_by_language(source: str, found: Counts) -> Figure:
    """Rows by language, quarantined ones included."""
    ranked, total = _ranked(found), sum(map(_all_rows, found.values()))
    rows = [(_language(code), f"{_all_rows(e):,}", percent(_all_rows(e), total)) for code, e in ranked]
    bars = [
        Bar(label, (Part(_all_rows(entry), "main"),), count, share)
        for (label, count, share), (_, entry) in zip(rows[:_MOST_BARS], ranked, strict=False)
    ]
    note = f"{len(found.keys() - {NO_LANGUAGE, NOT_A_CODE}):,} languages"
    if len(ranked) > _MOST_BARS:
        note += f"; the {_MOST_BARS} most frequent have "
        note += f"{percent(sum(_all_rows(entry) for _, entry in ranked[:_MOST_BARS]), total)} of the rows"
    svg = bar_chart(bars, "Rows by language", note) if bars else ""
    table = Table(("Language", "Rows", "Share"), rows[:MOST_TABLE_ROWS], 2)
    return Figure("Rows by language", svg, f"{note}.", source, (), table)


def trouble_by_language(source: str, found: Counts) -> Figure:
    """Share of each language's rows that were quarantined, truncated or read in several windows."""
    title, ranked = "Truncation and quarantine by language", _ranked(found)
    head = ("Language", "Rows", "Tokens a row", "Several windows", "Truncated", "Quarantined")
    rows = [
        (
            _language(code),
            f"{_all_rows(entry):,}",
            f"{entry.get('tokens', 0) / entry['rows']:,.1f}" if entry.get("rows") else "–",
            *(f"{entry.get(key, 0):,}" for key in ("long", "truncated", "quarantined")),
        )
        for code, entry in ranked[:MOST_TABLE_ROWS]
    ]
    table = Table(head, rows, 5)
    affected = [(code, entry) for code, entry in ranked if any(entry.get(key) for key, _, _ in _TROUBLE)]
    if not affected:
        return Figure(title, note="Every row went through whole, in one window.", column=source, table=table)
    sums = {key: sum(entry.get(key, 0) for _, entry in affected) for key, _, _ in _TROUBLE}
    note = (
        f"{sums['truncated']:,} rows truncated, {sums['quarantined']:,} quarantined, {sums['long']:,} read in several "
        "windows; bars are shares of a language's rows."
    )
    # Of the most frequent of them, so that a language of three rows does not lead.
    bars = [_trouble_bar(code, entry) for code, entry in affected[: 2 * _MOST_BARS]]
    bars.sort(key=lambda bar: [-sum(part.value for part in bar.parts[:2]), -bar.parts[2].value])
    legend = tuple((name, kind) for key, kind, name in _TROUBLE if sums[key])
    return Figure(title, bar_chart(bars[:_MOST_BARS], title, note), note, source, legend, table)


def _trouble_bar(code: str, entry: Mapping[str, int]) -> Bar:
    rows = _all_rows(entry)
    parts = tuple(
        Part(entry.get(key, 0) / rows, kind, f"{_language(code)}, {name}: {entry.get(key, 0):,} of {rows:,}")
        for key, kind, name in _TROUBLE
    )
    affected = sum(entry.get(key, 0) for key, _, _ in _TROUBLE)
    return Bar(_language(code), parts, percent(affected, rows), f"of {compact(rows)}")


def _ranked(found: Counts) -> list[tuple[str, Any]]:
    return sorted(found.items(), key=lambda item: (-_all_rows(item[1]), item[0]))


def _all_rows(entry: Mapping[str, int]) -> int:
    return entry.get("rows", 0) + entry.get("quarantined", 0)


def _language(code: str) -> str:
    return {NO_LANGUAGE: "none", NOT_A_CODE: "any other"}.get(code, code)


def _range(edges: npt.NDArray[np.float64], key: int, unit: bool) -> str:
    """A bin of scores in words."""
    shown = "{:.2f}" if unit else "{:g}"
    low = shown.format(edges[key - 1]) if key > 0 else None
    high = shown.format(edges[key]) if key < len(edges) else None
    return f"{low} to {high}" if low and high else f"up to {high}" if high else f"over {low}"


def _tokens(key: int) -> str:
    """A bin of lengths in words."""
    if key >= len(LENGTH_EDGES):
        return f"over {LENGTH_EDGES[-1]:,.0f}"
    low, high = LENGTH_EDGES[key - 1] + 1, LENGTH_EDGES[key]
    return f"{high:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _score_ticks(first: int, last: int) -> list[Tick]:
    """Ticks at quarters up to 1 and at powers of two beyond, for bins `first` to `last`, where there is room."""
    ticks: list[Tick] = []
    for key in range(max(first - 1, 0), min(last + 1, len(SCORE_EDGES))):
        edge, at = float(SCORE_EDGES[key]), (key - first + 1) / (last - first + 1)
        is_round = (4 * edge).is_integer() if abs(edge) <= 1 else np.log2(abs(edge)) % 1 == 0
        if is_round and (not ticks or at - ticks[-1].at >= _TICK_DISTANCE):
            ticks.append(Tick(at, f"{edge:,g}".replace("-", "−")))
    return ticks


def _place(edges: npt.NDArray[np.float64], value: float) -> float:
    """Where a value lies on an axis of bins of equal width, the first of which is bin 1."""
    key = min(int(np.searchsorted(edges, value)), len(edges) - 1)
    return float(key - 1 + (value - edges[key - 1]) / (edges[key] - edges[key - 1]))


def _size(length: float) -> str:
    return f"{length:,.0f}" if length < 10_000 else f"{length / 1024:,.0f}Ki"


def _clock(seconds: float) -> str:
    """A time on the axis, short."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _rate_words(start: float, rate: float) -> str:
    return f"after {_clock(start)}: {rate:,.0f} tokens per second"
