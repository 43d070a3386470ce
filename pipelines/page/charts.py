"""Charts as inline SVG, with nothing that loads or runs: the page's style sheet colours them, so they follow its theme.

Positions along x are percentages and text keeps its size, so that a chart fits any width. What is not part of a chart
is told by the table under it; every mark has its value as a tooltip.
"""

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

# Control characters and lone surrogates have no place in HTML.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_ROW = 26
_PLOT, _TOP, _BOTTOM = 150, 26, 26
_LABEL_CELLS = 17
# Marks differ in shape as well as in colour; drawn around (0, 0).
Shape = Literal["circle", "diamond", "square", "triangle"]
SHAPES: Mapping[Shape, str] = {
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "diamond": "M0 -6.5L6.5 0L0 6.5L-6.5 0z",
    "square": "M-4.5 -4.5H4.5V4.5H-4.5z",
    "triangle": "M0 -6L6 5H-6z",
}
_CELL, _WIDEST_CELL, _MATRIX = 30, 110, 860
_GUTTER = 132
# Pixels for the numbers at the right of bars, which the style sheet leaves free.
_VALUES = 118


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar: how long, which class of the style sheet colours it, and its name."""

    value: float
    kind: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar of one or more parts, with its value, and perhaps its share of the whole, in words."""

    label: str
    parts: tuple[Part, ...]
    shown: str
    share: str = ""


@dataclass(frozen=True, slots=True)
class Bin:
    """A column of a histogram: what it counts, in words, and how many."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, as a share of its length, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a step curve: from and to on the x axis, as shares of it, the value, and both in words."""

    start: float
    end: float
    value: float
    name: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark on an axis: where, as a share of its length, which class colours it, its shape, and its name."""

    at: float
    kind: str
    shape: Shape
    name: str


@dataclass(frozen=True, slots=True)
class DotRow:
    """A line of dots, with its values in words."""

    label: str
    dots: tuple[Dot, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of an axis, as shares of it, that goes through all rows, with a line at a place in it; and its name."""

    start: float
    at: float
    end: float
    kind: str
    name: str


