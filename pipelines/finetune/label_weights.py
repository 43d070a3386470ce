"""What a label counts in the loss of a classifier, and how much all targets of a part count together.

A weighted loss is divided by the sum of the weights of its targets, as `torch.nn.CrossEntropyLoss(weight=)` divides it.
That sum is taken over the whole step, all its micro-batches on all workers: so what a record counts does not depend on
what it happens to be computed with, nor on the number of workers.

Letters: C labels, R rows of targets.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from xlmr_core.errors import TaskError
from xlmr_core.heads import IGNORED

# Rows counted at once; a training set is larger than memory.
_PORTION = 1 << 20


def count_labels(targets: np.ndarray, labels: int) -> np.ndarray:
    """How often each label is a target (C,), int64.

    Args:
        targets: Labels, -100 for none (R,), int64; or 1 for each label that is given, else 0 (R, C), float.
        labels: C.
    """
    counts = np.zeros(labels, dtype=np.int64)
    for first in range(0, len(targets), _PORTION):
        rows = np.asarray(targets[first : first + _PORTION])
        if rows.ndim == 2:
            counts += (rows > 0).sum(0)
        else:
            counts += np.bincount(rows[rows != IGNORED], minlength=labels)
    return counts


def label_weights(
    asked: Literal["balanced"] | Mapping[str, float], labels: Sequence[str], targets: np.ndarray
) -> np.ndarray:
    """What each label counts (C,), float32.

    Balanced, all labels together count as much as each other: one that occurs n_c times of n counts n / (C n_c), as in
    scikit-learn; of several labels a record, a given one counts as much as those records together that do not have it,
    (n - n_c) / n_c, as in torch's documentation of `pos_weight`. A label that never occurs counts 1.

    Args:
        asked: "balanced", or weights by label; labels that are not named count 1.
        labels: Names, C of them.
        targets: As `count_labels` takes them.

    Raises:
        TaskError: Names that are no labels, weights that are no positive numbers; all of them.
    """
    if asked == "balanced":
        counts = count_labels(targets, len(labels))
        there, safe = counts > 0, np.maximum(counts, 1)
        if targets.ndim == 2:
            # Where all records have a label, none is left to balance it with.
            weights = np.where(there & (counts < len(targets)), (len(targets) - counts) / safe, 1.0)
        else:
            weights = np.where(there, counts.sum() / (max(there.sum(), 1) * safe), 1.0)
        return weights.astype(np.float32)
    assert not isinstance(asked, str)
    problems = [
        f"class_weights.{name}={value!r}, it must be a positive number"
        for name, value in asked.items()
        if not (math.isfinite(value) and value > 0)
    ]
    if strange := sorted(set(asked) - set(labels)):
        known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
        problems.append(f"class_weights names {', '.join(strange)[:500]}, labels are {known}")
    if problems:
        raise TaskError("\n".join(problems))
    return np.array([asked.get(label, 1.0) for label in labels], dtype=np.float32)


def target_weight(targets: np.ndarray, weights: np.ndarray | None) -> float:
    """What targets count together: how many there are, or the sum of their labels' weights.

    Args:
        targets: As `TrainingSet.targets` has them.
        weights: By label (C,); None, and for targets that are no labels, each counts 1.
    """
    if targets.dtype != np.int64:
        return float(targets.size)
    known = targets[targets != IGNORED]
    return float(known.size) if weights is None else float(weights[known].sum(dtype=np.float64))
