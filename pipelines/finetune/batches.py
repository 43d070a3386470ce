"""Numbered packed batches: batch n of a run is a pure function of the data, the settings and n.

Letters: E items of an epoch, B sequences and P translation pairs of a batch, T packed tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.finetune.data import TokenisedTexts
from pipelines.finetune.sampling import TranslationGroups, epoch_rows
from xlmr_core.batch import PackedBatch
from xlmr_core.tokenization.encoding import SpecialTokens

MAX_JOINED = 4


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How batches are made.

    Attributes:
        max_tokens: Budget of a batch, tokens.
        max_length: Tokens of a sequence, special tokens included, unless it is joined.
        max_joined_length: Tokens of a sequence of several texts joined.
        alpha: Language sampling, see `language_probabilities`.
        epoch_size: Items of an epoch; only a unit of planning.
        pair_share: How many items with translations bring one along.
        pivot_share: How many of those are in the pivot language.
        fragment_share: How many other items are cut to a fragment of 1 to `max_fragment_words` words.
        max_fragment_words: See `fragment_share`.
        joined_share: How many other items are several texts of one language joined.
        mask_share: How many tokens of pairs are replaced by `<mask>`.
        seed: Of the order and of every draw.
    """

    max_tokens: int
    max_length: int = 64
    max_joined_length: int = 128
    alpha: float = 0.5
    epoch_size: int = 65_536
    pair_share: float = 0.6
    pivot_share: float = 0.5
    fragment_share: float = 0.45
    max_fragment_words: int = 8
    joined_share: float = 0.05
    mask_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """What one step sees.

    Attributes:
        packed: The sequences, sorted by length.
        label: Language of each sequence (B,), int64; -100 where it does not count.
        pairs: Sequence numbers of translations (P, 2), int64.
        group: Group of each pair (P,), int64; pairs of one group are no negatives of each other.
    """

    packed: PackedBatch
    label: Tensor
    pairs: Tensor
    group: Tensor


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """Items of an epoch in order, cut into batches.

    Attributes:
        rows: Texts that make up the item's first sequence (E, MAX_JOINED); -1 for none.
        span: Token range inside the first text (E, 2).
        partner: Row of the translation (E,); -1 for none.
        bounds: Batch b has the items `bounds[b]` to `bounds[b + 1]`.
    """

    rows: np.ndarray
    span: np.ndarray
    partner: np.ndarray
    bounds: np.ndarray


