"""Predictions as columns of plain numpy, one value for each annotated record; drivers turn them into Arrow or JSON.

Letters: P annotated records, C labels, D width of a vector, E entities of all records.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["label", "labels", "score", "vector", "entities"]


@dataclass(frozen=True, slots=True)
class Field:
    """Name and type of one output column.

    Attributes:
        name: Column name.
        kind: "label" text; "labels" list of texts; "score" float32; "vector" fixed-size list of float32;
            "entities" list of label, start, end, score.
        size: Values of a vector; 0 for other kinds.
        half: Whether a vector is stored as float16.
    """

    name: str
    kind: Kind
    size: int = 0
    half: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """One label a record: `names[codes[p]]`, codes (P,) int32."""

    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelLists:
    """Any number of labels a record: `names[c]` for c in `codes[splits[p]:splits[p + 1]]`."""

    codes: np.ndarray
    splits: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entities:
    """Any number of entities a record; record p owns rows splits[p] to splits[p + 1].

    Attributes:
        splits: Bounds (P+1,), int64.
        codes: Index into `names` (E,).
        names: Entity types.
        start: First code point in the original text (E,), int32.
        end: One past the last code point (E,), int32.
        score: Confidence (E,), float32.
    """

    splits: np.ndarray
    codes: np.ndarray
    names: tuple[str, ...]
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray


# Scores are (P,) and vectors (P, D) arrays of float32.
Column = Labels | LabelLists | Entities | np.ndarray


def label_lists(chosen_PC: np.ndarray, names: tuple[str, ...]) -> LabelLists:
    """Turns a boolean choice (P, C) into lists of labels."""
    splits = np.concatenate([[0], np.cumsum(chosen_PC.sum(axis=1))])
    return LabelLists(codes=np.nonzero(chosen_PC)[1].astype(np.int32), splits=splits, names=names)
