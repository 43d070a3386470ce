"""The training loop: a learner and its numbered steps go in, trained weights and metrics come out.

A plain function of one process; what several workers share is handed in. A run is fixed by its settings: every step's
batches and chance depend on its number alone, so a run that is killed and resumed equals one that was not.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.finetune import contrastive, sharding
from pipelines.finetune.best import LOSS as LOSS_METRIC
from pipelines.finetune.best import Aim
from pipelines.finetune.by_language import COUNTED, LOSS, TOKENS, WIDTH, language_sums
from pipelines.finetune.checkpoints import load_best, resume, save, save_best
from pipelines.finetune.curves import Curves
from pipelines.finetune.learner import Learner
from pipelines.finetune.run import Reduce, TrainingSettings, Validation, Workers, rate_at
from pipelines.finetune.sentence_vectors import SentenceVectors
from pipelines.finetune.steps import MicroBatch, Steps
from pipelines.finetune.watch import Watch, WatchedGoal
from xlmr_core.errors import CheckpointError

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
# Gradients are added up over workers in portions of at most so many values, or one parameter.
_BUCKET = 1 << 25


def train(
    learner: Learner,
    steps: Steps,
    settings: TrainingSettings,
    folder: Path,
    workers: Workers | None = None,
    validation: Validation | None = None,
) -> Iterator[dict[str, Any]]:
    """Trains in place, from the newest whole checkpoint of the folder if there is one.

    Args:
        learner: Gets the weights of the checkpoint, and at the end, where there is validation, the best ones.
        steps: What each step sees.
        settings: Optimiser and schedule.
        folder: Gets `metrics.jsonl`, `tensorboard/` and checkpoints.
        workers: Which of several processes this is.
        validation: When and how to measure.

    Yields:
        Lines of metrics, means over `log_steps` steps; nothing is trained until the next one is asked for.

    Raises:
        CheckpointError: The newest checkpoint is of another run, or not the same for all workers.
        FloatingPointError: The loss or a gradient is not finite; the last checkpoint is from before.
    """
    workers = workers or Workers()
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = _optimiser(learner, settings)
    step, state = resume(learner, optimiser, folder)
    _check_alike(workers.gather(step))
    curves = Curves(folder / METRICS, folder / TENSORBOARD, step=step) if workers.rank == 0 else None
    watch = _watch(steps, settings, validation, curves, state)
    learner.train()
    with curves or nullcontext():
        while step < settings.steps and not watch.best.stop:
            numbers, sums = _take(learner, optimiser, steps, step, settings, workers)
            watch.after_step(numbers, sums)
            step += 1
            last = step == settings.steps
            measured = validation is not None and (last or step % validation.every == 0)
            paused = time.monotonic()
            if validation is not None and measured:
                best = watch.after_validation(step, validation.look(learner, workers))
                if best.improved:
                    save_best(learner, step, folder, writes=workers.rank == 0)
            watch.pause(time.monotonic() - paused)
            last |= watch.best.stop
            line = None
            if last or step % settings.log_steps == 0:
                line = watch.write_line(step, learning_rate=rate_at(step - 1, settings), epoch=step / steps.per_epoch)
            if step % steps.per_epoch == 0:
                watch.end_epoch(step, step // steps.per_epoch)
            due = settings.checkpoint_steps and step % settings.checkpoint_steps == 0
            if last or measured or due:
                kept, writes = settings.kept_checkpoints, workers.rank == 0
                save(learner, optimiser, step, watch, folder, kept=kept, writes=writes)
            if line is not None:
                yield line
    # Whoever does not write need not see the files either, unless it has a part of the weights.
    if watch.best.step is not None and (workers.rank == 0 or sharding.is_sharded(learner)):
        load_best(learner, watch.best.step, folder)


def _check_alike(found: list[int]) -> None:
    """Raises CheckpointError for workers that would go on from different steps."""
    steps = sorted(set(found))
    if len(steps) > 1:
        rule = "all must go on from one; the output must be on storage that they share"
        raise CheckpointError(f"the workers found checkpoints of steps {', '.join(map(str, steps))}, {rule}")


def _watch(
    steps: Steps,
    settings: TrainingSettings,
    validation: Validation | None,
    curves: Curves | None,
    state: dict[str, Any],
) -> Watch:
    metrics = {} if validation is None else validation.metrics
    goals = {
        stream.goal: WatchedGoal(
            stream.data.languages, settings.watched(stream.goal), metrics.get(stream.goal, LOSS_METRIC)
        )
        for stream in steps.streams
    }
    return Watch(goals, Aim(greater=False) if validation is None else validation.aim, curves, state)


def _take(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    steps: Steps,
    step: int,
    settings: TrainingSettings,
    workers: Workers,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """One optimiser step; its loss and gradient norm, and its sums by goal and language, over all workers."""
    for group in optimiser.param_groups:
        group["lr"] = rate_at(step, settings)
    loss, sums = _accumulate(learner, steps, step, settings, workers)
    if workers.reduce is not None:
        loss, sums = _over_workers(loss, sums, workers.reduce)
        if not sharding.is_sharded(learner):
            _reduce_gradients(learner, workers.reduce)
    if not math.isfinite(loss):
        raise FloatingPointError(f"loss {loss} at step {step}, it must be finite; lower the learning rate")
    norm = nn.utils.clip_grad_norm_(learner.parameters(), settings.max_grad_norm or math.inf)
    grad_norm = float(sharding.whole_tensor(norm))
    if not math.isfinite(grad_norm):
        # A step by such gradients would make every weight something that is no number.
        what = f"gradient norm {grad_norm} at step {step} (loss {loss:.4f})"
        raise FloatingPointError(f"{what}, it must be finite; lower the learning rate")
    optimiser.step()
    optimiser.zero_grad()
    return {"loss": loss, "grad_norm": grad_norm}, sums


def _accumulate(
    learner: Learner, steps: Steps, step: int, settings: TrainingSettings, workers: Workers
) -> tuple[float, dict[str, Tensor]]:
    """Gradients of a worker's part of a step; its part of the loss, and its sums by goal and language."""
    loss = 0.0
    sums = {
        stream.goal: torch.zeros(len(stream.data.languages), WIDTH, dtype=torch.float64) for stream in steps.streams
    }
    even = sharding.is_sharded(learner)
    for batch in steps.micro_batches(step, rank=workers.rank, workers=workers.count, even=even):
        loss += _learn(learner, batch, settings, sums[batch.goal])
    for stream in steps.together:
        objective = learner.objectives[stream.goal]
        assert isinstance(objective, SentenceVectors)
        value, _ = contrastive.accumulate(
            objective,
            learner.encoder,
            learner.heads[stream.goal],
            stream,
            step,
            seed=settings.seed,
            rank=workers.rank,
            workers=workers.count,
            reduce=workers.reduce,
            bfloat16=settings.dtype == "bfloat16",
            vectors=learner.vectors,
            even=even,
        )
        loss += value
        # Such a loss is one of the step: each of its languages has it, by its share of the tokens.
        parts = [part for part, _ in stream.parts(step)]
        tokens = sum((part.tokens_by_language() for part in parts), np.zeros(len(sums[stream.goal])))
        if workers.rank == 0:
            sums[stream.goal][:, TOKENS] += torch.from_numpy(tokens)
            sums[stream.goal][:, COUNTED] += torch.from_numpy(tokens / tokens.sum())
        sums[stream.goal][:, LOSS] += torch.from_numpy(tokens / tokens.sum()) * value / stream.settings.weight
    return loss, sums


