"""What is counted, by what the gold values of examples are: one entry of `MEASURES` a kind."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, Self

from pipelines.evaluate.asking import Answers
from pipelines.evaluate.vectors import VectorPairs
from pipelines.evaluate.words import WordScores, word_answers
from pipelines.examples import Example, WordLabels
from pipelines.examples.labels import is_tag_set, labels_of
from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan
from xlmr_core.metrics import (
    Accuracy,
    Classification,
    EntityScores,
    MultiLabel,
    Perplexity,
    QuestionAnswering,
    Ranking,
    Regression,
)
from xlmr_core.metrics.answers import Rules
from xlmr_core.metrics.entities import spans_of_tags
from xlmr_core.tasks.classify import Classify
from xlmr_core.tasks.tag import Tag

LOWER_IS_BETTER = frozenset(
    ("mse", "mae", "perplexity", "negative_log_likelihood", "bits_per_character", "bits_per_byte", "without_token")
)
# Rows of an accumulator's `add`: gold and predicted values, one a record each.
Columns = tuple[list[Any], ...]
_KIND_OF_PROBLEM = {
    "single_label_classification": "classes",
    "multi_label_classification": "label sets",
    "regression": "numbers",
}


class Counts(Protocol):
    """An accumulator of `xlmr_core.metrics`."""

    def merge(self, other: Self) -> Self:
        """Both together."""

    def result(self) -> dict[str, float]:
        """The measures."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How one kind of gold value is counted.

    Attributes:
        kind: Its name.
        counts: Makes an empty accumulator for a language.
        columns: Examples and answers to the columns of the accumulator's `add`.
        shown: Measures that tables and charts show, the first one above all.
        flat: Whether a record has any number of rows, which the columns hold as lists.
        method: Of the accumulator, that adds them.
    """

    kind: str
    counts: Callable[[str], Any]
    columns: Callable[[Sequence[Example], Answers], Columns]
    shown: tuple[str, ...]
    flat: bool = False
    method: str = "add"

    def add(self, counts: Any, columns: Columns, rows: Sequence[int]) -> None:
        """Counts some rows of columns."""
        chosen = [[column[row] for row in rows] for column in columns]
        if self.flat:
            chosen = [list(chain.from_iterable(column)) for column in chosen]
        getattr(counts, self.method)(*chosen)


def measure_of(task: str, plan: GraphPlan, portion: Sequence[Example], rules: Rules) -> Measure:
    """How examples like these are counted.

    Words are labelled with tags of entities where all labels, those of the model too, are "O" or have a prefix.

    Raises:
        TaskError: Gold values are of another kind than what the head says.
    """
    asked, gold = plan.annotations[0].task, portion[0].gold
    kind = {
        "multiple-choice": "choices",
        "question-answering": "answers",
        "fill-mask": "texts",
        "embedding": "translations",
    }.get(task, "")
    if isinstance(asked, Tag):
        names = {name for example in portion for name in labels_of(example)} | set(asked.labels)
        kind = "words" if isinstance(gold, WordLabels) and not is_tag_set(names) else "entities"
    if isinstance(asked, Classify):
        kind = _KIND_OF_PROBLEM[asked.problem_type]
        wanted = {"classes": str, "label sets": tuple}.get(kind, float)
        if not isinstance(gold, wanted):
            rule = f"the model is for {asked.problem_type}; name the problem type of the data, or another model"
            raise TaskError(f"the gold value of {portion[0].source} is a {type(gold).__name__}, {rule}")
    if task in ("similarity", "rerank"):
        kind = "rankings" if any(len(example.second) > 1 for example in portion) else "similarities"
    if kind == "answers":
        return Measure(kind, lambda language: _answer_counts(rules, language), _answers, ("exact_match", "f1"))
    return MEASURES[kind]


def _answer_counts(rules: Rules, language: str) -> QuestionAnswering:
    return QuestionAnswering(rules, language if rules == "mlqa" else None)


def _gold(examples: Sequence[Example]) -> list[Any]:
    return [example.gold for example in examples]


def _entities(examples: Sequence[Example], answers: Answers) -> Columns:
    found = [
        [(entity["start"], entity["end"], entity["label"]) for entity in row] for row in answers.of("entities", ())
    ]
    return [_gold_entities(example.gold) for example in examples], found


def _gold_entities(gold: Any) -> list[tuple[int, int, str]]:
    """Entities of words with tags, or as they are, by their places in the text."""
    if not isinstance(gold, WordLabels):
        return list(gold)
    tags = [label or "O" for label in gold.labels]
    return [(gold.spans[first][0], gold.spans[last - 1][1], name) for first, last, name in spans_of_tags(tags)]


def _words(examples: Sequence[Example], answers: Answers) -> Columns:
    gold = _gold(examples)
    return gold, word_answers(answers, gold)


def _answers(examples: Sequence[Example], answers: Answers) -> Columns:
    gold: list[Any] = _gold(examples)
    right = [[row.text[first:last] for first, last in spans] for row, spans in zip(examples, gold, strict=True)]
    said = [_best_answer(example, row) for example, row in zip(examples, answers.of("answers", ()), strict=True)]
    return right, said


def _best_answer(example: Example, answers: Sequence[Mapping[str, Any]]) -> str:
    return example.text[answers[0]["start"] : answers[0]["end"]] if answers else ""


def _texts(examples: Sequence[Example], answers: Answers) -> Columns:
    """Nats, tokens and text of the texts that could be read; the others have no probability."""
    # Without `<s>` and `</s>`, which are never hidden.
    tokens = (answers.annotations.n_tokens - 2).tolist()
    rows = [
        [] if value is None else [(-value, count, example.text)]
        for value, count, example in zip(answers.of("log_probability", None), tokens, examples, strict=True)
    ]
    return tuple([[row[column] for row in of_record] for of_record in rows] for column in range(3))


def _translations(examples: Sequence[Example], answers: Answers) -> Columns:
    vectors = answers.of("", None)
    return vectors[: len(examples)], vectors[len(examples) :]


def _scores(examples: Sequence[Example], answers: Answers) -> list[list[float]]:
    """Of each second text; 0 for all of a record that cannot be read."""
    return [said or [0.0] * len(row.second) for row, said in zip(examples, answers.of("scores", None), strict=True)]


# Of float32, with some to spare.
_ROUNDING = 1e-6


def _rankings(examples: Sequence[Example], answers: Answers) -> Columns:
    """What documents are worth, and their order; of equal scores the worst document comes first, for no luck counts."""
    gold: list[Any] = _gold(examples)
    gains = [dict(enumerate(values)) for values in gold]
    said = answers.of("scores", ())
    return gains, [worst_first(list(scores), worth) for scores, worth in zip(said, gold, strict=True)]


def worst_first(scores: Sequence[float], worth: Sequence[float]) -> list[int]:
    """Documents by falling score; those whose scores differ by rounding alone by rising worth."""
    tied: list[list[int]] = []
    for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
        if tied and math.isclose(scores[place], scores[tied[-1][-1]], rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            tied[-1].append(place)
        else:
            tied.append([place])
    return [place for places in tied for place in sorted(places, key=lambda place: worth[place])]


MEASURES: Mapping[str, Measure] = {
    measure.kind: measure
    for measure in (
        Measure(
            "classes",
            lambda _: Classification(),
            lambda examples, answers: (_gold(examples), answers.of("label", "")),
            ("accuracy", "macro_f1"),
        ),
        Measure(
            "label sets",
            lambda _: MultiLabel(),
            lambda examples, answers: (_gold(examples), answers.of("labels", ())),
            ("micro_f1", "macro_f1", "subset_accuracy"),
        ),
        Measure(
            "numbers",
            lambda _: Regression(),
            lambda examples, answers: (_gold(examples), answers.of("score", 0.0)),
            ("pearson", "spearman", "mse", "mae"),
        ),
        Measure("entities", lambda _: EntityScores(), _entities, ("micro_f1", "macro_f1")),
        Measure("words", lambda _: WordScores(), _words, ("accuracy", "macro_f1")),
        Measure(
            "choices",
            lambda _: Accuracy(),
            lambda examples, answers: (_gold(examples), answers.of("choice", None)),
            ("accuracy",),
        ),
        Measure(
            "texts",
            lambda _: Perplexity(),
            _texts,
            ("bits_per_character", "bits_per_byte", "perplexity"),
            flat=True,
            method="add_texts",
        ),
        Measure("translations", lambda _: VectorPairs(), _translations, ("accuracy", "forward", "backward")),
        Measure(
            "similarities",
            lambda _: Regression(),
            lambda examples, answers: (_gold(examples), _scores(examples, answers)),
            ("spearman", "pearson"),
            flat=True,
        ),
        Measure("rankings", lambda _: Ranking(), _rankings, ("mrr", "ndcg@10", "map", "recall@10")),
    )
}
