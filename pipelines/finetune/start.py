"""Where training begins and what it ends as: a model directory, complete from the first moment.

A fresh head is written beside the base model's encoder before anything is trained. So texts are read, cut and labelled
by the plan of an ordinary checkpoint, and what a run is about can be looked at with `xlmr doctor`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from pipelines.finetune.learner import Learner
from xlmr_core.checkpoint import Checkpoint, TaskKind, TrainedHead, write_model_directory
from xlmr_core.checkpoint.purpose import HEAD_OF_TASK
from xlmr_core.checkpoint.task_heads import LABELLED, new_head
from xlmr_core.config import ProblemType
from xlmr_core.encoder import initialise
from xlmr_core.errors import TaskError
from xlmr_core.graph import Annotation, GraphPlan, Request
from xlmr_core.graph.opened import OpenModels
from xlmr_core.heads import Head
from xlmr_core.tokenization import OnLong

# Outputs of heads that have no labels.
_OUTPUTS = {"question-answering": 2, "multiple-choice": 1}


@dataclass(frozen=True, slots=True)
class Goal:
    """What a model shall be able to do.

    Attributes:
        task: One of those that can be trained.
        labels: Names of the head's outputs, in order; none for heads without labels.
        problem_type: What a sequence classification head predicts.
        max_length: Tokens of a window, kept in the directory; default: the base model's limit.
    """

    task: TaskKind
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    max_length: int | None = None


def write_start(directory: Path, base: str, goal: Goal, *, seed: int) -> None:
    """Writes the base model with the head that is to be trained: its own if that has these labels, else a fresh one.

    Args:
        directory: Must not exist yet or be empty.
        base: The model to start from.
        goal: What it shall be able to do.
        seed: Of a fresh head.

    Raises:
        CheckpointError: The base model cannot be used, or the directory cannot be written.
        TaskError: The task cannot be trained.
    """
    checkpoint = Checkpoint.open(base)
    write_model_directory(
        directory,
        checkpoint.load_encoder(),
        tokenizer=checkpoint.tokenizer_directory,
        head=_trained(goal, _head(checkpoint, goal, seed)),
    )


def write_trained(directory: Path, learner: Learner, annotation: Annotation, goal: Goal) -> None:
    """Writes what was trained as a model directory that `annotate`, `serve` and `transformers` open."""
    tokenizer = Checkpoint.open(annotation.model).tokenizer_directory
    write_model_directory(directory, learner.encoder, tokenizer=tokenizer, head=_trained(goal, learner.head))


def open_start(
    directory: Path, *, pairs: bool, on_long: OnLong, stride: int | None = None
) -> tuple[Learner, GraphPlan]:
    """Opens what `write_start` wrote.

    Args:
        directory: The model directory.
        pairs: Whether examples have second texts.
        on_long: What to do with texts longer than a window.
        stride: Tokens that neighbouring windows share; default: the task's.

    Returns:
        What is trained, and the plan that reads what it is trained on.
    """
    opened = OpenModels()
    options = {} if stride is None else {"stride": stride}
    plan = GraphPlan.resolve([Request("task", str(directory), options)], on_long=on_long, pairs=pairs, opened=opened)
    (annotation,) = plan.annotations
    checkpoint = opened.checkpoint(annotation.model)
    kind = HEAD_OF_TASK[cast(TaskKind, annotation.kind)]
    assert kind is not None
    return Learner(checkpoint.load_encoder(), checkpoint.load_head(kind), annotation), plan


def _trained(goal: Goal, head: Head) -> TrainedHead:
    settings = {} if goal.max_length is None else {"max_length": goal.max_length}
    return TrainedHead(head, goal.labels, goal.problem_type, settings, goal.task)


def _head(checkpoint: Checkpoint, goal: Goal, seed: int) -> Head:
    kind = HEAD_OF_TASK[goal.task]
    if kind is None or (kind not in LABELLED and kind not in _OUTPUTS):
        known = ", ".join((*LABELLED, *_OUTPUTS))
        raise TaskError(f"task {goal.task!r} cannot be trained yet, these can: {known}")
    same_labels = kind not in LABELLED or checkpoint.config.id2label == goal.labels
    if same_labels and not checkpoint.heads.missing(kind):
        return checkpoint.load_head(kind)
    count = len(goal.labels) if kind in LABELLED else _OUTPUTS[kind]
    head = new_head(kind, checkpoint.config, count)
    # Chance of its own, so that what ran before does not matter.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(head, checkpoint.config.initializer_range)
    return head
