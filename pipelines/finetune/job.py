"""`xlmr finetune`: prepares a run, has Ray Train compute it on one or many workers, writes the model.

Ray Train starts the workers and starts them again when one is lost; the loop is `training.train`, and where it goes on
is decided by its own checkpoints.
"""

import errno
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from pipelines.annotate import lease
from pipelines.config import ConfigError
from pipelines.finetune.checkpoints import checkpoints
from pipelines.finetune.config import FinetuneConfig, RunSection
from pipelines.finetune.follow import follow
from pipelines.finetune.goal import Goal
from pipelines.finetune.plan import plan_steps, trainable_settings
from pipelines.finetune.prepare import (
    CHECKPOINTS,
    DATA,
    LEASE,
    MODEL,
    START,
    VALIDATION,
    Prepared,
    clear_start,
    lay_down,
    settle,
)
from pipelines.finetune.run import Workers
from pipelines.finetune.sharding import shard, whole_learner
from pipelines.finetune.start import open_start, write_trained
from pipelines.finetune.trainable import adapter_base, choose_trainable
from pipelines.finetune.training import METRICS, train
from pipelines.finetune.validation_plan import plan_validation
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import XLMRError
from xlmr_core.memory import keep_freed_memory

logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 256 << 20
# Ray Train's controller and the driver want some CPU too.
_SHARE_OF_CPUS = 0.8
# EFBIG is what a limit on the size of files gives.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What we refuse is not better the next time.
_OURS = (XLMRError, FloatingPointError)


class TrainingError(XLMRError):
    """A run that ended before it was done; its checkpoints stay, and the same command goes on from them."""


class Interrupted(TrainingError):
    """SIGINT or SIGTERM came."""

    def __init__(self, message: str, number: signal.Signals) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run.

    Attributes:
        model: The model directory.
        prepared: What it was trained on.
    """

    model: Path
    prepared: Prepared


def finetune(config: FinetuneConfig, *, say: Callable[[Prepared], None] | None = None) -> Trained:
    """Trains to the end, or goes on with a run that was interrupted.

    Args:
        config: What was asked for.
        say: Is told what was read, before anything is trained.

    Raises:
        ConfigError: It cannot be as it was asked for.
        InputError: What is wrong with the examples; all of it.
        Interrupted: A signal came.
        OutputError: Another driver is at work on this output, or the disk does not let it be written.
        TrainingError: The workers failed too often, or the loss was no number.
        XLMRError: The model cannot be used for this.
    """
    settled = settle(config)
    output = settled.output.absolute()
    with _held(output):
        prepared = lay_down(settled)
        if say is not None:
            say(prepared)
        # Ray takes the signals for itself when it starts.
        with _ray(config.run), _signals(output), follow(output / CHECKPOINTS / METRICS):
            _compute(prepared, config)
        if not (output / MODEL).is_dir():
            raise TrainingError("the workers ended without a model; run the same command again to go on")
        clear_start(output)
    return Trained(output / MODEL, prepared)


def _compute(prepared: Prepared, config: FinetuneConfig) -> None:
    """Has the workers train; starts them again when one was lost, from the newest checkpoint.

    Ray Train itself would start them again whatever happened.

    Raises:
        TrainingError: They failed too often, or for a reason that stays.
    """
    for left in reversed(range(config.run.max_failures + 1)):
        try:
            _trainer(prepared, config).fit()
            return
        except ray.train.WorkerGroupError as error:
            own = [found for found in error.worker_failures.values() if isinstance(found, _OURS)]
            if own:
                raise TrainingError(str(own[0])) from error
            # The text of a foreign exception may quote records.
            kinds = ", ".join(sorted({type(found).__name__ for found in error.worker_failures.values()}))
            if not left:
                again = _goes_on(prepared.output)
                raise TrainingError(
                    f"the workers failed {config.run.max_failures + 1} times: {kinds}; {again}"
                ) from error
            logger.warning("a worker failed (%s), all start again; %d more times if need be", kinds, left)
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"the workers could not be started: {type(error).__name__}; is Ray well?") from error


def _trainer(prepared: Prepared, config: FinetuneConfig) -> TorchTrainer:
    device, cpus, threads = _resources(config.run)
    output = prepared.output.absolute()
    return TorchTrainer(
        _worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "folder": os.getcwd(),
            "output": str(output),
            "goals": list(prepared.goals.values()),
            "device": device,
            "threads": threads,
        },
        torch_config=TorchConfig(backend="nccl" if device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.run.workers, use_gpu=device == "cuda", resources_per_worker={"CPU": cpus}
        ),
        run_config=RunConfig(
            name="ray", storage_path=str(output / "run"), failure_config=FailureConfig(max_failures=0)
        ),
    )


@contextmanager
def _held(output: Path) -> Iterator[None]:
    """Keeps other drivers from the same output."""
    folder = output / LEASE
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = lease.acquire(folder)
    try:
        yield
    finally:
        held.release()


@contextmanager
def _signals(output: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM end a run as they end a command; Ray and Ray Train make exits of their own of them.

    Raises:
        Interrupted: One of them came.
    """
    came: list[signal.Signals] = []

    def end(number: int, _: FrameType | None) -> None:
        came.append(signal.Signals(number))
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if is_main:
        for number in before:
            signal.signal(number, end)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as interrupt:
        number = came[0] if came else signal.SIGINT
        raise Interrupted(f"interrupted; {_goes_on(output)}", number) from interrupt
    finally:
        if is_main:
            for number, handler in before.items():
                signal.signal(number, handler)


