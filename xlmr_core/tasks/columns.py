"""Predictions as columns of plain numpy, one value for each annotated record; drivers turn them into Arrow or JSON.

A column is a tree: arrays and labels at its leaves, lists and structs above. Its type is the same tree without values.

Letters: P annotated records, C labels, D width of a vector.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from xlmr_core.tokenization.encoding import bounds

Scalar = Literal["text", "int32", "float32", "float16"]


@dataclass(frozen=True, slots=True)
class VectorOf:
    """A fixed number of values."""

    of: Scalar
    size: int


@dataclass(frozen=True, slots=True)
class ListOf:
    """Any number of values."""

    of: "Type"


@dataclass(frozen=True, slots=True)
class StructOf:
    """Named values, in order."""

    fields: tuple[tuple[str, "Type"], ...]


Type = Scalar | VectorOf | ListOf | StructOf


@dataclass(frozen=True, slots=True)
class Field:
    """Name and type of one output column."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Labels:
    """Texts out of few: value p is `names[codes[p]]`, codes (P,) int32."""

    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lists:
    """Any number of values a record: value p is rows `splits[p]` to `splits[p + 1]` of `values`."""

    splits: np.ndarray
    values: "Column"


@dataclass(frozen=True, slots=True)
class Structs:
    """Named columns of equal length."""

    fields: dict[str, "Column"]


# Scores and numbers are (P,) arrays, vectors (P, D).
Column = np.ndarray | Labels | Lists | Structs

SPAN_TYPES: tuple[tuple[str, Type], ...] = (("start", "int32"), ("end", "int32"), ("score", "float32"))
ENTITIES = ListOf(StructOf((("label", "text"), *SPAN_TYPES)))


def label_columns(
    name: str, scores_PC: np.ndarray, labels: tuple[str, ...], threshold: float | np.ndarray
) -> dict[str, Column]:
    """All that scores of labels can say: a task keeps those that are among its fields.

    Args:
        name: Of the annotation.
        scores_PC: Score of each label (P, C).
        labels: Label names, C of them.
        threshold: `NAME_labels` are those from this score on; one, or as many as broadcast to (P, C).
    """
    best_P, chosen_PC = scores_PC.argmax(axis=1), scores_PC >= threshold
    return {
        f"{name}_label": Labels(best_P.astype(np.int32), labels),
        f"{name}_score": scores_PC[np.arange(len(best_P)), best_P],
        f"{name}_labels": Lists(
            bounds(chosen_PC.sum(axis=1)), Labels(np.nonzero(chosen_PC)[1].astype(np.int32), labels)
        ),
        f"{name}_scores": scores_PC,
    }


def to_list(column: Column) -> list[Any]:
    """Plain Python values: numbers, texts, lists and dicts."""
    match column:
        case Labels():
            return [column.names[code] for code in column.codes.tolist()]
        case Lists():
            values, splits = to_list(column.values), column.splits.tolist()
            return [values[start:stop] for start, stop in pairwise(splits)]
        case Structs():
            columns = [to_list(values) for values in column.fields.values()]
            return [dict(zip(column.fields, row, strict=True)) for row in zip(*columns, strict=True)]
        case _:
            plain: list[Any] = column.tolist()
            return plain
