"""The training loop: a model, numbered batches and a loss go in; a trained model and metrics come out.

A plain function of one process. A run is fixed by its seed and settings: batch n depends on n alone and chance inside
the model is seeded for each step, so a run that is killed and resumed equals one that was not.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)
ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT")
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """The optimiser and its schedule.

    Attributes:
        steps: Optimiser steps of the whole run.
        learning_rate: Peak, after the warm-up.
        warmup_steps: Linear from 0.
        decay_share: Last part of the run in which the rate falls linearly to 0; flat before, so that a run can be
            made shorter or longer while it is flat.
        weight_decay: On matrices; biases and LayerNorms have none.
        max_grad_norm: Gradients are clipped to this norm.
        dtype: Of the matrix products; weights and optimiser stay float32.
        seed: Of chance inside the model.
        checkpoint_seconds: A checkpoint is written when this much time has passed.
        log_steps: Metrics are means over this many steps.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_share: float = 0.5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0
    checkpoint_seconds: float = 180.0
    log_steps: int = 50


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """Rate of optimiser step `step`, counted from 0: warm-up, flat, linear to 0 (Zhai et al. 2022)."""
    warm = min((step + 1) / max(settings.warmup_steps, 1), 1.0)
    left = (settings.steps - step) / max(settings.decay_share * settings.steps, 1.0)
    return settings.learning_rate * min(warm, left, 1.0)


def train(
    model: ModelT,
    batches: Callable[[int], BatchT],
    loss: Callable[[ModelT, BatchT], tuple[Tensor, dict[str, float]]],
    settings: LoopSettings,
    folder: Path,
) -> list[dict[str, float]]:
    """Trains in place; continues from the folder's checkpoint if there is one.

    Args:
        model: Gets the weights of the checkpoint.
        batches: Batch n of the run, n = 0, 1, ...
        loss: The scalar to differentiate and numbers to log.
        settings: Optimiser and schedule.
        folder: Gets `checkpoint.pt` and `metrics.jsonl`.

    Returns:
        Metrics of the steps taken by this call, one entry for `log_steps` steps.

    Raises:
        FloatingPointError: The loss is not finite; the last checkpoint is from before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = _optimiser(model, settings)
    first = _resume(model, optimiser, folder / CHECKPOINT)
    device = next(model.parameters()).device.type
    history, window, saved_at = [], _Window(), time.monotonic()
    model.train()
    for step in range(first, settings.steps):
        torch.manual_seed(settings.seed * 1_000_003 + step)
        rate = learning_rate_at(step, settings)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device, settings.dtype, enabled=settings.dtype != torch.float32):
            value, metrics = loss(model, batches(step))
        if not math.isfinite(value.item()):
            raise FloatingPointError(f"loss {value.item()} at step {step}, it must be finite; lower the learning rate")
        value.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        window.add({**metrics, "loss": value.item(), "grad_norm": norm.item()})
        last = step + 1 == settings.steps
        if (step + 1) % settings.log_steps == 0 or last:
            history.append(window.close(step + 1, rate))
            with (folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(history[-1]) + "\n")
            logger.info("step %d/%d %s", step + 1, settings.steps, history[-1])
        if last or time.monotonic() - saved_at > settings.checkpoint_seconds:
            _save(model, optimiser, step + 1, folder / CHECKPOINT)
            saved_at = time.monotonic()
    return history


class _Window:
    """Means since the last log line."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count, self._since = 0, time.monotonic()

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def close(self, step: int, rate: float) -> dict[str, float]:
        seconds = time.monotonic() - self._since
        means = {name: round(total / self._count, 5) for name, total in self._sums.items()}
        speed = {"tokens_per_second": round(self._sums["tokens"] / seconds, 1)} if "tokens" in self._sums else {}
        self._sums, self._count, self._since = {}, 0, time.monotonic()
        return {"step": step, "learning_rate": round(rate, 8), "seconds": round(seconds, 2), **means, **speed}


def _optimiser(model: nn.Module, settings: LoopSettings) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _resume(model: nn.Module, optimiser: torch.optim.Optimizer, path: Path) -> int:
    """Loads the checkpoint, if there is one, and tells how many steps it has seen."""
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    logger.info("resumed from %s at step %d", path, state["step"])
    return int(state["step"])


def _save(model: nn.Module, optimiser: torch.optim.Optimizer, step: int, path: Path) -> None:
    """Writes beside and renames, so that a kill leaves the old or the new checkpoint."""
    partial = path.with_suffix(".partial")
    torch.save({"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}, partial)
    os.replace(partial, path)
