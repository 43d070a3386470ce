"""Whether a text's translation is its nearest neighbour.

Letters: R pairs of texts, D width of a vector, B rows of a block.
"""

from dataclasses import dataclass

import numpy as np

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics.means import share


@dataclass(slots=True)
class Retrieval:
    """Texts whose own counterpart is the nearest of all by cosine: the measure of Tatoeba (Artetxe and Schwenk 2019).

    Attributes:
        forward: Right ones from sources to targets.
        backward: Right ones from targets to sources.
        total: Pairs.
    """

    forward: int = 0
    backward: int = 0
    total: int = 0

    def add(self, sources_RD: np.ndarray, targets_RD: np.ndarray, *, block: int = 4096) -> None:
        """Searches one pool of texts; row r of both sides belong together.

        Of equally near texts the first one is taken; a vector of zeros is at a right angle to all. Memory beside the
        vectors, which may be mapped from a file: 4 · block² bytes and two blocks of them.

        Args:
            sources_RD: Vectors of any length (R, D).
            targets_RD: Those of their counterparts (R, D).
            block: Rows that are compared in one go.

        Raises:
            ArgumentError: Shapes that differ, or vectors that are not finite.
        """
        if sources_RD.ndim != 2 or sources_RD.shape != targets_RD.shape:
            raise ArgumentError(
                f"sources {sources_RD.shape} and targets {targets_RD.shape}, both must be one (rows, width)"
            )
        total = len(sources_RD)
        best = np.full((2, total), -np.inf, dtype=np.float32)
        nearest = np.zeros((2, total), dtype=np.int64)
        for first in range(0, total, block):
            sources_BD = _unit(sources_RD[first : first + block])
            for other in range(0, total, block):
                cosine_BB = sources_BD @ _unit(targets_RD[other : other + block]).T
                _keep_nearest(cosine_BB, best[0, first : first + block], nearest[0, first : first + block], other)
                _keep_nearest(cosine_BB.T, best[1, other : other + block], nearest[1, other : other + block], first)
        forward, backward = (int((found == np.arange(total)).sum()) for found in nearest)
        self.forward, self.backward, self.total = self.forward + forward, self.backward + backward, self.total + total

    def merge(self, other: "Retrieval") -> "Retrieval":
        """Both together, each searched in pools of its own."""
        return Retrieval(self.forward + other.forward, self.backward + other.backward, self.total + other.total)

    def result(self) -> dict[str, float]:
        """`forward`, `backward`, their mean as `accuracy`, and `total`."""
        return {
            "accuracy": share(self.forward + self.backward, 2 * self.total),
            "forward": share(self.forward, self.total),
            "backward": share(self.backward, self.total),
            "total": float(self.total),
        }


def retrieval_accuracy(sources_RD: np.ndarray, targets_RD: np.ndarray, *, block: int = 4096) -> dict[str, float]:
    """The result of `Retrieval` over one pool; see `Retrieval.add`."""
    found = Retrieval()
    found.add(sources_RD, targets_RD, block=block)
    return found.result()


def _unit(vectors_BD: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float32 (B, D)."""
    wide_BD = vectors_BD.astype(np.float64)
    norm_B = np.linalg.norm(wide_BD, axis=1, keepdims=True)
    if not np.isfinite(norm_B).all():
        raise ArgumentError("vectors hold nan or infinity; leave such texts out on both sides")
    return (wide_BD / np.where(norm_B > 0, norm_B, 1)).astype(np.float32)


def _keep_nearest(cosine_BB: np.ndarray, best_B: np.ndarray, nearest_B: np.ndarray, first: int) -> None:
    """Replaces what is farther than the nearest column of this block, whose columns count from `first`."""
    column_B = cosine_BB.argmax(axis=1)
    value_B = cosine_BB[np.arange(len(column_B)), column_B]
    nearer_B = value_B > best_B
    best_B[nearer_B] = value_B[nearer_B]
    nearest_B[nearer_B] = first + column_B[nearer_B]
