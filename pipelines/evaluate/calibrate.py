"""`xlmr calibrate`: labelled records, a model directory, and what its scores need, written into the directory."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.table import Table

from pipelines.evaluate.asking import NAME, ask_portion, evaluation_plan
from pipelines.evaluate.fitting import Fitted, LabelledLogits, Parameters, count_problems, fit
from pipelines.evaluate.scores import portions
from pipelines.examples import ExampleSource, ExampleSummary, check_examples, open_examples
from pipelines.examples.asked import read_settings
from pipelines.labelled import LabelledSection
from xlmr_core.checkpoint import Checkpoint, HeadCalibration, save_calibration
from xlmr_core.checkpoint.location import MINI, locate
from xlmr_core.errors import TaskError
from xlmr_core.graph import ModelGraph, Preprocessor
from xlmr_core.tasks.classify import Classify, ClassifyOptions

# Records times labels: all logits are held in memory, some times over, while they are fitted.
MAX_LOGITS = 50_000_000
_KIND: Literal["sequence-classification"] = "sequence-classification"
_SHORT = {"negative_log_likelihood": "nll", "expected_calibration_error": "calibration error"}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a model directory says now.

    Attributes:
        model: The checkpoint.
        file: Its `xlmr.json`.
        records: Labelled records that it was fitted on.
        unread: Records that the model cannot read, by reason.
        fitted: What was tried and what was kept.
        calibration: As written; None where nothing helped.
    """

    model: str
    file: Path
    records: int
    unread: dict[str, int]
    fitted: Fitted
    calibration: HeadCalibration | None

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "model": self.model,
            "file": str(self.file),
            "records": self.records,
            "unread": self.unread,
            "steps": [asdict(step) for step in self.fitted.steps],
            "calibration": self.calibration and self.calibration.to_settings(),
        }

    def table(self) -> Table:
        """A line a step: what it gives on records it was not fitted on."""
        names = list(self.fitted.steps[0].measures)
        title = f"{self.records:,} records, each scored with what was fitted on others"
        table = Table("", *(_SHORT.get(name, name) for name in names), "kept", title=title)
        table.columns[0].no_wrap = True
        for column in table.columns[1:-1]:
            column.justify = "right"
        for number, step in enumerate(self.fitted.steps):
            kept = "" if not number else "yes" if step.kept else "no"
            table.add_row(step.name, *(f"{step.measures[name]:.4f}" for name in names), kept)
        return table

    def verdict(self) -> str:
        """What was written, in a line."""
        if self.calibration is None:
            return f"nothing helped, {self.file} has no calibration now"
        said = [f"temperature {self.calibration.temperature:.3f}"]
        if self.calibration.thresholds:
            said.append(f"thresholds of {len(self.calibration.thresholds)} labels")
        if self.calibration.language_thresholds:
            said.append(f"own ones for {', '.join(self.calibration.language_thresholds)}")
        return f"{', '.join(said)}: written to {self.file}"


def calibrate(
    model: str, data: Sequence[str], reading: LabelledSection, *, per_language: bool = False, device: str = "auto"
) -> Calibrated:
    """Fits a temperature and thresholds and writes them into the model directory.

    Args:
        model: A model directory, `DIR#HEAD` for one of its heads.
        data: Files, folders and globs with records that the model was not trained on.
        reading: How they are read.
        per_language: Whether languages have thresholds of their own.
        device: Where the model runs; "auto" for CUDA where there is some.

    Raises:
        InputError: What is wrong with the files; all of it.
        TaskError: The model has no such scores, the directory is not the user's own, or records do not fit it.
    """
    checkpoint = _own(model)
    task = _task(checkpoint)
    reading = reading.model_copy(update={"problem_type": task.problem_type})
    source = open_examples(data, read_settings(reading, _KIND))
    _check(check_examples({"data": source})["data"], task, per_language=per_language)
    pairs = bool(next(iter(source)).second)
    plan = evaluation_plan(model, _KIND, pairs=pairs, options={"activation": "none", "scores": True})
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    records, unread = labelled_logits(ModelGraph(plan, device=device), task, source)
    fitted = fit(records, task.labels, per_language=per_language)
    calibration = _calibration(fitted.parameters, checkpoint.own_labels(Classify.head), task, len(records))
    file = save_calibration(checkpoint.heads.directory, calibration)
    return Calibrated(model, file, len(records), unread, fitted, calibration)


