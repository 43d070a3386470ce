"""Which rows are trained on, in which order: pure functions of a seed and the number of an epoch.

Letters: R rows, E rows of an epoch.
"""

import numpy as np


def language_probabilities(counts: np.ndarray, alpha: float) -> np.ndarray:
    """Shares of the languages, p_l ~ n_l ** alpha (XLM, Lample and Conneau 2019; XLM-R uses 0.3).

    Args:
        counts: Rows of each language, n_l.
        alpha: 1 keeps the shares of the data, 0 makes all languages equal.

    Returns:
        Probabilities; 0 where a language has no rows.
    """
    weights = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** alpha, 0.0)
    shares: np.ndarray = weights / weights.sum()
    return shares


def epoch_rows(label: np.ndarray, *, alpha: float, size: int, seed: int, epoch: int) -> np.ndarray:
    """The rows of an epoch in training order.

    A language's rows are dealt from one shuffled deck after another, so all of them are seen before one repeats.

    Args:
        label: Language of each row (R,).
        alpha: See `language_probabilities`.
        size: About how many rows an epoch has.
        seed: Of the whole run.
        epoch: Counts from 0.

    Returns:
        Row numbers (E,), E within one per language of `size`.
    """
    counts = np.bincount(label)
    quotas = np.rint(language_probabilities(counts, alpha) * size).astype(np.int64)
    by_language = np.split(np.argsort(label, kind="stable"), np.cumsum(counts)[:-1])
    dealt = [
        rows[_deal(len(rows), quota * epoch, quota * (epoch + 1), (seed, language))]
        for language, (rows, quota) in enumerate(zip(by_language, quotas.tolist(), strict=True))
        if quota
    ]
    order: np.ndarray = np.random.default_rng((seed, 1, epoch)).permutation(np.concatenate(dealt))
    return order


def _deal(deck: int, first: int, last: int, seed: tuple[int, ...]) -> np.ndarray:
    """Cards `first` to `last` of an endless row of shuffled decks."""
    decks = [
        np.random.default_rng((*seed, 2, number)).permutation(deck) for number in range(first // deck, -(-last // deck))
    ]
    start = first - first // deck * deck
    return np.concatenate(decks)[start : start + last - first]
