"""Multiple choice: which of a record's choices goes with its text.

The text comes first, then a choice: `<s> text </s></s> choice </s>`, once for each choice. Agrees with
`XLMRobertaForMultipleChoice` on texts of one window. A longer text is cut into windows, each with the whole choice;
their logits are merged before choices compete.

A record with one choice is refused (`too_few_pairs`): its score would be 1 whatever the model thinks of it.

Letters: W windows, I items (a text with one of its choices), P annotated records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.heads import IGNORED
from xlmr_core.tasks.columns import Column, Field, ListOf, Lists
from xlmr_core.tasks.losses import log_softmax_of_groups
from xlmr_core.tasks.own_head import load_own_head, own_logits
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.scores import rank_in_groups, softmax_of_groups
from xlmr_core.tasks.spans import WindowedRecords

MOST_CHOICES = 1_000


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """Options of a multiple choice annotation.

    Attributes:
        merge: How the logits of several windows become one: their mean or their maximum.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    merge: Literal["mean", "max"] = "mean"
    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """The task.

    Attributes:
        options: As the user gave them.
    """

    options: ChoiceOptions

    head: ClassVar[HeadKind] = "multiple-choice"
    per_token: ClassVar[bool] = False
    raw_width: ClassVar[int] = 1
    load_head, forward = load_own_head, own_logits

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: ChoiceOptions, *, pairs: bool = False) -> "Choice":
        """Checks the head.

        Raises:
            CheckpointError: The checkpoint has no such head.
            TaskError: The head has several outputs.
        """
        if (count := checkpoint.num_outputs(cls.head)) != 1:
            rule = "multiple choice reads one; use a checkpoint that was trained for it"
            raise TaskError(f"{checkpoint.spec}: its head has {count} outputs, {rule}")
        return cls(options)

    @property
    def reading(self) -> Reading:
        """The text beside each choice; only the text is cut."""
        return Reading("beside", fewest_second=2, most_second=MOST_CHOICES, rows="first")

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`: the choice counted from 0, its score, the scores of all."""
        choice, score = Field(f"{name}_choice", "int32"), Field(f"{name}_score", "float32")
        return [choice, score, Field(f"{name}_scores", ListOf("float32"))]

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        return {"merge": self.options.merge}

    def decode(self, name: str, raw_W1: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of windows to columns of records; of equal choices the first wins."""
        logits_I = records.merge_windows(raw_W1, self.options.merge)[:, 0]
        splits = records.item_splits
        scores_I, first_P = softmax_of_groups(logits_I, splits), splits[:-1]
        choice_P = rank_in_groups(scores_I, splits)[first_P]
        return {
            f"{name}_choice": choice_P,
            f"{name}_score": scores_I[first_P + choice_P],
            f"{name}_scores": Lists(splits, scores_I),
        }


def targets(choices: Sequence[int | None], counts: Sequence[int]) -> np.ndarray:
    """Right choices as training ids.

    Args:
        choices: Of each record, counted from 0; None where it is not known.
        counts: How many choices each record has.

    Returns:
        The choices, -100 for None (P,), int64.

    Raises:
        TaskError: Choices that there are not; all of them.
    """
    problems = [
        f"record {number}: choice {choice!r}, it has the choices 0 to {count - 1}"
        for number, (choice, count) in enumerate(zip(choices, counts, strict=True))
        if choice is not None and not 0 <= choice < count
    ]
    if problems:
        raise TaskError("; ".join(problems) + "; count choices from 0")
    return np.array([IGNORED if choice is None else choice for choice in choices], dtype=np.int64)


def losses(raw_I1: Tensor, targets_P: Tensor, splits: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of each record, float32; the mean is that of `XLMRobertaForMultipleChoice`.

    Args:
        raw_I1: Logits of the choices of all records (I, 1).
        targets_P: Right choices, -100 where there is none (P,), int64.
        splits: Record p has the choices splits[p] to splits[p + 1] (P+1,), int64.

    Returns:
        What each record adds to the loss, and what it counts: 0 and 0 where it has no target (P,).
    """
    known_P = targets_P != IGNORED
    right_P = splits[:-1] + targets_P.where(known_P, 0)
    surprise_P = -log_softmax_of_groups(raw_I1[:, 0], splits)[right_P]
    return surprise_P.where(known_P, 0.0), known_P.float()
