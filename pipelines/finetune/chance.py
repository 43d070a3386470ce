"""The loss of a model that has learnt nothing but how often each answer occurs: where a collapsed one ends up, in nats.

Letters: R rows of targets, C labels, G groups of neighbours.
"""

from collections.abc import Iterable

import numpy as np

# Rows looked at at once; a training set is larger than memory.
_PORTION = 1 << 20


def chance_of_labels(counts_C: np.ndarray, weights_C: np.ndarray | None = None, *, smoothing: float = 0.0) -> float:
    """The lowest cross entropy of one answer for all targets; without weights and smoothing, the labels' entropy.

    Args:
        counts_C: How often each label is a target; for a language model, each token.
        weights_C: What a target of each label counts, see `weighted_cross_entropy`; default: 1.
        smoothing: Share of a target that is spread over all labels.
    """
    counts_C = counts_C.astype(np.float64)
    weights_C = np.ones_like(counts_C) if weights_C is None else weights_C.astype(np.float64)
    counted = counts_C @ weights_C
    if not counted:
        return 0.0
    # The loss is the sum of a_c times the surprise of label c; least where the answers are as likely as the a.
    spread_C = counts_C.sum() * weights_C / len(counts_C)
    a_C = ((1 - smoothing) * counts_C * weights_C + smoothing * spread_C) / counted
    a_C = a_C[a_C > 0]
    return float(a_C.sum() * np.log(a_C.sum()) - a_C @ np.log(a_C))


def chance_of_several(given_C: np.ndarray, records: int, positive_C: np.ndarray | None = None) -> float:
    """The lowest binary cross entropy of one answer for all records.

    Args:
        given_C: How many records have each label.
        records: How many there are.
        positive_C: What a given label counts, see `weighted_binary_cross_entropy`; default: 1.
    """
    given_C = given_C.astype(np.float64)
    yes_C = given_C if positive_C is None else given_C * positive_C
    no_C = records - given_C
    both_C = yes_C + no_C
    with np.errstate(divide="ignore", invalid="ignore"):
        least_C = -(yes_C * np.log(yes_C / both_C)) - no_C * np.log(no_C / both_C)
    return float(np.nan_to_num(least_C, nan=0.0).sum() / (records * len(given_C)))


def chance_of_numbers(targets_RC: np.ndarray) -> float:
    """The squared error of the mean: the variance, of several numbers their mean variance."""
    parts = [targets_RC[first : first + _PORTION] for first in range(0, len(targets_RC), _PORTION)]
    mean_C = sum(part.sum(0, dtype=np.float64) for part in parts) / len(targets_RC)
    return float(sum(((part - mean_C) ** 2).sum() for part in parts) / targets_RC.size)


def chance_of_places(sizes_G: np.ndarray) -> float:
    """Cross entropy of who takes every place of a group for equally likely: choices of records, tokens of windows."""
    return float(np.log(np.maximum(sizes_G, 1)).mean()) if len(sizes_G) else 0.0


def count_tokens(ids: np.ndarray, vocabulary: int, special: Iterable[int]) -> np.ndarray:
    """How often each token occurs (vocabulary,), special ones left out."""
    counts = np.zeros(vocabulary, dtype=np.int64)
    for first in range(0, len(ids), _PORTION):
        counts += np.bincount(ids[first : first + _PORTION], minlength=vocabulary)
    counts[[token for token in special if 0 <= token < vocabulary]] = 0
    return counts