def _own(model: str) -> Checkpoint:
    """The model, if its directory may be written to."""
    location = locate(model, weights=False)
    if location.repository or location.directory == MINI:
        whose = f"the Hub's {location.repository}" if location.repository else "part of this package"
        raise TaskError(f"model {model!r} is {whose}, a calibration is written into the model; copy it to a directory")
    checkpoint = Checkpoint.open(model)
    if not os.access(checkpoint.heads.directory, os.W_OK):
        rule = "a calibration is written into it; copy it to a directory of your own"
        raise TaskError(f"{checkpoint.heads.directory} cannot be written to, {rule}")
    return checkpoint


def _task(checkpoint: Checkpoint) -> Classify:
    """What the model does, if that has scores of a kind that can be calibrated."""
    if checkpoint.task not in (None, _KIND):
        raise TaskError(f"{checkpoint.spec} is for {checkpoint.task}, calibrated are models for {_KIND}; choose one")
    task = Classify.bind(checkpoint, ClassifyOptions())
    wanted = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid"}
    if wanted.get(task.problem_type) != task.activation:
        got = f"{checkpoint.spec} is for {task.problem_type}, its scores are by {task.activation}"
        raise TaskError(f"{got}; calibrated are those by softmax of one label and by sigmoid of several")
    return task


def _check(summary: ExampleSummary, task: Classify, *, per_language: bool) -> None:
    """Raises where the data is not for this model or this purpose, or more than memory holds; all of it."""
    problems = count_problems(summary.examples)
    if per_language and task.problem_type != "multi_label_classification":
        problems.append("--per-language is for thresholds, this model gives one label a record; leave it out")
    elif per_language and not any(summary.languages):
        problems.append("--per-language needs languages, no record has one; name data.language_column")
    strange = [label for label in summary.labels if label not in task.labels]
    if strange:
        rule = f"the model knows {', '.join(task.labels[:20])}"
        problems.append(f"labels {', '.join(strange[:20])} in the data, {rule}; leave such records out or rename them")
    if summary.examples * len(task.labels) > MAX_LOGITS:
        most = f"at most {MAX_LOGITS // len(task.labels):,} of {len(task.labels)} labels are held"
        problems.append(f"got {summary.examples:,} records, {most}; take a sample")
    if problems:
        raise TaskError("\n".join(problems))


def labelled_logits(graph: ModelGraph, task: Classify, source: ExampleSource) -> tuple[LabelledLogits, dict[str, int]]:
    """What a model says about examples, and how many it cannot read, by reason.

    Args:
        graph: The model; its scores are logits.
        task: Knows the labels.
        source: Checked already.
    """
    preprocess, unread = Preprocessor(graph.plan), dict[str, int]()
    logits, gold, languages = [], [], []
    for portion in portions(source):
        annotations = ask_portion(graph, preprocess, _KIND, portion).annotations
        for error in annotations.failed.values():
            unread[error.code] = unread.get(error.code, 0) + 1
        there = [portion[row] for row in np.flatnonzero(annotations.annotated).tolist()]
        logits.append(np.asarray(annotations.columns[f"{NAME}_scores"], dtype=np.float32))
        gold.append(task.targets([example.gold for example in there]))
        languages += [example.language for example in there]
    return LabelledLogits(np.concatenate(logits), np.concatenate(gold), np.array(languages, dtype=object)), unread


def _calibration(
    parameters: Parameters, labels: tuple[str, ...], task: Classify, records: int
) -> HeadCalibration | None:
    """The parameters by label names; None where they say nothing."""
    shared, by_language = parameters.thresholds, parameters.by_language
    if parameters.temperature == 1.0 and shared is None and not by_language:
        return None
    assert task.activation != "none"
    return HeadCalibration(
        activation=task.activation,
        temperature=parameters.temperature,
        thresholds={} if shared is None else dict(zip(labels, shared.tolist(), strict=True)),
        language_thresholds={
            language: {labels[label]: threshold for label, threshold in own.items()}
            for language, own in by_language.items()
        },
        records=records,
    )
