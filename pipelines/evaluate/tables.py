"""What an evaluation found, as tables for the terminal."""

from collections.abc import Iterator, Mapping

from rich.table import Table

from pipelines.evaluate.results import Evaluation
from xlmr_core.metrics import Spread, over_languages

NO_LANGUAGE = "(none)"
MEAN, ALL = "mean of languages", "all records"
# Of several models, so many measures have a table each.
_COMPARED = 2
# Larger values, as perplexities of models that know nothing are, have exponents.
_MOST_WRITTEN_OUT = 1e9


def tables(evaluation: Evaluation) -> Iterator[Table]:
    """One table for one model; of several, one for each of the measures that matter most."""
    if len(evaluation.results) == 1:
        yield _measures(evaluation)
        return
    for measure in evaluation.shown[:_COMPARED]:
        yield _comparison(evaluation, measure)


def notes(evaluation: Evaluation) -> Iterator[str]:
    """What counts as wrong for a reason of its own, in sentences."""
    for result in evaluation.results:
        of = f"{result.name}: " if len(evaluation.results) > 1 else ""
        for code, count in result.scores.unread.items():
            what = "are left out" if code == "no_positive" else "count as wrong, the model cannot read them"
            yield f"{of}{count:,} records {what}: {code}"
        if result.unknown:
            labels = ", ".join(f"{label} {count:,}" for label, count in result.unknown.items())
            yield f"{of}labels that the model does not have count as wrong: {labels:.1000}"
        whole = result.scores.together()
        if whole.get("without_token"):
            share = f"{whole['without_token']:,.0f} of {whole['total']:,.0f} words"
            yield f"{of}{share} have no token of their own, and the answer of the word before"


def _measures(evaluation: Evaluation) -> Table:
    """A line a language, their mean, and all records together."""
    (result,) = evaluation.results
    measures, whole, shown = result.scores.measures(), result.scores.together(), evaluation.shown
    table = _empty(evaluation, *shown, title=f"{evaluation.task} of {result.name}")
    for language, of_language in measures.items():
        table.add_row(*_first_cells(evaluation, language), *(cell(of_language, name) for name in shown))
    if len(measures) > 1:
        spread = over_languages(measures)
        table.add_section()
        table.add_row(MEAN, "", *(spread_cell(spread, name) for name in shown))
    table.add_row(ALL, f"{evaluation.summary.examples:,}", *(cell(whole, name) for name in shown))
    return table


def _comparison(evaluation: Evaluation, measure: str) -> Table:
    """A line a language and a column a model, with what it has more than the first one."""
    results, differences = evaluation.results, evaluation.differences
    measures = [result.scores.measures() for result in results]
    first = results[0].name
    names = [first, *(name for other in differences for name in (other.name, f"{other.name} − {first}"))]
    table = _empty(evaluation, *names, title=f"{measure}, {evaluation.task}")

    def add(label: str, count: str, own: list[str], apart: list[str]) -> None:
        paired = [text for pair in zip(own[1:], apart, strict=True) for text in pair]
        table.add_row(label, count, own[0], *paired)

    for language in sorted({language for of_model in measures for language in of_model}):
        own = [cell(of_model.get(language, {}), measure) for of_model in measures]
        apart = [cell(other.languages.get(language, {}), measure, signed=True) for other in differences]
        add(*_first_cells(evaluation, language), own, apart)
    if len(evaluation.summary.languages) > 1:
        table.add_section()
        own = [spread_cell(over_languages(of_model), measure) for of_model in measures]
        add(MEAN, "", own, [spread_cell(other.spread, measure, signed=True) for other in differences])
        better = [
            f"{other.better.get(measure, 0)} better, {other.worse.get(measure, 0)} worse" for other in differences
        ]
        add("languages", f"{len(evaluation.summary.languages):,}", [""] * len(results), better)
    wholes = [result.scores.together() for result in results]
    apart = [cell({measure: of[measure] - wholes[0][measure]}, measure, signed=True) for of in wholes[1:]]
    add(ALL, f"{evaluation.summary.examples:,}", [cell(whole, measure) for whole in wholes], apart)
    return table


def _empty(evaluation: Evaluation, *columns: str, title: str) -> Table:
    table = Table("language", "records", *columns, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _first_cells(evaluation: Evaluation, language: str) -> tuple[str, str]:
    return language or NO_LANGUAGE, f"{evaluation.summary.languages.get(language, 0):,}"


def cell(measures: Mapping[str, float], name: str, *, signed: bool = False) -> str:
    """A measure in a table; nothing where there is none."""
    if name not in measures:
        return ""
    value = measures[name]
    form = ",.3f" if abs(value) < 100 else ",.1f" if abs(value) < _MOST_WRITTEN_OUT else ".2e"
    return f"{value:+{form}}".replace("-", "−") if signed else f"{value:{form}}"


def spread_cell(spread: Mapping[str, Spread], name: str, *, signed: bool = False) -> str:
    """Mean and standard deviation."""
    if name not in spread:
        return ""
    mean, std = ({name: value} for value in (spread[name].mean, spread[name].std))
    return f"{cell(mean, name, signed=signed)} ± {cell(std, name)}"
