"""One label a record, several labels a record, one choice a record."""

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from math import sqrt

from xlmr_core.metrics.hits import Hits
from xlmr_core.metrics.means import share


@dataclass(slots=True)
class Accuracy:
    """Share of right answers, where answers have no names worth counting: multiple choice, nearest neighbours.

    Attributes:
        right: Equal answers.
        total: All of them.
    """

    right: int = 0
    total: int = 0

    def add(self, gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> None:
        """Counts answers; row r of both belong together."""
        self.right += sum(g == p for g, p in zip(gold, predicted, strict=True))
        self.total += len(gold)

    def merge(self, other: "Accuracy") -> "Accuracy":
        """Both together."""
        return Accuracy(self.right + other.right, self.total + other.total)

    def result(self) -> dict[str, float]:
        """`accuracy` and `total`."""
        return {"accuracy": share(self.right, self.total), "total": float(self.total)}


@dataclass(slots=True)
class Classification:
    """One label out of several for each record, or for each word (part of speech).

    Labels are those that occur, gold or predicted; a record without a prediction may have the label "".

    Attributes:
        confusions: How often (gold, predicted) occurred; `most_common()` lists them.
    """

    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, gold: Sequence[str], predicted: Sequence[str]) -> None:
        """Counts labels; row r of both belong together."""
        self.confusions.update(zip(gold, predicted, strict=True))

    def merge(self, other: "Classification") -> "Classification":
        """Both together."""
        return Classification(self.confusions + other.confusions)

    def by_label(self) -> dict[str, dict[str, float]]:
        """`precision`, `recall`, `f1` and `support` of each label."""
        return self._hits().by_name()

    def result(self) -> dict[str, float]:
        """`accuracy`, `matthews`, `total`, and `micro_`, `macro_`, `weighted_` `precision`, `recall`, `f1`."""
        hits = self._hits()
        total = hits.gold.total()
        return {
            "accuracy": share(hits.right.total(), total),
            **hits.averages(),
            "matthews": _matthews(hits, total),
            "total": float(total),
        }

    def _hits(self) -> Hits:
        hits = Hits()
        for (gold, predicted), count in self.confusions.items():
            hits.gold[gold] += count
            hits.predicted[predicted] += count
            if gold == predicted:
                hits.right[gold] += count
        return hits


def _matthews(hits: Hits, total: int) -> float:
    """Matthews correlation for any number of labels (Gorodkin 2004, R_K); 0 where a side has one label only."""
    covariance = hits.right.total() * total - sum(count * hits.predicted[name] for name, count in hits.gold.items())
    spread_gold = total**2 - sum(count**2 for count in hits.gold.values())
    spread_predicted = total**2 - sum(count**2 for count in hits.predicted.values())
    scale = sqrt(spread_gold) * sqrt(spread_predicted)
    return covariance / scale if scale else 0.0


@dataclass(slots=True)
class MultiLabel:
    """Any number of labels for each record.

    Attributes:
        hits: Counts of each label.
        exact: Records whose labels are all right.
        total: Records.
    """

    hits: Hits = field(default_factory=Hits)
    exact: int = 0
    total: int = 0

    def add(self, gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]]) -> None:
        """Counts sets of labels; row r of both belong together."""
        for of_record, guesses in zip(map(set, gold), map(set, predicted), strict=True):
            self.hits.add(of_record & guesses, of_record, guesses)
            self.exact += of_record == guesses
            self.total += 1

    def merge(self, other: "MultiLabel") -> "MultiLabel":
        """Both together."""
        return MultiLabel(self.hits.merge(other.hits), self.exact + other.exact, self.total + other.total)

    def by_label(self) -> dict[str, dict[str, float]]:
        """`precision`, `recall`, `f1` and `support` of each label."""
        return self.hits.by_name()

    def result(self) -> dict[str, float]:
        """`subset_accuracy`, `total`, and `micro_`, `macro_`, `weighted_` `precision`, `recall`, `f1`."""
        return {
            "subset_accuracy": share(self.exact, self.total),
            **self.hits.averages(),
            "total": float(self.total),
        }
