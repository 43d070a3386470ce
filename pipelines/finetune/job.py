"""`xlmr finetune`: prepares a run, has Ray Train compute it on one or many workers, writes the model.

Ray Train starts the workers and starts them again when one is lost; the loop is `training.train`, and where it goes on
is decided by its own checkpoints.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from pipelines.config import ConfigError
from pipelines.finetune.config import FinetuneConfig, RunSection
from pipelines.finetune.follow import follow
from pipelines.finetune.goal import Goal
from pipelines.finetune.looking import plan_validation
from pipelines.finetune.prepare import (
    CHECKPOINTS,
    DATA,
    MODEL,
    START,
    VALIDATION,
    Prepared,
    clear_start,
    prepare,
)
from pipelines.finetune.run import Workers
from pipelines.finetune.schedule import plan_steps, trained_settings
from pipelines.finetune.start import open_start, write_trained
from pipelines.finetune.trained import adapter_base, choose_trained
from pipelines.finetune.training import METRICS, train
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import XLMRError

logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 256 << 20
# Ray Train's controller and the driver want some CPU too.
_SHARE_OF_CPUS = 0.8


class TrainingError(XLMRError):
    """A run that ended before it was done; its checkpoints stay, and the same command goes on from them."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run.

    Attributes:
        model: The model directory.
        prepared: What it was trained on.
    """

    model: Path
    prepared: Prepared


def finetune(config: FinetuneConfig) -> Trained:
    """Trains to the end, or goes on with a run that was interrupted.

    Raises:
        ConfigError: It cannot be as it was asked for.
        InputError: What is wrong with the examples; all of it.
        TrainingError: The workers failed too often, or the loss was no number.
        XLMRError: The model cannot be used for this.
    """
    prepared = prepare(config)
    output = prepared.output.absolute()
    with _ray(config.run):
        device, cpus = _resources(config.run)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "config": config.model_dump(mode="json"),
                "output": str(output),
                "goals": list(prepared.goals.values()),
                "device": device,
                "threads": max(int(cpus), 1),
            },
            torch_config=TorchConfig(backend="nccl" if device == "cuda" else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.run.workers, use_gpu=device == "cuda", resources_per_worker={"CPU": cpus}
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=str(output / "run"),
                failure_config=FailureConfig(max_failures=config.run.max_failures),
            ),
        )
        try:
            with follow(output / CHECKPOINTS / METRICS):
                trainer.fit()
        except ray.train.TrainingFailedError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise TrainingError(f"the workers failed: {lines[-1] if lines else type(error).__name__}") from error
    if not (output / MODEL).is_dir():
        raise TrainingError("the workers ended without a model; run the same command again to go on")
    clear_start(output)
    return Trained(output / MODEL, prepared)


def _worker(loop: dict[str, Any]) -> None:
    """What each worker does; number 0 writes."""
    config = FinetuneConfig.model_validate(loop["config"])
    goals: list[Goal] = loop["goals"]
    output, device = Path(loop["output"]), torch.device(loop["device"])
    torch.set_num_threads(loop["threads"])
    learner, trained = open_start(output / START, goals), trained_settings(config)
    choose_trained(learner, trained, seed=config.training.seed)
    learner.encoder.encoder.checkpointing = config.training.gradient_checkpointing
    learner.to(device)
    steps, settings = plan_steps(config, learner, output / DATA)
    named = {goal.name: goal for goal in goals}
    validation = plan_validation(config, named, settings, output / START, output / VALIDATION)
    context = get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size(), _Summed(device), _gather)
    for _ in train(learner, steps, settings, output / CHECKPOINTS, workers, validation):
        # Metrics are in the run's own file. Reporting them to Ray is a barrier of all workers that takes seconds.
        pass
    if workers.rank == 0:
        base = None if config.model.fresh else adapter_base(trained, Checkpoint.open(config.model.path))
        write_trained(output / MODEL, learner.cpu(), goals, tokenizer=output / START, base=base)
    dist.barrier()


class _Summed:
    """Adds up a tensor over all workers, in place; wherever it is, the workers' group works on their device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, tensor: Tensor) -> None:
        """Sums."""
        there = tensor.to(self._device)
        dist.all_reduce(there)
        if there is not tensor:
            tensor.copy_(there)


def _gather(own: Any) -> list[Any]:
    """One object of each worker; all of them are processes of this very run."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


@contextmanager
def _ray(run: RunSection) -> Iterator[None]:
    """A Ray to work on: the one that runs, the one at an address, or a small one of our own, stopped afterwards."""
    if ray.is_initialized():
        yield
        return
    address = run.ray_address
    own: dict[str, Any] = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else own))
    try:
        yield
    finally:
        ray.shutdown()


def _resources(run: RunSection) -> tuple[str, float]:
    """Device of the workers, and CPUs that each reserves.

    Raises:
        ConfigError: The cluster has no GPU and one was asked for.
    """
    there = ray.cluster_resources()
    if run.device == "cuda" and not there.get("GPU"):
        raise ConfigError("run.device=cuda, the cluster has no GPU; leave it out or use auto")
    device = "cuda" if run.device != "cpu" and there.get("GPU") else "cpu"
    share = there.get("CPU", 1.0) * _SHARE_OF_CPUS / run.workers
    return device, run.cpus_per_worker or max(int(share) or round(share, 2), 0.1)
