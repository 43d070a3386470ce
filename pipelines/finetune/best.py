"""Which state of a model was the best by a measure on validation data, and when to stop looking for a better one."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pipelines.evaluate.measures import LOWER_IS_BETTER
from pipelines.evaluate.words import WordScores
from xlmr_core.errors import TaskError
from xlmr_core.metrics import (
    Accuracy,
    Classification,
    EntityScores,
    MultiLabel,
    QuestionAnswering,
    Regression,
    Retrieval,
)

# By task; a language model is judged by its loss.
_METRICS = {
    "sequence-classification": "macro_f1",
    "token-classification": "micro_f1",
    "question-answering": "f1",
    "multiple-choice": "accuracy",
    "embedding": "accuracy",
}
LOSS = "loss"


@dataclass(frozen=True, slots=True)
class Aim:
    """What is better, and how long to wait for it.

    Attributes:
        greater: Whether larger values are better.
        patience: So many validations without anything better, and it is time to stop; None for never.
        min_delta: How much better something must be for the waiting to begin anew.
    """

    greater: bool
    patience: int | None = None
    min_delta: float = 0.0


@dataclass(frozen=True, slots=True)
class Best:
    """What is known after some validations; plain numbers, so that a checkpoint can hold it.

    Any better value is the best one. Waiting begins anew only with a value that is better by more than `min_delta` than
    the one that it last began with, so that many small steps together count.

    Attributes:
        step: Of the best value; None before there is one.
        value: The best one.
        reference: What the waiting last began with.
        waited: Validations since then.
        improved: Whether the last value was the best so far.
        stop: Whether it is time to stop.
    """

    step: int | None = None
    value: float = math.nan
    reference: float = math.nan
    waited: int = 0
    improved: bool = False
    stop: bool = False

    def after(self, step: int, value: float, aim: Aim) -> "Best":
        """What is known after one more validation.

        Args:
            step: Optimiser steps so far.
            value: Of the model after them; nan is never better than anything.
            aim: What is better.
        """
        sign = 1 if aim.greater else -1
        improved = _beats(sign * value, sign * self.value, 0.0)
        anew = _beats(sign * value, sign * self.reference, aim.min_delta)
        waited = 0 if anew else self.waited + 1
        return Best(
            step=step if improved else self.step,
            value=value if improved else self.value,
            reference=value if anew else self.reference,
            waited=waited,
            improved=improved,
            stop=aim.patience is not None and waited >= aim.patience,
        )

    def state(self) -> dict[str, float | int | bool | None]:
        """For a checkpoint; `Best(**state)` goes on from there."""
        return asdict(self)


def _beats(value: float, other: float, margin: float) -> bool:
    return not math.isnan(value) and (math.isnan(other) or value > other + margin)


def greater_is_better(metric: str) -> bool:
    """Whether larger values of a measure are better ones."""
    return metric != LOSS and metric not in LOWER_IS_BETTER


def measures_of(task: str, problem_type: str | None = None) -> tuple[str, ...]:
    """Names of the measures that a validation of a task gives."""
    match task, problem_type:
        case "sequence-classification", "multi_label_classification":
            result = MultiLabel().result()
        case "sequence-classification", "regression":
            result = Regression().result()
        case "sequence-classification", _:
            result = Classification().result()
        case "token-classification", _:
            # Entities, or where labels are no tags of entities, words: those that both have.
            words = WordScores().result()
            result = {name: value for name, value in EntityScores().result().items() if name in words}
        case "question-answering", _:
            result = QuestionAnswering("squad_v2").result()
        case "multiple-choice", _:
            result = Accuracy().result()
        case "embedding", _:
            result = Retrieval().result()
        case _:
            return (LOSS,)
    # Counts are no measures.
    return tuple(name for name in result if name not in ("total", "without_token"))


def settle_metric(asked: str | None, task: str, problem_type: str | None = None) -> str:
    """The measure that decides: the one asked for, else the task's usual one.

    Raises:
        TaskError: The task has no such measure.
    """
    if asked is None:
        return "mse" if problem_type == "regression" else _METRICS.get(task, LOSS)
    known = measures_of(task, problem_type)
    if asked not in known:
        raise TaskError(f"metric={asked}, {task} is measured by {', '.join(known)}; choose one of them")
    return asked


def deciding(metrics: Mapping[str, str]) -> dict[str, str]:
    """The goals whose measures decide together, with these, out of those of all goals.

    A mean needs one direction: where some goals are judged by what is better the larger it is, others do not decide.
    """
    greater = {goal: metric for goal, metric in metrics.items() if greater_is_better(metric)}
    return greater or dict(metrics)


def decisive_value(measures: Mapping[str, Mapping[str, float]], metrics: Mapping[str, str]) -> float:
    """The mean of the goals' measures; nan where one is missing or nan.

    Args:
        measures: Of each goal, by name.
        metrics: Which one decides, of each goal that decides; see `deciding`.
    """
    values = [measures.get(goal, {}).get(metric, math.nan) for goal, metric in metrics.items()]
    return sum(values) / len(values) if values else math.nan
