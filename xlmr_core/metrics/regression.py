"""One number a record: squared and absolute error, Pearson's and Spearman's correlation.

Letters: N records, K those that are kept for Spearman's correlation.
"""

from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import copysign, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics.means import Mean, exact_sum

# 16 bytes a pair; twice as many may wait to be cut, so 32 MB.
SAMPLE = 1 << 20


@dataclass(slots=True)
class Regression:
    """Numbers against numbers.

    Ranks need the values, so Spearman's correlation is that of `sample` pairs at most: of all while they fit, else of
    those with the smallest hash, which is an even sample of the distinct pairs and the same one for any order.

    Attributes:
        sample: Pairs that are kept.
        squared: Squared errors.
        absolute: Absolute errors.
        sums: Exact sums of gold, predicted, gold², predicted² and gold · predicted.
        pairs: Kept pairs, gold and predicted in turn.
    """

    sample: int = SAMPLE
    squared: Mean = field(default_factory=Mean)
    absolute: Mean = field(default_factory=Mean)
    sums: tuple[Fraction, ...] = (Fraction(0),) * 5
    pairs: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, gold: ArrayLike, predicted: ArrayLike) -> None:
        """Counts numbers; row r of both belong together.

        Args:
            gold: What is right (N,).
            predicted: What was predicted (N,).

        Raises:
            ArgumentError: Values that float32 does not hold, or shapes that differ.
        """
        gold_N, predicted_N = np.asarray(gold, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        if gold_N.ndim != 1 or gold_N.shape != predicted_N.shape:
            raise ArgumentError(f"gold {gold_N.shape} and predicted {predicted_N.shape}, both must be one list")
        for name, values_N in (("gold", gold_N), ("predicted", predicted_N)):
            # Also what is not a number.
            if not (np.abs(values_N) <= np.finfo(np.float32).max).all():
                raise ArgumentError(f"{name} holds nan, infinity or more than float32 does; leave such records out")
        error_N = predicted_N - gold_N
        self.squared.add(error_N**2)
        self.absolute.add(np.abs(error_N))
        products = ((gold_N, gold_N), (predicted_N, predicted_N), (gold_N, predicted_N))
        added = (exact_sum(gold_N), exact_sum(predicted_N), *(_sum_of_products(*pair) for pair in products))
        self.sums = tuple(before + now for before, now in zip(self.sums, added, strict=True))
        # Plus 0 makes -0 a 0: equal numbers must have equal hashes.
        self.pairs.frombytes((np.stack([gold_N, predicted_N], axis=1) + 0.0).tobytes())
        if len(self.pairs) > 4 * self.sample:
            self.pairs = _smallest(self.pairs, self.sample)

    def merge(self, other: "Regression") -> "Regression":
        """Both together.

        Raises:
            ArgumentError: They keep samples of different sizes.
        """
        if self.sample != other.sample:
            raise ArgumentError(f"samples of {self.sample} and {other.sample} pairs, both must keep as many")
        return Regression(
            self.sample,
            self.squared.merge(other.squared),
            self.absolute.merge(other.absolute),
            tuple(one + another for one, another in zip(self.sums, other.sums, strict=True)),
            _smallest(self.pairs + other.pairs, self.sample),
        )

    def result(self) -> dict[str, float]:
        """`mse`, `mae`, `pearson`, `spearman` (nan where a side is constant), `total`, and `spearman_total` of them."""
        kept_K2 = np.frombuffer(_smallest(self.pairs, self.sample), dtype=np.float64).reshape(-1, 2)
        gold, predicted, gold_gold, predicted_predicted, gold_predicted = self.sums
        count = self.squared.count
        return {
            "mse": self.squared.value,
            "mae": self.absolute.value,
            "pearson": _correlation(
                count * gold_predicted - gold * predicted,
                count * gold_gold - gold**2,
                count * predicted_predicted - predicted**2,
            ),
            "spearman": spearman(kept_K2[:, 0], kept_K2[:, 1]),
            "total": float(count),
            "spearman_total": float(len(kept_K2)),
        }


def spearman(gold_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Spearman's rank correlation, equal values at their mean rank; nan where a side is constant."""
    # Ranks from their mean, doubled: whole numbers.
    gold_ranks, predicted_ranks = _doubled_ranks(gold_N), _doubled_ranks(predicted_N)
    return _correlation(
        exact_sum(gold_ranks * predicted_ranks), exact_sum(gold_ranks**2), exact_sum(predicted_ranks**2)
    )


def _doubled_ranks(values_N: np.ndarray) -> np.ndarray:
    """Twice the rank of each value, less the mean of that, float64 (N,)."""
    _, place_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (2 * last - counts - len(values_N))[place_N].astype(np.float64)


def _correlation(covariance: Fraction, spread: Fraction, other_spread: Fraction) -> float:
    if spread <= 0 or other_spread <= 0:
        return nan
    return copysign(sqrt(min(Fraction(1), covariance**2 / (spread * other_spread))), covariance)


def _sum_of_products(one_N: np.ndarray, another_N: np.ndarray) -> Fraction:
    """The sum of one · another without rounding, so that nothing is lost where a large mean cancels."""
    # Halves of 26 bits (Veltkamp 1968, Dekker 1971), whose products fit the 53 bits of a float64.
    halves = []
    for values_N in (one_N, another_N):
        scaled_N = values_N * (2.0**27 + 1)
        high_N = scaled_N - (scaled_N - values_N)
        halves.append((high_N, values_N - high_N))
    return exact_sum(np.stack([one * another for one, another in product(*halves)]))


def _smallest(pairs: "array[float]", limit: int) -> "array[float]":
    """The pairs with the smallest hash, `limit` at most, in the order of their hashes if there are more."""
    if len(pairs) <= 2 * limit:
        return pairs
    bits_K2 = np.frombuffer(pairs, dtype=np.uint64).reshape(-1, 2)
    hash_K = _scramble(_scramble(bits_K2[:, 0]) + bits_K2[:, 1])
    order = np.lexsort((bits_K2[:, 1], bits_K2[:, 0], hash_K))[:limit]
    return array("d", bits_K2[order].tobytes())


def _scramble(bits_K: np.ndarray) -> np.ndarray:
    """Every input bit into every output bit (K,), uint64; the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed_K = bits_K.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed_K ^= mixed_K >> np.uint64(shift)
        mixed_K *= np.uint64(factor)
    mixed_K ^= mixed_K >> np.uint64(31)
    return mixed_K