class Batches:
    """The endless row of numbered batches of a run.

    Args:
        texts: Training texts.
        special: Special tokens.
        settings: How batches are made.
        starts_word: Whether a token id begins a word (V,); fragments begin there.
        pivot_label: Number of the pivot language.
    """

    def __init__(
        self,
        texts: TokenisedTexts,
        special: SpecialTokens,
        settings: BatchSettings,
        *,
        starts_word: np.ndarray,
        pivot_label: int,
    ) -> None:
        self.texts, self.special, self.settings = texts, special, settings
        self._starts_word = starts_word
        self._groups = TranslationGroups.build(texts.label, texts.group, pivot_label)
        self._pivot_label = pivot_label
        self._first_batch = [0]
        self._current: tuple[int, EpochPlan] | None = None

    def __call__(self, number: int) -> TrainingBatch:
        """Batch `number`, counted from 0 over all epochs."""
        epoch = 0
        while True:
            if epoch + 1 == len(self._first_batch):
                self._first_batch.append(self._first_batch[-1] + len(self._plan(epoch).bounds) - 1)
            if number < self._first_batch[epoch + 1]:
                return self._build(self._plan(epoch), number - self._first_batch[epoch], number)
            epoch += 1

    def _plan(self, epoch: int) -> EpochPlan:
        if self._current is None or self._current[0] != epoch:
            self._current = epoch, self.plan_epoch(epoch)
        return self._current[1]

    def plan_epoch(self, epoch: int) -> EpochPlan:
        """Draws the items of an epoch and cuts them into batches."""
        settings, texts = self.settings, self.texts
        rng = np.random.default_rng((settings.seed, 3, epoch))
        anchors = epoch_rows(
            texts.label, alpha=settings.alpha, size=settings.epoch_size, seed=settings.seed, epoch=epoch
        )
        partner = self._groups.draw_partners(
            anchors, texts.label, texts.group, pivot_share=settings.pivot_share, rng=rng
        )
        partner[rng.random(len(anchors)) >= settings.pair_share] = -1
        rows = np.full((len(anchors), MAX_JOINED), -1, dtype=np.int64)
        rows[:, 0] = anchors
        kind = rng.random(len(anchors))
        joined = np.flatnonzero((partner < 0) & (kind >= 1 - settings.joined_share))
        rows[joined, 1:] = self._same_language(anchors[joined], anchors)
        length = texts.lengths[anchors]
        span = np.stack([np.zeros_like(length), np.minimum(length, settings.max_length - 2)], axis=1)
        for item in np.flatnonzero((partner < 0) & (kind < settings.fragment_share)).tolist():
            span[item] = self._fragment(int(anchors[item]), rng)
        return EpochPlan(rows, span, partner, self._cut(rows, span, partner))

    def _same_language(self, wanted: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """The `MAX_JOINED - 1` rows after the first of the same language among the epoch's rows (n, 3)."""
        by_label = pool[np.argsort(self.texts.label[pool], kind="stable")]
        labels = self.texts.label[by_label]
        first = np.searchsorted(labels, self.texts.label[wanted])
        count = np.searchsorted(labels, self.texts.label[wanted], side="right") - first
        step = np.arange(1, MAX_JOINED)[None, :] * 7919 + wanted[:, None]
        rows: np.ndarray = by_label[first[:, None] + step % count[:, None]]
        return rows

    def _fragment(self, row: int, rng: np.random.Generator) -> tuple[int, int]:
        ids = self._ids(row)
        starts = np.flatnonzero(self._starts_word[ids])
        words = int(rng.integers(1, self.settings.max_fragment_words + 1))
        # Scripts without spaces have few word starts: there a "word" is two tokens.
        if len(starts) * 6 < len(ids):
            starts = np.arange(0, len(ids), 2)
        first = int(rng.integers(0, max(len(starts) - words + 1, 1)))
        begin = int(starts[first]) if len(starts) else 0
        end = int(starts[first + words]) if first + words < len(starts) else len(ids)
        return begin, min(end, begin + self.settings.max_length - 2)

    def _cut(self, rows: np.ndarray, span: np.ndarray, partner: np.ndarray) -> np.ndarray:
        lengths, settings = self.texts.lengths, self.settings
        cost = span[:, 1] - span[:, 0] + 2
        more = np.where(rows[:, 1:] >= 0, lengths[rows[:, 1:]], 0).sum(1)
        cost = np.where(more > 0, np.minimum(lengths[rows[:, 0]] + more + 2, settings.max_joined_length), cost)
        cost = cost + np.where(partner >= 0, np.minimum(lengths[partner], settings.max_length - 2) + 2, 0)
        ends = np.cumsum(cost)
        bounds = [0]
        while bounds[-1] < len(cost):
            spent = int(ends[bounds[-1] - 1]) if bounds[-1] else 0
            stop = int(np.searchsorted(ends, spent + settings.max_tokens, side="right"))
            bounds.append(max(stop, bounds[-1] + 1))
        return np.array(bounds)

    def _build(self, plan: EpochPlan, batch: int, number: int) -> TrainingBatch:
        rng = np.random.default_rng((self.settings.seed, 4, number))
        sequences, labels, pairs, groups = [], [], [], []
        for item in range(plan.bounds[batch], plan.bounds[batch + 1]):
            anchor, partner = int(plan.rows[item, 0]), int(plan.partner[item])
            labels.append(int(self.texts.label[anchor]))
            if partner < 0:
                sequences.append(self._wrap(self._first_sequence(plan, item)))
                continue
            pairs.append((len(sequences), len(sequences) + 1))
            groups.append(int(self.texts.group[anchor]))
            # The pivot language would be most of all labels, so as a partner it does not count.
            label = int(self.texts.label[partner])
            labels.append(-100 if label == self._pivot_label else label)
            sequences += [self._wrap(self._masked(self._first_sequence(plan, item), rng))]
            sequences += [self._wrap(self._masked(self._ids(partner)[: self.settings.max_length - 2], rng))]
        lengths = np.array([len(ids) for ids in sequences])
        order = np.argsort(lengths, kind="stable")
        place = np.argsort(order)
        packed = PackedBatch.from_numpy(
            np.concatenate([sequences[i] for i in order]), lengths[order], first_position=self.special.pad + 1
        )
        return TrainingBatch(
            packed,
            torch.tensor(labels)[order],
            torch.from_numpy(place[np.array(pairs, dtype=np.int64).reshape(-1, 2)]),
            torch.tensor(groups, dtype=torch.int64),
        )

    def _first_sequence(self, plan: EpochPlan, item: int) -> np.ndarray:
        rows = plan.rows[item]
        if rows[1] >= 0:
            return np.concatenate([self._ids(int(row)) for row in rows])[: self.settings.max_joined_length - 2]
        start, stop = plan.span[item]
        return self._ids(int(rows[0]))[start:stop]

    def _ids(self, row: int) -> np.ndarray:
        return self.texts.ids[self.texts.splits[row] : self.texts.splits[row + 1]]

    def _wrap(self, ids: np.ndarray) -> np.ndarray:
        return np.concatenate([[self.special.bos], ids, [self.special.eos]])

    def _masked(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert self.special.mask is not None
        return np.where(rng.random(len(ids)) < self.settings.mask_share, self.special.mask, ids)


BatchSource = Callable[[int], TrainingBatch]
