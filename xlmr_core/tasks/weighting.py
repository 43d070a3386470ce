"""Losses in which some labels count more than others, and gold labels are softened.

Each function gives sums instead of a mean: what every target adds, and what it counts. The mean is one sum divided by
the other, over a micro-batch or over all micro-batches of a step on all workers; so both are the same loss, and sums of
some targets alone, such as those of a language, are at hand.

Letters: K targets, B records, C labels.
"""

import torch.nn.functional as F
from torch import Tensor

from xlmr_core.heads import IGNORED


def weighted_cross_entropy(
    logits_KC: Tensor, targets_K: Tensor, weight_C: Tensor | None = None, *, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross entropy of each target: that of `torch.nn.CrossEntropyLoss`, before its mean is taken.

    Args:
        logits_KC: Any float type.
        targets_K: Right labels, -100 to ignore, int64.
        weight_C: What a target of each label counts, float32; default: 1.
        smoothing: Share of a target that is spread over all labels (Szegedy et al. 2016, section 7), 0 to 1. Without
            weights this is `label_smoothing_factor` of the transformers Trainer.

    Returns:
        What each target adds to the loss, times what it counts, and what it counts; 0 and 0 where it is ignored. Both
        (K,), float32.
    """
    loss_K = F.cross_entropy(
        logits_KC.float(), targets_K, weight_C, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
    )
    counts_K = (targets_K != IGNORED).float()
    return loss_K, counts_K if weight_C is None else counts_K * weight_C[targets_K.clamp(min=0)]


def weighted_binary_cross_entropy(
    logits_BC: Tensor, targets_BC: Tensor, positive_C: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of each record: that of `torch.nn.BCEWithLogitsLoss`, before its mean is taken.

    Args:
        logits_BC: Any float type.
        targets_BC: 1 for each label that is given, else 0, float32.
        positive_C: What a given label counts, while one that is not given counts 1 (`pos_weight`); default: 1. As in
            torch it changes what is added up, not by how much that is divided.

    Returns:
        What each record adds, the sum over its labels, and what it counts, C. Both (B,), float32.
    """
    loss_BC = F.binary_cross_entropy_with_logits(logits_BC.float(), targets_BC, pos_weight=positive_C, reduction="none")
    return loss_BC.sum(1), loss_BC.new_full((len(loss_BC),), loss_BC.shape[1])


def mean_loss(loss_K: Tensor, counts_K: Tensor) -> Tensor:
    """The mean of what either function gives, a scalar; 0 when no target takes part."""
    counted = counts_K.sum()
    return loss_K.sum() / counted.where(counted > 0, 1.0)
