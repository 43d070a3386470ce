"""Cross entropy over a large vocabulary, whose logits never exist all at once.

XLM-R's 250,002 logits of one token are a megabyte, and autograd would keep three copies of them. Here a portion of the
tokens gets its logits, and everything that is wanted of them, the loss and the gradients, is computed before the next
portion's take their place. Nothing is approximated and nothing is computed twice. Source of the idea: Hsu et al. 2024,
"Liger Kernel".

Letters: M tokens with a target, N of them in a portion, D width, V tokens of the vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Most logits at a time: 256 MB. With fewer, adding up the projection's gradient would take as long as its products.
_LOGITS = 1 << 26


def vocabulary_loss(features_MD: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of `cross_entropy(linear(features, weight, bias), targets)`, with its gradients.

    Under autocast the three products run in its type, all else in float32.

    Args:
        features_MD: What is projected, at least one row.
        weight_VD: The projection.
        bias_V: Added to it.
        targets_M: Ids, int64.

    Returns:
        The mean, a scalar, and the loss of each token, without gradient (M,); both float32.
    """
    kind = features_MD.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_VD.dtype
    # The switch is read here: inside of a function of one's own it would cast each product's factors again.
    with torch.autocast(kind, enabled=False):
        mean, loss_M = _VocabularyLoss.apply(features_MD, weight_VD, bias_V, targets_M, dtype, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return mean, loss_M


class _VocabularyLoss(torch.autograd.Function):
    """Computes the gradients with the loss; going back only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        features_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        targets_M: Tensor,
        dtype: torch.dtype,
        is_learning: bool,
    ) -> tuple[Tensor, Tensor]:
        count, portion = len(features_MD), max(_LOGITS // len(weight_VD), 1)
        # What needs a gradient is told here even where none will be asked for.
        wants_features, wants_weight, wants_bias = (is_learning and needed for needed in ctx.needs_input_grad[:3])
        factor_VD, bias_in_dtype_V = weight_VD.to(dtype), bias_V.to(dtype)
        features_grad = torch.empty_like(features_MD) if wants_features else None
        weight_grad = torch.zeros_like(weight_VD) if wants_weight else None
        bias_grad = torch.zeros_like(bias_V) if wants_bias else None
        loss_M = torch.empty(count, device=features_MD.device)
        for rows in (slice(first, first + portion) for first in range(0, count, portion)):
            features_ND, targets_N1 = features_MD[rows].to(dtype), targets_M[rows, None]
            logits_NV = F.linear(features_ND, factor_VD, bias_in_dtype_V).float()
            loss_M[rows] = _to_residuals(logits_NV, targets_N1)
            residuals_NV = logits_NV.to(dtype)
            if features_grad is not None:
                features_grad[rows] = (residuals_NV @ factor_VD).div_(count)
            if weight_grad is not None:
                _add_product(weight_grad, residuals_NV.t(), features_ND / count)
            if bias_grad is not None:
                bias_grad += logits_NV.sum(0) / count
        ctx.gradients = features_grad, weight_grad, bias_grad
        ctx.mark_non_differentiable(loss_M)
        return loss_M.mean(), loss_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        # Whoever gets them owns them alone, so that autograd takes them over instead of copying.
        return (*(None if gradient is None else gradient.mul_(scale) for gradient in gradients), None, None, None)


def _to_residuals(logits_NV: Tensor, targets_N1: Tensor) -> Tensor:
    """The losses (N,); the logits become the loss's derivatives by them: probability, less one for the target."""
    of_target_N1 = logits_NV.gather(1, targets_N1)
    highest_N1, at_N1 = logits_NV.max(1, keepdim=True)
    # In place: each row is read before it is written.
    torch.softmax(logits_NV, 1, out=logits_NV)
    # The greatest probability is at least 1 / V: its logarithm is exact where another's would be that of zero.
    loss_N1 = highest_N1 - logits_NV.gather(1, at_N1).log() - of_target_N1
    logits_NV.scatter_add_(1, targets_N1, torch.full_like(of_target_N1, -1.0))
    return loss_N1.squeeze(1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds a product to a sum of perhaps a higher precision."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
