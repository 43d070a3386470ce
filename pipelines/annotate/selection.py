"""Which rows of a job a sample takes: a pure function of seed and global row number, never of shard sizes."""

import numpy as np
import numpy.typing as npt


def sampled(first: int, count: int, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Says for global rows [first, first + count) whether the sample takes them.

    Row r is taken when splitmix64's next output from state r + seed * 0x9E3779B97F4A7C15, as a fraction of
    2**64, lies under `fraction` (Steele, Lea and Flood, 2014).

    Returns:
        Mask of shape (count,).
    """
    # Only the low 64 bits of the seed's multiple count, and numpy warns about overflow of scalars.
    offset = np.uint64((first + seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    z = np.arange(count, dtype=np.uint64) + offset
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    threshold = int(fraction * 2.0**53) << 11
    taken: npt.NDArray[np.bool_] = z < np.uint64(min(threshold, 2**64 - 1))
    return taken | (fraction >= 1.0)
