"""What of a learner is trained: all of it, its upper layers, its heads alone, or low-rank branches (LoRA) and heads.

Frozen parameters get no gradient, so they cost no backward pass, no optimiser state and no room in checkpoints; dropout
stays on in training. Under a wholly frozen encoder the forward pass keeps nothing for gradients either. (With dropout
off, its hidden states would be the same in every epoch and could be kept; that is not done.)
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from pipelines.finetune.learner import Learner
from pipelines.finetune.sharding import part_like
from xlmr_core.checkpoint import Checkpoint, TaskKind
from xlmr_core.checkpoint.location import locate
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError, TaskError
from xlmr_core.lora import LowRank, adapt, problems_of


@dataclass(frozen=True, slots=True)
class TrainableSettings:
    """What is trained; heads always are.

    Attributes:
        freeze: "embeddings", "encoder" for all but the heads, or a number of lower layers, embeddings with them.
        lora: Low-rank branches that are trained in the place of the encoder; None for the encoder itself.
        save: Whether they are written "merged" into a model or as an "adapter" of the base.
    """

    freeze: Literal["embeddings", "encoder"] | int | None = None
    lora: LowRank | None = None
    save: Literal["merged", "adapter"] = "merged"


def trainable_problems(settings: TrainableSettings, base: Checkpoint, tasks: Collection[TaskKind]) -> list[str]:
    """Why a base model cannot be trained so, one line each, with the fields as users type them.

    Args:
        settings: What shall be trained.
        base: What training starts from.
        tasks: What it is trained for.
    """
    problems, layers = [], base.config.num_hidden_layers
    if isinstance(settings.freeze, int) and not 0 <= settings.freeze <= layers:
        problems.append(f"training.freeze={settings.freeze}, the model has {layers} layers; choose at most so many")
    if settings.lora:
        problems += [f"lora.{line}" for line in problems_of(settings.lora, base.config)]
        if settings.freeze is not None:
            rule = "low-rank branches freeze all of the encoder; leave it out, or choose lora.layers"
            problems.append(f"training.freeze={settings.freeze}, {rule}")
    if settings.freeze == "encoder" and set(tasks) == {"embedding"}:
        rule = "sentence vectors are pooling alone, nothing is left to train; freeze less"
        problems.append(f"training.freeze=encoder, {rule}")
    if settings.save == "adapter":
        problems += [f"lora.save adapter, {rule}" for rule in _adapter_problems(settings, base, tasks)]
    return problems


def _adapter_problems(settings: TrainableSettings, base: Checkpoint, tasks: Collection[TaskKind]) -> list[str]:
    problems = []
    if settings.lora is None:
        problems.append("there are no low-rank branches to write; set lora.rank")
    if base.adapter:
        problems.append(f"{base.spec} is an adapter itself and cannot be the base of another; choose merged")
    if "causal-lm" in tasks:
        problems.append("an adapter cannot say that its base reads from one side; choose merged")
    return problems


def adapter_base(settings: TrainableSettings, base: Checkpoint) -> str | None:
    """The base that an adapter names, for `write_model_directory`; None where a whole model is written."""
    if settings.save == "merged":
        return None
    return replace(locate(base.resolved), head=None).spec


def choose_trainable(learner: Learner, settings: TrainableSettings, *, seed: int) -> int:
    """Freezes what is not trained and adds branches, in place; before the optimiser is made.

    Args:
        learner: With the weights that training starts from.
        settings: See `trainable_problems`.
        seed: Of fresh branches; the same on every worker.

    Returns:
        How many values are trained.

    Raises:
        TaskError: The settings do not fit the encoder, or nothing is left to train.
    """
    if settings.lora:
        adapt(learner.encoder, settings.lora, seed=seed)
    else:
        _freeze(learner.encoder, settings.freeze)
    count = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
    if not count:
        raise TaskError(f"training.freeze {settings.freeze}, nothing is left to train; freeze less")
    return count


def _freeze(encoder: Encoder, freeze: Literal["embeddings", "encoder"] | int | None) -> None:
    match freeze:
        case None:
            pass
        case "encoder":
            encoder.requires_grad_(False)
        case _:
            encoder.embeddings.requires_grad_(False)
            lower = 0 if freeze == "embeddings" else freeze
            for layer in encoder.encoder.layer[:lower]:
                layer.requires_grad_(False)


def trainable_state(learner: Learner) -> dict[str, Tensor]:
    """The tensors that training changes, by name: all that a checkpoint needs besides the start."""
    state = learner.state_dict(keep_vars=True)
    return {name: value.detach() for name, value in state.items() if value.requires_grad}


def load_trainable_state(learner: Learner, state: dict[str, Tensor]) -> None:
    """Puts back what `trainable_state` gave; the learner must have been chosen alike.

    Raises:
        CheckpointError: Other parameters were trained then.
    """
    own = trainable_state(learner)
    others = {(name, value.shape) for name, value in own.items()} ^ {
        (name, value.shape) for name, value in state.items()
    }
    if others:
        names = ", ".join(sorted({name for name, _ in others})[:3])
        rule = "the settings must be those of the run; choose another output directory"
        raise CheckpointError(f"the checkpoint is of other parameters than are trained ({names} ...), {rule}")
    learner.load_state_dict({name: part_like(value, own[name]) for name, value in state.items()}, strict=False)
