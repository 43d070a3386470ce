"""`evaluation.html`: what was counted, as one page that loads nothing; `evaluation.json` holds all numbers."""

from datetime import UTC, datetime

from pipelines.evaluate import figures
from pipelines.evaluate.results import Evaluation
from pipelines.evaluate.tables import ALL, MEAN, cell, notes, spread_cell
from pipelines.page.charts import escape
from pipelines.page.document import (
    Figure,
    count_of,
    render_cards,
    render_document,
    render_marks,
    render_table,
    section,
)
from xlmr_core.metrics import over_languages

# Measures that have a chart each.
_MOST_CHARTS = 2


def render(evaluation: Evaluation) -> str:
    """The whole page."""
    task = evaluation.task.replace("-", " ")
    several = len(evaluation.summary.languages) > 1
    charts = (
        [figures.by_language(evaluation, measure) for measure in evaluation.shown[:_MOST_CHARTS]] if several else []
    )
    confusions = [figures.confusions(evaluation, result) for result in evaluation.results]
    table = f'<article class="card">{render_table(figures.measures_table(evaluation))}</article>'
    parts = [
        _header(evaluation, task),
        "<main>",
        _tiles(evaluation),
        section("Languages" if several else "Measures", render_cards(charts) + table),
        section("Labels", render_cards([figures.by_label(evaluation)])),
        section("Confusions", _column(confusions)),
        section("Remarks", _remarks(evaluation)),
        "</main>",
        f"<footer><p>Written {datetime.now(UTC):%-d %B %Y, %H:%M} UTC. evaluation.json holds all measures, of all "
        "labels in all languages. A mean of languages counts each language the same, however many records it has; ± "
        "and the pale bands are standard deviations of these languages.</p></footer>",
    ]
    return render_document(f"{task}: evaluation", parts)


def _header(evaluation: Evaluation, task: str) -> str:
    summary = evaluation.summary
    what = f"{count_of(summary.examples, 'record')} in {count_of(len(summary.languages), 'language')}"
    marks = [(result.name, *figures.mark(number)) for number, result in enumerate(evaluation.results)]
    return (
        f'<header><p class="kicker">xlmr evaluate</p><div class="title"><h1>{escape(task.capitalize())}</h1></div>'
        f'<p class="note">{escape(what)}</p>{render_marks(marks)}</header>'
    )


def _tiles(evaluation: Evaluation) -> str:
    """The main measure of each model."""
    measure = evaluation.shown[0]
    cells = []
    for result in evaluation.results:
        spread = over_languages(result.scores.measures())
        several = len(evaluation.summary.languages) > 1
        value, of = (spread_cell(spread, measure), MEAN) if several else (cell(result.scores.together(), measure), ALL)
        whole = f"{ALL} {cell(result.scores.together(), measure)}" if several else ""
        name = escape(f"{figures.measure_name(measure)}, {of}")
        cells.append(
            f'<div><dt>{name}</dt><dd>{escape(value)}</dd><dd class="small"><bdi>{escape(result.name)}</bdi>'
            f"{escape(f', {whole}' if whole else '')}</dd></div>"
        )
    return f'<dl class="facts models">{"".join(cells)}</dl>'


def _column(found: list[Figure | None]) -> str:
    """Wide figures, one below the other, with their tables open."""
    cards = []
    for figure in found:
        if figure is not None and figure.table is not None:
            table = f"<h3>Most frequent confusions</h3>{render_table(figure.table)}" if figure.table.rows else ""
            cards.append(
                f'<article class="card"><h3>{escape(figure.title)}</h3><p class="note">{escape(figure.note)}</p>'
                f"{figure.svg}{table}</article>"
            )
    return "".join(cards)


def _remarks(evaluation: Evaluation) -> str:
    found = list(notes(evaluation))
    found += [
        f"{count:,} records were left out, they cannot be used: {code}"
        for code, count in evaluation.summary.rejected.items()
    ]
    items = "".join(f"<p class=note>{escape(note)}</p>" for note in found)
    return f'<article class="card">{items}</article>' if items else ""
