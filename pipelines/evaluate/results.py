"""What an evaluation found: measures of each model, and how far the others are from the first."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import cast

from pipelines.evaluate.measures import LOWER_IS_BETTER
from pipelines.evaluate.scores import Scores
from pipelines.examples import ExampleSummary
from pipelines.examples.example import Task
from xlmr_core.metrics import Spread, over_languages


@dataclass(frozen=True, slots=True)
class Result:
    """One model's part.

    Attributes:
        name: What tables call it.
        model: The checkpoint.
        scores: What was counted.
        unknown: Labels of the data that the model does not have, and how often they occur; they count as wrong.
    """

    name: str
    model: str
    scores: Scores
    unknown: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; a measure over nothing is null."""
        measures, by_language = self.scores.measures(), self.scores.labels_by_language()
        return {
            "name": self.name,
            "model": self.model,
            "unread": self.scores.unread,
            "unknown_labels": self.unknown,
            "all": self.scores.together(),
            "languages": measures,
            "over_languages": {name: asdict(spread) for name, spread in over_languages(measures).items()},
            "per_label": self.scores.labels(),
            "per_label_by_language": {language: found for language, found in by_language.items() if found},
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a model is from the first one, language by language.

    Attributes:
        name: The model.
        languages: Its measures less those of the first, of languages where both have one.
        spread: The same over languages.
        better, worse: Languages in which it is, by measure.
    """

    name: str
    languages: dict[str, dict[str, float]]
    spread: dict[str, Spread]
    better: dict[str, int]
    worse: dict[str, int]

    @classmethod
    def of(cls, other: Result, first: Result) -> "Difference":
        """The other model's measures less the first one's."""
        one, two = first.scores.measures(), other.scores.measures()
        languages = {language: _less(two[language], one[language]) for language in one if language in two}
        gain: dict[str, list[float]] = {}
        for name, value in chain.from_iterable(found.items() for found in languages.values()):
            gain.setdefault(name, []).append(-value if name in LOWER_IS_BETTER else value)
        return cls(
            name=other.name,
            languages=languages,
            spread=over_languages(languages),
            better={name: sum(value > 0 for value in values) for name, values in gain.items()},
            worse={name: sum(value < 0 for value in values) for name, values in gain.items()},
        )


def _less(measures: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    """Measures less others, where both are numbers."""
    found = {name: value - others[name] for name, value in measures.items() if name in others}
    return {name: value for name, value in found.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good models are.

    Attributes:
        task: What they were asked for.
        summary: What they were asked about.
        results: Of each model, in the order given.
    """

    task: Task
    summary: ExampleSummary
    results: tuple[Result, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """Measures that matter most."""
        return self.results[0].scores.shown

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Of all but the first model to the first."""
        first, *others = self.results
        return tuple(Difference.of(other, first) for other in others)

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; what is no finite number is null."""
        found: dict[str, object] = {
            "task": self.task,
            "examples": self.summary.examples,
            "rejected": self.summary.rejected,
            "records": self.summary.languages,
            "models": [result.as_dict() for result in self.results],
        }
        if len(self.results) > 1:
            found["differences_to_first"] = [asdict(difference) for difference in self.differences]
        return cast(dict[str, object], _finite(found))


def _finite(value: object) -> object:
    """The same without numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
