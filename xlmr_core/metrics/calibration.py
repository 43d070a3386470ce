"""Whether a score of 0.8 means right in eight cases out of ten, and how to make it so.

Letters: N records, C labels, K bins.
"""

from dataclasses import dataclass, field
from math import exp, log, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics.means import Mean

# Temperatures that are searched.
COLDEST, HOTTEST = 1e-2, 1e2
# How close two logarithms are when the search ends.
_CLOSE = 1e-7


@dataclass(slots=True)
class Calibration:
    """How far scores are from the share of right answers, in bins of equal width (Guo et al. 2017).

    Attributes:
        bins: How many; bin k holds scores above k / bins up to (k + 1) / bins, the first one 0 too.
        confidence: Scores of each bin (K,).
        right: Right answers of each bin, 1 or 0 (K,).
    """

    bins: int = 15
    confidence: list[Mean] = field(default_factory=list)
    right: list[Mean] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ArgumentError(f"bins {self.bins}, must be 1 or more")
        self.confidence = self.confidence or [Mean() for _ in range(self.bins)]
        self.right = self.right or [Mean() for _ in range(self.bins)]

    def add(self, confidence: ArrayLike, right: ArrayLike) -> None:
        """Counts predictions; row r of both belong together.

        Args:
            confidence: Score of what was predicted, 0 to 1 (N,).
            right: Whether it was right (N,).

        Raises:
            ArgumentError: Scores outside of 0 to 1, or shapes that differ.
        """
        score_N, right_N = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
        if score_N.ndim != 1 or score_N.shape != right_N.shape:
            raise ArgumentError(f"confidence {score_N.shape} and right {right_N.shape}, both must be one list")
        if not ((score_N >= 0) & (score_N <= 1)).all():
            raise ArgumentError(
                "confidence holds nan or values outside of 0 to 1, give scores after softmax or sigmoid"
            )
        bounds = np.arange(1, self.bins) / self.bins
        bin_N = np.searchsorted(bounds, score_N, side="left")
        for place in np.unique(bin_N).tolist():
            self.confidence[place].add(score_N[bin_N == place])
            self.right[place].add(right_N[bin_N == place])

    def merge(self, other: "Calibration") -> "Calibration":
        """Both together.

        Raises:
            ArgumentError: They have different bins.
        """
        if self.bins != other.bins:
            raise ArgumentError(f"bins {self.bins} and {other.bins}, both must have as many")
        return Calibration(
            self.bins,
            [one.merge(another) for one, another in zip(self.confidence, other.confidence, strict=True)],
            [one.merge(another) for one, another in zip(self.right, other.right, strict=True)],
        )

    def result(self) -> dict[str, float]:
        """`expected_calibration_error`, `maximum_calibration_error` and `total`."""
        total = sum(mean.count for mean in self.right)
        gaps = [
            abs(right.total - confidence.total) for confidence, right in zip(self.confidence, self.right, strict=True)
        ]
        worst = max((gap / mean.count for gap, mean in zip(gaps, self.right, strict=True) if mean.count), default=nan)
        return {
            "expected_calibration_error": float(sum(gaps) / total) if total else nan,
            "maximum_calibration_error": float(worst),
            "total": float(total),
        }


def negative_log_likelihood(logits_NC: np.ndarray, gold: np.ndarray) -> float:
    """Mean negative log likelihood of the gold labels, in nats.

    Args:
        logits_NC: Before softmax, or before sigmoid where several labels may hold (N, C).
        gold: Number of the one label (N,); or 1 for each label that holds, else 0 (N, C).
    """
    logits_NC = logits_NC.astype(np.float64)
    if gold.ndim == 2:
        # log(1 + e^x), less x where the label holds.
        return float((np.logaddexp(0, logits_NC) - gold * logits_NC).sum() / len(gold))
    top_N1 = logits_NC.max(axis=1, keepdims=True)
    log_sum_N = np.log(np.exp(logits_NC - top_N1).sum(axis=1)) + top_N1[:, 0]
    return float((log_sum_N - logits_NC[np.arange(len(gold)), gold]).mean())


