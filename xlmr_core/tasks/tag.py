"""Token classification: entities with offsets into the original text.

Agrees with transformers' `token-classification` pipeline on texts of one window (see `tasks.entities` for its
known faults). In a longer text every token is read in the window where it has most context, and entities are built
once, over the whole text, so none is cut at a window's edge.

Letters: T tokens of all windows, N tokens of all records, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.heads import IGNORED
from xlmr_core.tasks.columns import ENTITIES, Column, Field
from xlmr_core.tasks.entities import Aggregation, TagScheme, aggregate
from xlmr_core.tasks.labels import settle_labels
from xlmr_core.tasks.own_head import load_own_head, own_logits
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.scores import softmax
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tasks.tag_targets import Span, entity_targets, word_targets
from xlmr_core.tasks.weighting import weighted_cross_entropy
from xlmr_core.tokenization.units import Unit


@dataclass(frozen=True, slots=True)
class TagOptions:
    """Options of a tagging annotation.

    Attributes:
        labels: Label names in the head's order; default: the checkpoint's own.
        aggregation: How tokens become entities.
        ignore: Labels or types that mark no entity.
        offsets: What start and end count: code points of the text, its bytes in UTF-8 or its units in UTF-16.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    labels: tuple[str, ...] | None = None
    aggregation: Aggregation = "simple"
    ignore: tuple[str, ...] = ("O",)
    offsets: Unit = "codepoint"
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
    load_head, forward = load_own_head, own_logits

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: TagOptions, *, pairs: bool = False) -> "Tag":
        """Settles the labels.

        Raises:
            TaskError: The number of labels does not fit the head.
        """
        labels = settle_labels(checkpoint, cls.head, options.labels)
        return cls(labels, TagScheme.of_labels(labels, options.ignore), options)

    @property
    def reading(self) -> Reading:
        """The text, with offsets, and with words where words get labels."""
        by_token = self.options.aggregation in ("none", "simple")
        return Reading(offsets=True, words="none" if by_token else "blanks", unit=self.options.offsets)

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

    def decode(self, name: str, raw_TC: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of tokens to columns of records."""
        assert records.offsets is not None
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

    def targets(
        self,
        gold: Sequence[Sequence[Span]] | Sequence[Sequence[str | None]],
        records: WindowedRecords,
        *,
        words: Sequence[Sequence[tuple[int, int]]] | None = None,
        label_all: bool = False,
    ) -> np.ndarray:
        """Gold values of records to what `loss` compares with.

        Args:
            gold: Entities of each record (start, end, type), counted as `options.offsets` says; or, with `words`, a
                label for each word.
            records: Their windows, with offsets; for entities with word starts too, so `aggregation` must be one of
                words.
            words: Where the words of each record stand in its text; see `tag_targets.join_words`.
            label_all: Whether all tokens of a word are labelled; else its first one alone is.

        Returns:
            A label for each token of each window, -100 for none and for `<s>` and `</s>` (T,), int64.

        Raises:
            TaskError: What cannot be learnt; all of it, see `tag_targets`.
        """
        if words is None:
            entities = cast(Sequence[Sequence[Span]], gold)
            targets_N = entity_targets(entities, records, self.labels, self.scheme, label_all=label_all)
        else:
            names = cast(Sequence[Sequence[str | None]], gold)
            targets_N = word_targets(names, words, records, self.labels, label_all=label_all)
        targets_T = np.full(int(records.length.sum()), IGNORED, dtype=np.int64)
        targets_T[records.content_rows()] = targets_N[records.content_tokens()]
        return targets_T

    def losses(
        self, raw_TC: Tensor, targets_T: Tensor, weight_C: Tensor | None = None, *, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy of labelled tokens; the mean is that of `XLMRobertaForTokenClassification`.

        Args, returned sums: see `weighted_cross_entropy`.
        """
        return weighted_cross_entropy(raw_TC, targets_T, weight_C, smoothing=smoothing)
