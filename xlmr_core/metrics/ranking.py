"""Rankings of documents: reciprocal rank, average precision, nDCG and recall among the first k."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log2

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics.means import Mean


@dataclass(slots=True)
class Ranking:
    """Documents in the order a model gave them, against what they are worth.

    A document is relevant when it is worth more than 0. Queries without a relevant document are left out of all means,
    as in trec_eval, and counted.

    Attributes:
        cutoffs: Each k of "@k".
        means: Of all queries, by name.
        without_relevant: Queries that are left out.
    """

    cutoffs: tuple[int, ...] = (1, 10, 100)
    means: dict[str, Mean] = field(default_factory=dict)
    without_relevant: int = 0

    def __post_init__(self) -> None:
        if min(self.cutoffs, default=1) < 1:
            raise ArgumentError(f"cutoffs {self.cutoffs}, each must be 1 or more")
        names = ["mrr", "map", *(f"{name}@{k}" for name in ("ndcg", "recall") for k in self.cutoffs)]
        self.means = {name: Mean() for name in names} | self.means

    def add(self, gains: Sequence[Mapping[Hashable, float]], order: Sequence[Sequence[Hashable]]) -> None:
        """Counts queries; row r of both belong together.

        Args:
            gains: What each judged document is worth; documents that are absent are worth 0.
            order: Documents, best first; it may stop early. One that is named again does not count.
        """
        values: dict[str, list[float]] = {name: [] for name in self.means}
        for judged, documents in zip(gains, order, strict=True):
            worth = {document: gain for document, gain in judged.items() if gain > 0}
            if not worth:
                self.without_relevant += 1
                continue
            for name, value in self._of_query(worth, list(dict.fromkeys(documents))).items():
                values[name].append(value)
        for name, of_queries in values.items():
            self.means[name].add(of_queries)

    def _of_query(self, worth: Mapping[Hashable, float], documents: list[Hashable]) -> dict[str, float]:
        ranked = [worth.get(document, 0) for document in documents]
        ideal = sorted(worth.values(), reverse=True)
        hits = [rank for rank, gain in enumerate(ranked, 1) if gain > 0]
        values = {
            "mrr": 1 / hits[0] if hits else 0.0,
            "map": sum(found / rank for found, rank in enumerate(hits, 1)) / len(worth),
        }
        for k in self.cutoffs:
            values[f"ndcg@{k}"] = _discounted(ranked[:k]) / _discounted(ideal[:k])
            values[f"recall@{k}"] = sum(rank <= k for rank in hits) / len(worth)
        return values

    def merge(self, other: "Ranking") -> "Ranking":
        """Both together.

        Raises:
            ArgumentError: They have different cutoffs.
        """
        if self.cutoffs != other.cutoffs:
            raise ArgumentError(f"cutoffs {self.cutoffs} and {other.cutoffs}, both must be the same")
        means = {name: mean.merge(other.means[name]) for name, mean in self.means.items()}
        return Ranking(self.cutoffs, means, self.without_relevant + other.without_relevant)

    def result(self) -> dict[str, float]:
        """`mrr`, `map`, `ndcg@k`, `recall@k`, `total` and `without_relevant`."""
        counts = {"total": float(self.means["mrr"].count), "without_relevant": float(self.without_relevant)}
        return {name: mean.value for name, mean in self.means.items()} | counts


def _discounted(gains: Sequence[float]) -> float:
    """Discounted cumulative gain (Järvelin and Kekäläinen 2002), gains as they are."""
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, 1))
