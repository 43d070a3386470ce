"""Losses that several tasks share, in float32.

Letters: Q queries, P passages, C outputs, K targets, I items, G groups of neighbouring items.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.heads import IGNORED


def cross_entropy(logits_KC: Tensor, targets_K: Tensor) -> Tensor:
    """Mean cross entropy over the targets that take part, a scalar; 0 when none does.

    Args:
        logits_KC: Any float type.
        targets_K: Right outputs, -100 to ignore.
    """
    total = F.cross_entropy(logits_KC.float(), targets_K, ignore_index=IGNORED, reduction="sum")
    return total / (targets_K != IGNORED).sum().clamp(min=1)


def in_batch_cross_entropy(scores_QP: Tensor, first: int = 0) -> Tensor:
    """InfoNCE: each query's own passage against all other passages of the batch (van den Oord et al. 2018).

    Args:
        scores_QP: What the softmax is taken of: similarities, already divided by a temperature, minus infinity for
            passages that are no negatives of a query.
        first: The first query's own passage; those of the next ones follow it. All others are nobody's.

    Returns:
        The mean over the queries, float32, a scalar; 0 for none.
    """
    if not len(scores_QP):
        return scores_QP.float().sum()
    return cross_entropy(scores_QP, torch.arange(first, first + len(scores_QP), device=scores_QP.device))


def log_softmax_of_groups(logits_I: Tensor, splits: Tensor) -> Tensor:
    """Logarithm of the softmax inside each group of neighbours, such as the choices of one record, float32 (I,).

    Args:
        logits_I: One logit an item (I,).
        splits: Group g is items splits[g] to splits[g + 1], none of them empty (G+1,), int64.
    """
    group_I, logits_I = group_of_item(splits), logits_I.float()
    sums_G = logits_I.new_zeros(len(splits) - 1)
    # What is subtracted for the sake of range does not change the result, so no gradient goes through it.
    highest_G = torch.full_like(sums_G, -torch.inf).scatter_reduce(0, group_I, logits_I.detach(), "amax")
    shifted_I = logits_I - highest_G[group_I]
    return shifted_I - sums_G.index_add(0, group_I, shifted_I.exp()).log()[group_I]


def group_of_item(splits: Tensor) -> Tensor:
    """Group of each item (I,), int64; groups as for `log_softmax_of_groups`."""
    return torch.repeat_interleave(torch.arange(len(splits) - 1, device=splits.device), splits.diff())
