"""What a task does whose answers are its head's logits: it loads the head and applies it.

Tasks take these functions as their methods.
"""

from typing import Protocol

from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.tasks.spans import WindowBatch


class _OnHead(Protocol):
    @property
    def head(self) -> HeadKind: ...


def load_own_head(task: _OnHead, checkpoint: Checkpoint) -> nn.Module:
    """The weights of the task's head."""
    return checkpoint.load_head(task.head)


def own_logits(task: object, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
    """The head's logits, C values of each window (W, C) or, where the task is `per_token`, of each token (T, C)."""
    logits: Tensor = head(hidden_TD, batch.packed)
    return logits
