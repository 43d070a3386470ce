"""Filling a documented model from a model directory: what is there, what does not fit, what must be fresh."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from xlmr_core.checkpoint.embedding import read_sentence_layout
from xlmr_core.checkpoint.keys import decoder_file_names
from xlmr_core.checkpoint.location import locate
from xlmr_core.checkpoint.task_heads import refuse
from xlmr_core.checkpoint.weights import SortedTensors, StoredTensor, open_weights, sort_tensors
from xlmr_core.errors import ArgumentError, CheckpointError
from xlmr_core.models.configuration import XLMRobertaConfig

_WORDS = "embeddings.word_embeddings.weight"


def locate_model(name_or_path: str | Path, *, weights: bool = True) -> Path:
    """The directory with `config.json` and weights; inside a sentence-transformers directory its first module's.

    Args:
        name_or_path: A directory, `mini`, or a Hub id.
        weights: Whether weights are wanted, which are fetched with the rest.

    Raises:
        CheckpointError: There is none.
    """
    location = locate(str(name_or_path), weights=weights)
    if location.head is not None:
        raise CheckpointError(f"model {str(name_or_path)!r} names a head, these classes open directories; leave out #")
    return read_sentence_layout(location.directory).encoder_directory


def read_tensors(directory: Path) -> SortedTensors:
    """What the weight files hold, bytes still on disk.

    Raises:
        CheckpointError: There are none, they cannot be read safely, or hold no encoder of this family.
    """
    return sort_tensors(open_weights(directory))


def vocabulary_size(stored: SortedTensors, stated: int) -> int:
    """Rows of the stored word embedding table, which count where the config says otherwise."""
    words = stored.encoder.get(_WORDS)
    return stated if words is None or len(words.shape) != 2 else words.shape[0]


def fill_model(
    model: nn.Module, stored: SortedTensors, config: XLMRobertaConfig, *, ignore_mismatched_sizes: bool
) -> list[str]:
    """Gives a model on the meta device its weights, and fresh ones where the files hold none.

    Args:
        model: A documented model: `state_dict` has the names of files.
        stored: What the files hold.
        config: Whether the projection to the vocabulary is the word table, and the spread of fresh weights.
        ignore_mismatched_sizes: Whether tensors of other shapes count as absent.

    Returns:
        What differs, one line each: names of what is fresh and of what the model has no place for.

    Raises:
        CheckpointError: Encoder tensors are missing, or shapes do not fit; all at once.
    """
    found = _by_file_name(stored, is_tied=config.tie_word_embeddings)
    state: dict[str, Tensor] = {}
    fresh: list[str] = []
    problems: list[str] = []
    for name, parameter in model.state_dict().items():
        plain, shape = name.removeprefix("roberta."), tuple(parameter.shape)
        tensor = found.get(plain)
        if tensor is None and plain.startswith(("embeddings.", "encoder.")):
            problems.append(f"{plain} is missing")
        elif tensor is not None and tensor.dtype is None:
            problems.append(f"{plain} has a type that is not read, weights must be float32, 16, 64 or bfloat16")
        elif tensor is not None and tensor.shape != shape and not ignore_mismatched_sizes:
            rule = f"the config asks for {shape} (ignore_mismatched_sizes=True initialises it)"
            problems.append(f"{plain} has the shape {tensor.shape}, {rule}")
        elif tensor is not None and tensor.shape == shape:
            state[name] = tensor.load().to(torch.float32)
        else:
            fresh.append(name)
            state[name] = _fresh(name, shape, config.initializer_range)
    refuse(str(stored.files[0].parent), problems)
    model.load_state_dict(state, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    unused = sorted(stored.encoder.keys() - {name.removeprefix("roberta.") for name in state})
    differences = [f"it does not hold {', '.join(fresh)}: initialised at random, to be trained"] if fresh else []
    return differences + ([f"the model has no place for {', '.join(unused)}: not read"] if unused else [])


def has_own_decoder(stored: SortedTensors) -> bool:
    """Whether the files hold a projection to the vocabulary that is not the word embedding table."""
    own, words = stored.others.get(decoder_file_names()[0]), stored.encoder.get(_WORDS)
    return own is not None and words is not None and not torch.equal(own.load(), words.load())


def _fresh(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """A zero bias, the ones of a norm, or a normal matrix."""
    if name.endswith("bias"):
        return torch.zeros(shape)
    return torch.ones(shape) if len(shape) == 1 else torch.empty(shape).normal_(std=std)


def _by_file_name(stored: SortedTensors, *, is_tied: bool) -> dict[str, StoredTensor]:
    """Every stored tensor by its name without prefix; the projection to the vocabulary under all its names."""
    found = dict(stored.encoder) | dict(stored.others)
    matrix, bias, usual_bias = decoder_file_names()
    same = [(bias, usual_bias), (usual_bias, bias)] + ([(matrix, _WORDS)] if is_tied else [])
    return {one: found[other] for one, other in same if other in found} | found


def resized(old: Tensor, count: int, std: float, *, mean: bool) -> nn.Parameter:
    """`count` rows or biases whose first are the old ones; further ones are normal, or about the mean of the old.

    The spread of rows about the mean is a billionth of the old rows' covariance, as in transformers.
    """
    rows = old.detach()
    added = count - len(rows)
    if added <= 0:
        return nn.Parameter(rows[:count].clone(), requires_grad=old.requires_grad)
    fresh = torch.zeros(added, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    if mean:
        values = rows.float()
        center = values.mean(0)
        fresh += center.to(rows.dtype)
        if values.dim() == 2:
            variances, axes = torch.linalg.eigh((values - center).T @ (values - center) / len(values))
            spread = torch.randn_like(fresh, dtype=torch.float32) * (1e-9 * variances.clamp(min=0)).sqrt()
            fresh = (center + spread @ axes.T).to(rows.dtype)
    elif std:
        fresh.normal_(std=std)
    return nn.Parameter(torch.cat([rows, fresh]), requires_grad=old.requires_grad)


def dtype_of(wanted: torch.dtype | str | None, config: XLMRobertaConfig, stored: SortedTensors) -> torch.dtype:
    """A type by itself or its name; float32 by default, "auto" for what the config states, else for the stored one.

    Raises:
        ArgumentError: It is no floating-point type.
    """
    if wanted is None:
        return torch.float32
    if wanted == "auto" and config.dtype is not None:
        return config.dtype
    if wanted == "auto":
        words = stored.encoder.get(_WORDS)
        return words.dtype if words is not None and words.dtype is not None else torch.float32
    named = getattr(torch, wanted.removeprefix("torch."), None) if isinstance(wanted, str) else wanted
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ArgumentError(f"dtype {wanted!r}, it must be 'auto' or a floating-point type such as torch.bfloat16")
    return named


def device_of(device_map: str | torch.device | int | Mapping[str, object] | None) -> torch.device:
    """Where a model goes; "auto" is CUDA where there is one.

    Raises:
        ArgumentError: It names no device.
    """
    if isinstance(device_map, Mapping):
        values = set(map(str, device_map.values()))
        device_map = values.pop() if len(values) == 1 else "a map over several devices"
    if device_map is None:
        return torch.device("cpu")
    if device_map == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device_map)
    except RuntimeError:
        raise ArgumentError(f"device_map {device_map!r}, it must be 'auto' or a device such as 'cuda:0'") from None
