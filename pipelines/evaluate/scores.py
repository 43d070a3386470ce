"""Predictions of a model beside the gold values of examples, counted for each language.

A record that the model cannot read counts as one without an answer. Nothing but counts is kept, of translations their
vectors in a file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import islice
from typing import Any

from pipelines.evaluate.asking import ask_portion, evaluation_plan
from pipelines.evaluate.measures import Measure, measure_of
from pipelines.evaluate.vectors import VectorPairs
from pipelines.examples import Example
from xlmr_core.graph import ModelGraph, Preprocessor
from xlmr_core.metrics import EntityScores, QuestionAnswering
from xlmr_core.metrics.answers import Rules

__all__ = ["Examination", "Scores", "evaluation_plan", "portions", "score"]

_PORTION = 256
LabelScores = dict[str, dict[str, float]]


@dataclass(slots=True)
class Scores:
    """What was counted.

    Attributes:
        by_language: The counts of each language; "" where the data names none.
        unread: Records that the model cannot read, by reason.
        shown: Measures that matter most, the first one above all.
    """

    by_language: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    def measures(self) -> dict[str, dict[str, float]]:
        """Measures of each language."""
        return {language: counts.result() for language, counts in sorted(self.by_language.items())}

    def together(self) -> dict[str, float]:
        """Measures of all records, whatever their language; nothing for no records."""
        return self.whole.result() if self.by_language else {}

    @property
    def whole(self) -> Any:
        """The counts of all records."""
        return reduce(lambda one, other: one.merge(other), map(_without_language, self.by_language.values()))

    def labels(self) -> LabelScores:
        """`precision`, `recall`, `f1` and `support` of each label, over all records; nothing where there are none."""
        return _by_label(self.whole) if self.by_language else {}

    def labels_by_language(self) -> dict[str, LabelScores]:
        """The same for each language."""
        return {language: _by_label(counts) for language, counts in sorted(self.by_language.items())}

    def confusions(self) -> Mapping[tuple[str, str], int]:
        """How often (gold, predicted) occurred, over all records; nothing where a record has no single label."""
        whole = self.whole if self.by_language else None
        found: Mapping[tuple[str, str], int] = getattr(getattr(whole, "labels", whole), "confusions", {})
        return found


def _without_language(counts: Any) -> Any:
    """Counts that can be merged with those of other languages: what is counted already stays as it is."""
    return replace(counts, rules="squad", language=None) if isinstance(counts, QuestionAnswering) else counts


def _by_label(counts: Any) -> LabelScores:
    if isinstance(counts, EntityScores):
        return counts.by_type()
    found: LabelScores = counts.by_label() if hasattr(counts, "by_label") else {}
    return found


class Examination:
    """One model, asked portion by portion.

    Args:
        graph: The model, ready to compute, of an `evaluation_plan`.
        task: Of the examples.
        rules: Of answers to questions.
    """

    def __init__(self, graph: ModelGraph, task: str, *, rules: Rules = "squad_v2") -> None:
        self._graph, self._task, self._rules = graph, task, rules
        self._preprocess = Preprocessor(graph.plan)
        self._measure: Measure | None = None
        self._scores = Scores()

    def add(self, portion: Sequence[Example]) -> None:
        """Asks about examples and counts what is right.

        Raises:
            XLMRError: The examples' gold values are of another kind than the model's answers.
        """
        if self._measure is None:
            self._measure = measure_of(self._task, self._graph.plan, portion, self._rules)
            self._scores.shown = self._measure.shown
        if self._task == "embedding":
            portion = self._with_counterpart(portion)
        if not portion:
            return
        answers = ask_portion(self._graph, self._preprocess, self._task, portion)
        for error in answers.annotations.failed.values():
            self._leave_out(error.code, 1)
        columns = self._measure.columns(portion, answers)
        rows: dict[str, list[int]] = {}
        for row, example in enumerate(portion):
            rows.setdefault(example.language, []).append(row)
        for language, of_language in rows.items():
            if language not in self._scores.by_language:
                self._scores.by_language[language] = self._measure.counts(language)
            self._measure.add(self._scores.by_language[language], columns, of_language)

    def _with_counterpart(self, portion: Sequence[Example]) -> list[Example]:
        """Examples whose first second text belongs to them."""
        numbers: list[Any] = [example.gold for example in portion]
        kept = [example for example, of_texts in zip(portion, numbers, strict=True) if of_texts[0] > 0]
        self._leave_out("no_positive", len(portion) - len(kept))
        return kept

    def _leave_out(self, code: str, count: int) -> None:
        if count:
            self._scores.unread[code] = self._scores.unread.get(code, 0) + count

    def finish(self) -> Scores:
        """What was counted."""
        found = self._scores.by_language
        for language, counts in found.items():
            if isinstance(counts, VectorPairs):
                found[language] = counts.retrieval()
        return self._scores


def portions(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """The examples, some hundred at a time."""
    source = iter(examples)
    while portion := list(islice(source, _PORTION)):
        yield portion


def score(
    model: str, task: str, examples: Iterable[Example], *, device: str = "cpu", graph: ModelGraph | None = None
) -> Scores:
    """Asks a model about examples and counts what is right.

    Args:
        model: A checkpoint with a head for the task.
        task: Of the examples, any but "causal-lm".
        examples: Checked already.
        device: Where the model runs.
        graph: The model, ready to compute, of an `evaluation_plan`; default: it is loaded.

    Raises:
        XLMRError: The model has no such head, or knows labels that the examples do not have the kind of.
    """
    examination = None
    for portion in portions(examples):
        if examination is None:
            if graph is None:
                graph = ModelGraph(evaluation_plan(model, task, pairs=bool(portion[0].second)), device=device)
            examination = Examination(graph, task)
        examination.add(portion)
    return examination.finish() if examination else Scores()
