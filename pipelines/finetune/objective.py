"""What an objective says of a micro-batch."""

from typing import NamedTuple, Self

from torch import Tensor

from xlmr_core.tasks.weighting import mean_loss


class Losses(NamedTuple):
    """The loss of a micro-batch, as a whole and of each target.

    Attributes:
        mean: To be differentiated, float32, a scalar.
        of_targets: What each target adds, times what it counts, without gradient (K,): of all rows of targets, or only
            of those that are not ignored.
        counts: What each target counts (K,).
    """

    mean: Tensor
    of_targets: Tensor
    counts: Tensor

    @classmethod
    def of(cls, loss_K: Tensor, counts_K: Tensor) -> Self:
        """From sums as `xlmr_core.tasks.weighting` gives them."""
        return cls(mean_loss(loss_K, counts_K), loss_K.detach(), counts_K)
