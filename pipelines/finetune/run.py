"""What a run is to its loop: the optimiser and its schedule, the workers that share it, and how it is measured."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from pipelines.evaluate.scores import Scores
from pipelines.finetune.alarm import Watched
from pipelines.finetune.best import Aim
from pipelines.finetune.learner import Learner
from pipelines.finetune.validation import LanguageLoss

Schedule = Literal["linear", "cosine", "constant"]
# Adds up tensors over all workers, in place.
Reduce = Callable[[Tensor], object]
# One object of each worker, for all of them.
Gather = Callable[[Any], list[Any]]


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The optimiser and its schedule; defaults are those of the transformers Trainer.

    Attributes:
        steps: Optimiser steps of the whole run.
        learning_rate: Highest rate.
        warmup_steps: Steps from 0 to that rate.
        schedule: How it falls to 0 afterwards, if it does.
        weight_decay: Of matrices; biases and LayerNorms have none.
        betas, epsilon: Of Adam.
        max_grad_norm: Gradients are clipped to this norm; 0 for not.
        dtype: Of the matrix products; weights and optimiser stay float32.
        seed: Of dropout.
        checkpoint_steps: Steps between checkpoints; 0 for none but the last.
        kept_checkpoints: So many of the newest are kept.
        log_steps: Metrics are means over this many steps.
        chance: Loss of each goal when nothing but frequencies is learnt, for the alarm; where it is known.
    """

    steps: int
    learning_rate: float = 5e-5
    warmup_steps: int = 0
    schedule: Schedule = "linear"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    checkpoint_steps: int = 0
    kept_checkpoints: int = 2
    log_steps: int = 10
    chance: Mapping[str, float] = field(default_factory=dict)

    def watched(self, goal: str) -> Watched:
        """The run as the alarm of a goal sees it."""
        return Watched(self.steps, self.warmup_steps, self.learning_rate, self.chance.get(goal))


@dataclass(frozen=True, slots=True)
class Workers:
    """One of several processes that train together.

    Attributes:
        rank: Which one, counted from 0; number 0 writes.
        count: How many.
        reduce: Adds up a tensor over all of them, in place; None for one process.
        gather: One object of each, for all of them.
    """

    rank: int = 0
    count: int = 1
    reduce: Reduce | None = None
    gather: Gather = lambda own: [own]


@dataclass(frozen=True, slots=True)
class Validation:
    """When a run is measured, and how.

    Attributes:
        every: Optimiser steps between validations; there is one at the end too.
        aim: What is better, and how long to wait for it.
        metrics: What each goal is judged by.
        look: Measures what is being trained; all workers call it at once and get the same.
    """

    every: int
    aim: Aim
    metrics: Mapping[str, str]
    look: Callable[[Learner, Workers], Mapping[str, Scores | LanguageLoss]]


def rate_at(step: int, settings: TrainingSettings) -> float:
    """Learning rate of optimiser step `step`, counted from 0, as transformers' schedulers have it."""
    if step < settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    match settings.schedule:
        case "linear":
            return settings.learning_rate * max(1.0 - done, 0.0)
        case "cosine":
            return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        case "constant":
            return settings.learning_rate
