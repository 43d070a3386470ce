"""Fills encodings that were made one by one up to one length."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from xlmr_core.errors import ArgumentError

IDS, MASK = "input_ids", "attention_mask"


def pad_columns(
    encoded: Mapping[str, Any],
    *,
    length: int | None,
    longest: bool,
    multiple: int | None,
    left: bool,
    pad_id: int,
    with_mask: bool,
) -> dict[str, Any]:
    """Fills ids and what goes with them; other values stay as they are.

    Args:
        encoded: `input_ids` and others, of one text or of a batch, as lists.
        length: To how many tokens; a longer text stays as it is.
        longest: Whether the longest text says it.
        multiple: Lengths are rounded up to one.
        left: Whether to fill on the left.
        pad_id: What ids are filled with.
        with_mask: Whether an attention mask is made where there is none.

    Raises:
        ArgumentError: Values with another number of rows than `input_ids`.
    """
    ids = encoded[IDS]
    batched = isinstance(ids[0], (list, tuple)) if len(ids) else False
    columns = {key: list(value) if batched else [value] for key, value in encoded.items()}
    rows = columns[IDS]
    wrong = [f"{key} {len(column)}" for key, column in columns.items() if len(column) != len(rows)]
    if wrong:
        raise ArgumentError(f"rows of {', '.join(wrong)}, input_ids has {len(rows)}; all must have the same number")
    if with_mask and MASK not in columns:
        columns[MASK] = [[1] * len(row) for row in rows]
    if longest:
        length = max(map(len, rows))
    if length is not None and multiple:
        length = -(-length // multiple) * multiple
    filling = {IDS: pad_id, MASK: 0, "token_type_ids": 0, "special_tokens_mask": 1}
    if length is not None:
        for key in filling.keys() & columns.keys():
            columns[key] = [_filled(row, length, filling[key], left=left) for row in columns[key]]
    return columns if batched else {key: column[0] for key, column in columns.items()}


def _filled(row: Sequence[int], length: int, value: int, *, left: bool) -> list[int]:
    missing = [value] * (length - len(row))
    return [*missing, *row] if left else [*row, *missing]


def as_columns(encoded: Any) -> tuple[dict[str, Any], str | None]:
    """One encoding, a batch, or a list of encodings of single texts, as lists by name.

    Returns:
        The lists, and "pt" or "np" if they were tensors.

    Raises:
        ArgumentError: No encodings, or some that lack what others have.
    """
    if isinstance(encoded, (list, tuple)) and encoded and all(isinstance(one, Mapping) for one in encoded):
        names = encoded[0].keys()
        if any(one.keys() != names for one in encoded):
            raise ArgumentError("encodings hold different names, all must have the same to be one batch")
        encoded = {name: [one[name] for one in encoded] for name in names}
    if not isinstance(encoded, Mapping):
        raise ArgumentError(f"{type(encoded).__name__} cannot be padded, it must be an encoding or a list of them")
    if IDS not in encoded:
        raise ArgumentError(f"encoding of {', '.join(map(str, encoded)) or 'nothing'}, it must hold {IDS}")
    ids = encoded[IDS]
    sample = ids[0] if isinstance(ids, (list, tuple)) and len(ids) else ids
    kind = "pt" if isinstance(sample, torch.Tensor) else "np" if isinstance(sample, (np.ndarray, np.generic)) else None
    return {name: _listed(value) for name, value in encoded.items()}, kind


def _listed(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value