def _goes_on(output: Path) -> str:
    """What the same command will do."""
    newest = next(reversed(checkpoints(output / CHECKPOINTS)), None)
    place = "the beginning, there is no checkpoint yet"
    if newest is not None:
        place = f"step {int(newest.name.rpartition('-')[2]):,}"
    return f"run the same command again to go on from {place}"


def _worker(loop: dict[str, Any]) -> None:
    """What each worker does; number 0 writes."""
    # Paths are meant as they were typed, Ray Train starts workers elsewhere; on other machines they must be absolute.
    with suppress(FileNotFoundError):
        os.chdir(loop["folder"])
    context, device = get_context(), torch.device(loop["device"])
    workers = Workers(context.get_world_rank(), context.get_world_size(), _Summed(device), _gather)
    train_and_write(loop, workers)
    dist.barrier()


@contextmanager
def _saying_if_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        rule = "what was trained up to the newest checkpoint is kept; make room and run the same command again"
        raise TrainingError(f"the output takes no more: {error.strerror}, {rule}") from error


@_saying_if_full()
def train_and_write(loop: dict[str, Any], workers: Workers) -> None:
    """Trains from the newest checkpoint to the end and writes the model; a plain function of one process.

    Args:
        loop: The config, what is learnt, where, on which device and with how many threads.
        workers: Which of several processes this is.

    Raises:
        TrainingError: The disk is full.
        XLMRError: See `train` and `write_trained`.
    """
    config = FinetuneConfig.model_validate(loop["config"])
    goals: list[Goal] = loop["goals"]
    output, device = Path(loop["output"]), torch.device(loop["device"])
    torch.set_num_threads(loop["threads"])
    # A step frees and takes the same memory again as the one before it.
    keep_freed_memory()
    learner, trained = open_start(output / START, goals), trainable_settings(config)
    choose_trainable(learner, trained, seed=config.training.seed)
    learner.encoder.encoder.checkpointing = config.training.gradient_checkpointing
    if config.run.shard and workers.count > 1:
        shard(learner, device, bfloat16=config.training.dtype == "bfloat16")
    else:
        learner.to(device)
    steps, settings = plan_steps(config, learner, output / DATA)
    named = {goal.name: goal for goal in goals}
    validation = plan_validation(config, named, settings, output / START, output / VALIDATION)
    for _ in train(learner, steps, settings, output / CHECKPOINTS, workers, validation):
        # Metrics are in the run's own file. Reporting them to Ray is a barrier of all workers that takes seconds.
        pass
    # Where each has a part, all hand theirs in; only one needs room for them.
    learner = whole_learner(learner, torch.device("cpu" if workers.rank == 0 else "meta"))
    # The model is written last: where it is, another worker was lost after that.
    if workers.rank == 0 and not (output / MODEL).is_dir():
        base = None if config.model.fresh else adapter_base(trained, Checkpoint.open(config.model.path))
        write_trained(output / MODEL, learner.cpu(), goals, tokenizer=output / START, base=base)


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


def _resources(run: RunSection) -> tuple[str, float, int]:
    """Device of the workers, CPUs that each reserves, and threads that each computes with.

    Raises:
        ConfigError: The cluster has no GPU and one was asked for, or the machine has fewer than workers.
    """
    there = ray.cluster_resources()
    if run.device == "cuda" and not there.get("GPU"):
        raise ConfigError("run.device=cuda, the cluster has no GPU; leave it out or use auto")
    device = "cuda" if run.device != "cpu" and there.get("GPU") else "cpu"
    # A cluster at an address may grow; Ray would wait for ever for this one to.
    if device == "cuda" and not run.ray_address and run.workers > there["GPU"]:
        rule = "each worker needs one; ask for fewer, or for run.device=cpu"
        raise ConfigError(f"run.workers={run.workers}, there are {there['GPU']:g} GPUs, {rule}")
    share = there.get("CPU", 1.0) / run.workers
    reserved = share * _SHARE_OF_CPUS
    cpus = run.cpus_per_worker or max(int(reserved) or round(reserved, 2), 0.1)
    # Driver and controller reserve something and do next to nothing.
    return device, cpus, max(int(run.cpus_per_worker or share), 1)
