"""Which names a head's outputs have, from which score on they are given, and gold labels by these names.

Letters: P annotated records, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xlmr_core.checkpoint import Checkpoint, HeadCalibration
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.heads import IGNORED

DEFAULT_THRESHOLD = 0.5


def settle_labels(checkpoint: Checkpoint, head: HeadKind, given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The user's names, else the checkpoint's.

    Raises:
        CheckpointError: The checkpoint has no such head.
        TaskError: There are more or fewer names than outputs, or two are the same.
    """
    count = checkpoint.num_outputs(head)
    labels = checkpoint.own_labels(head) if given is None else given
    if len(labels) != count:
        rule = f"the head has {count} outputs"
        raise TaskError(f"{checkpoint.spec}: got {len(labels)} labels, {rule}; pass labels=a|b|... in its order")
    if len(set(labels)) != len(labels):
        raise TaskError(f"{checkpoint.spec}: got the labels {', '.join(labels)}, names must differ; correct labels=")
    return tuple(labels)


def threshold_problems(given: float | None, *, used: bool, where: str) -> list[str]:
    """What is wrong with a threshold from which labels are given.

    Args:
        given: As the user gave it; None for the default.
        used: Whether several labels may be given, so that it means something.
        where: What it is for, in words.
    """
    if given is None:
        return []
    if not used:
        return [f"threshold={given:g}, it is for {where}; leave it out"]
    return [] if 0 <= given <= 1 else [f"threshold={given:g}, it must be from 0 to 1"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which score on each of several labels is given.

    Attributes:
        of_label: C of them.
        of_language: Those of records of a language, C each.
    """

    of_label: tuple[float, ...]
    of_language: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def stored(cls, calibration: HeadCalibration, labels: Sequence[str]) -> "Thresholds":
        """Those of a calibration.

        Args:
            calibration: Of a checkpoint.
            labels: The checkpoint's own names of the labels, in order.
        """
        of_label = {label: calibration.thresholds.get(label, DEFAULT_THRESHOLD) for label in labels}
        of_language = {
            language: tuple(own.get(label, of_label[label]) for label in labels)
            for language, own in calibration.language_thresholds.items()
        }
        return cls(tuple(of_label[label] for label in labels), of_language)

    def of_records(self, languages: Sequence[str | None] | None) -> np.ndarray:
        """The thresholds of each record; those of no language where it is not known or has none.

        Args:
            languages: Of the P records; None when nothing is known of any.

        Returns:
            (P, C), or (1, C) where all are the same; float32, as scores are.
        """
        if languages is None or not self.of_language:
            return np.array([self.of_label], dtype=np.float32)
        rows = np.array([self.of_label, *self.of_language.values()], dtype=np.float32)
        number = {language: row for row, language in enumerate(self.of_language, start=1)}
        chosen: np.ndarray = rows[[0 if language is None else number.get(language, 0) for language in languages]]
        return chosen

    def facts(self) -> object:
        """All of it as plain JSON; one number where there is but one."""
        if len(set(self.of_label)) == 1 and not self.of_language:
            return self.of_label[0]
        by_language = {language: list(own) for language, own in self.of_language.items()}
        return {"labels": list(self.of_label), "languages": by_language}


def label_ids(gold: Sequence[Any], labels: tuple[str, ...]) -> list[list[int]]:
    """Gold labels of each record to numbers of outputs.

    Args:
        gold: A list of label names for each record; None stands for a label that is not known.
        labels: Names of the outputs.

    Returns:
        As many numbers for each record, -100 for None.

    Raises:
        TaskError: Names that are no labels and values that are no lists; all of them.
    """
    numbers: dict[object, int] = {name: number for number, name in enumerate(labels)} | {None: IGNORED}
    wrong: dict[str, list[str]] = {}
    for record, names in enumerate(gold):
        if not isinstance(names, list | tuple):
            wrong.setdefault(f"{names!r:.100} where a list of labels must be", []).append(str(record))
            continue
        for name in names:
            if not isinstance(name, str | None) or name not in numbers:
                wrong.setdefault(f"{name!r:.100}", []).append(str(record))
    if wrong:
        found = "; ".join(f"{what} (record {', '.join(records[:10])})" for what, records in wrong.items())
        raise TaskError(f"gold labels {found}, known are {', '.join(labels)}; correct them or pass labels=")
    return [[numbers[name] for name in names] for names in gold]
