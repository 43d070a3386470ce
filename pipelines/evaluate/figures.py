"""The figures of an evaluation: measures to a chart, a sentence about it, and the table under it."""

import math
from collections.abc import Mapping, Sequence

from pipelines.evaluate.measures import LOWER_IS_BETTER
from pipelines.evaluate.results import Evaluation, Result
from pipelines.evaluate.tables import NO_LANGUAGE, cell
from pipelines.page.charts import Band, Dot, DotRow, Shape, Tick, dot_chart, matrix_chart, round_steps
from pipelines.page.document import MOST_TABLE_ROWS, Figure, Table, count_of, percent
from xlmr_core.metrics import Spread, over_languages

# Style class and shape of each model, in turn.
MARKS: tuple[tuple[str, Shape], ...] = (
    ("main", "circle"),
    ("amber", "diamond"),
    ("red", "square"),
    ("grey", "triangle"),
)
_MOST_ROWS, _MOST_CLASSES, _MOST_CONFUSIONS = 60, 20, 20
# Of so many models the values stand beside their dots.
_MOST_VALUES = 2
_NAMES = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mae": "mean absolute error",
    "map": "mean average precision",
    "mrr": "mean reciprocal rank",
    "mse": "mean squared error",
    "ndcg@10": "nDCG@10",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
}
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def measure_name(measure: str) -> str:
    """A measure in words."""
    return _NAMES.get(measure, measure.replace("_", " "))


def mark(number: int) -> tuple[str, Shape]:
    """Style class and shape of a model."""
    return MARKS[number % len(MARKS)]


def by_language(evaluation: Evaluation, measure: str) -> Figure:
    """One measure of all models in each language, the best language of the first model on top."""
    measures = [result.scores.measures() for result in evaluation.results]
    values = {
        language or NO_LANGUAGE: [of_model.get(language, {}).get(measure, math.nan) for of_model in measures]
        for language in sorted({language for of_model in measures for language in of_model})
    }
    spreads = [over_languages(of_model).get(measure) for of_model in measures]
    svg, cut = _dots(evaluation, values, measure, spreads)
    note = _spread_note(evaluation, measure, spreads) + _difference_note(evaluation, measure)
    if cut:
        note += f" The chart shows the {_MOST_ROWS} lowest languages of {len(values)}, the table all."
    name = measure_name(measure)
    return Figure(f"{name[:1].upper()}{name[1:]} by language", svg, note.strip())


def by_label(evaluation: Evaluation) -> Figure | None:
    """F1 of each label, over all records; None where records have no labels."""
    found = [result.scores.labels() for result in evaluation.results]
    names = sorted({name for of_model in found for name in of_model}, key=lambda name: -_support(found, name))
    if not names:
        return None
    gold = [name for name in names if _support(found, name)]
    values = {name: [of_model.get(name, {}).get("f1", 0.0) for of_model in found] for name in gold}
    svg, cut = _dots(evaluation, values, "f1", [None] * len(found))
    note = "F1 over the records of all languages."
    if cut:
        note += f" The chart shows the {_MOST_ROWS} lowest of {len(gold)}."
    if len(gold) < len(names):
        more = count_of(len(names) - len(gold), "label")
        note += f" The table also has {more} that the model said and the data does not have."
    columns = [
        f"{name}{_of(result, evaluation)}" for result in evaluation.results for name in ("precision", "recall", "F1")
    ]
    rows = [
        (
            name,
            *(cell(of_model.get(name, {}), part) for of_model in found for part in ("precision", "recall", "f1")),
            f"{_support(found, name):,.0f}",
        )
        for name in names[:MOST_TABLE_ROWS]
    ]
    table = Table(("Label", *columns, "Gold"), rows, len(columns) + 1)
    return Figure("F1 by label", svg, note, table=table)


def confusions(evaluation: Evaluation, result: Result) -> Figure | None:
    """What a model takes for what; None where a record has no single label."""
    counts = result.scores.confusions()
    if not counts:
        return None
    gold: dict[str, int] = {}
    for (right, _), count in counts.items():
        gold[right] = gold.get(right, 0) + count
    labels = sorted({name for pair in counts for name in pair}, key=lambda name: (-gold.get(name, 0), name))
    wrong = sorted(
        ((count, right, said) for (right, said), count in counts.items() if right != said),
        key=lambda entry: (-entry[0], *entry[1:]),
    )
    errors, total = sum(count for count, *_ in wrong), sum(counts.values())
    note = f"{errors:,} of {total:,} are wrong ({percent(errors, total)})."
    svg = ""
    if 1 < len(labels) <= _MOST_CLASSES:
        table = [[counts.get((right, said), 0) for said in labels] for right in labels]
        names = [_label(name) for name in labels]
        svg = matrix_chart(names, table, f"Confusions of {result.name}", note)
        note += " Rows are what is right, columns what was said; a cell is as dark as its share of the row."
    rows = [
        (_label(right), _label(said), f"{count:,}", percent(count, gold[right]))
        for count, right, said in wrong[:_MOST_CONFUSIONS]
    ]
    table_of = Table(("Right", "Said", "Times", "Share of the right label"), rows, 2)
    return Figure(f"Confusions{_of(result, evaluation)}", svg, note, table=table_of)


