"""The training loop: a learner and its numbered steps go in, trained weights and metrics come out.

A plain function of one process; what several workers share is handed in. A run is fixed by its settings: every step's
batches and chance depend on its number alone, so a run that is killed and resumed equals one that was not.
"""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipelines.finetune.learner import Learner
from pipelines.finetune.steps import MicroBatch, Steps

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
_STATE = "state.pt"
_STEP = "step-"

Schedule = Literal["linear", "cosine", "constant"]
# Adds up tensors over all workers, in place.
Reduce = Callable[[Tensor], None]


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


@dataclass(frozen=True, slots=True)
class Workers:
    """One of several processes that train together.

    Attributes:
        rank: Which one, counted from 0; number 0 writes.
        count: How many.
        reduce: Adds up a tensor over all of them, in place; None for one process.
    """

    rank: int = 0
    count: int = 1
    reduce: Reduce | None = None


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


def train(
    learner: Learner, steps: Steps, settings: TrainingSettings, folder: Path, workers: Workers | None = None
) -> Iterator[dict[str, float]]:
    """Trains in place, from the newest whole checkpoint of the folder if there is one.

    Args:
        learner: Gets the weights of the checkpoint.
        steps: What each step sees.
        settings: Optimiser and schedule.
        folder: Gets `metrics.jsonl` and checkpoints.
        workers: Which of several processes this is.

    Yields:
        Metrics, means over `log_steps` steps; nothing is trained until the next ones are asked for.

    Raises:
        FloatingPointError: The loss is not finite; the last checkpoint is from before.
    """
    workers = workers or Workers()
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = _optimiser(learner, settings)
    first = _resume(learner, optimiser, folder)
    learner.train()
    window, since = _Window(), time.monotonic()
    for step in range(first, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)
        loss, tokens = _accumulate(
            learner, steps.micro_batches(step, rank=workers.rank, workers=workers.count), settings
        )
        totals = torch.tensor([loss, tokens], dtype=torch.float64)
        if workers.reduce is not None:
            workers.reduce(totals)
            _reduce_gradients(learner, workers.reduce)
        if not math.isfinite(totals[0]):
            raise FloatingPointError(f"loss {totals[0]} at step {step}, it must be finite; lower the learning rate")
        limit = settings.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(learner.parameters(), limit)
        optimiser.step()
        optimiser.zero_grad()
        window.add({"loss": float(totals[0]), "grad_norm": float(norm), "tokens": float(totals[1])})
        done = step + 1
        last = done == settings.steps
        if workers.rank == 0 and (last or (settings.checkpoint_steps and done % settings.checkpoint_steps == 0)):
            _save(learner, optimiser, done, folder, settings.kept_checkpoints)
        if last or done % settings.log_steps == 0:
            metrics = {"step": done, "learning_rate": rate_at(step, settings)} | window.close(time.monotonic() - since)
            since = time.monotonic()
            if workers.rank == 0:
                with (folder / METRICS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(metrics) + "\n")
            yield metrics


def _accumulate(learner: Learner, batches: Iterable[MicroBatch], settings: TrainingSettings) -> tuple[float, float]:
    """Gradients of a worker's part of a step; its part of the loss, and its tokens."""
    device = next(learner.parameters()).device
    loss, tokens = 0.0, 0
    for batch in batches:
        torch.manual_seed(settings.seed * 1_000_003 + batch.seed)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"):
            value = learner.loss(batch) * batch.weight
        value.backward()  # type: ignore[no-untyped-call]
        loss += value.item()
        tokens += len(batch.packed.ids)
    return loss, tokens


def _reduce_gradients(learner: nn.Module, reduce: Reduce) -> None:
    """One sum over all workers for all gradients together; who computed nothing adds zeros."""
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    reduce(flat)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):  # type: ignore[no-untyped-call]
        parameter.grad = part.view_as(parameter)


class _Window:
    """Means since the last line of metrics."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def close(self, seconds: float) -> dict[str, float]:
        means = {name: total / self._count for name, total in self._sums.items()}
        means |= {"seconds": seconds, "tokens_per_second": self._sums["tokens"] / max(seconds, 1e-9)}
        self._sums, self._count = {}, 0
        return means


def _optimiser(learner: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate
    return torch.optim.AdamW(groups, lr=rate, betas=settings.betas, eps=settings.epsilon, fused=True)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first: a folder gets its name when everything is in it."""
    return sorted(path for path in folder.glob(f"{_STEP}*") if (path / _STATE).is_file())


def _resume(learner: nn.Module, optimiser: torch.optim.Optimizer, folder: Path) -> int:
    """Loads the newest checkpoint, if there is one; how many steps it has seen."""
    whole = checkpoints(folder)
    if not whole:
        return 0
    state: dict[str, Any] = torch.load(whole[-1] / _STATE, weights_only=True, map_location="cpu")
    learner.load_state_dict(state["learner"])
    optimiser.load_state_dict(state["optimiser"])
    logger.info("resumed from %s", whole[-1].name)
    return int(state["step"])


def _save(learner: nn.Module, optimiser: torch.optim.Optimizer, step: int, folder: Path, kept: int) -> None:
    """Writes beside, syncs and renames, so that a kill leaves a whole checkpoint or none."""
    draft = folder / f".{_STEP}{step:09d}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    with (draft / _STATE).open("wb") as file:
        torch.save({"step": step, "learner": learner.state_dict(), "optimiser": optimiser.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())
    target = folder / f"{_STEP}{step:09d}"
    # A torn folder of that name, or one that an earlier attempt at the same step wrote.
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    for old in checkpoints(folder)[:-kept]:
        shutil.rmtree(old, ignore_errors=True)
    for torn in folder.glob(f".{_STEP}*"):
        shutil.rmtree(torn, ignore_errors=True)
