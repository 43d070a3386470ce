"""Vectors of translations, kept in a file until the last pair is there: retrieval compares each with all others.

Letters: R pairs, D width of a vector.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xlmr_core.metrics import Retrieval

# Pairs of a language: time grows with their square, about two minutes for so many of 768 values on two cores.
MOST_PAIRS = 100_000


@dataclass(slots=True)
class VectorPairs:
    """Vectors of the pairs of one language, in a temporary file: 8 · D bytes a pair on disk, no memory.

    Attributes:
        folder: Holds the file, and goes with this object.
        count: Pairs, R.
        width: D; 0 before the first pair.
        missing: Pairs that a side has no vector of: nobody finds them.
    """

    folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="xlmr-vectors-")
    )
    count: int = 0
    width: int = 0
    missing: int = 0

    @property
    def _file(self) -> Path:
        return Path(self.folder.name) / "pairs.float32"

    def add(self, first: Sequence[list[float] | None], second: Sequence[list[float] | None]) -> None:
        """Takes pairs; None stands for a vector that the model cannot make."""
        both = zip(first, second, strict=True)
        pairs = [[one, other] for one, other in both if one is not None and other is not None]
        self.missing += len(first) - len(pairs)
        if pairs:
            self.count, self.width = self.count + len(pairs), len(pairs[0][0])
            with self._file.open("ab") as file:
                file.write(np.array(pairs, dtype=np.float32).tobytes())

    def retrieval(self) -> Retrieval:
        """Searches all pairs, mapped from the file: 64 MiB and two blocks of 4,096 vectors are in memory."""
        found = Retrieval(total=self.missing)
        if self.count:
            shape = (self.count, 2, self.width)
            pairs_R2D = np.memmap(self._file, dtype=np.float32, mode="r", shape=shape)
            found.add(pairs_R2D[:, 0], pairs_R2D[:, 1])
        self.folder.cleanup()
        return found
