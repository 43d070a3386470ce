"""Losses that sentence vectors are trained with: contrastive, graded, distilled from a teacher; all in float32.

Each equals the loss of sentence-transformers (6.2) that it names, in value and gradient. The mean squared error of
cosines is `similarity.loss`.

Letters: P pairs, B of them, N negatives, E candidates (second sides of the pairs, then negatives), G groups of a pair,
M second texts, R records, V vectors, D width.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xlmr_core.tasks.losses import group_of_item, in_batch_cross_entropy

# Scores that are held at once; more are computed block by block, and again for their gradient.
_SCORES = 1 << 24


def info_nce(
    first_PD: Tensor,
    second_PD: Tensor,
    negatives_ND: Tensor | None = None,
    *,
    scale: float = 20.0,
    symmetric: bool = False,
    group_PG: Tensor | None = None,
    negative_group_N: Tensor | None = None,
) -> Tensor:
    """InfoNCE with in-batch negatives on cosines: sentence-transformers' `MultipleNegativesRankingLoss`.

    Memory is that of the vectors and of one block of scores, however many pairs there are.

    Args:
        first_PD: Vectors of one side of P pairs, such as queries.
        second_PD: Vectors of the other side, such as their passages.
        negatives_ND: Vectors that are no pair of any of the first side.
        scale: Multiplies the cosine; one over the temperature.
        symmetric: Whether the mean with the loss of the other direction is taken, where the second side asks
            (LaBSE, Feng et al. 2022).
        group_PG: Groups of each pair (P, G) or (P,), int64. Pairs with a group in common mean the same, so they are
            no negatives of each other.
        negative_group_N: Group of each negative (N,); it is no negative of a pair of that group.

    Returns:
        The mean over the pairs, float32, a scalar; 0 for no pairs.
    """
    first_PD, second_PD = F.normalize(first_PD.float(), dim=1), F.normalize(second_PD.float(), dim=1)
    candidates_ED, group_EG = second_PD, None
    if group_PG is not None:
        group_PG = group_EG = group_PG if group_PG.ndim == 2 else group_PG[:, None]
    if negatives_ND is not None:
        candidates_ED = torch.cat([second_PD, F.normalize(negatives_ND.float(), dim=1)])
        if group_EG is not None and negative_group_N is not None:
            group_EG = torch.cat([group_EG, negative_group_N[:, None].expand(-1, group_EG.shape[1])])
    there = _asked(first_PD, candidates_ED, scale, group_PG, group_EG)
    return (there + _asked(second_PD, first_PD, scale, group_PG, group_PG)) / 2 if symmetric else there


def _asked(
    asking_PD: Tensor, candidates_ED: Tensor, scale: float, group_PG: Tensor | None, group_EG: Tensor | None
) -> Tensor:
    """InfoNCE of one direction: candidate p is the right one for p."""

    def of_block(asking_PD: Tensor, candidates_ED: Tensor, first: int, last: int) -> Tensor:
        scores_BE = asking_PD[first:last] @ candidates_ED.T * scale
        if group_PG is not None and group_EG is not None:
            scores_BE = scores_BE.masked_fill(_alike(group_PG, group_EG, first, scores_BE.shape), -torch.inf)
        return in_batch_cross_entropy(scores_BE, first) * len(scores_BE)

    count = len(asking_PD)
    rows = max(_SCORES // max(len(candidates_ED), 1), 1)
    if count <= rows:
        return of_block(asking_PD, candidates_ED, 0, count) / max(count, 1)
    starts = [*range(0, count, rows), count]
    parts = [
        checkpoint(of_block, asking_PD, candidates_ED, *block, use_reentrant=False, preserve_rng_state=False)
        for block in pairwise(starts)
    ]
    return torch.stack(parts).sum() / count


def _alike(group_PG: Tensor, group_EG: Tensor, first: int, shape: tuple[int, ...]) -> Tensor:
    """Which candidates are neither right nor wrong for the pairs from `first` on (B, E), bool; `shape` is (B, E)."""
    alike_BE = torch.zeros(shape, dtype=torch.bool, device=group_PG.device)
    for asking_B in group_PG[first : first + shape[0]].unbind(1):
        for group_E in group_EG.unbind(1):
            alike_BE[:, : len(group_E)] |= asking_B[:, None] == group_E
    alike_BE.diagonal(first).fill_(False)
    return alike_BE


def cosent(scores_M: Tensor, targets_M: Tensor, *, scale: float = 20.0) -> Tensor:
    """CoSENT: what should be closer is closer, by rank (Huang et al. 2024); sentence-transformers' `CoSENTLoss`.

    log(1 + sum of exp(scale * (score_j - score_i)) over all i, j with target_i > target_j).

    Args:
        scores_M: Cosines of M pairs.
        targets_M: How similar they are, of any range; only their order counts.
        scale: Multiplies the cosine; one over the temperature.

    Returns:
        A float32 scalar; 0 where no two targets differ.
    """
    targets_M, order = targets_M.sort()
    scores_M = scores_M.float()[order] * scale
    # For each score, all those with higher targets; there may be none.
    higher_M = torch.searchsorted(targets_M, targets_M, right=True)
    sums = torch.cat([torch.logcumsumexp(-scores_M.flip(0), 0).flip(0), scores_M.new_full((1,), -torch.inf)])
    return torch.cat([scores_M.new_zeros(1), scores_M + sums[higher_M]]).logsumexp(0)


def teacher_mse(vectors_VD: Tensor, teacher_VD: Tensor) -> Tensor:
    """Mean squared error to a teacher's vectors (Reimers and Gurevych 2020); sentence-transformers' `MSELoss`.

    Args:
        vectors_VD: Of texts and of their translations.
        teacher_VD: The teacher's for the texts, for the translations as well.

    Returns:
        The mean over all values, float32, a scalar; 0 for no vectors.
    """
    return F.mse_loss(vectors_VD.float(), teacher_VD.float(), reduction="sum") / max(vectors_VD.numel(), 1)


def margin_mse(scores_M: Tensor, targets_M: Tensor, splits: Tensor) -> Tensor:
    """Mean squared error of margins (Hofstätter et al. 2020); sentence-transformers' `MarginMSELoss`.

    A margin is by how much a record's first second text scores higher than another one.

    Args:
        scores_M: Dot products of each record's text with its second texts.
        targets_M: The teacher's scores for the same.
        splits: Record r has the second texts splits[r] to splits[r + 1] (R+1,), int64.

    Returns:
        The mean over all margins, float32, a scalar; 0 where no record has two second texts.
    """
    best_M = splits[:-1][group_of_item(splits)]
    others = best_M != torch.arange(len(best_M), device=best_M.device)
    margins, wanted = ((x[best_M] - x)[others] for x in (scores_M.float(), targets_M.float()))
    return F.mse_loss(margins, wanted, reduction="sum") / max(len(margins), 1)


def matryoshka(
    loss: Callable[[Tensor], Tensor], vectors_VD: Tensor, dimensions: Sequence[int], weights: Sequence[float]
) -> Tensor:
    """A loss of vectors cut to several lengths (Kusupati et al. 2022); sentence-transformers' `MatryoshkaLoss`.

    Args:
        loss: Of vectors of any width, which have unit length.
        vectors_VD: The whole vectors.
        dimensions: How many leading values are kept, each no more than D.
        weights: What each of the losses counts.

    Returns:
        The weighted sum, a scalar.
    """
    parts = [loss(F.normalize(vectors_VD[:, :size].float(), dim=1)) for size in dimensions]
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()
