"""Sums without rounding: whoever adds in whatever order gets the same number.

Floating-point addition is not associative, so a mean over eight workers would differ from that over one in its last
bits. A float64 is a whole number times a power of two; whole numbers add up exactly.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from xlmr_core.errors import ArgumentError

# Bits of a float64's fraction, and the half of them that 2^36 addends cannot carry out of 64 bits.
_BITS, _HALF = 53, 27


def exact_sum(values: ArrayLike) -> Fraction:
    """The sum of finite numbers, unrounded.

    Args:
        values: Read as float64, any shape.

    Raises:
        ArgumentError: A value is infinite or not a number.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.isfinite(flat).all():
        raise ArgumentError(f"{int((~np.isfinite(flat)).sum())} of {len(flat)} values are nan or infinite, none may be")
    fraction, exponent = np.frexp(flat)
    whole = np.ldexp(fraction, _BITS).astype(np.int64)
    powers, total = np.unique(exponent).tolist() or [0], 0
    for power in powers:
        part = whole[exponent == power]
        high, low = int((part >> _HALF).sum()), int((part & ((1 << _HALF) - 1)).sum())
        total += ((high << _HALF) + low) << (power - powers[0])
    return total * Fraction(2) ** int(powers[0] - _BITS)


@dataclass(slots=True)
class Mean:
    """Arithmetic mean.

    Attributes:
        total: Exact sum of all values.
        count: How many there were.
    """

    total: Fraction = Fraction(0)
    count: int = 0

    def add(self, values: ArrayLike) -> None:
        """Counts finite numbers, any shape."""
        self.total += exact_sum(values)
        self.count += int(np.size(values))

    def merge(self, other: "Mean") -> "Mean":
        """Both together."""
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        """The mean, rounded once; nan for nothing."""
        return float(self.total / self.count) if self.count else nan


def share(part: int, whole: int) -> float:
    """A quotient of counts; nan of nothing."""
    return part / whole if whole else nan
