"""One table over many languages: how good on the whole, how even, and who is left behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """A measure over languages, each counting the same however many records it has.

    Attributes:
        mean: Arithmetic mean.
        std: Standard deviation of these very languages (divided by their number).
        min: The smallest value.
        min_language: Whose it is; the first by name of equals.
        max: The largest value.
        max_language: Whose it is.
        languages: How many have a value.
    """

    mean: float
    std: float
    min: float
    min_language: str
    max: float
    max_language: str
    languages: int


def over_languages(results: Mapping[str, Mapping[str, float]]) -> dict[str, Spread]:
    """The spread of each measure, by its name.

    Args:
        results: Measures by name, of each language. A language that lacks one, or has nan, does not count for it; a
            measure that none has is not in the table.
    """
    names = dict.fromkeys(name for measures in results.values() for name in measures)
    table = {}
    for name in names:
        values = {
            language: results[language][name]
            for language in sorted(results)
            if name in results[language] and not isnan(results[language][name])
        }
        if values:
            lowest, highest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
            numbers = np.array(list(values.values()), dtype=np.float64)
            table[name] = Spread(
                mean=float(numbers.mean()),
                std=float(numbers.std()),
                min=values[lowest],
                min_language=lowest,
                max=values[highest],
                max_language=highest,
                languages=len(values),
            )
    return table
