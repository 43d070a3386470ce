"""Losses of the documented classes, in float32, equal to those of transformers; labels are checked first.

Letters: B rows, L columns, K tokens, C outputs.
"""

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.config import ProblemType
from xlmr_core.errors import ArgumentError
from xlmr_core.heads import IGNORED
from xlmr_core.models.padded import name_of, refuse, tensor_problems


def token_labels(labels: Tensor | None, real_BL: Tensor, count: int) -> Tensor | None:
    """Labels of tokens (B, L), int64, on the right device.

    Raises:
        ArgumentError: They have another shape, or one is neither -100 nor an output.
    """
    if labels is None:
        return None
    refuse(tensor_problems({"labels": labels}))
    if tuple(labels.shape) != tuple(real_BL.shape):
        raise ArgumentError(
            f"labels of shape {tuple(labels.shape)}, they must be {tuple(real_BL.shape)} like the input"
        )
    return _classes(labels, count).to(real_BL.device)


def counts_padding(labels_BL: Tensor | None, real_BL: Tensor) -> bool:
    """Whether a label stands at padding, so that the loss depends on it."""
    return labels_BL is not None and bool(((labels_BL != IGNORED) & ~real_BL).any())


def cross_entropy(logits_KC: Tensor, labels_K: Tensor) -> Tensor:
    """Mean over the labels that take part; NaN where none does, as in transformers."""
    return F.cross_entropy(logits_KC.float(), labels_K, ignore_index=IGNORED)


def problem_type(num_labels: int, labels: Tensor) -> str:
    """What a head must be for, judged by its outputs and its first labels."""
    refuse(tensor_problems({"labels": labels}))
    if num_labels == 1:
        return "regression"
    whole = labels.dtype in (torch.int64, torch.int32)
    return "single_label_classification" if whole else "multi_label_classification"


def sequence_loss(logits_BC: Tensor, labels: Tensor, problem: str) -> Tensor:
    """Mean squared error, cross entropy, or binary cross entropy of every output.

    Raises:
        ArgumentError: The labels do not fit, or there is no such problem.
    """
    refuse(tensor_problems({"labels": labels}))
    if problem not in get_args(ProblemType):
        raise ArgumentError(f"problem_type {problem!r}, known are {', '.join(get_args(ProblemType))}")
    labels, (rows, count) = labels.to(logits_BC.device), logits_BC.shape
    if problem == "single_label_classification":
        if labels.numel() != rows:
            raise ArgumentError(f"labels of shape {tuple(labels.shape)}, one label a row is needed, that is ({rows},)")
        return cross_entropy(logits_BC, _classes(labels.flatten(), count))
    wanted = {(rows, count)} | ({(rows,)} if count == 1 and problem == "regression" else set())
    if tuple(labels.shape) not in wanted:
        shapes = " or ".join(map(str, sorted(wanted)))
        raise ArgumentError(f"labels of shape {tuple(labels.shape)}, they must be {shapes} for {problem}")
    targets_BC = labels.reshape(rows, count).float()
    if problem == "regression":
        return F.mse_loss(logits_BC.float(), targets_BC)
    return F.binary_cross_entropy_with_logits(logits_BC.float(), targets_BC)


def span_loss(start_BL: Tensor, end_BL: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Mean of the cross entropies of both ends over all columns; columns from L on take no part.

    Raises:
        ArgumentError: There is not one start and one end a row.
    """
    rows, columns = start_BL.shape
    named = {"start_positions": starts, "end_positions": ends}
    refuse(tensor_problems(named))
    problems = []
    for name, value in named.items():
        if value.numel() != rows:
            problems.append(f"{name} of shape {tuple(value.shape)}, it must be ({rows},)")
        if not _is_whole(value):
            problems.append(f"{name} of type {name_of(value.dtype)}, they must be whole numbers")
    refuse(problems)

    def loss(logits_BL: Tensor, right: Tensor) -> Tensor:
        right_B = right.to(logits_BL.device).flatten().long().clamp(0, columns)
        return F.cross_entropy(logits_BL.float(), right_B, ignore_index=columns)

    return (loss(start_BL, starts) + loss(end_BL, ends)) / 2


def _classes(labels: Tensor, count: int) -> Tensor:
    if not _is_whole(labels):
        raise ArgumentError(f"labels of type {name_of(labels.dtype)}, they must be whole numbers")
    labels = labels.long()
    chosen = labels[labels != IGNORED]
    if chosen.numel() and (int(chosen.min()) < 0 or int(chosen.max()) >= count):
        low, high = int(chosen.min()), int(chosen.max())
        raise ArgumentError(f"labels from {low} to {high}, they must be -100 (ignored) or from 0 to {count - 1}")
    return labels


def _is_whole(value: Tensor) -> bool:
    return not value.is_floating_point() and value.dtype != torch.bool
