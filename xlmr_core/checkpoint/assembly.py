"""Fitting stored tensors to modules: check everything first, then fill; and their content hash.

A module to fill is built on the meta device, so nothing is allocated before everything is known to fit.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import TypeVar

import torch
from torch import Tensor, nn

from xlmr_core.checkpoint.weights import StoredTensor

ModuleT = TypeVar("ModuleT", bound=nn.Module)
FileNames = Callable[[str], tuple[str, ...]]


def on_meta(make: Callable[[], ModuleT]) -> ModuleT:
    """Builds a module that has shapes and no memory."""
    with torch.device("meta"):
        return make()


def misfits(module: nn.Module, tensors: Mapping[str, StoredTensor], file_names: FileNames) -> list[str]:
    """What keeps the stored tensors from filling a module, one line each.

    Args:
        module: Gives names and shapes.
        tensors: Stored tensors by name.
        file_names: Stored names, in order, that stacked by rows make up a parameter.
    """
    problems = []
    for name, parameter in module.state_dict().items():
        parts = file_names(name)
        expected = (parameter.shape[0] // len(parts), *parameter.shape[1:])
        for part in parts:
            stored = tensors.get(part)
            if stored is None:
                problems.append(f"{part} is missing")
            elif stored.shape != expected:
                problems.append(f"{part} has the shape {stored.shape}, the config asks for {expected}")
            elif stored.dtype is None:
                problems.append(f"{part} has a type that is not read, weights must be float32, 16, 64 or bfloat16")
    return problems


def fill(module: ModuleT, tensors: Mapping[str, StoredTensor], file_names: FileNames) -> ModuleT:
    """Gives a module on the meta device its weights, float32, and returns it.

    A tensor that is stored in float32 and needs no stacking stays a private view of the mapped file: it costs
    no memory of its own until someone writes to it, and processes on one machine share it. So a file in use
    must not be rewritten in place; `write_model_directory` never does.
    """
    state = {name: _assemble([tensors[part] for part in file_names(name)]) for name in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module


def _assemble(parts: list[StoredTensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0].load().to(torch.float32)
    rows = sum(part.shape[0] for part in parts)
    whole = torch.empty(rows, *parts[0].shape[1:])
    torch.cat([part.load().to(torch.float32) for part in parts], out=whole)
    return whole


def content_sha256(facts: Mapping[str, object], tensors: Iterable[tuple[str, StoredTensor]]) -> str:
    """Identity of a computation: facts of its config, and names, types, shapes and bytes of its weights.

    Equal for equal content however it is split over files or prefixed; tensors are read one after the other.
    """
    digest = sha256(json.dumps(facts, sort_keys=True).encode())
    for name, stored in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"\n{name} {stored.dtype} {stored.shape}\n".encode())
        digest.update(stored.load().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
