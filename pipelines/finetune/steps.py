"""Which records each optimiser step sees, in which packed batches: a pure function of set, settings and step.

A step's records are cut into micro-batches by their tokens alone, so the cut does not depend on how many workers there
are; worker r of N takes micro-batches r, r + N, ... of every step. Nothing is read ahead and nothing is remembered: any
step can be asked for first.

Letters: R records, B of them in a micro-batch, T its tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.finetune.training_set import TrainingSet
from xlmr_core.batch import PackedBatch
from xlmr_core.heads import IGNORED
from xlmr_core.tokenization.encoding import bounds, ranges


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How an epoch is cut.

    Attributes:
        records: Records of an optimiser step.
        max_tokens: Most tokens of a micro-batch, unless one record alone has more.
        seed: Of the order.
        shuffle: Whether each epoch has an order of its own; else that of the files.
    """

    records: int = 32
    max_tokens: int = 4_096
    seed: int = 0
    shuffle: bool = True


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A part of a step that is computed at once.

    Attributes:
        packed: Its sequences.
        targets: What should be answered, see `TrainingSet.targets`.
        splits: Record b has the sequences splits[b] to splits[b + 1] (B+1,), int64.
        weight: Its targets as a part of all targets of the step, over all workers.
        seed: Of chance in the model.
    """

    packed: PackedBatch
    targets: Tensor
    splits: Tensor
    weight: float
    seed: int


class Steps:
    """The numbered steps of a run.

    Args:
        data: What is trained on.
        settings: How it is cut.
        first_position: See `EncoderConfig.first_position`.
    """

    def __init__(self, data: TrainingSet, settings: StepSettings, *, first_position: int) -> None:
        self.data, self.settings = data, settings
        self._first_position = first_position
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; the last one may have fewer records."""
        return -(-len(self.data) // self.settings.records)

    def records(self, step: int) -> np.ndarray:
        """The records of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.per_epoch)
        first = within * self.settings.records
        return self._epoch(epoch)[first : first + self.settings.records]

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            count = len(self.data)
            rng = np.random.default_rng((self.settings.seed, 5, epoch))
            self._order = epoch, rng.permutation(count) if self.settings.shuffle else np.arange(count)
        return self._order[1]

    def micro_batches(self, step: int, *, rank: int = 0, workers: int = 1) -> Iterator[MicroBatch]:
        """A worker's part of a step."""
        records = self.records(step)
        total = max(self._targets(records), 1)
        for number, part in enumerate(self._cut(records)):
            if number % workers == rank:
                yield self._build(part, self._targets(part) / total, step * 65_537 + number)

    def _sequences(self, records: np.ndarray) -> np.ndarray:
        first = self.data.records[records]
        return ranges(first, self.data.records[records + 1] - first)

    def _targets(self, records: np.ndarray) -> int:
        """How many targets take part in the loss."""
        rows = self.data.targets[self.data.target_rows(records, self._sequences(records))]
        return int((rows != IGNORED).sum()) if rows.dtype == np.int64 else rows.size

    def _cut(self, records: np.ndarray) -> list[np.ndarray]:
        """Records by falling size, so that equal lengths lie together, within the budget of tokens."""
        data = self.data
        tokens = data.splits[data.records[records + 1]] - data.splits[data.records[records]]
        order = np.argsort(-tokens, kind="stable")
        ends, parts, first, spent = np.cumsum(tokens[order]), [], 0, 0
        while first < len(order):
            stop = max(int(np.searchsorted(ends, spent + self.settings.max_tokens, side="right")), first + 1)
            parts.append(records[order[first:stop]])
            first, spent = stop, int(ends[stop - 1])
        return parts

    def _build(self, records: np.ndarray, weight: float, seed: int) -> MicroBatch:
        data, sequences = self.data, self._sequences(records)
        lengths = data.lengths[sequences]
        ids = data.ids[ranges(data.splits[sequences], lengths)]
        return MicroBatch(
            packed=PackedBatch.from_numpy(ids, lengths, first_position=self._first_position),
            targets=torch.from_numpy(data.targets[data.target_rows(records, sequences)]),
            splits=torch.from_numpy(bounds(data.records[records + 1] - data.records[records])),
            weight=weight,
            seed=seed,
        )
