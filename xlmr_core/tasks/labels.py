"""Which names a head's outputs have, from which score on they are given, and gold labels by these names."""

from collections.abc import Sequence
from typing import Any

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.heads import IGNORED


def settle_labels(checkpoint: Checkpoint, head: HeadKind, given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The user's names, else the checkpoint's, else `LABEL_0`, `LABEL_1`, ... as transformers calls them.

    Raises:
        CheckpointError: The checkpoint has no such head.
        TaskError: There are more or fewer names than outputs, or two are the same.
    """
    count = checkpoint.num_outputs(head)
    labels = given
    if labels is None:
        labels = checkpoint.config.id2label or tuple(f"LABEL_{index}" for index in range(count))
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