def measures_table(evaluation: Evaluation) -> Table:
    """All measures that matter, a line a language."""
    results, shown = evaluation.results, evaluation.shown
    measures = [result.scores.measures() for result in results]
    columns = [f"{measure_name(name)}{_of(result, evaluation)}" for name in shown for result in results]

    def cells(of_models: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
        return tuple(cell(of_model, name) for name in shown for of_model in of_models)

    rows = [
        (language or NO_LANGUAGE, f"{count:,}", *cells([of_model.get(language, {}) for of_model in measures]))
        for language, count in evaluation.summary.languages.items()
    ][:MOST_TABLE_ROWS]
    if len(rows) > 1:
        spreads = [over_languages(of_model) for of_model in measures]
        means = [{name: spread.mean for name, spread in of_model.items()} for of_model in spreads]
        apart = [{name: spread.std for name, spread in of_model.items()} for of_model in spreads]
        rows += [("mean of languages", "", *cells(means)), ("standard deviation", "", *cells(apart))]
    rows.append(("all records", f"{evaluation.summary.examples:,}", *cells([r.scores.together() for r in results])))
    return Table(("Language", "Records", *columns), rows, len(columns) + 1)


def _dots(
    evaluation: Evaluation,
    values: Mapping[str, Sequence[float]],
    measure: str,
    spreads: Sequence[Spread | None],
) -> tuple[str, bool]:
    """The chart, from best to worst by the first model, and whether it had no room for all."""
    sign = 1 if measure in LOWER_IS_BETTER else -1
    ranked = sorted(values, key=lambda name: (sign * _number(values[name][0], sign), name))
    kept = ranked[-_MOST_ROWS:]
    low, high, ticks = _axis([value for name in kept for value in values[name]])
    names = [result.name for result in evaluation.results]

    def place(value: float) -> float:
        return (value - low) / (high - low)

    rows = []
    for name in kept:
        there = [(number, value) for number, value in enumerate(values[name]) if math.isfinite(value)]
        dots = [
            Dot(place(value), *mark(number), f"{names[number]} {cell({measure: value}, measure)}")
            for number, value in there
        ]
        shown = " · ".join(cell({measure: value}, measure) for _, value in there) if len(names) <= _MOST_VALUES else ""
        rows.append(DotRow(name, tuple(dots), shown))
    bands = []
    for number, spread in enumerate(spreads):
        if spread is not None and spread.languages > 1 and math.isfinite(spread.std):
            # Bands of several models would hide each other.
            std = spread.std if len(names) == 1 else 0.0
            ends = (max(place(spread.mean - std), 0.0), place(spread.mean), min(place(spread.mean + std), 1.0))
            bands.append(Band(*ends, mark(number)[0], f"{names[number]}: mean {cell({measure: spread.mean}, measure)}"))
    title = f"{measure_name(measure)} of {', '.join(names)}"
    description = "; ".join(f"{row.label} {', '.join(dot.name for dot in row.dots)}" for row in rows)
    return dot_chart(rows, ticks, bands, title, description), len(kept) < len(ranked)


def _number(value: float, sign: int) -> float:
    """What to rank by; what is no number comes last."""
    return value if math.isfinite(value) else sign * math.inf


def _axis(values: Sequence[float]) -> tuple[float, float, list[Tick]]:
    """From 0 to 1 for shares, from -1 for correlations, else to the next round number."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low >= 0 and high <= 1:
        return 0.0, 1.0, [Tick(at, f"{at:g}") for at in _QUARTERS]
    if low >= -1 and high <= 1:
        return -1.0, 1.0, [Tick(at, f"{2 * at - 1:g}".replace("-", "−")) for at in _QUARTERS]
    steps = round_steps(high)
    return 0.0, steps[-1], [Tick(value / steps[-1], f"{value:,g}") for value in steps]


def _support(found: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> float:
    return max((of_model[name]["support"] for of_model in found if name in of_model), default=0.0)


def _spread_note(evaluation: Evaluation, measure: str, spreads: Sequence[Spread | None]) -> str:
    several, parts = len(evaluation.results) > 1, []
    for result, spread in zip(evaluation.results, spreads, strict=True):
        if spread is None:
            continue
        said = {name: cell({measure: getattr(spread, name)}, measure) for name in ("mean", "std", "min", "max")}
        sentence = f"{said['mean']}"
        if spread.languages > 1:
            sentence = (
                f"mean {said['mean']} ± {said['std']} over {spread.languages} languages, from {said['min']} "
                f"({spread.min_language or NO_LANGUAGE}) to {said['max']} ({spread.max_language or NO_LANGUAGE})"
            )
        parts.append(f"{result.name}: {sentence}." if several else f"{sentence[:1].upper()}{sentence[1:]}.")
    lower = " Lower is better." if measure in LOWER_IS_BETTER else ""
    return " ".join(parts) + lower


def _difference_note(evaluation: Evaluation, measure: str) -> str:
    parts = []
    for other in evaluation.differences:
        spread = other.spread.get(measure)
        if spread is not None:
            mean = cell({measure: spread.mean}, measure, signed=True)
            better, worse = other.better.get(measure, 0), other.worse.get(measure, 0)
            what = f" {other.name} − {evaluation.results[0].name}: {mean} on average"
            parts.append(f"{what}, better in {better} and worse in {worse} of {spread.languages} languages.")
    return "".join(parts)


def _of(result: Result, evaluation: Evaluation) -> str:
    return f", {result.name}" if len(evaluation.results) > 1 else ""


def _label(name: str) -> str:
    return name or "(no answer)"