def _learn(learner: Learner, batch: MicroBatch, settings: TrainingSettings, sums: Tensor) -> float:
    """Adds gradients of a micro-batch, and to the sums by language; what it adds to the loss of the step."""
    device = next(learner.parameters()).device
    torch.manual_seed(settings.seed * 1_000_003 + batch.seed)
    on_device = batch.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"):
        losses = learner.losses(on_device)
    value = losses.mean * batch.weight
    (value + sharding.anchor(learner)).backward()  # type: ignore[no-untyped-call]
    if not batch.is_filler:
        sums += language_sums(batch, losses.of_targets, losses.counts, len(sums))
    return value.item()


def _over_workers(loss: float, sums: dict[str, Tensor], reduce: Reduce) -> tuple[float, dict[str, Tensor]]:
    flat = torch.cat([torch.tensor([loss], dtype=torch.float64), *(of_goal.flatten() for of_goal in sums.values())])
    reduce(flat)
    parts = flat[1:].split([of_goal.numel() for of_goal in sums.values()])  # type: ignore[no-untyped-call]
    summed = {goal: part.view(-1, WIDTH) for goal, part in zip(sums, parts, strict=True)}
    return float(flat[0]), summed


def _reduce_gradients(learner: nn.Module, reduce: Reduce) -> None:
    """Sums over all workers, many gradients at once; who computed nothing adds zeros."""
    bucket: list[nn.Parameter] = []
    for parameter in (*(p for p in learner.parameters() if p.requires_grad), None):
        size = sum(p.numel() for p in bucket)
        if bucket and (parameter is None or size + parameter.numel() > _BUCKET):
            flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bucket])
            reduce(flat)
            for part, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):  # type: ignore[no-untyped-call]
                part.grad = summed.view_as(part)
            bucket = []
        if parameter is not None:
            bucket.append(parameter)


def _optimiser(learner: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate
    return torch.optim.AdamW(groups, lr=rate, betas=settings.betas, eps=settings.epsilon, fused=True)