def fit_temperature(logits_NC: np.ndarray, gold: np.ndarray) -> float:
    """The temperature by which logits are divided so that the gold labels become most likely (Guo et al. 2017).

    Golden-section search: the likelihood has one peak, being convex in the inverse temperature. Where no temperature
    is best (all answers right, or all scores equal) it is one end of 0.01 to 100.

    Args:
        logits_NC: Of records the model was not trained on (N, C).
        gold: Number of the one label (N,); or 1 for each label that holds, else 0 (N, C).

    Raises:
        ArgumentError: No records, shapes that do not fit, labels that do not exist, or logits that are nan.
    """
    if len(logits_NC) == 0 or logits_NC.ndim != 2 or gold.shape not in (logits_NC.shape, logits_NC.shape[:1]):
        raise ArgumentError(f"logits {logits_NC.shape} and gold {gold.shape}, must be (N, C) and (N,) or (N, C), N > 0")
    if gold.ndim == 1 and not ((gold >= 0) & (gold < logits_NC.shape[1])).all():
        raise ArgumentError(f"gold from {gold.min()} to {gold.max()}, labels are 0 to {logits_NC.shape[1] - 1}")
    if np.isnan(logits_NC).any():
        raise ArgumentError("logits hold nan; leave such records out")

    def cost(log_temperature: float) -> float:
        return negative_log_likelihood(logits_NC / exp(log_temperature), gold)

    golden = (sqrt(5) - 1) / 2
    low, high = log(COLDEST), log(HOTTEST)
    left, right = high - golden * (high - low), low + golden * (high - low)
    cost_left, cost_right = cost(left), cost(right)
    while high - low > _CLOSE:
        if cost_left < cost_right:
            high, right, cost_right = right, left, cost_left
            left = high - golden * (high - low)
            cost_left = cost(left)
        else:
            low, left, cost_left = left, right, cost_right
            right = low + golden * (high - low)
            cost_right = cost(right)
    return exp((low + high) / 2)


def fit_thresholds(
    scores_NC: np.ndarray, gold_NC: np.ndarray, *, prior: ArrayLike = 0.5, strength: float = 0.0
) -> np.ndarray:
    """The score from which on each label is to be given, so that its F1 on these records is largest (C,), float64.

    Half way to the next lower score, so that other hardware decides the same; of equally good ones the largest. What
    few records say of a label is chance: its threshold is the mean of the best one, weighted by the records that have
    the label, and of the `prior`, weighted by `strength`.

    Args:
        scores_NC: Scores of records the model was not trained on (N, C).
        gold_NC: Which labels hold (N, C).
        prior: Threshold to start from, and that of a label that never holds: one, or one a label (C,).
        strength: So many records is it worth; 0 leaves labels that hold to the records alone.

    Raises:
        ArgumentError: Shapes that differ, scores that are nan, or a negative strength.
    """
    if scores_NC.ndim != 2 or scores_NC.shape != gold_NC.shape:
        raise ArgumentError(f"scores {scores_NC.shape} and gold {gold_NC.shape}, both must be one (records, labels)")
    if np.isnan(scores_NC).any():
        raise ArgumentError("scores hold nan; leave such records out")
    if not strength >= 0:
        raise ArgumentError(f"strength {strength:g}, it must be 0 or more")
    columns = zip(scores_NC.T.astype(np.float64), gold_NC.T.astype(bool), strict=True)
    best_C = np.array([_best_threshold(score_N, gold_N) for score_N, gold_N in columns], dtype=np.float64)
    holds_C = gold_NC.astype(bool).sum(axis=0)
    prior_C = np.broadcast_to(np.asarray(prior, dtype=np.float64), best_C.shape)
    fitted_C: np.ndarray = (holds_C * best_C + strength * prior_C) / np.maximum(holds_C + strength, 1e-9)
    return np.where(holds_C > 0, fitted_C, prior_C)


def _best_threshold(score_N: np.ndarray, gold_N: np.ndarray) -> float:
    """The threshold with the largest F1; 0 for a label that never holds."""
    if not gold_N.any():
        return 0.0
    order = np.argsort(-score_N, kind="stable")
    score_N = score_N[order]
    # Equal scores are given together: only the last of them is a place to stop.
    stops = np.flatnonzero(np.append(score_N[1:] != score_N[:-1], True))
    right = np.cumsum(gold_N[order])[stops]
    best = stops[np.argmax(2 * right / (stops + 1 + gold_N.sum()))]
    return float((score_N[best] + score_N[min(best + 1, len(score_N) - 1)]) / 2)
