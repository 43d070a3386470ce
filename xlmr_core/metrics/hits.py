"""Precision, recall and F1 of names (labels, entity types) from three counts each.

What divides by zero is 0, as scikit-learn and seqeval have it by default: precision of what was never predicted,
recall of what is never gold, F1 of what is neither; weighted means when nothing is gold.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Hits:
    """How often each name was gold, predicted, and both at once.

    Attributes:
        right: Predicted where it is gold.
        gold: Occurrences in the gold data, "support".
        predicted: Occurrences in the predictions.
    """

    right: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)

    def add(self, right: Iterable[str], gold: Iterable[str], predicted: Iterable[str]) -> None:
        """Counts occurrences."""
        self.right.update(right)
        self.gold.update(gold)
        self.predicted.update(predicted)

    def merge(self, other: "Hits") -> "Hits":
        """Both together."""
        return Hits(self.right + other.right, self.gold + other.gold, self.predicted + other.predicted)

    def by_name(self) -> dict[str, dict[str, float]]:
        """`precision`, `recall`, `f1` and `support` of every name that is gold or predicted, in alphabetical order."""
        return {
            name: _scores(self.right[name], self.gold[name], self.predicted[name])
            for name in sorted(self.gold.keys() | self.predicted.keys())
        }

    def averages(self) -> dict[str, float]:
        """`micro_`, `macro_` and `weighted_` `precision`, `recall` and `f1`.

        Micro takes all names for one, macro is the mean over names, weighted the mean weighted by support.
        """
        scores = list(self.by_name().values())
        support = self.gold.total()
        micro = _scores(self.right.total(), support, self.predicted.total())
        averages = {}
        for measure in ("precision", "recall", "f1"):
            averages[f"micro_{measure}"] = micro[measure]
            averages[f"macro_{measure}"] = _ratio(sum(score[measure] for score in scores), len(scores))
            weighted = sum(score[measure] * score["support"] for score in scores)
            averages[f"weighted_{measure}"] = _ratio(weighted, support)
        return averages


def _scores(right: int, gold: int, predicted: int) -> dict[str, float]:
    return {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, gold),
        "f1": _ratio(2 * right, gold + predicted),
        "support": float(gold),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
