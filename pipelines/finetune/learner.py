"""An encoder with the head that is trained on it, and the loss of a micro-batch.

The forward pass and the loss are the task's own, those that `annotate` runs and its tests compare with transformers.
"""

from torch import Tensor, nn

from pipelines.finetune.steps import MicroBatch
from xlmr_core.batch import PackedBatch
from xlmr_core.encoder import Encoder
from xlmr_core.graph import Annotation
from xlmr_core.heads import Head
from xlmr_core.tasks import answer, choice
from xlmr_core.tasks.answer import Answer
from xlmr_core.tasks.choice import Choice
from xlmr_core.tasks.classify import Classify
from xlmr_core.tasks.spans import WindowBatch
from xlmr_core.tasks.tag import Tag


class Learner(nn.Module):
    """What is trained.

    Args:
        encoder: Its weights change.
        head: Likewise.
        annotation: The task, bound to the head.
    """

    def __init__(self, encoder: Encoder, head: Head, annotation: Annotation) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self._task = annotation.task

    def forward(self, packed: PackedBatch) -> Tensor:
        """Raw outputs of the head, one row a sequence or a token."""
        batch = WindowBatch(packed)
        rows = batch.rows(self._task.reading.rows)
        hidden_TD = self.encoder(packed, rows)
        return self._task.forward(self.head, hidden_TD, batch if rows is None else batch.single_tokens(rows))

    def loss(self, batch: MicroBatch) -> Tensor:
        """Mean over the targets of a micro-batch, float32, a scalar."""
        raw = self(batch.packed)
        match self._task:
            case Classify() | Tag() as task:
                return task.loss(raw, batch.targets)
            case Answer():
                return answer.loss(raw, batch.targets, batch.packed)
            case Choice():
                return choice.loss(raw, batch.targets, batch.splits)
        raise AssertionError(f"{type(self._task).__name__} cannot be trained")
