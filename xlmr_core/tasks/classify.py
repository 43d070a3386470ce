"""Sequence classification: one label, several labels or a number for each record (or pair of texts).

Agrees with transformers' `text-classification` pipeline on texts of one window. A longer text has several windows;
their logits are merged first and turned into scores afterwards.

Letters: W windows, P annotated records, C labels.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.config import ProblemType
from xlmr_core.errors import TaskError
from xlmr_core.tasks.columns import Column, Field, Labels, ListOf, VectorOf, label_lists
from xlmr_core.tasks.labels import settle_labels
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords

ScoreFunction = Literal["softmax", "sigmoid", "none"]

# Class names that sentence-transformers' cross-encoders store.
_CROSS_ENCODER: dict[str, ScoreFunction] = {"Identity": "none", "Sigmoid": "sigmoid", "Softmax": "softmax"}


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """Options of a classification annotation.

    Attributes:
        labels: Label names in the head's order; default: the checkpoint's own.
        problem_type: Overrides what the checkpoint says.
        activation: What turns logits into scores; default: a cross-encoder's own, else by problem type.
        scores: Whether to write the scores of all labels as `NAME_scores`.
        threshold: Multi label only: a label is given from this score on, 0 to 1; default: 0.5.
        pair: Whether the head reads two texts; default: whether records have second texts.
        merge: How the logits of several windows become one: their mean or their maximum.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    labels: tuple[str, ...] | None = None
    problem_type: ProblemType | None = None
    activation: ScoreFunction | None = None
    scores: bool = False
    threshold: float | None = None
    pair: bool | None = None
    merge: Literal["mean", "max"] = "mean"
    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Classify:
    """The task, bound to one checkpoint's labels.

    Attributes:
        labels: Label names, C of them.
        problem_type: Decides the columns.
        activation: What turns logits into scores.
        threshold: Multi label only: a label is given from this score on.
        pair: Whether two texts are read.
        options: As the user gave them.
    """

    labels: tuple[str, ...]
    problem_type: ProblemType
    activation: ScoreFunction
    threshold: float
    pair: bool
    options: ClassifyOptions

    head: ClassVar[HeadKind] = "sequence-classification"
    per_token: ClassVar[bool] = False

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: ClassifyOptions, *, pairs: bool = False) -> "Classify":
        """Settles labels and activation.

        Args:
            checkpoint: Has the head.
            options: As the user gave them.
            pairs: Whether records have second texts.

        Raises:
            TaskError: Labels or threshold do not fit the head.
        """
        labels = settle_labels(checkpoint, "sequence-classification", options.labels)
        declared = options.problem_type or checkpoint.config.problem_type
        default: ProblemType = "single_label_classification" if len(labels) > 1 else "multi_label_classification"
        problem_type = declared or default
        stored = _CROSS_ENCODER.get(str(checkpoint.settings.get("activation_fn")))
        activation = options.activation or stored or _activation(problem_type, len(labels))
        if options.threshold is not None and problem_type != "multi_label_classification":
            raise TaskError(
                f"{checkpoint.spec}: threshold={options.threshold:g}, it is for multi label heads; leave it out"
            )
        threshold = 0.5 if options.threshold is None else options.threshold
        if not 0 <= threshold <= 1:
            raise TaskError(f"{checkpoint.spec}: threshold={threshold:g}, it must be from 0 to 1")
        pair = pairs if options.pair is None else options.pair
        return cls(labels, problem_type, activation, threshold, pair, options)

    @property
    def reading(self) -> Reading:
        """One text or two."""
        return Reading("pair" if self.pair else "text")

    @property
    def raw_width(self) -> int:
        """Outputs of the head, C."""
        return len(self.labels)

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`."""
        if self.problem_type == "regression":
            numbers = [Field(f"{name}_scores", VectorOf("float32", len(self.labels)))] if len(self.labels) > 1 else []
            return numbers or [Field(f"{name}_score", "float32")]
        columns = [Field(f"{name}_label", "text"), Field(f"{name}_score", "float32")]
        if self.problem_type == "multi_label_classification":
            columns.append(Field(f"{name}_labels", ListOf("text")))
        if self.options.scores:
            columns.append(Field(f"{name}_scores", VectorOf("float32", len(self.labels))))
        return columns

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        settled = {"labels": list(self.labels), "problem_type": self.problem_type, "activation": self.activation}
        return settled | {"threshold": self.threshold, "scores": self.options.scores, "merge": self.options.merge}

    def load_head(self, checkpoint: Checkpoint) -> nn.Module:
        """The head's weights."""
        return checkpoint.load_head("sequence-classification")

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Logits of each window (W, C)."""
        logits_WC: Tensor = head(hidden_TD, batch.packed)
        return logits_WC

    def decode(self, name: str, raw_WC: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of windows to columns of records."""
        logits_PC = records.merge_windows(raw_WC, self.options.merge)
        scores_PC = self.activate(logits_PC)
        if self.problem_type == "regression":
            return {f.name: scores_PC if isinstance(f.type, VectorOf) else scores_PC[:, 0] for f in self.fields(name)}
        best_P = scores_PC.argmax(axis=1)
        values: dict[str, Column] = {
            f"{name}_label": Labels(best_P.astype(np.int32), self.labels),
            f"{name}_score": scores_PC[np.arange(len(best_P)), best_P],
            f"{name}_labels": label_lists(scores_PC >= self.threshold, self.labels),
            f"{name}_scores": scores_PC,
        }
        return {field.name: values[field.name] for field in self.fields(name)}

    def activate(self, logits_PC: np.ndarray) -> np.ndarray:
        """Softmax, sigmoid or nothing, in float32; the same shape."""
        logits_PC = logits_PC.astype(np.float32)
        match self.activation:
            case "none":
                return logits_PC
            case "softmax":
                return softmax(logits_PC)
            case "sigmoid":
                # exp of -|x| never overflows; 1 / (1 + e) and e / (1 + e) are the two halves of the sigmoid.
                small = np.exp(-np.abs(logits_PC))
                sigmoid: np.ndarray = np.where(logits_PC >= 0, 1.0, small) / (1.0 + small)
                return sigmoid


def _activation(problem_type: ProblemType, count: int) -> ScoreFunction:
    """The rule of transformers' `text-classification` pipeline."""
    if problem_type == "regression":
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" or count == 1 else "softmax"


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float32."""
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=-1, keepdims=True), dtype=np.float32)
