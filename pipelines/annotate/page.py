"""The page of a report: one HTML file that loads nothing and runs nothing.

Every text goes through `charts.escape`; a content security policy forbids whatever else a browser could fetch or run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.annotate import figures
from pipelines.annotate.figures import span
from pipelines.annotate.samples import MOST_CHARACTERS, SampleRow
from pipelines.annotate.statistics import Totals
from pipelines.page.charts import Part, escape, stacked_bar
from pipelines.page.document import (
    MOST_TABLE_ROWS,
    Figure,
    Table,
    count_of,
    percent,
    render_cards,
    render_document,
    render_legend,
    render_table,
    section,
)


@dataclass(frozen=True, slots=True)
class AnnotationFacts:
    """One annotation of the job.

    Attributes:
        name: Names its columns.
        task: What it is.
        model: Resolved name of the checkpoint; empty where no shard says it.
        window: Tokens of a window; 0 where unknown.
        labels: How many it chooses from; 0 where it has none.
        columns: Names and types.
    """

    name: str
    task: str
    model: str
    window: int
    labels: int
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a page shows.

    Attributes:
        name: Of the output directory.
        finished: Whether the job is.
        planned_rows, planned_shards, files: Of the whole job.
        left_out: Files that could not be read, and why.
        annotations: In the user's order.
        settings: Other settings that decide results, by name.
        totals: Of the committed shards.
        samples: Rows with texts; empty unless asked for.
        written: When.
    """

    name: str
    finished: bool
    planned_rows: int
    planned_shards: int
    files: int
    left_out: tuple[tuple[str, str], ...]
    annotations: tuple[AnnotationFacts, ...]
    settings: tuple[tuple[str, str], ...]
    totals: Totals
    samples: tuple[SampleRow, ...]
    written: datetime


def render(facts: Facts) -> str:
    """The whole page."""
    windows = {a.window: a.name for a in reversed(facts.annotations) if a.window}
    body = [
        _header(facts),
        "<main>",
        _facts(facts),
        _rows_bar(facts),
        section("Annotations", _annotations_table(facts)),
        *(_annotation(facts, annotation) for annotation in facts.annotations),
        section(
            "Length and speed", render_cards([figures.lengths(facts.totals, windows), figures.speed(facts.totals)])
        ),
        _languages(facts),
        section("Sample rows", _samples(facts.samples)) if facts.samples else "",
        "</main>",
        _footer(facts),
    ]
    return render_document(f"{facts.name}: annotation report", body)


def _header(facts: Facts) -> str:
    state = "finished" if facts.finished else "unfinished"
    work = facts.totals.timeline.work()
    when = f"{_interval(work[0][0], work[-1][1])}, " if work else ""
    done = f"{facts.totals.shards:,} of {facts.planned_shards:,} shards committed, " if not facts.finished else ""
    return (
        '<header><p class="kicker">xlmr annotate</p>'
        f'<div class="title"><h1>{escape(facts.name)}</h1><span class="state {state}">{state.capitalize()}</span></div>'
        f'<p class="note">{escape(when + done)}{count_of(facts.files, "input file")}</p></header>'
    )


def _interval(start: float, end: float) -> str:
    first, last = (datetime.fromtimestamp(moment, UTC) for moment in (start, end))
    day, clock = "%-d %B %Y, ", "%H:%M:%S" if end - start < 600 else "%H:%M"
    return f"{first:{day}{clock}} to {last:{day if first.date() != last.date() else ''}{clock}} UTC"


def _facts(facts: Facts) -> str:
    totals, planned = facts.totals, facts.planned_rows
    runs, seconds = len(totals.timeline.runs), totals.timeline.seconds()
    statuses, windows = totals.statuses, count_of(totals.windows, "window")

    def share(number: int) -> str:
        return percent(number, planned)

    def tone(number: int, kind: str) -> str:
        return kind if number else ""

    tiles = [
        ("Rows planned", f"{planned:,}", f"in {count_of(facts.planned_shards, 'shard')}", ""),
        ("Annotated in full", f"{statuses['ok']:,}", share(statuses["ok"]), ""),
        ("Truncated", f"{statuses['truncated']:,}", share(statuses["truncated"]), tone(statuses["truncated"], "warn")),
        ("Quarantined", f"{totals.quarantined:,}", share(totals.quarantined), tone(totals.quarantined, "bad")),
        ("Empty", f"{statuses['empty']:,}", share(statuses["empty"]), ""),
        ("Tokens", f"{totals.tokens:,}", f"read as {totals.encoder_tokens:,} in {windows}", ""),
        ("Time at work", span(seconds), f"in {count_of(runs, 'run')}, start-up excluded" if runs else "", ""),
        ("Tokens per second", f"{totals.timeline.mean():,.0f}" if seconds else "–", "through encoders", ""),
    ]
    cells = (
        f'<div><dt>{name}</dt><dd class="{kind}">{value}</dd><dd class="small">{note}</dd></div>'
        for name, value, note, kind in tiles
    )
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _rows_bar(facts: Facts) -> str:
    totals = facts.totals
    entries = [
        ("annotated in full", totals.statuses["ok"], "main"),
        ("truncated", totals.statuses["truncated"], "amber"),
        ("empty", totals.statuses["empty"], "grey"),
        ("quarantined", totals.quarantined, "red"),
        ("not done yet", facts.planned_rows - totals.rows, "track"),
    ]
    parts = [Part(count, kind, f"{name}: {count:,}") for name, count, kind in entries if count > 0]
    bar = stacked_bar(parts, "Rows by status", ", ".join(part.name for part in parts) or "no rows")
    return bar + render_legend((name, kind) for name, count, kind in entries if count > 0)


