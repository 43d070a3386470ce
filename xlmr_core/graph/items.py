"""Items: what windows are cut from, and what one answer of a model is about.

A record's text is one item, or it is one item with each of its second texts, or with each of the fixed ones.

Letters: R records, I items, M second texts, W windows.
"""

from dataclasses import dataclass

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.graph.plan import Annotation
from xlmr_core.graph.preprocess import EncodedRecords
from xlmr_core.tasks.reading import Reading
from xlmr_core.tokenization import SpecialTokens, Windows
from xlmr_core.tokenization.packing import Side


@dataclass(frozen=True, slots=True)
class Items:
    """I items, ordered by record.

    Attributes:
        count: Records, R.
        record: Record of each item (I,).
        text: Texts of the items.
        second: Second texts of the items; None when there are none.
        is_second: For texts that stand apart, whether the item is its second text, else its text (I,), bool.
        own: Whether the second texts are the records' own.
    """

    count: int
    record: np.ndarray
    text: Side
    second: Side | None = None
    is_second: np.ndarray | None = None
    own: bool = False

    def total(self) -> np.ndarray:
        """Tokens of each record, with its own second texts and special tokens; 0 for empty ones (R,), int32."""
        second = None if self.second is None else self._apart(self.second.lengths, second=True)
        return self._count(self._apart(self.text.lengths, second=False), second)

    def used(self, windows: Windows) -> np.ndarray:
        """Tokens of each record that some window holds, special tokens counted once (R,), int32."""
        reach = np.zeros(len(self.record), dtype=np.int64)
        np.maximum.at(reach, windows.item, windows.end)
        second = None
        if windows.pair_end is not None:
            second = np.zeros(len(self.record), dtype=np.int64)
            np.maximum.at(second, windows.item, windows.pair_end)
        return self._count(reach, second)

    def _apart(self, lengths: np.ndarray, *, second: bool) -> np.ndarray:
        """The lengths, without those of the side that an item standing apart does not have."""
        return lengths if self.is_second is None else np.where(self.is_second == second, lengths, 0)

    def _count(self, text: np.ndarray, second: np.ndarray | None) -> np.ndarray:
        # A text is counted once, however many items it is part of.
        content = np.zeros(self.count, dtype=np.int64)
        np.maximum.at(content, self.record, text)
        frame = 2
        if self.own and second is not None:
            frame = 4
            content += np.bincount(self.record, weights=second, minlength=self.count).astype(np.int64)
        return np.where(content > 0, content + frame, 0).astype(np.int32)


def items_of(encoded: EncodedRecords, annotation: Annotation) -> Items:
    """The items of all records, as an annotation's reading asks for them."""
    text, count = encoded.views[annotation.view], len(encoded)
    records = np.arange(count)
    if annotation.fixed is not None:
        fixed = len(annotation.fixed)
        record = np.repeat(records, fixed)
        return Items(count, record, Side(text, record), Side(annotation.fixed, np.tile(np.arange(fixed), count)))
    if annotation.second_view is None:
        return Items(count, records, Side(text, records))
    second, splits = encoded.views[annotation.second_view], encoded.second_splits
    assert splits is not None
    sizes = np.diff(splits)
    if annotation.task.reading.layout != "apart":
        record = np.repeat(records, sizes)
        return Items(count, record, Side(text, record), Side(second, np.arange(len(second))), own=True)
    # The text comes first. A record without text has nothing to compare, so that its second texts do not count.
    sizes = np.where(text.lengths > 0, sizes, 0)
    record = np.repeat(records, sizes + 1)
    first = np.cumsum(sizes + 1) - (sizes + 1)
    is_second = np.ones(len(record), dtype=bool)
    is_second[first] = False
    number = np.arange(len(record)) - first[record] - 1
    of_item = np.where(is_second, splits[record] + number, 0)
    if not len(second):
        of_item[:] = 0
        is_second[:] = False
    # Where no record has a second text, no item looks at that side.
    beside = Side(second if len(second) else text, of_item)
    return Items(count, record, Side(text, record), beside, is_second, own=True)


def refused_records(
    encoded: EncodedRecords, items: Items, annotations: list[Annotation], special: SpecialTokens
) -> dict[int, InputError]:
    """Records with a text that cannot be read as the annotations need it, each with its reason."""
    readings = [annotation.task.reading for annotation in annotations]
    view = encoded.views[annotations[0].view]
    has_text = view.lengths > 0
    refused: dict[int, InputError] = {}
    if any(reading.needs_mask for reading in readings):
        masks = np.add.reduceat(np.append(view.ids == special.mask, False), view.splits[:-1]) * has_text
        error = InputError("the text has no mask token, this task predicts what it stands for", code="no_mask")
        refused |= dict.fromkeys(np.flatnonzero(has_text & (masks == 0)).tolist(), error)
    if not items.own or encoded.second_splits is None:
        return refused
    without = has_text & (np.diff(encoded.second_splits) == 0)
    error = InputError("the record has no second text, this task needs at least one", code="no_pair")
    refused |= dict.fromkeys(np.flatnonzero(without).tolist(), error)
    # A pair is read without a text too; elsewhere such a record is empty.
    read = has_text | (readings[0].layout == "pair")
    refused |= _refused_counts(np.diff(encoded.second_splits) * read, readings)
    if readings[0].layout == "pair" and items.second is not None:
        # A pair of blanks has no window; among several pairs of a record it would be missing from the answers.
        held = items.text.lengths + items.second.lengths > 0
        some = np.bincount(items.record, weights=held, minlength=items.count) > 0
        error = InputError("the text and a second text are both empty, one of them must not be", code="empty_pair")
        refused |= dict.fromkeys(items.record[~held & some[items.record]].tolist(), error)
    if readings[0].layout != "pair" and items.second is not None:
        counts = np.ones(len(items.record), bool) if items.is_second is None else items.is_second
        blank = counts & (items.second.lengths == 0) & has_text[items.record] if len(items.second.encodings) else []
        error = InputError("a second text of the record is empty, this task needs all of them", code="empty_pair")
        refused |= dict.fromkeys(items.record[np.flatnonzero(blank)].tolist(), error)
        refused |= _refused_questions(items, has_text, readings)
    return refused


def _refused_counts(counts: np.ndarray, readings: list[Reading]) -> dict[int, InputError]:
    """Records with fewer or more second texts than the tasks read; those with none have an error of their own."""
    fewest = max(reading.fewest_second for reading in readings)
    most = min((reading.most_second for reading in readings if reading.most_second is not None), default=None)
    error = InputError(f"the record has too few second texts, this task needs at least {fewest}", code="too_few_pairs")
    refused = dict.fromkeys(np.flatnonzero((counts > 0) & (counts < fewest)).tolist(), error)
    if most is not None:
        error = InputError(f"the record has several second texts, this task reads {most}", code="too_many_pairs")
        refused |= dict.fromkeys(np.flatnonzero(counts > most).tolist(), error)
    return refused


def _refused_questions(items: Items, has_text: np.ndarray, readings: list[Reading]) -> dict[int, InputError]:
    """Records with a second text that is longer than the tasks read."""
    longest = min((reading.longest_second for reading in readings if reading.longest_second is not None), default=None)
    if longest is None or items.second is None:
        return {}
    lengths, refused = items.second.lengths, {}
    rule = f"max_question_length is {longest}; shorten it or raise the limit"
    for item in np.flatnonzero((lengths > longest) & has_text[items.record]).tolist():
        error = InputError(f"a question of the record has {lengths[item]} tokens, {rule}", code="question_too_long")
        refused[int(items.record[item])] = error
    return refused
