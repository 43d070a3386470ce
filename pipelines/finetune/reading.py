"""Examples to sequences, portion by portion: what all objectives do alike.

Letters: R records, W sequences, T tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipelines.examples import Example
from pipelines.finetune.training_set import Per, Portion, TrainingSet, join
from xlmr_core.errors import InputError
from xlmr_core.graph import GraphPlan, Preprocessor
from xlmr_core.graph.windows import plan_window_sets, windowed_records
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tokenization.packing import window_ids

_PORTION = 2_000

# Reads some examples: their columns, and those that cannot be learnt from, by number. Languages get numbers meanwhile.
Read = Callable[[Sequence[Example], dict[str, int]], tuple[Portion, dict[int, InputError]]]


def read_portions(examples: Iterable[Example], read: Read, per: Per) -> tuple[TrainingSet, dict[int, InputError]]:
    """Reads examples into one set.

    Args:
        examples: Checked already.
        read: Of a portion.
        per: What a target belongs to.

    Returns:
        The set, and examples that cannot be learnt from, by number, each with its reason; they and empty texts are no
        part of the set.

    Raises:
        InputError: None of the examples can be learnt from.
    """
    portions: list[Portion] = []
    refused: dict[int, InputError] = {}
    languages: dict[str, int] = {}
    first, source = 0, iter(examples)
    while some := list(islice(source, _PORTION)):
        portion, unusable = read(some, languages)
        refused |= {first + number: error for number, error in unusable.items()}
        portions.append(portion)
        first += len(some)
    if not any(len(portion.sequences) for portion in portions):
        raise InputError("there is no usable example, training needs some; check the files", code="no_examples")
    return join(portions, tuple(languages), per), refused


@dataclass(frozen=True, slots=True)
class Laid:
    """Examples as a task's plan reads, lays out and cuts them.

    Attributes:
        ids: Of all windows (T,), int32.
        records: How windows belong to the usable examples.
        usable: Which examples have a window (R,), bool.
        refused: Those that cannot be read, by number.
    """

    ids: np.ndarray
    records: WindowedRecords
    usable: np.ndarray
    refused: dict[int, InputError]


def lay_out(
    plan: GraphPlan, preprocess: Preprocessor, examples: Sequence[Example], unusable: Sequence[int] = ()
) -> Laid:
    """Reads examples by a plan of one annotation, as `annotate` does.

    Args:
        plan: Of the task.
        preprocess: Of the plan.
        examples: Some.
        unusable: Numbers of those that are left out whatever the plan says.
    """
    (annotation,) = plan.annotations
    pairs = None if annotation.second_view is None else [list(example.second) for example in examples]
    encoded = preprocess([example.text for example in examples], pairs)
    (windows,) = plan_window_sets(plan, encoded)
    usable = windows.counts(annotation.name) > 0
    usable[[*windows.refused, *unusable]] = False
    records, _ = windowed_records(encoded, windows, annotation, usable)
    chosen = windows.rows[annotation.name]
    chosen = chosen[usable[windows.record[chosen]]]
    special, items = plan.views[annotation.view].special, windows.items
    text_first = windows.reading.layout != "question"
    ids, _ = window_ids(items.text, windows.windows, chosen, special, second=items.second, text_first=text_first)
    return Laid(ids, records, usable, dict(windows.refused))


def number_languages(examples: Sequence[Example], languages: dict[str, int]) -> np.ndarray:
    """Numbers of the examples' languages (R,), int32; new ones are added."""
    return np.array([languages.setdefault(example.language, len(languages)) for example in examples], dtype=np.int32)
