"""Which records each optimiser step sees, in which packed batches: a pure function of sets, settings and step.

A run learns from one stream of records, or from several at once; its step n is made of step n of each stream. A step's
records are cut into micro-batches by their tokens alone, so the cut does not depend on how many workers there are;
worker r of N takes micro-batches r, r + N, ... of every step. Nothing is read ahead and nothing is remembered: any step
can be asked for first.

Letters: R records, B of them in a micro-batch, T its tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipelines.finetune.sampling import epoch_rows
from pipelines.finetune.training_set import TrainingSet
from xlmr_core.batch import PackedBatch, plan_batches

# Hides tokens of a step's records from the model, which then are its targets.
Hide = Callable[[TrainingSet, np.random.Generator], TrainingSet]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream is cut into steps.

    Attributes:
        records: Records of an optimiser step.
        tokens: About so many tokens a step instead.
        max_tokens: Most tokens of a micro-batch, unless one record alone has more.
        seed: Of the order.
        shuffle: Whether each epoch has an order of its own; else that of the files.
        sampling: Languages take part as their number of records to this power, see `language_probabilities`; None for
            every record once an epoch.
        weight: Of the stream's loss among others.
    """

    records: int = 32
    tokens: int | None = None
    max_tokens: int = 4_096
    seed: int = 0
    shuffle: bool = True
    sampling: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A part of a step that is computed at once.

    Attributes:
        goal: Which stream it is of.
        packed: Its sequences.
        targets: What should be answered, see `TrainingSet.targets`.
        splits: Record b has the sequences splits[b] to splits[b + 1] (B+1,), int64.
        language: Number of each record's language among the stream's (B,).
        weight: What the mean over its targets counts for in the loss of the step: its share of all targets of the
            stream in the step, over all workers, times the weight of the stream.
        seed: Of chance in the model.
        is_filler: Whether it is computed for the sake of the number alone: it weighs nothing and counts nowhere.
    """

    goal: str
    packed: PackedBatch
    targets: Tensor
    splits: Tensor
    language: np.ndarray
    weight: float
    seed: int
    is_filler: bool = False

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on a device."""
        if self.targets.device == device:
            return self
        packed = replace(
            self.packed,
            ids=self.packed.ids.to(device),
            positions=self.packed.positions.to(device),
            cu_seqlens=self.packed.cu_seqlens.to(device),
        )
        return replace(self, packed=packed, targets=self.targets.to(device), splits=self.splits.to(device))


class Stream:
    """The numbered steps of one goal.

    Args:
        data: What is trained on.
        settings: How it is cut.
        first_position: See `EncoderConfig.first_position`.
        goal: What is learnt from it.
        hide: For sequences that are their own targets.
        together: Whether the loss is one of all sequences of a step, such as in-batch negatives.
        count: What targets count together in the loss; default: one each.
    """

    def __init__(
        self,
        data: TrainingSet,
        settings: StreamSettings,
        *,
        first_position: int,
        goal: str = "task",
        hide: Hide | None = None,
        together: bool = False,
        count: Callable[[np.ndarray], float] | None = None,
    ) -> None:
        self.data, self.settings, self.goal, self.together = data, settings, goal, together
        self._first_position, self._hide, self._count = first_position, hide, count
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None
        order, bounds = self._cut_epoch(0, None)
        self.per_epoch = len(bounds) - 1
        self._epoch = 0, order, bounds

    def records(self, step: int) -> np.ndarray:
        """The records of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, *self._cut_epoch(epoch, self.per_epoch)
        _, order, bounds = self._epoch
        return order[bounds[within] : bounds[within + 1]]

    def _cut_epoch(self, epoch: int, steps: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The records of an epoch in order, and where in it each step begins and ends.

        By tokens, every epoch has as many steps as the first, however the languages were drawn.
        """
        order = self._order(epoch)
        if self.settings.tokens is None:
            return order, np.append(np.arange(0, len(order), self.settings.records), len(order))
        ends = np.cumsum(self.data.tokens[order])
        steps = steps or min(max(-(-int(ends[-1]) // self.settings.tokens), 1), len(order))
        cuts = np.searchsorted(ends, np.arange(1, steps) * (ends[-1] / steps))
        # At least one record a step.
        inner = np.clip(np.maximum.accumulate(cuts - np.arange(steps - 1)), 1, len(order) - steps + 1)
        return order, np.concatenate([[0], inner + np.arange(steps - 1), [len(order)]])

    def _order(self, epoch: int) -> np.ndarray:
        settings, count = self.settings, len(self.data)
        if settings.sampling is not None:
            return epoch_rows(self.data.language, alpha=settings.sampling, size=count, seed=settings.seed, epoch=epoch)
        if not settings.shuffle:
            return np.arange(count)
        return np.random.default_rng((settings.seed, 5, epoch)).permutation(count)

    def parts(self, step: int) -> list[tuple[TrainingSet, float]]:
        """A step's records in parts that are computed at once, with the weight of each."""
        data = self.data.take(self.records(step))
        if self._hide is not None:
            data = self._hide(data, np.random.default_rng((self.settings.seed, 7, step)))
        parts = [data.take(records) for records in plan_batches(data.tokens, self.settings.max_tokens)]
        counts = [self._count(part.targets) if self._count else part.target_count for part in parts]
        total = sum(counts) or 1.0
        return [(part, self.settings.weight * count / total) for part, count in zip(parts, counts, strict=True)]

    def build(self, part: TrainingSet, weight: float, seed: int) -> MicroBatch:
        """A part as tensors."""
        return MicroBatch(
            goal=self.goal,
            packed=PackedBatch.from_numpy(
                part.ids,
                part.lengths,
                first_position=self._first_position,
                first_parts=part.restarts if part.restarts.any() else None,
            ),
            targets=torch.from_numpy(part.targets),
            splits=torch.from_numpy(part.records),
            language=part.language,
            weight=weight,
            seed=seed,
        )


def is_short(parts: int, rank: int, workers: int) -> bool:
    """Whether a worker gets one of a step's parts less than others do."""
    return 0 < parts % workers <= rank


class Steps:
    """The numbered steps of a run.

    Args:
        streams: One a goal, at least one.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = tuple(streams)

    @property
    def together(self) -> list[Stream]:
        """Streams whose steps have one loss as a whole, see `contrastive`."""
        return [stream for stream in self.streams if stream.together]

    @property
    def per_epoch(self) -> int:
        """Steps in which every stream is seen whole at least once; shorter ones begin again meanwhile."""
        return max(stream.per_epoch for stream in self.streams)

    def micro_batches(self, step: int, *, rank: int = 0, workers: int = 1, even: bool = False) -> Iterator[MicroBatch]:
        """A worker's part of a step, of all streams whose losses add up over micro-batches.

        Args:
            step: Counted from 0.
            rank: Which worker, counted from 0.
            workers: How many there are.
            even: Whether all get as many; who would get one less than others computes the last one, for nothing.
        """
        number = 0
        for stream in (stream for stream in self.streams if not stream.together):
            for part, weight in stream.parts(step):
                if number % workers == rank:
                    yield stream.build(part, weight, step * 65_537 + number)
                number += 1
        if even and is_short(number, rank, workers):
            yield replace(stream.build(part, 0.0, step * 65_537 + number - 1), is_filler=True)
