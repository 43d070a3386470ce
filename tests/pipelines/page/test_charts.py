import html
import re

from hypothesis import given
from hypothesis import strategies as st

from pipelines.page.charts import (
    Band,
    Bar,
    Bin,
    Dot,
    DotRow,
    Part,
    Step,
    Tick,
    bar_chart,
    compact,
    dot_chart,
    escape,
    histogram,
    matrix_chart,
    round_steps,
    shorten,
    stacked_bar,
    step_chart,
)
from pipelines.page.document import percent

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def widths(svg: str, kind: str) -> list[float]:
    return [float(value) for value in re.findall(rf'class="{kind}"[^>]* width="([\d.]+)%"', svg)]


@given(st.text())
def test_any_text_can_be_escaped(text: str):
    assert not re.search("[<>\"'\x00-\x08\x7f\ud800-\udfff]", escape(text))
    escape(text).encode()
    assert html.unescape(escape(text)) == text or UNPRINTABLE.search(text)


@given(st.text(), st.integers(2, 40))
def test_a_shortened_text_is_a_beginning_of_it(text: str, cells: int):
    short = shorten(text, cells)
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]) and len(short) <= cells)


@given(st.floats(0.5, 1e12))
def test_an_axis_reaches_over_its_highest_value_in_few_steps(highest: float):
    values = round_steps(highest)
    assert values[0] == 0
    assert values[-1] >= highest
    assert 2 <= len(values) <= 5


def test_shares_are_not_rounded_to_none_or_all():
    assert [percent(*p) for p in ((0, 5), (1, 10**6), (1, 8), (10**6 - 1, 10**6), (5, 5), (0, 0))] == [
        *("0 %", "< 0.01 %", "12.5 %", "> 99.99 %", "100 %", "0 %")
    ]


def test_bars_are_as_long_as_their_values():
    bars = [Bar("a", (Part(6, "main"), Part(2, "red")), "8"), Bar("b", (Part(2, "main"),), "2"), Bar("c", (), "0")]
    svg = bar_chart(bars, "title", "description")
    assert widths(svg, "main") == [75, 25]
    assert widths(svg, "red") == [25]
    assert re.findall(r'class="red" x="([\d.]+)%"', svg) == ["75.000"]
    assert widths(stacked_bar([Part(1, "main"), Part(3, "red")], "t", "d"), "red") == [75]


def test_columns_are_as_high_as_their_counts_and_empty_ones_have_a_place():
    svg = histogram([Bin("one", 10), Bin("two", 0), Bin("three", 5)], [Tick(0.5, "x")], [Tick(0.9, "limit")], "t", "d")
    heights = [float(value) for value in re.findall(r'class="main"[^>]* height="([\d.]+)"', svg)]
    assert heights == [150 * 10 / 12.5, 0, 150 * 5 / 12.5] or heights == [150, 0, 75]
    assert svg.count('class="touch"') == 3
    assert 'class="limit-end"' in svg


def test_a_step_curve_goes_through_its_steps():
    svg = step_chart([Step(0, 0.5, 4, "a"), Step(0.5, 1, 2, "b")], [], [], "t", "d")
    assert 'd="M0.00 0.00 L500.00 0.00 L500.00 75.00 L1000.00 75.00"' in svg


def test_charts_of_nothing_are_charts():
    for svg in (bar_chart([], "t", "d"), histogram([], [], [], "t", "d"), step_chart([], [], [], "t", "d")):
        assert svg.startswith("<svg")
        assert svg.endswith("</svg>")


def test_every_chart_has_a_title_and_a_description_for_those_who_hear_it():
    svg = bar_chart([Bar("<a>", (Part(1, "main"),), "1")], "Rows & more", "What it <says>")
    assert svg.startswith('<svg class="bars" role="img"')
    assert "<title>Rows &amp; more</title><desc>What it &lt;says&gt;</desc>" in svg
    assert "&lt;a&gt;" in svg


def test_numbers_on_axes_are_short():
    assert [compact(number) for number in (0, 0.5, 950, 1_200, 35_000, 4.1e6, 2e9)] == [
        *("0", "0.5", "950", "1.2k", "35k", "4.1M", "2G")
    ]


def test_dots_stand_where_their_values_are_and_differ_in_shape():
    row = DotRow("de", (Dot(0.25, "main", "circle", "one 0.25"), Dot(0.5, "amber", "diamond", "two 0.5")), "0.25 · 0.5")
    svg = dot_chart([row], [Tick(0.5, "half")], [Band(0.1, 0.2, 0.4, "main", "mean")], "title", "description")
    assert re.findall(r'<svg x="([\d.]+)%" y="13"', svg) == ["50.000", "25.000"]
    assert len(set(re.findall(r'class="\w+ dot" d="([^"]+)"', svg))) == 2
    assert re.search(r'class="stem" x1="25.000%" x2="50.000%"', svg)
    assert re.search(r'class="main faint" x="10.000%" y="0" width="30.000%"', svg)
    assert re.search(r'class="main mean" x1="20.000%"', svg)
    for text in ("one 0.25", "0.25 · 0.5", "half", "mean"):
        assert text in svg


def test_a_cell_is_as_dark_as_its_share_of_the_row():
    svg = matrix_chart(["a", "b"], [[3, 1], [0, 0]], "title", "description")
    assert re.findall(r'class="(\w+)" fill-opacity="([\d.]+)"', svg) == [("main", "0.750"), ("red", "0.250")]
    assert "a as b: 1, 25.0 %" in svg
    assert "b as b: 0, 0.0 %" in svg


def test_dots_and_matrices_of_nothing_are_charts():
    for svg in (dot_chart([], (), (), "t", "d"), dot_chart([DotRow("a", (), "")], (), (), "t", "d")):
        assert svg.startswith("<svg")
    assert "<svg" in matrix_chart([], [], "t", "d")
