"""Tensors as files hold them: names, shapes and types at once, bytes only when asked for.

Order of preference: `model.safetensors`, its shards, `pytorch_model.bin`, its shards. Everything is
memory-mapped; a pickle is only ever read by `torch.load(weights_only=True)`, which runs no code.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xlmr_core.checkpoint.keys import find_prefix, is_encoder_name, modern_name
from xlmr_core.checkpoint.layout import PICKLED, PICKLED_INDEX, SAFETENSORS, SAFETENSORS_INDEX, read_json
from xlmr_core.errors import CheckpointError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FLOATS = tuple(_DTYPES.values())


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: Its sizes.
        dtype: Its type; None for one that is no floating point type this package reads.
        load: Gives the tensor, a view of the mapped file. It must not be written to.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    load: Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """All tensors of a directory.

    Attributes:
        files: The files they come from.
        tensors: By the name they are stored under.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]


@dataclass(frozen=True, slots=True)
class SortedTensors:
    """The tensors of a model, told apart by their names.

    Attributes:
        files: The files they come from.
        prefix: What stood before every encoder name.
        encoder: Encoder tensors, prefix removed, old names made modern.
        others: Heads, poolers and whatever else there is, under their own names; a pooler's without prefix.
        buffers: Names of those that hold no knowledge.
    """

    files: tuple[Path, ...]
    prefix: str
    encoder: Mapping[str, StoredTensor]
    others: Mapping[str, StoredTensor]
    buffers: tuple[str, ...]


def sort_tensors(weights: StoredWeights) -> SortedTensors:
    """Tells encoder tensors from others.

    Raises:
        CheckpointError: No encoder of this family is among them.
    """
    renamed = [(modern_name(name), stored) for name, stored in weights.tensors.items()]
    modern = {name: stored for name, stored in renamed if name is not None}
    prefix = find_prefix(modern, source=str(weights.files[0]))
    return SortedTensors(
        files=weights.files,
        prefix=prefix,
        encoder={name.removeprefix(prefix): modern[name] for name in modern if is_encoder_name(name, prefix)},
        # A pooler carries the encoder's prefix, task heads have none.
        others={
            name.removeprefix(prefix) if name.startswith(f"{prefix}pooler.") else name: modern[name]
            for name in modern
            if not is_encoder_name(name, prefix)
        },
        buffers=tuple(name for name in weights.tensors if modern_name(name) is None),
    )


def open_weights(directory: Path) -> StoredWeights:
    """Finds the weights of a directory and reads their headers.

    Raises:
        CheckpointError: There are none, a shard is missing, or a file cannot be read safely.
    """
    for whole, index in ((SAFETENSORS, SAFETENSORS_INDEX), (PICKLED, PICKLED_INDEX)):
        if (directory / whole).is_file():
            return StoredWeights((directory / whole,), open_file(directory / whole))
        if (directory / index).is_file():
            return _open_shards(directory / index)
    rule = f"a model directory needs {SAFETENSORS} or {PICKLED}, or one of them in shards with an index"
    raise CheckpointError(f"{directory} has no weights, {rule}; check the path or download the checkpoint again")


def _open_shards(index: Path) -> StoredWeights:
    """Opens every shard that an index names and takes from each what the index says."""
    where = read_json(index, dict).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{index} has no weight_map, it must map tensor names to files; download it again")
    names = sorted({str(name) for name in where.values()})
    problems = [f"shard {name!r}, it must be a plain file name" for name in names if Path(name).name != name]
    problems += [f"shard {name} is missing" for name in names if not (index.parent / name).is_file()]
    shards = {} if problems else {name: open_file(index.parent / name) for name in names}
    problems += [f"{key} is not in {shard}" for key, shard in where.items() if shards and key not in shards[shard]]
    if problems:
        lines = "\n".join(f"  {line}" for line in problems[:20])
        raise CheckpointError(f"{index} does not fit its files, download the checkpoint again:\n{lines}")
    tensors = {key: shards[shard][key] for key, shard in where.items()}
    return StoredWeights(tuple(index.parent / name for name in names), tensors)


def open_file(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name; safetensors, or anything else as a pickle of tensors and nothing but.

    Raises:
        CheckpointError: It cannot be read safely.
    """
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        file: Any = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no valid safetensors file ({error}); download or save it again") from None

    def stored(name: str) -> StoredTensor:
        header = file.get_slice(name)
        return StoredTensor(tuple(header.get_shape()), _DTYPES.get(header.get_dtype()), lambda: file.get_tensor(name))

    return {name: stored(name) for name in file.keys()}  # noqa: SIM118  # the handle is no mapping


def _open_pickle(path: Path) -> dict[str, StoredTensor]:
    try:
        content = _load_pickle(path)
    except pickle.UnpicklingError:
        rule = "only plain tensors are read and code never runs; ask its author for safetensors"
        raise CheckpointError(f"{path} holds pickled objects other than tensors, {rule}") from None
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        raise CheckpointError(f"{path} cannot be read ({error}); download or save it again") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} is no state dict, it must map names to tensors; export model.state_dict()")
    return {str(name): _stored(tensor.detach()) for name, tensor in content.items()}


def _load_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Files written before torch 1.6 are no zip archives and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True)


def _stored(tensor: Tensor) -> StoredTensor:
    return StoredTensor(tuple(tensor.shape), tensor.dtype if tensor.dtype in FLOATS else None, lambda: tensor)