def escape(value: object) -> str:
    """Any text as HTML text or attribute value."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def shorten(text: str, cells: int) -> str:
    """A text cut to about so many average letters; East Asian characters are as wide as two."""
    used = 0.0
    for position, character in enumerate(text):
        if unicodedata.east_asian_width(character) in "WF":
            used += 2
        else:
            used += 1.5 if character in "mwMW@%" else 1.25 if character.isupper() else 1
        if used > cells:
            return text[: max(position - 1, 0)].rstrip() + "…"
    return text


def bar_chart(bars: Sequence[Bar], title: str, description: str) -> str:
    """Horizontal bars, the longest over the whole width."""
    longest = max((sum(part.value for part in bar.parts) for bar in bars), default=0) or 1
    marks = []
    for row, bar in enumerate(bars):
        top, middle, end = row * _ROW, row * _ROW + _ROW / 2, 0.0
        marks.append(f"<g><title>{escape(bar.label)}: {escape(bar.shown)} {escape(bar.share)}</title>")
        marks.append(f'<text class="label" x="-10" y="{middle:g}">{escape(shorten(bar.label, _LABEL_CELLS))}</text>')
        marks.append(f'<rect class="track" x="0" y="{top + 5}" width="100%" height="{_ROW - 10}"/>')
        for part in bar.parts:
            width = 100 * part.value / longest
            if width > 0:
                named = f"<title>{escape(part.name)}</title>" if part.name else ""
                marks.append(
                    f'<rect class="{part.kind}" x="{end:.3f}%" y="{top + 5}" width="{width:.3f}%" '
                    f'height="{_ROW - 10}">{named}</rect>'
                )
            end += width
        # Beyond the plot, where the margin is.
        marks.append(f'<svg x="100%" y="{top}" height="{_ROW}" width="1" overflow="visible">')
        marks.append(f'<text class="value" x="10" y="{_ROW / 2:g}">{escape(bar.shown)}</text>')
        marks.append(f'<text class="label" x="{_VALUES}" y="{_ROW / 2:g}">{escape(bar.share)}</text></svg></g>')
    return _figure("bars", len(bars) * _ROW, "".join(marks), title, description)


def stacked_bar(parts: Sequence[Part], title: str, description: str) -> str:
    """One bar over the whole width, cut into parts."""
    total = sum(part.value for part in parts) or 1
    marks, end = ['<rect class="track" x="0" y="0" width="100%" height="14"/>'], 0.0
    for part in parts:
        width = 100 * part.value / total
        if width > 0:
            marks.append(
                f'<rect class="{part.kind}" x="{end:.3f}%" y="0" width="{width:.3f}%" height="14">'
                f"<title>{escape(part.name)}</title></rect>"
            )
        end += width
    return _figure("stack", 14, "".join(marks), title, description)


def histogram(bins: Sequence[Bin], ticks: Sequence[Tick], limits: Sequence[Tick], title: str, description: str) -> str:
    """Columns of equal width over an axis, with vertical lines at limits."""
    highest = max((entry.count for entry in bins), default=0)
    top, marks = _grid(highest)
    width = 100 / max(len(bins), 1)
    for position, entry in enumerate(bins):
        height = _PLOT * entry.count / top
        marks.append(
            f'<g class="column"><title>{escape(entry.name)}: {entry.count:,}</title>'
            # The whole column shows the tooltip, however low its bar is.
            f'<rect class="touch" x="{position * width:.3f}%" y="{_TOP}" width="{width:.3f}%" height="{_PLOT}"/>'
            f'<rect class="main" x="{(position + 0.08) * width:.3f}%" y="{_TOP + _PLOT - height:.2f}" '
            f'width="{0.84 * width:.3f}%" height="{height:.2f}"/></g>'
        )
    marks += [_limit(limit) for limit in limits]
    return _figure("plot", _TOP + _PLOT + _BOTTOM, "".join(marks) + _axis(ticks), title, description)


def step_chart(
    steps: Sequence[Step], ticks: Sequence[Tick], breaks: Sequence[Tick], title: str, description: str
) -> str:
    """A filled step curve over an axis, with vertical lines at breaks."""
    highest = max((step.value for step in steps), default=0.0)
    top, marks = _grid(highest)
    edge = " ".join(
        f"L{1000 * step.start:.2f} {_PLOT * (1 - step.value / top):.2f} "
        f"L{1000 * step.end:.2f} {_PLOT * (1 - step.value / top):.2f}"
        for step in steps
    )
    if steps:
        first, last = 1000 * steps[0].start, 1000 * steps[-1].end
        marks.append(
            f'<svg x="0" y="{_TOP}" width="100%" height="{_PLOT}" viewBox="0 0 1000 {_PLOT}" '
            'preserveAspectRatio="none" overflow="visible">'
            f'<path class="area" d="M{first:.2f} {_PLOT} {edge} L{last:.2f} {_PLOT} Z"/>'
            f'<path class="line" d="M{edge[1:]}"/></svg>'
        )
    for step in steps:
        marks.append(
            f'<rect class="touch" x="{100 * step.start:.3f}%" y="{_TOP}" width="{100 * (step.end - step.start):.3f}%" '
            f'height="{_PLOT}"><title>{escape(step.name)}</title></rect>'
        )
    marks += [_limit(entry) for entry in breaks]
    return _figure("plot", _TOP + _PLOT + _BOTTOM, "".join(marks) + _axis(ticks), title, description)


def dot_chart(
    rows: Sequence[DotRow], ticks: Sequence[Tick], bands: Sequence[Band], title: str, description: str
) -> str:
    """Dots on one axis, a line for each row; several dots of a row are joined."""
    height = len(rows) * _ROW
    marks = [
        f'<g><title>{escape(band.name)}</title><rect class="{band.kind} faint" x="{100 * band.start:.3f}%" y="0" '
        f'width="{100 * (band.end - band.start):.3f}%" height="{height}"/>'
        f'<line class="{band.kind} mean" x1="{100 * band.at:.3f}%" '
        f'x2="{100 * band.at:.3f}%" y1="0" y2="{height}"/></g>'
        for band in bands
    ]
    for tick in ticks:
        x = f"{100 * tick.at:.3f}%"
        marks.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height}"/>')
        marks.append(f'<text class="tick" x="{x}" y="{height + 16}">{escape(tick.text)}</text>')
    for number, row in enumerate(rows):
        middle, places = number * _ROW + _ROW / 2, [dot.at for dot in row.dots] or [0.0]
        marks.append(f"<g><title>{escape(row.label)}: {escape(', '.join(dot.name for dot in row.dots))}</title>")
        marks.append(f'<rect class="touch" x="0" y="{number * _ROW}" width="100%" height="{_ROW}"/>')
        marks.append(f'<text class="label" x="-10" y="{middle:g}">{escape(shorten(row.label, _LABEL_CELLS))}</text>')
        marks.append(
            f'<line class="stem" x1="{100 * min(places):.3f}%" x2="{100 * max(places):.3f}%" y1="{middle:g}" '
            f'y2="{middle:g}"/>'
        )
        # The first one lies on top.
        for dot in reversed(row.dots):
            marks.append(
                f'<svg x="{100 * dot.at:.3f}%" y="{middle:g}" width="1" height="1" overflow="visible">'
                f'<path class="{dot.kind} dot" d="{SHAPES[dot.shape]}"/></svg>'
            )
        marks.append(
            f'<svg x="100%" y="{number * _ROW}" height="{_ROW}" width="1" overflow="visible">'
            f'<text class="value" x="14" y="{_ROW / 2:g}">{escape(row.shown)}</text></svg></g>'
        )
    return _figure("bars dots", height + _BOTTOM, "".join(marks), title, description)


def matrix_chart(labels: Sequence[str], counts: Sequence[Sequence[int]], title: str, description: str) -> str:
    """A square of counts, each cell as dark as its share of its row; as wide as it must be, so that it may scroll."""
    cell = min(_WIDEST_CELL, max(_CELL + 14, _MATRIX // max(len(labels), 1)))
    marks = []
    for number, label in enumerate(labels):
        x, y = _GUTTER + (number + 0.5) * cell, _TOP + (number + 0.5) * _CELL
        marks.append(f'<text class="tick" x="{x:g}" y="{_TOP - 10}">{escape(shorten(label, cell // 7))}</text>')
        marks.append(f'<text class="label" x="{_GUTTER - 10}" y="{y:g}">{escape(shorten(label, _LABEL_CELLS))}</text>')
    for row, of_row in enumerate(counts):
        total = sum(of_row) or 1
        for column, count in enumerate(of_row):
            x, y, share = _GUTTER + column * cell, _TOP + row * _CELL, count / total
            kind = "main" if row == column else "red"
            marks.append(
                f"<g><title>{escape(labels[row])} as {escape(labels[column])}: {count:,}, {100 * share:.1f} %</title>"
                f'<rect class="track" x="{x:g}" y="{y:g}" width="{cell - 2:g}" height="{_CELL - 2}"/>'
            )
            if count:
                marks.append(
                    f'<rect class="{kind}" fill-opacity="{share:.3f}" x="{x:g}" y="{y:g}" width="{cell - 2:g}" '
                    f'height="{_CELL - 2}"/><text class="{"on" if share > 0.6 else "off"}" x="{x + cell / 2 - 1:g}" '
                    f'y="{y + _CELL / 2 - 1:g}">{compact(count)}</text>'
                )
            marks.append("</g>")
    width, height = _GUTTER + len(labels) * cell, _TOP + len(labels) * _CELL
    return (
        f'<div class="wide" tabindex="0"><svg class="matrix" role="img" width="{width}" height="{height}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(marks)}</svg></div>"
    )


def compact(number: float) -> str:
    """A number in at most five characters: 950, 1.2k, 35k, 4.1M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}"


