"""Sequences that a model is trained on, and what each should answer: a few flat columns; nothing in them is text.

Letters: R records, W sequences, T tokens of all sequences (special tokens included), C outputs.
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from xlmr_core.heads import IGNORED
from xlmr_core.tokenization.encoding import bounds, ranges

# What a target belongs to.
Per = Literal["window", "token", "record", "nothing"]

_META = "meta.json"
_COLUMNS = ("ids", "splits", "restarts", "records", "language", "targets")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """R records as W sequences.

    Attributes:
        ids: Token ids, special tokens included, sequence after sequence (T,), int32.
        splits: Sequence w is `ids[splits[w]:splits[w + 1]]` (W+1,), int64.
        restarts: Token of each sequence at which positions begin anew, as at a translation; 0 for none (W,), int32.
        records: Record r owns sequences records[r] to records[r + 1], its windows or its choices (R+1,), int64.
        language: Language of each record (R,), int32.
        languages: Their names; "" where none was given.
        targets: What should be answered, one row for what `per` names; float for numbers and several labels, else
            int64 with -100 for nothing.
        per: What a row of `targets` belongs to; "nothing" when the sequences are their own targets.
    """

    ids: np.ndarray
    splits: np.ndarray
    restarts: np.ndarray
    records: np.ndarray
    language: np.ndarray
    languages: tuple[str, ...]
    targets: np.ndarray
    per: Per

    def __len__(self) -> int:
        """R."""
        return len(self.records) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence (W,), int64."""
        return np.diff(self.splits)

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of each record (R,), int64."""
        tokens: np.ndarray = self.splits[self.records[1:]] - self.splits[self.records[:-1]]
        return tokens

    def tokens_by_language(self) -> np.ndarray:
        """Tokens of each language (its number), float64."""
        return np.bincount(self.language, weights=self.tokens, minlength=len(self.languages))

    @property
    def target_count(self) -> int:
        """How many targets take part in the loss."""
        return int((self.targets != IGNORED).sum()) if self.targets.dtype == np.int64 else self.targets.size

    def take(self, records: np.ndarray) -> "TrainingSet":
        """Some records, in the order given, as a set of their own in memory."""
        counts = self.records[records + 1] - self.records[records]
        sequences = ranges(self.records[records], counts)
        first = self.splits[sequences]
        lengths = self.splits[sequences + 1] - first
        places = ranges(first, lengths)
        rows = {"record": records, "window": sequences, "token": places, "nothing": places[:0]}[self.per]
        return replace(
            self,
            ids=self.ids[places],
            splits=bounds(lengths),
            restarts=self.restarts[sequences],
            records=bounds(counts),
            language=self.language[records],
            targets=self.targets[rows],
        )

    def save(self, folder: Path) -> None:
        """Writes one file a column, and `meta.json` last: a folder that has it is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _COLUMNS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        meta = {"languages": list(self.languages), "per": self.per}
        (folder / _META).write_text(json.dumps(meta), encoding="utf-8")

    @classmethod
    def open(cls, folder: Path) -> "TrainingSet":
        """Maps a saved set into memory; the processes of a machine share it."""
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _COLUMNS}
        return cls(**columns, languages=tuple(meta["languages"]), per=meta["per"])


@dataclass(frozen=True, slots=True)
class Portion:
    """Columns of some records, as `TrainingSet` has them, with lengths instead of bounds, so that they can be joined.

    Attributes:
        ids: (T,), int32.
        lengths: Tokens of each sequence (W,).
        restarts: (W,).
        sequences: Sequences of each record (R,).
        language: (R,), int32.
        targets: As `TrainingSet.targets`.
    """

    ids: np.ndarray
    lengths: np.ndarray
    restarts: np.ndarray
    sequences: np.ndarray
    language: np.ndarray
    targets: np.ndarray


def join_portions(portions: list[Portion]) -> Portion:
    """One portion of several, at least one."""
    columns = (column.name for column in fields(Portion))
    return Portion(**{name: np.concatenate([getattr(portion, name) for portion in portions]) for name in columns})


def join(portions: list[Portion], languages: tuple[str, ...], per: Per) -> TrainingSet:
    """One set of several portions, at least one."""
    whole = join_portions(portions)
    return TrainingSet(
        ids=whole.ids,
        splits=bounds(whole.lengths),
        restarts=whole.restarts.astype(np.int32),
        records=bounds(whole.sequences),
        language=whole.language,
        languages=languages,
        targets=whole.targets,
        per=per,
    )
