"""Predictions of a model beside the gold values of examples, counted for each language.

The model answers as it does in a job: long texts in windows, entities on whole words. A record that it cannot read
counts as one without an answer. Nothing but counts is kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, Self

from pipelines.finetune.examples import Example, WordLabels
from xlmr_core.errors import TaskError
from xlmr_core.graph import Annotations, GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.metrics import Accuracy, Classification, EntityScores, MultiLabel, QuestionAnswering, Regression
from xlmr_core.metrics.entities import spans_of_tags
from xlmr_core.tasks.classify import Classify
from xlmr_core.tasks.columns import to_list

_PORTION = 256
# What answers are asked for: entities that are words, one answer that may be none.
_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "token-classification": {"aggregation": "first"},
    "question-answering": {"impossible": True},
}


class Counts(Protocol):
    """An accumulator of `xlmr_core.metrics`."""

    def merge(self, other: Self) -> Self:
        """Both together."""

    def result(self) -> dict[str, float]:
        """The measures."""


@dataclass(slots=True)
class Scores:
    """What was counted.

    Attributes:
        by_language: The counts of each language; "" where the data names none.
        unread: Records that the model cannot read, by reason.
    """

    by_language: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)

    def measures(self) -> dict[str, dict[str, float]]:
        """Measures of each language."""
        return {language: counts.result() for language, counts in sorted(self.by_language.items())}

    def together(self) -> dict[str, float]:
        """Measures of all records, whatever their language."""
        first, *rest = self.by_language.values()
        for counts in rest:
            first = first.merge(counts)
        whole: dict[str, float] = first.result()
        return whole


def score(model: str, task: str, examples: Iterable[Example], *, device: str = "cpu") -> Scores:
    """Asks a model about examples and counts what is right.

    Args:
        model: A checkpoint with a head for the task.
        task: "sequence-classification", "token-classification", "question-answering" or "multiple-choice".
        examples: Checked already.
        device: Where the model runs.

    Raises:
        XLMRError: The model has no such head, or knows labels that the examples do not have the kind of.
    """
    scores, source, graph = Scores(), iter(examples), None
    while portion := list(islice(source, _PORTION)):
        pairs = [list(example.second) for example in portion] if portion[0].second else None
        if graph is None:
            request = Request("task", model, {"task": task, **_OPTIONS.get(task, {})})
            plan = GraphPlan.resolve([request], pairs=pairs is not None)
            preprocess, graph = Preprocessor(plan), ModelGraph(plan, device=device)
            _check(plan, portion)
        answers = graph(preprocess([example.text for example in portion], pairs))
        for error in answers.failed.values():
            scores.unread[error.code] = scores.unread.get(error.code, 0) + 1
        _count(plan, portion, answers, scores)
    return scores


def _check(plan: GraphPlan, examples: Sequence[Example]) -> None:
    """Raises where gold values are of another kind than what the head says."""
    task = plan.annotations[0].task
    gold = examples[0].gold
    if isinstance(gold, WordLabels) and not any(label and label[1:2] in "-_" for label in gold.labels if label != "O"):
        labels = ", ".join(sorted({label for label in gold.labels if label})[:5])
        raise TaskError(
            f"labels {labels} are no tags of entities (B-X, I-X); labels of single words are not scored yet"
        )
    if isinstance(task, Classify):
        wanted = {"single_label_classification": str, "multi_label_classification": tuple}.get(task.problem_type, float)
        if not isinstance(gold, wanted):
            rule = f"the model is for {task.problem_type}; name the problem type of the data, or another model"
            raise TaskError(f"the gold value of {examples[0].source} is a {type(gold).__name__}, {rule}")


def _count(plan: GraphPlan, examples: Sequence[Example], answers: Annotations, scores: Scores) -> None:
    """Adds predictions to the counts of their languages."""
    predicted = _predictions(plan, examples, answers)
    by_language: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        by_language.setdefault(example.language, []).append(row)
    for language, rows in by_language.items():
        counts = scores.by_language.setdefault(language, _counts(plan, examples[0]))
        counts.add(*([side[row] for row in rows] for side in predicted))


def _counts(plan: GraphPlan, example: Example) -> Any:
    match plan.annotations[0].kind, example.gold:
        case "sequence-classification", str():
            return Classification()
        case "sequence-classification", tuple():
            return MultiLabel()
        case "sequence-classification", _:
            return Regression()
        case "token-classification", _:
            return EntityScores()
        case "question-answering", _:
            return QuestionAnswering("squad_v2")
        case "multiple-choice", _:
            return Accuracy()
    raise TaskError(f"task {plan.annotations[0].kind!r} is not scored yet")


def _predictions(plan: GraphPlan, examples: Sequence[Example], answers: Annotations) -> tuple[list[Any], list[Any]]:
    """Gold values and predictions of all examples, in the form that the counts take."""
    columns = {name: iter(to_list(column)) for name, column in answers.columns.items()}
    there = answers.annotated.tolist()

    def of(column: str, nothing: object) -> list[Any]:
        values = columns[f"task_{column}"]
        return [next(values) if annotated else nothing for annotated in there]

    gold: list[Any] = [example.gold for example in examples]
    match plan.annotations[0].kind, gold[0]:
        case "sequence-classification", str():
            return gold, of("label", "")
        case "sequence-classification", tuple():
            return gold, of("labels", ())
        case "sequence-classification", _:
            return gold, of("score", 0.0)
        case "token-classification", _:
            found = of("entities", ())
            return [_entities(value) for value in gold], [[_place(entity) for entity in row] for row in found]
        case "question-answering", _:
            texts = [[row.text[first:last] for first, last in spans] for row, spans in zip(examples, gold, strict=True)]
            return texts, [_answer(example, row) for example, row in zip(examples, of("answers", ()), strict=True)]
        case _:
            return gold, of("choice", None)


def _entities(gold: Any) -> list[tuple[int, int, str]]:
    """Entities of words with tags, or as they are, by their places in the text."""
    if not isinstance(gold, WordLabels):
        return list(gold)
    tags = [label or "O" for label in gold.labels]
    return [(gold.spans[first][0], gold.spans[last - 1][1], name) for first, last, name in spans_of_tags(tags)]


def _place(entity: Mapping[str, Any]) -> tuple[int, int, str]:
    return entity["start"], entity["end"], entity["label"]


def _answer(example: Example, answers: Sequence[Mapping[str, Any]]) -> str:
    return example.text[answers[0]["start"] : answers[0]["end"]] if answers else ""
