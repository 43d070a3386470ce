"""Checkpoints of a run: what it needs to go on as if it had never stopped, and the best weights so far.

A checkpoint is a folder that gets its name when everything in it is on the disk. What chance does follows from a step's
number, and so does what a step sees; so there is nothing else to keep.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from pipelines.finetune.learner import Learner
from pipelines.finetune.sharding import is_sharded, optimiser_part, whole_state
from pipelines.finetune.trainable import load_trainable_state, trainable_state
from pipelines.finetune.watch import Watch

logger = logging.getLogger(__name__)

_STATE, _STEP, _BEST = "state.pt", "step-", "best-"


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob(f"{_STEP}*") if (path / _STATE).is_file())


def resume(learner: Learner, optimiser: torch.optim.Optimizer, folder: Path) -> tuple[int, dict[str, Any]]:
    """Loads the newest checkpoint, if there is one.

    Returns:
        Optimiser steps so far, and the state of the run's `Watch`.

    Raises:
        CheckpointError: It is of a run in which other parameters were trained.
    """
    whole = checkpoints(folder)
    if not whole:
        return 0, {}
    # The processes of a machine share what they only read a part of.
    mapped = is_sharded(learner)
    state: dict[str, Any] = torch.load(whole[-1] / _STATE, weights_only=True, map_location="cpu", mmap=mapped)
    load_trainable_state(learner, state["learner"])
    optimiser.load_state_dict(optimiser_part(state["optimiser"], optimiser))
    logger.info("resumed from %s", whole[-1].name)
    return int(state["step"]), state["watch"]


def save(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    step: int,
    watch: Watch,
    folder: Path,
    *,
    kept: int,
    writes: bool = True,
) -> None:
    """Writes beside, syncs and renames, so that a kill leaves a whole checkpoint or none; then removes older ones.

    Args:
        learner: What it trains is kept.
        optimiser: Its state is kept.
        step: Optimiser steps so far.
        watch: Its state is kept.
        folder: Of the run.
        kept: So many of the newest stay.
        writes: Whether this worker writes; others only give their parts of what is sharded.
    """
    state = whole_state(
        {
            "step": step,
            "watch": watch.state(),
            "learner": trainable_state(learner),
            "optimiser": optimiser.state_dict(),
        },
        wanted=writes,
    )
    if not writes:
        return
    draft = folder / f".{_STEP}{step:09d}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    _write(draft / _STATE, state)
    target = folder / f"{_STEP}{step:09d}"
    # A torn folder of that name, or one that an earlier attempt at the same step wrote.
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    _sync(folder)
    for old in checkpoints(folder)[:-kept]:
        shutil.rmtree(old, ignore_errors=True)
    for torn in folder.glob(f".{_STEP}*"):
        shutil.rmtree(torn, ignore_errors=True)
    for torn in folder.glob(f".{_BEST}*"):
        torn.unlink()
    for best in folder.glob(f"{_BEST}*"):
        if best != _best(folder, watch.best.step):
            best.unlink()


def save_best(learner: Learner, step: int, folder: Path, *, writes: bool = True) -> None:
    """Keeps the present weights beside those that were the best before; the next checkpoint removes these."""
    state = whole_state(trainable_state(learner), wanted=writes)
    if not writes:
        return
    draft = folder / f".{_BEST}{step:09d}.{os.getpid()}"
    _write(draft, state)
    draft.replace(_best(folder, step))


def load_best(learner: Learner, step: int, folder: Path) -> None:
    """Gives a learner the weights that were the best."""
    load_trainable_state(learner, torch.load(_best(folder, step), weights_only=True, map_location="cpu"))


def _best(folder: Path, step: int | None) -> Path:
    return folder / f"{_BEST}{step or 0:09d}"


def _write(path: Path, state: dict[str, Any]) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        # Half of it may be what filled the disk.
        path.unlink()
        # PyTorch says that it wrote too little, and not why.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def clear_checkpoints(folder: Path) -> None:
    """Removes them all, and the best weights: they are several times as large as the model that was made of them."""
    for path in folder.glob(f"{_STEP}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f"{_BEST}*"):
        path.unlink()
