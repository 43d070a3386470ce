"""Sharded training: each worker keeps a part of every weight, of its gradient and of its optimiser state (FSDP2).

The parts of a layer are gathered when it is computed, forth and back, and its gradients are added up and handed out as
soon as they are there; embeddings and heads, which may share a table, are gathered together (ZeRO stage 3, Rajbhandari
et al. 2020; "PyTorch FSDP", Zhao et al. 2023). Gathering is something that all workers do at once, so each must compute
as many micro-batches as the others, see `Steps.micro_batches`. What is written is whole, as that of any other run.
"""

import copy
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.finetune.learner import Learner


def shard(learner: Learner, device: torch.device, *, bfloat16: bool = False) -> None:
    """Leaves a worker its part of a learner, on its device; in place, before the optimiser is made.

    Args:
        learner: Whole and the same on every worker, on any device; all workers of the process group call this at once.
        device: Where it is trained.
        bfloat16: Whether matrix products are of this type; on CUDA the layers then travel in it, and are added up in
            float32.
    """
    # Takes a second to import, and most runs do without.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    outline = _outline(learner)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # What autocast makes of the matrices. (On the CPU it leaves LayerNorm alone, which would then see two types.)
    rounded = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    precision = rounded if bfloat16 and device.type == "cuda" else MixedPrecisionPolicy()
    for layer in learner.encoder.encoder.layer:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    fully_shard(learner, mesh=mesh)
    for module in learner.modules():
        if isinstance(module, FSDPModule):
            # The loss of a step is the sum of the workers' parts, and so is its gradient.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    for method in ("losses", "vectors"):
        register_fsdp_forward_method(learner, method)
    learner.gathered = partial(_gathered, outline, learner)


def is_sharded(learner: Learner) -> bool:
    """Whether each worker has only a part of it."""
    return learner.gathered is not None


def whole_learner(learner: Learner, device: torch.device | None = None) -> Learner:
    """A learner with all its weights: itself, where it is not sharded; all workers call this at once.

    Args:
        learner: Stays as it is.
        device: Where the weights of a sharded one are put together; default: where it is.
    """
    return learner if learner.gathered is None else learner.gathered(device)


def whole_state(state: Any, *, wanted: bool = True) -> Any:
    """The same dicts and lists with whole tensors, on the CPU, in the place of parts; all workers call this at once.

    Args:
        state: Of a learner or its optimiser.
        wanted: Whether this worker needs them; else it only takes part, and gets tensors of nothing.
    """
    if isinstance(state, dict):
        return {key: whole_state(value, wanted=wanted) for key, value in state.items()}
    if isinstance(state, list):
        return [whole_state(value, wanted=wanted) for value in state]
    if not _is_part(state):
        return state
    whole = whole_tensor(state)
    return whole.cpu() if wanted else whole.new_empty(0)


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor of which workers have parts, as all have it; all workers call this at once."""
    whole: Tensor = tensor.full_tensor() if _is_part(tensor) else tensor  # type: ignore[attr-defined]
    return whole


def part_like(whole: Tensor, own: Tensor) -> Tensor:
    """This worker's part of a tensor, cut and placed as `own` is; the tensor itself where that is no part."""
    if not _is_part(own) or whole.shape != own.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = own.device_mesh, own.placements  # type: ignore[attr-defined]
    # Each worker has the whole, nothing need be sent.
    return distribute_tensor(whole.to(own.device), mesh, placements, src_data_rank=None)


def optimiser_part(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """This worker's part of the state of a whole optimiser, for `load_state_dict`."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    parts = {
        number: {name: part_like(value, parameters[number]) for name, value in of_parameter.items()}
        for number, of_parameter in state["state"].items()
    }
    return {**state, "state": parts}


def anchor(learner: Learner) -> Tensor | float:
    """Nothing, to be added to a loss: where workers compute different heads, each gets a gradient on every worker.

    Gradients that are added up over workers must be there on all of them.
    """
    if not is_sharded(learner):
        return 0.0
    # Of no value, but with a gradient as large as the parameter, of zeros.
    return sum(
        (parameter.flatten()[:0].sum() for parameter in learner.heads.parameters() if parameter.requires_grad), 0.0
    )


def _is_part(value: object) -> bool:
    return hasattr(value, "full_tensor")


def _outline(learner: Learner) -> Learner:
    """A learner of the same shape without weights; what shares a parameter still does."""
    known: dict[int, Any] = {id(learner.objectives): learner.objectives}
    for parameter in learner.parameters():
        known[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    return copy.deepcopy(learner, known)


def _gathered(outline: Learner, learner: Learner, device: torch.device | None) -> Learner:
    whole, state = copy.deepcopy(outline, {id(outline.objectives): outline.objectives}), {}
    known: dict[int, Tensor] = {}
    for name, own in learner.state_dict(keep_vars=True).items():
        if id(own) not in known:
            known[id(own)] = whole_tensor(own.detach()).to(device or own.device)
        state[name] = known[id(own)]
    whole.load_state_dict(state, assign=True)
    return whole.train(learner.training)
