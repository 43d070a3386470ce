"""One HTML file that loads nothing and runs nothing: its frame, and cards with a chart, a sentence and a table.

Every text goes through `charts.escape`; a content security policy forbids whatever else a browser could fetch or run.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.page.charts import SHAPES, Shape, escape

MOST_TABLE_ROWS = 500
_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the last `numbers` columns are numbers; on a narrow page it may fold, a line for each cell."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: int
    folds: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its words.

    Attributes:
        title: What it shows.
        svg: The chart; empty where there is nothing to draw.
        note: What it says, in a sentence.
        column: Of the output, where it shows one.
        legend: Names and style classes of its parts.
        table: Its numbers.
    """

    title: str
    svg: str = ""
    note: str = ""
    column: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    table: Table | None = None


def render_document(title: str, parts: Iterable[str]) -> str:
    """The whole page.

    Args:
        title: Of the browser's window.
        parts: HTML of its body; empty ones are left out.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def percent(part: float, whole: float) -> str:
    """A share in words: 0 % and 100 % only where it is none or all."""
    share = 100 * part / whole if whole else 0.0
    if share and share < 0.01:
        return "< 0.01 %"
    if 99.99 < share < 100:
        return "> 99.99 %"
    return f"{share:.0f} %" if share in (0, 100) else f"{share:.2f} %" if share < 1 or share > 99 else f"{share:.1f} %"


def count_of(number: int, what: str) -> str:
    """A number of things, with its plural."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def section(title: str, content: str) -> str:
    """A headline, which is HTML, and what stands under it; nothing where that is empty."""
    return f"<section><h2>{title}</h2>\n{content}</section>" if content else ""


def render_cards(found: Sequence[Figure | None]) -> str:
    """Figures side by side where there is room."""
    cards = [render_card(figure) for figure in found if figure is not None]
    return f'<div class="pair">{"".join(cards)}</div>' if cards else ""


def render_card(figure: Figure) -> str:
    """A figure: chart, legend, and its numbers folded away."""
    column = f" <code>{escape(figure.column)}</code>" if figure.column else ""
    note = f'<p class="note">{escape(figure.note)}</p>' if figure.note else ""
    legend = render_legend(figure.legend) if figure.legend else ""
    table = ""
    if figure.table is not None and figure.table.rows:
        table = f"<details><summary>Table</summary>{render_table(figure.table)}</details>"
    return f'<article class="card"><h3>{escape(figure.title)}{column}</h3>{note}{figure.svg}{legend}{table}</article>'


def render_table(table: Table) -> str:
    """A table that scrolls for itself."""
    kinds = ["dir=auto"] * (len(table.head) - table.numbers) + ["class=number"] * table.numbers
    names = [f' data-name="{escape(name)}"' if table.folds else "" for name in table.head]
    head = "".join(f"<th scope=col {kind}>{escape(name)}</th>" for name, kind in zip(table.head, kinds, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td {kind}{name}>{escape(cell)}</td>" for cell, kind, name in zip(row, kinds, names, strict=True))
        + "</tr>"
        for row in table.rows
    )
    fold = " class=folds" if table.folds else ""
    return (
        f"<div class=scroll tabindex=0><table{fold}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def render_legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names and style classes, with a patch of colour each."""
    items = (
        f'<li><svg aria-hidden="true"><rect class="{kind}" width="10" height="10"/></svg>{escape(name)}</li>'
        for name, kind in entries
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def render_marks(entries: Iterable[tuple[str, str, Shape]]) -> str:
    """Names with the mark of each: its style class and shape."""
    items = (
        '<li><svg class="mark" viewBox="-7 -7 14 14" aria-hidden="true">'
        f'<path class="{kind}" d="{SHAPES[shape]}"/></svg>'
        f"<bdi>{escape(name)}</bdi></li>"
        for name, kind, shape in entries
    )
    return f'<ul class="legend">{"".join(items)}</ul>'
