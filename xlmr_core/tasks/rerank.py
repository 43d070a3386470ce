"""Reranking: how relevant each of a record's documents is to its text, the query, by a cross-encoder.

Agrees with sentence-transformers' `CrossEncoder.predict` and `rank` (6.2) on pairs of one window. The longer text of a
longer pair is cut into windows; a document is as relevant as its best one (MaxP, Dai and Callan 2019) unless
`merge=mean`.

Letters: W windows, I items (a query with one of its documents), P annotated records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.tasks.columns import Column, Field, ListOf, Lists
from xlmr_core.tasks.losses import log_softmax_of_groups
from xlmr_core.tasks.own_head import load_own_head, own_logits
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.scores import CROSS_ENCODER, ScoreFunction, activate, rank_in_groups
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tokenization.encoding import bounds


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """Options of a reranking annotation.

    Attributes:
        activation: What turns a logit into a score; default: the cross-encoder's own, else sigmoid.
        top_k: How many documents `NAME_order` holds at most; default: all.
        merge: How the logits of several windows become one: their maximum or their mean.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    activation: ScoreFunction | None = None
    top_k: int | None = None
    merge: Literal["mean", "max"] = "max"
    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Rerank:
    """The task, bound to one checkpoint's activation.

    Attributes:
        activation: What turns a logit into a score.
        options: As the user gave them.
    """

    activation: ScoreFunction
    options: RerankOptions

    head: ClassVar[HeadKind] = "sequence-classification"
    per_token: ClassVar[bool] = False
    raw_width: ClassVar[int] = 1
    load_head, forward = load_own_head, own_logits

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: RerankOptions, *, pairs: bool = False) -> "Rerank":
        """Settles the activation.

        Raises:
            CheckpointError: The checkpoint has no such head.
            TaskError: The head has several outputs, or an option means nothing.
        """
        problems = []
        if (count := checkpoint.num_outputs(cls.head)) != 1:
            problems.append(f"its head has {count} outputs, a reranker has one; use task=sequence-classification")
        stored = checkpoint.settings.get("activation_fn")
        if options.activation is None and stored is not None and stored not in CROSS_ENCODER:
            problems.append(f"its activation {stored!r} is unknown; pass activation=sigmoid or activation=none")
        activation = options.activation or CROSS_ENCODER.get(str(stored), "sigmoid")
        if activation == "softmax":
            problems.append("softmax of one output is always 1; pass activation=sigmoid or activation=none")
        if options.top_k is not None and options.top_k < 1:
            problems.append(f"top_k={options.top_k}, it must be at least 1")
        if problems:
            raise TaskError(f"{checkpoint.spec}: " + "; ".join(problems))
        return cls(activation, options)

    @property
    def reading(self) -> Reading:
        """The query with each document; the longer one is cut."""
        return Reading("pair", rows="first")

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`: scores in the order of the documents; the documents, best first."""
        return [Field(f"{name}_scores", ListOf("float32")), Field(f"{name}_order", ListOf("int32"))]

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        return {"activation": self.activation, "top_k": self.options.top_k, "merge": self.options.merge}

    def decode(self, name: str, raw_W1: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of windows to columns of records; documents of equal logits keep their order."""
        logits_I = records.merge_windows(raw_W1, self.options.merge)[:, 0]
        splits = records.item_splits
        # By logit, because a sigmoid makes large ones equal.
        order_I, sizes = rank_in_groups(logits_I, splits), np.diff(splits)
        place_I = np.arange(len(order_I)) - np.repeat(splits[:-1], sizes)
        kept = sizes if self.options.top_k is None else np.minimum(sizes, self.options.top_k)
        return {
            f"{name}_scores": Lists(splits, activate(logits_I, self.activation)),
            f"{name}_order": Lists(bounds(kept), order_I[place_I < np.repeat(kept, sizes)]),
        }


def targets(relevances: Sequence[Sequence[float]]) -> np.ndarray:
    """Relevances of all documents, record after record (I,), float32.

    Args:
        relevances: Of each record's documents, from 0 to 1.

    Raises:
        TaskError: Values that are not from 0 to 1; all of them.
    """
    problems = [
        f"record {number}, document {place}: relevance {value}"
        for number, values in enumerate(relevances)
        for place, value in enumerate(values)
        if not 0 <= value <= 1
    ]
    if problems:
        raise TaskError("; ".join(problems) + "; a relevance must be from 0 to 1, so scale them")
    return np.array(list(chain.from_iterable(relevances)), dtype=np.float32)


def loss(raw_I1: Tensor, targets_I: Tensor) -> Tensor:
    """Mean binary cross entropy, float32; sentence-transformers' `BinaryCrossEntropyLoss`."""
    return F.binary_cross_entropy_with_logits(raw_I1[:, 0].float(), targets_I.float())


def listwise_loss(raw_I1: Tensor, targets_I: Tensor, splits: Tensor) -> Tensor:
    """Cross entropy between the softmax of the targets and that of the logits, over the documents of each record.

    ListNet (Cao et al. 2007); sentence-transformers' `ListNetLoss`.

    Args:
        raw_I1: Logits of the documents of all records (I, 1).
        targets_I: Relevances, of any range (I,).
        splits: Record p has the documents splits[p] to splits[p + 1] (P+1,), int64.

    Returns:
        Mean over the records, a float32 scalar.
    """
    wanted_I = log_softmax_of_groups(targets_I, splits).exp()
    return -(wanted_I * log_softmax_of_groups(raw_I1[:, 0], splits)).sum() / max(len(splits) - 1, 1)
