"""Token classification: entities with offsets into the original text.

Agrees with transformers' `token-classification` pipeline on texts of one window (see `tasks.entities` for its
known faults). In a longer text every token is read in the window where it has most context, and entities are built
once, over the whole text, so none is cut at a window's edge.

Letters: T tokens of all windows, N tokens of all records, C labels.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.tasks.classify import softmax
from xlmr_core.tasks.columns import ENTITIES, Column, Field
from xlmr_core.tasks.entities import Aggregation, TagScheme, aggregate
from xlmr_core.tasks.labels import settle_labels
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords


@dataclass(frozen=True, slots=True)
class TagOptions:
    """Options of a tagging annotation.

    Attributes:
        labels: Label names in the head's order; default: the checkpoint's own.
        aggregation: How tokens become entities.
        ignore: Labels or types that mark no entity.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    labels: tuple[str, ...] | None = None
    aggregation: Aggregation = "simple"
    ignore: tuple[str, ...] = ("O",)
    max_length: int | None = None
    stride: int = 128


@dataclass(frozen=True, slots=True)
class Tag:
    """The task, bound to one checkpoint's labels.

    Attributes:
        labels: Label names, C of them.
        scheme: What they mean.
        options: As the user gave them.
    """

    labels: tuple[str, ...]
    scheme: TagScheme
    options: TagOptions

    head: ClassVar[HeadKind] = "token-classification"
    per_token: ClassVar[bool] = True

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: TagOptions, *, pairs: bool = False) -> "Tag":
        """Settles the labels.

        Raises:
            TaskError: The number of labels does not fit the head.
        """
        labels = settle_labels(checkpoint, "token-classification", options.labels)
        return cls(labels, TagScheme.of_labels(labels, options.ignore), options)

    @property
    def reading(self) -> Reading:
        """The text, with offsets."""
        return Reading(offsets=True)

    @property
    def raw_width(self) -> int:
        """Outputs of the head, C."""
        return len(self.labels)

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`."""
        return [Field(f"{name}_entities", ENTITIES)]

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        options = self.options
        return {"labels": list(self.labels), "aggregation": options.aggregation, "ignore": list(options.ignore)}

    def load_head(self, checkpoint: Checkpoint) -> nn.Module:
        """The head's weights."""
        return checkpoint.load_head("token-classification")

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Logits of each token (T, C)."""
        logits_TC: Tensor = head(hidden_TD, batch.packed)
        return logits_TC

    def decode(self, name: str, raw_TC: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of tokens to columns of records."""
        assert records.offsets is not None
        assert records.starts_word is not None
        scores_NC = softmax(records.stitch_tokens(raw_TC).astype(np.float32))
        entities = aggregate(
            scores_NC,
            records.splits,
            records.offsets,
            records.starts_word,
            self.labels,
            self.scheme,
            self.options.aggregation,
        )
        return {f"{name}_entities": entities.column()}
