"""Learning what labelled examples say: the tasks that `annotate` runs, with their own reading of texts and loss.

Texts are read, laid out and cut by the very plan that `annotate` runs, so a model sees in training what it will see at
work; forward pass and loss are those that the tests compare with transformers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.examples import Example
from pipelines.finetune.label_weights import target_weight
from pipelines.finetune.objective import Losses
from pipelines.finetune.reading import lay_out, number_languages, read_portions
from pipelines.finetune.steps import MicroBatch
from pipelines.finetune.training_set import Per, Portion, TrainingSet
from xlmr_core.encoder import Encoder
from xlmr_core.errors import InputError
from xlmr_core.graph import Annotation, GraphPlan, Preprocessor
from xlmr_core.tasks import answer, choice
from xlmr_core.tasks.answer import Answer
from xlmr_core.tasks.choice import Choice
from xlmr_core.tasks.classify import Classify
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords
from xlmr_core.tasks.tag import Tag


@dataclass(frozen=True, slots=True)
class Supervised:
    """A task with gold values.

    Attributes:
        plan: One annotation: the task bound to the head that is trained.
        weights: What a target of each label counts, see `label_weights`; none for all alike.
        smoothing: Share of a target that is spread over all labels.
    """

    plan: GraphPlan
    weights: tuple[float, ...] = ()
    smoothing: float = 0.0

    @property
    def annotation(self) -> Annotation:
        """The task."""
        return self.plan.annotations[0]

    @property
    def outputs(self) -> int:
        """Outputs of the head, C."""
        return self.annotation.task.raw_width

    @property
    def is_regression(self) -> bool:
        """Whether targets are numbers."""
        task = self.annotation.task
        return isinstance(task, Classify) and task.problem_type == "regression"

    def losses(self, encoder: Encoder, head: nn.Module, batch: MicroBatch) -> Losses:
        """Forward pass and loss of a micro-batch."""
        task, windows = self.annotation.task, WindowBatch(batch.packed)
        rows = windows.rows(task.reading.rows)
        hidden_TD = encoder(batch.packed, rows)
        raw = task.forward(head, hidden_TD, windows if rows is None else windows.single_tokens(rows))
        weights = torch.tensor(self.weights, device=raw.device) if self.weights else None
        match task:
            case Classify() | Tag():
                sums = task.losses(raw, batch.targets, weights, smoothing=self.smoothing)
            case Answer():
                sums = answer.losses(raw, batch.targets, batch.packed)
            case Choice():
                sums = choice.losses(raw, batch.targets, batch.splits)
            case _:
                raise AssertionError(f"{type(task).__name__} has no loss")
        return Losses.of(*sums)

    def count(self, targets: np.ndarray) -> float:
        """What targets count together in the loss."""
        return target_weight(targets, np.array(self.weights, dtype=np.float32) if self.weights else None)

    def training_set(self, examples: Iterable[Example]) -> tuple[TrainingSet, dict[int, InputError]]:
        """Reads, cuts and labels examples.

        Args:
            examples: Checked already; their gold values are as the task's `targets` take them.

        Returns:
            The set, and examples that cannot be learnt from, by number, each with its reason; they and empty texts are
            no part of the set.

        Raises:
            InputError: None of the examples can be learnt from.
            TaskError: Gold values that the task does not know.
        """
        return read_portions(examples, partial(self._read, Preprocessor(self.plan)), _per(self.annotation))

    def _read(
        self, preprocess: Preprocessor, examples: Sequence[Example], languages: dict[str, int]
    ) -> tuple[Portion, dict[int, InputError]]:
        laid = lay_out(self.plan, preprocess, examples)
        records = laid.records
        kept = [example for example, usable in zip(examples, laid.usable.tolist(), strict=True) if usable]
        portion = Portion(
            ids=laid.ids,
            lengths=records.length,
            restarts=np.zeros(len(records.length), dtype=np.int32),
            sequences=np.bincount(records.record_of_item[records.item], minlength=len(kept)),
            language=number_languages(kept, languages),
            targets=_targets(self.annotation, kept, records),
        )
        return portion, laid.refused


def _per(annotation: Annotation) -> Per:
    match annotation.task:
        case Classify() | Answer():
            return "window"
        case Tag():
            return "token"
        case Choice():
            return "record"
    raise AssertionError(f"{annotation.kind} has no targets")


def _targets(annotation: Annotation, examples: Sequence[Example], records: WindowedRecords) -> np.ndarray:
    """Gold values as the task's loss compares with them; a record's label is that of each of its windows."""
    # What each task's examples hold is `examples.Gold`'s to say.
    gold: list[Any] = [example.gold for example in examples]
    match annotation.task:
        case Classify() as task:
            of_record = task.targets(gold)
            of_window: np.ndarray = of_record[records.record_of_item[records.item]]
            return of_window
        case Tag() as task:
            # Entities, or words with a label each.
            if gold and isinstance(gold[0], tuple):
                return task.targets(gold, records)
            return task.targets([value.labels for value in gold], records, words=[value.spans for value in gold])
        case Answer():
            return answer.targets([value[0] if value else None for value in gold], records)
        case Choice():
            return choice.targets(gold, np.diff(records.item_splits).tolist())
    raise AssertionError(f"{annotation.kind} has no targets")
