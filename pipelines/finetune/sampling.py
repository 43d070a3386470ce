"""Which rows are trained on, in which order: pure functions of a seed and the number of an epoch.

Letters: R rows, G groups of translations, E rows of an epoch.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class TranslationGroups:
    """Rows by group, for drawing translations.

    Attributes:
        rows: Rows that have a group, sorted by group.
        starts: Group g owns `rows[starts[g]:starts[g + 1]]` (G+1,).
        pivot: A row of the group in the pivot language (G,); -1 where it has none.
    """

    rows: np.ndarray
    starts: np.ndarray
    pivot: np.ndarray

    @classmethod
    def build(cls, label: np.ndarray, group: np.ndarray, pivot_label: int) -> "TranslationGroups":
        """Indexes rows by group; `group` is -1 or 0..G-1, `pivot_label` the number of the pivot language."""
        order = np.argsort(group, kind="stable")
        rows = order[np.searchsorted(group[order], 0) :]
        count = int(group.max(initial=-1)) + 1
        starts = np.searchsorted(group[rows], np.arange(count + 1))
        pivot = np.full(count, -1, dtype=np.int64)
        in_pivot = rows[label[rows] == pivot_label]
        pivot[group[in_pivot][::-1]] = in_pivot[::-1]
        return cls(rows, starts, pivot)

    def draw_partners(
        self, anchors: np.ndarray, label: np.ndarray, group: np.ndarray, *, pivot_share: float, rng: np.random.Generator
    ) -> np.ndarray:
        """A translation for each anchor, in another language.

        Args:
            anchors: Row numbers (E,).
            label: Language of each row (R,).
            group: Group of each row (R,).
            pivot_share: How often the partner is the row in the pivot language rather than any row of the group.
            rng: Source of chance.

        Returns:
            Row numbers (E,); -1 where an anchor has no group, or the draw met its own language.
        """
        groups = np.asarray(group[anchors], dtype=np.int64)
        grouped = groups >= 0
        groups = np.where(grouped, groups, 0)
        if not len(self.rows):
            return np.full(len(anchors), -1)
        first, stop = self.starts[groups], self.starts[groups + 1]
        drawn = self.rows[np.minimum(first + (rng.random(len(anchors)) * (stop - first)).astype(np.int64), stop - 1)]
        pivot = self.pivot[groups]
        drawn = np.where((rng.random(len(anchors)) < pivot_share) & (pivot >= 0), pivot, drawn)
        partners: np.ndarray = np.where(grouped & (label[drawn] != label[anchors]), drawn, -1)
        return partners
