"""Sequence classification: one label, several labels or a number for each record (or pair of texts).

Agrees with transformers' `text-classification` pipeline on texts of one window. A longer text has several windows;
their logits are merged first and turned into scores afterwards, except by `noisy_or`, which merges scores.

Logits are divided by a temperature before they become scores, and of several labels those are given whose score reaches
their threshold, which may depend on the record's language. Both may be stored in the model directory.

Letters: W windows, P annotated records, C labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint, HeadCalibration
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.config import ProblemType
from xlmr_core.errors import TaskError
from xlmr_core.metrics.calibration import COLDEST, HOTTEST
from xlmr_core.tasks.columns import Column, Field, ListOf, VectorOf, label_columns
from xlmr_core.tasks.labels import DEFAULT_THRESHOLD, Thresholds, label_ids, settle_labels, threshold_problems
from xlmr_core.tasks.own_head import load_own_head, own_logits
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.scores import CROSS_ENCODER, ScoreFunction, activate
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tasks.weighting import weighted_binary_cross_entropy, weighted_cross_entropy


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """Options of a classification annotation.

    Attributes:
        labels: Label names in the head's order; default: the checkpoint's own.
        problem_type: Overrides what the checkpoint says.
        activation: What turns logits into scores; default: a cross-encoder's own, else by problem type.
        scores: Whether to write the scores of all labels as `NAME_scores`.
        temperature: Logits are divided by it before softmax or sigmoid; default: the directory's, else 1. With any
            other than the directory's, thresholds of the directory are not used either.
        threshold: Multi label only: a label is given from this score on, 0 to 1; default: the directory's for each
            label and language, else 0.5.
        pair: Whether the head reads two texts; default: whether records have second texts.
        merge: How several windows become one: the mean or the maximum of their logits; or, for scores by sigmoid, the
            chance that at least one of them has the label, were they independent (noisy_or).
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    labels: tuple[str, ...] | None = None
    problem_type: ProblemType | None = None
    activation: ScoreFunction | None = None
    scores: bool = False
    temperature: float | None = None
    threshold: float | None = None
    pair: bool | None = None
    merge: Literal["mean", "max", "noisy_or"] = "mean"
    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Classify:
    """The task, bound to one checkpoint's labels.

    Attributes:
        labels: Label names, C of them.
        problem_type: Decides the columns.
        activation: What turns logits into scores.
        temperature: Logits are divided by it first.
        thresholds: Multi label only: a label is given from this score on.
        pair: Whether two texts are read.
        options: As the user gave them.
    """

    labels: tuple[str, ...]
    problem_type: ProblemType
    activation: ScoreFunction
    temperature: float
    thresholds: Thresholds
    pair: bool
    options: ClassifyOptions

    head: ClassVar[HeadKind] = "sequence-classification"
    per_token: ClassVar[bool] = False
    load_head, forward = load_own_head, own_logits

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: ClassifyOptions, *, pairs: bool = False) -> "Classify":
        """Settles labels, activation, temperature and thresholds.

        Args:
            checkpoint: Has the head.
            options: As the user gave them.
            pairs: Whether records have second texts.

        Raises:
            TaskError: Labels, temperature or threshold do not fit the head.
        """
        labels = settle_labels(checkpoint, cls.head, options.labels)
        declared = options.problem_type or checkpoint.config.problem_type
        default: ProblemType = "single_label_classification" if len(labels) > 1 else "multi_label_classification"
        problem_type = declared or default
        stored = CROSS_ENCODER.get(str(checkpoint.settings.get("activation_fn")))
        activation = options.activation or stored or _activation(problem_type, len(labels))
        several = problem_type == "multi_label_classification"
        problems = threshold_problems(options.threshold, used=several, where="multi label heads")
        if options.merge == "noisy_or" and activation != "sigmoid":
            rule = f"it merges scores by sigmoid, these are by {activation}"
            problems.append(f"merge=noisy_or, {rule}; choose mean or max, or activation=sigmoid")
        problems += _temperature_problems(options.temperature, activation)
        if problems:
            raise TaskError(f"{checkpoint.spec}: " + "; ".join(problems))
        fitted = _stored_calibration(checkpoint, activation, options.temperature)
        temperature = fitted.temperature if fitted else options.temperature or 1.0
        thresholds = Thresholds((DEFAULT_THRESHOLD,) * len(labels))
        if options.threshold is not None:
            thresholds = Thresholds((options.threshold,) * len(labels))
        elif fitted and several:
            thresholds = Thresholds.stored(fitted, checkpoint.own_labels(cls.head))
        pair = pairs if options.pair is None else options.pair
        return cls(labels, problem_type, activation, temperature, thresholds, pair, options)

    @property
    def reading(self) -> Reading:
        """One text or two, and the language where thresholds depend on it."""
        language = bool(self.thresholds.of_language)
        if self.pair:
            return Reading("pair", most_second=1, rows="first", language=language)
        return Reading(rows="first", language=language)

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
        settled: dict[str, object] = {"labels": list(self.labels), "problem_type": self.problem_type}
        settled |= {
            "activation": self.activation,
            "scores": self.options.scores,
            "merge": self.options.merge,
            "threshold": self.thresholds.facts(),
        }
        # Without one, jobs are those that they were before there were temperatures.
        return settled | ({} if self.temperature == 1.0 else {"temperature": self.temperature})

    def decode(self, name: str, raw_WC: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of windows to columns of records."""
        scores_PC = self._scores(raw_WC, records)
        if self.problem_type == "regression":
            return {f.name: scores_PC if isinstance(f.type, VectorOf) else scores_PC[:, 0] for f in self.fields(name)}
        values = label_columns(name, scores_PC, self.labels, self.thresholds.of_records(records.languages))
        return {field.name: values[field.name] for field in self.fields(name)}

    def _scores(self, raw_WC: np.ndarray, records: WindowedRecords) -> np.ndarray:
        """Logits of windows to scores of records (P, C)."""
        raw_WC = raw_WC / np.float32(self.temperature)
        if self.options.merge == "noisy_or":
            return records.merge_windows(activate(raw_WC, self.activation), "noisy_or")
        return activate(records.merge_windows(raw_WC, self.options.merge), self.activation)

    def targets(self, gold: Sequence[object]) -> np.ndarray:
        """Gold values of records to what `loss` compares with.

        Args:
            gold: By problem type: a label's name, or None where it is not known; a list of names, may be empty; a
                number, or C of them.

        Returns:
            Single label: indices, -100 for None (P,), int64. Multi label: 1 for each label that is given, else 0
            (P, C), float32. Regression: the numbers (P, C), float32.

        Raises:
            TaskError: Values that are no such thing; all of them.
        """
        match self.problem_type:
            case "single_label_classification":
                return np.array(label_ids([[name] for name in gold], self.labels), dtype=np.int64).reshape(-1)
            case "multi_label_classification":
                chosen = label_ids(gold, self.labels)
                targets_PC = np.zeros((len(gold), len(self.labels)), dtype=np.float32)
                for row, labels in enumerate(chosen):
                    targets_PC[row, labels] = 1
                return targets_PC
            case "regression":
                return _numbers(gold, len(self.labels))

    def losses(
        self, raw_BC: Tensor, targets: Tensor, weight_C: Tensor | None = None, *, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Losses whose mean is that of `XLMRobertaForSequenceClassification`.

        They are cross entropies, of several labels binary ones, of numbers squared errors.

        Args:
            raw_BC: Logits of one window a record (B, C).
            targets: As `targets` gives them, B rows.
            weight_C: What a target of each label counts, see `weighted_cross_entropy` and the binary one.
            smoothing: Of single labels, see there.

        Returns:
            What each record adds to the loss, and what it counts; float32 (B,).
        """
        match self.problem_type:
            case "single_label_classification":
                return weighted_cross_entropy(raw_BC, targets, weight_C, smoothing=smoothing)
            case "multi_label_classification":
                return weighted_binary_cross_entropy(raw_BC, targets, weight_C)
            case "regression":
                error_BC = F.mse_loss(raw_BC.float(), targets, reduction="none")
                return error_BC.sum(1), error_BC.new_full((len(error_BC),), error_BC.shape[1])


def _temperature_problems(given: float | None, activation: ScoreFunction) -> list[str]:
    """What is wrong with a temperature that the user gave."""
    if given is None:
        return []
    if activation == "none":
        return [f"temperature={given:g}, it is for scores by softmax or sigmoid, these are the logits; leave it out"]
    return [] if COLDEST <= given <= HOTTEST else [f"temperature={given:g}, it must be from {COLDEST} to {HOTTEST:g}"]


def _stored_calibration(
    checkpoint: Checkpoint, activation: ScoreFunction, temperature: float | None
) -> HeadCalibration | None:
    """The directory's calibration, if the scores are those for which it was fitted."""
    stored = checkpoint.calibration
    if stored is None or stored.activation != activation or temperature not in (None, stored.temperature):
        return None
    return stored


def _activation(problem_type: ProblemType, count: int) -> ScoreFunction:
    """The rule of transformers' `text-classification` pipeline."""
    if problem_type == "regression":
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" or count == 1 else "softmax"


def _numbers(gold: Sequence[object], count: int) -> np.ndarray:
    """Gold numbers (P, C), float32."""
    rows = [[value] if isinstance(value, int | float) else value for value in gold]
    problems = [
        f"record {number}: {gold[number]!r:.100}"
        for number, row in enumerate(rows)
        if not isinstance(row, list | tuple)
        or len(row) != count
        or not all(isinstance(value, int | float) and math.isfinite(value) for value in row)
    ]
    if problems:
        what = "a finite number" if count == 1 else f"a list of {count} finite numbers"
        raise TaskError(f"{'; '.join(problems)}; the gold value of a record must be {what}")
    return np.array(rows, dtype=np.float32).reshape(len(gold), count)
