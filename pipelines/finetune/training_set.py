"""Example records as the sequences that a model is trained on: ids, and what each should answer.

Texts are read, laid out and cut by the very plan that `annotate` runs, so a model sees in training what it will see at
work. The set is a few flat columns; nothing in it is text.

Letters: R records, W windows, T tokens of all windows (special tokens included), C outputs.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.finetune.examples import Example
from xlmr_core.errors import InputError
from xlmr_core.graph import Annotation, GraphPlan, Preprocessor
from xlmr_core.graph.windows import plan_window_sets, windowed_records
from xlmr_core.tasks import answer, choice
from xlmr_core.tasks.answer import Answer
from xlmr_core.tasks.choice import Choice
from xlmr_core.tasks.classify import Classify
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tasks.tag import Tag
from xlmr_core.tokenization.encoding import bounds, ranges
from xlmr_core.tokenization.packing import window_ids

# What a target belongs to.
Per = Literal["window", "token", "record", "nothing"]

_PORTION = 2_000
_META = "meta.json"
_COLUMNS = ("ids", "splits", "records", "language", "targets")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """R records as W sequences.

    Attributes:
        ids: Token ids, special tokens included, sequence after sequence (T,), int32.
        splits: Sequence w is `ids[splits[w]:splits[w + 1]]` (W+1,), int64.
        records: Record r owns sequences records[r] to records[r + 1], its windows or its choices (R+1,), int64.
        language: Language of each record (R,), int16.
        languages: Their names; "" where none was given.
        targets: What should be answered, one row for what `per` names; float for numbers and several labels, else
            int64 with -100 for nothing.
        per: What a row of `targets` belongs to; "nothing" when the sequences are their own targets.
    """

    ids: np.ndarray
    splits: np.ndarray
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

    def target_rows(self, records: np.ndarray, sequences: np.ndarray) -> np.ndarray:
        """The rows of `targets` that belong to chosen records and their sequences, in that order."""
        match self.per:
            case "record":
                return records
            case "window":
                return sequences
            case "token":
                return ranges(self.splits[sequences], self.lengths[sequences])
            case "nothing":
                return np.zeros(0, dtype=np.int64)


def make_training_set(plan: GraphPlan, examples: Iterable[Example]) -> tuple[TrainingSet, dict[int, InputError]]:
    """Reads, cuts and labels examples.

    Args:
        plan: One annotation: a task bound to the head that is to be trained.
        examples: Checked already; their gold values are as the task's `targets` take them.

    Returns:
        The set, and examples that cannot be learnt from, by number, each with its reason; they and empty texts are no
        part of the set.

    Raises:
        InputError: None of the examples can be learnt from.
        TaskError: Gold values that the task does not know.
    """
    (annotation,) = plan.annotations
    preprocess = Preprocessor(plan)
    parts: list[_Part] = []
    refused: dict[int, InputError] = {}
    names: dict[str, int] = {}
    first, source = 0, iter(examples)
    while portion := list(islice(source, _PORTION)):
        part, unusable = _read(plan, annotation, preprocess, portion, names)
        refused |= {first + number: error for number, error in unusable.items()}
        parts.append(part)
        first += len(portion)
    if not any(len(part.windows) for part in parts):
        raise InputError("there is no usable example, training needs some; check the files", code="no_examples")
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _Part.__slots__}
    return (
        TrainingSet(
            ids=whole["ids"],
            splits=bounds(whole["lengths"]),
            records=bounds(whole["windows"]),
            language=whole["language"],
            languages=tuple(names),
            targets=whole["targets"],
            per=_per(annotation),
        ),
        refused,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Columns of some examples: sequence lengths instead of bounds, so that parts can be joined."""

    ids: np.ndarray
    lengths: np.ndarray
    windows: np.ndarray
    language: np.ndarray
    targets: np.ndarray


def _read(
    plan: GraphPlan,
    annotation: Annotation,
    preprocess: Preprocessor,
    examples: Sequence[Example],
    names: dict[str, int],
) -> tuple[_Part, dict[int, InputError]]:
    pairs = None if annotation.second_view is None else [list(example.second) for example in examples]
    encoded = preprocess([example.text for example in examples], pairs)
    (windows,) = plan_window_sets(plan, encoded)
    usable = windows.counts(annotation.name) > 0
    usable[list(windows.refused)] = False
    records, _ = windowed_records(encoded, windows, annotation, usable)
    chosen = windows.rows[annotation.name]
    chosen = chosen[usable[windows.record[chosen]]]
    special, items = plan.views[annotation.view].special, windows.items
    text_first = windows.reading.layout != "question"
    ids, _ = window_ids(items.text, windows.windows, chosen, special, second=items.second, text_first=text_first)
    kept = [example for example, wanted in zip(examples, usable.tolist(), strict=True) if wanted]
    languages = [names.setdefault(example.language, len(names)) for example in kept]
    part = _Part(
        ids=ids,
        lengths=records.length,
        windows=np.bincount(records.record_of_item[records.item], minlength=len(kept)),
        language=np.array(languages, dtype=np.int16),
        targets=_targets(annotation, kept, records),
    )
    return part, dict(windows.refused)


def _per(annotation: Annotation) -> Per:
    match annotation.task:
        case Classify() | Answer():
            return "window"
        case Tag():
            return "token"
        case Choice():
            return "record"
        case _:
            return "nothing"


def _targets(annotation: Annotation, examples: Sequence[Example], records: WindowedRecords) -> np.ndarray:
    """Gold values as the task's loss compares with them; a record's label is that of each of its windows."""
    # What each task's examples hold is `examples.Gold`'s to say.
    gold: list[Any] = [example.gold for example in examples]
    match annotation.task:
        case Classify() as task:
            of_record = task.targets(gold)
            of_window: np.ndarray = of_record[records.record_of_item[records.item]]
            return of_window
        case Tag() as task:
            # Entities, or words with a label each.
            if gold and isinstance(gold[0], tuple):
                return task.targets(gold, records)
            return task.targets([value.labels for value in gold], records, words=[value.spans for value in gold])
        case Answer():
            return answer.targets([value[0] if value else None for value in gold], records)
        case Choice():
            return choice.targets(gold, np.diff(records.item_splits).tolist())
        case _:
            return np.zeros(0, dtype=np.int64)