def _annotations_table(facts: Facts) -> str:
    rows = [
        (
            a.name,
            a.task.replace("-", " "),
            a.model or "–",
            ", ".join(f"{name}: {type_}" for name, type_ in a.columns) or "–",
            f"{a.labels:,}" if a.labels else "–",
            f"{a.window:,}" if a.window else "–",
        )
        for a in facts.annotations
    ]
    table = Table(("Name", "Task", "Model", "Columns", "Labels", "Window"), rows, numbers=2, folds=True)
    return f'<div class="card">{render_table(table)}</div>'


def _languages(facts: Facts) -> str:
    """Which rows did not go through whole, and why; languages, too, where they came with the input."""
    found: list[Figure | None] = []
    labelled = facts.totals.counts.get("columns", {})
    for source, counts in facts.totals.counts.get("languages", {}).items():
        if source not in labelled:
            found.append(figures.rows_by_language(source, counts))
        found.append(figures.trouble_by_language(source, counts))
    reasons = figures.quarantine(facts.totals)
    if len(found) == 1:
        return section("Truncation and quarantine", render_cards([*found, reasons]) + _left_out(facts))
    return section("Languages", render_cards(found)) + section("Quarantine", render_cards([reasons]) + _left_out(facts))


def _annotation(facts: Facts, annotation: AnnotationFacts) -> str:
    """Its labels and scores."""
    counted = facts.totals.counts.get("columns", {})
    found: list[Figure] = []
    for column, _ in annotation.columns:
        counts = counted.get(column, {})
        if "labels" in counts:
            found.append(figures.labels(column, counts))
        if "scores" in counts:
            found.append(figures.scores(column, counts))
    if not found:
        return ""
    title = f'{escape(annotation.name)} <span class="from">{escape(annotation.model)}</span>'
    return section(title, render_cards(found))


def _left_out(facts: Facts) -> str:
    if not facts.left_out:
        return ""
    files = count_of(len(facts.left_out), "file")
    table = render_table(Table(("File", "Reason"), facts.left_out[:MOST_TABLE_ROWS], numbers=0))
    return (
        f'<article class="card"><h3>Files left out</h3><p class="note">{files} could not be read; their rows are not '
        f"among those planned.</p>{table}</article>"
    )


def _samples(samples: Sequence[SampleRow]) -> str:
    items = []
    for row in samples:
        text = "The input cannot be read as it was, so its text is not shown." if row.text is None else row.text
        quote = f'<blockquote dir="auto">{escape(text)}</blockquote>' if text else ""
        values = "".join(
            f'<span><span class="from">{escape(name)}</span> <bdi>{escape(value)}</bdi></span>'
            for name, value in row.annotations
        )
        items.append(
            f'<li><span class="from"><bdi>{escape(row.id)}</bdi>, {escape(row.status)}, '
            f'{count_of(row.n_tokens, "token")}</span>{quote}<div class="values">{values}</div></li>'
        )
    note = f"The first rows, texts cut to {MOST_CHARACTERS} characters. They are on this page because it was asked for."
    return f'<article class="card"><p class="note">{note}</p><ol class="samples">{"".join(items)}</ol></article>'


def _footer(facts: Facts) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in facts.settings)
    missing = facts.totals.uncounted
    lacking = f"<p>{count_of(missing, 'shard')} of an older version without counts are left out of the charts.</p>"
    return (
        f"<footer>{lacking if missing else ''}<p>{escape(settings)}</p>"
        f"<p>Written {facts.written:%-d %B %Y, %H:%M} UTC from the commit records of the output. "
        "<code>xlmr verify</code> checks the data; <code>xlmr report</code> writes this page again.</p></footer>"
    )