def round_steps(highest: float, most: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from 0 to at least `highest`."""
    step = 1.0
    while highest / step > most:
        step *= 2.5 if f"{step:e}"[0] == "2" else 2
    return [step * count for count in range(int(-(-highest // step)) + 1)] if highest > 0 else [0.0, 1.0]


def _grid(highest: float) -> tuple[float, list[str]]:
    """The value at the top of the plot, and its horizontal lines."""
    values = round_steps(highest)
    marks = []
    for value in values:
        y = _TOP + _PLOT * (1 - value / values[-1])
        marks.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.2f}" y2="{y:.2f}"/>')
        marks.append(f'<text class="label" x="-8" y="{y:.2f}">{compact(value)}</text>')
    return values[-1], marks


def _axis(ticks: Sequence[Tick]) -> str:
    y = _TOP + _PLOT + 16
    return "".join(f'<text class="tick" x="{100 * tick.at:.3f}%" y="{y}">{escape(tick.text)}</text>' for tick in ticks)


def _limit(limit: Tick) -> str:
    x, side = f"{100 * limit.at:.3f}%", "end" if limit.at > 0.6 else "start"
    return (
        f'<line class="limit" x1="{x}" x2="{x}" y1="{_TOP - 16}" y2="{_TOP + _PLOT}"/>'
        f'<svg x="{x}" y="0" width="1" height="{_TOP}" overflow="visible">'
        f'<text class="limit-{side}" x="{-6 if side == "end" else 6}" y="{_TOP - 12}">{escape(limit.text)}</text></svg>'
    )


def _figure(kind: str, height: float, marks: str, title: str, description: str) -> str:
    return (
        f'<svg class="{kind}" role="img" height="{height:g}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{marks}</svg>"
    )
