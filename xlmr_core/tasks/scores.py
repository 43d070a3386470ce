"""Logits to scores, in float32; also among neighbours, such as the choices of one record.

Letters: I items, P groups of neighbouring items.
"""

from typing import Literal

import numpy as np

ScoreFunction = Literal["softmax", "sigmoid", "none"]

# Class names that sentence-transformers' cross-encoders store.
CROSS_ENCODER: dict[str, ScoreFunction] = {"Identity": "none", "Sigmoid": "sigmoid", "Softmax": "softmax"}


def activate(logits: np.ndarray, function: ScoreFunction) -> np.ndarray:
    """Softmax over the last axis, sigmoid or nothing; the same shape."""
    match function:
        case "none":
            return np.asarray(logits, dtype=np.float32)
        case "softmax":
            return softmax(logits.astype(np.float32))
        case "sigmoid":
            return sigmoid(logits.astype(np.float32))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=-1, keepdims=True), dtype=np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Sigmoid of each value."""
    # exp of -|x| never overflows; 1 / (1 + e) and e / (1 + e) are the two halves of the sigmoid.
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small), dtype=np.float32)


def softmax_of_groups(logits_I: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Softmax inside each group (I,).

    Args:
        logits_I: One logit an item (I,).
        splits: Group p is items splits[p] to splits[p + 1], none of them empty (P+1,).
    """
    sizes, first = np.diff(splits), splits[:-1]
    if not len(sizes):
        return np.zeros(0, dtype=np.float32)
    exponent = np.exp(logits_I - np.repeat(np.maximum.reduceat(logits_I, first), sizes))
    return np.asarray(exponent / np.repeat(np.add.reduceat(exponent, first), sizes), dtype=np.float32)


def rank_in_groups(scores_I: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Items of each group, best first, ties in their order: places counted inside the group (I,), int32."""
    group = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
    order = np.lexsort((-scores_I, group))
    return np.asarray(order - splits[:-1][group], dtype=np.int32)
