"""Which windows each encoder pass computes, and which of them belong to which annotation and record.

Annotations on one encoder may want different windows of long texts. The pass computes the distinct ones; each
annotation reads only its own, so what it says does not depend on what else runs. Short texts have one window for all.

Letters: R records, I items, P annotated records, W windows of a pass.
"""

from dataclasses import dataclass, fields, replace
from itertools import compress

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.graph.items import Items, items_of, refused_records
from xlmr_core.graph.plan import Annotation, GraphPlan
from xlmr_core.graph.preprocess import EncodedRecords
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tokenization import SpecialTokens, Windows, plan_windows
from xlmr_core.tokenization.encoding import bounds, ranges
from xlmr_core.tokenization.packing import content_starts
from xlmr_core.tokenization.windows import Slides, hide_each_token


@dataclass(frozen=True, slots=True)
class WindowSet:
    """The windows of one encoder pass.

    Attributes:
        encoder_sha256: Which encoder.
        view: Which tokenisation of the texts.
        second_view: Which one of the records' second texts; None where they are not read.
        reading: How texts are laid out.
        items: What the windows are cut from.
        windows: Distinct windows, ordered by item (W).
        record: Record of each window (W,).
        rows: For each annotation by name, its windows as indices into `windows`, ordered by item.
        used: For each annotation by name, the tokens its windows hold, of each record (R,).
        total: Tokens of each record, special tokens included; 0 for empty ones (R,).
        refused: Records that cannot be read as the annotations need.
        special: Ids of the special tokens.
    """

    encoder_sha256: str
    view: int
    second_view: int | None
    reading: Reading
    items: Items
    windows: Windows
    record: np.ndarray
    rows: dict[str, np.ndarray]
    used: dict[str, np.ndarray]
    total: np.ndarray
    refused: dict[int, InputError]
    special: SpecialTokens

    def counts(self, name: str) -> np.ndarray:
        """Windows of each record for one annotation (R,), int32; of its items, that with most is counted."""
        rows, windows = self.rows[name], self.windows
        item = windows.item[rows]
        if windows.hidden is not None:
            # Copies that hide one token each are one window.
            first = np.diff(item, prepend=-1) != 0
            first |= np.diff(windows.start[rows], prepend=-1) != 0
            item = item[first]
        of_item = np.bincount(item, minlength=len(self.items.record))
        counts = np.zeros(len(self.total), dtype=np.int32)
        np.maximum.at(counts, self.items.record, of_item.astype(np.int32))
        return counts


def plan_window_sets(plan: GraphPlan, encoded: EncodedRecords) -> list[WindowSet]:
    """One window set for each distinct encoder, tokenisation and layout, in order of first use."""
    passes: dict[object, list[Annotation]] = {}
    for annotation in plan.annotations:
        reading = annotation.task.reading
        key = (annotation.encoder_sha256, annotation.view, annotation.second_view, reading.layout, reading.fixed)
        passes.setdefault((*key, reading.hides_each_token), []).append(annotation)
    return [_window_set(plan, encoded, annotations) for annotations in passes.values()]


def _window_set(plan: GraphPlan, encoded: EncodedRecords, annotations: list[Annotation]) -> WindowSet:
    shared = annotations[0]
    reading = shared.task.reading
    items = items_of(encoded, shared)
    refused = refused_records(encoded, items, annotations, plan.views[shared.view].special)
    wanted: dict[tuple[int, int], Windows] = {}
    for annotation in annotations:
        key = (annotation.max_length, annotation.stride)
        if key not in wanted:
            wanted[key] = _cut(items, reading, limit=key[0], stride=key[1], plan=plan)
            # Of several reasons, what the task asks of a record comes first.
            refused = {int(items.record[item]): error for item, error in wanted[key].refused.items()} | refused
    windows, rows_of = _distinct(list(wanted.values()))
    keys = list(wanted)
    return WindowSet(
        encoder_sha256=shared.encoder_sha256,
        view=shared.view,
        second_view=shared.second_view,
        reading=reading,
        items=items,
        windows=windows,
        record=items.record[windows.item],
        rows={a.name: rows_of[keys.index((a.max_length, a.stride))] for a in annotations},
        used={a.name: items.used(wanted[a.max_length, a.stride]) for a in annotations},
        total=items.total(),
        refused=refused,
        special=plan.views[shared.view].special,
    )


def _cut(items: Items, reading: Reading, *, limit: int, stride: int, plan: GraphPlan) -> Windows:
    """The windows of all items."""
    if reading.layout == "apart":
        return _cut_apart(items, limit=limit, stride=stride, plan=plan)
    lengths = items.text.lengths
    second = None if items.second is None else items.second.lengths
    slides: Slides = "longer" if reading.layout == "pair" else "text"
    windows = plan_windows(lengths, second, limit=limit, stride=stride, on_long=plan.on_long, slides=slides)
    return hide_each_token(windows, lengths) if reading.hides_each_token else windows


def _cut_apart(items: Items, *, limit: int, stride: int, plan: GraphPlan) -> Windows:
    """Windows of items that are one text each: the record's own, or one of its second texts."""
    assert items.second is not None
    assert items.is_second is not None
    own = np.where(items.is_second, items.second.lengths, items.text.lengths)
    windows = plan_windows(own, limit=limit, stride=stride, on_long=plan.on_long)
    of_second, zero = items.is_second[windows.item], np.zeros_like(windows.start)
    return replace(
        windows,
        start=np.where(of_second, zero, windows.start),
        end=np.where(of_second, zero, windows.end),
        pair_start=np.where(of_second, windows.start, zero),
        pair_end=np.where(of_second, windows.end, zero),
    )


def _distinct(plans: list[Windows]) -> tuple[Windows, list[np.ndarray]]:
    """Distinct windows of several plans, ordered by item, and where each plan's windows are among them."""
    if len(plans) == 1:
        return plans[0], [np.arange(len(plans[0]))]
    # What makes a window this one and no other; the item comes first, so that sorting keeps items together.
    names = [f.name for f in fields(Windows) if f.name != "refused" and getattr(plans[0], f.name) is not None]
    keys = [np.stack([getattr(plan, name) for name in names], axis=1) for plan in plans]
    distinct, inverse = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    windows = replace(plans[0], **dict(zip(names, distinct.T, strict=True)))
    return windows, np.split(inverse.reshape(-1), np.cumsum([len(key) for key in keys])[:-1])


def windowed_records(
    encoded: EncodedRecords, windows: WindowSet, annotation: Annotation, annotated: np.ndarray
) -> tuple[WindowedRecords, np.ndarray]:
    """What an annotation needs to decode: its windows of the annotated records.

    Args:
        encoded: The records.
        windows: The pass that computed them.
        annotation: Whose windows are wanted.
        annotated: Which records take part (R,), bool; P of them are true.

    Returns:
        The windows, with records renumbered 0 to P - 1 and items likewise, and which rows of the head's raw output are
        theirs.
    """
    rows = windows.rows[annotation.name]
    rows = rows[annotated[windows.record[rows]]]
    chosen, items = windows.windows, windows.items
    kept_items = annotated[items.record]
    number = np.cumsum(kept_items) - 1
    per_record = np.bincount(items.record[kept_items], minlength=len(annotated))[annotated]
    encodings, starts_word = encoded.views[windows.view], encoded.starts_word[windows.view]
    splits, kept = _kept_tokens(encodings.splits, windows, rows, annotated)
    text_at = None
    if chosen.pair_start is not None:
        text_at = content_starts(chosen, text_first=windows.reading.layout != "question")[0][rows]
    records = WindowedRecords(
        item=number[chosen.item[rows]],
        start=chosen.start[rows],
        end=chosen.end[rows],
        length=chosen.length[rows],
        splits=splits,
        ids=encodings.ids[kept],
        offsets=None if encodings.offsets is None else encodings.offsets[kept],
        starts_word=None if starts_word is None else starts_word[kept],
        items=None if windows.reading.layout == "text" else bounds(per_record),
        text_at=text_at,
        hidden=None if chosen.hidden is None else chosen.hidden[rows],
        texts=encoded.texts and tuple(compress(encoded.texts, annotated.tolist())),
        languages=encoded.languages and tuple(compress(encoded.languages, annotated.tolist())),
        special=windows.special,
    )
    if not annotation.task.per_token:
        return records, rows
    return records, ranges(bounds(chosen.length)[rows], records.length)


def _kept_tokens(
    splits: np.ndarray, windows: WindowSet, rows: np.ndarray, annotated: np.ndarray
) -> tuple[np.ndarray, np.ndarray | slice]:
    """Bounds and places of the tokens of annotated records that some window holds."""
    sizes = np.diff(splits)
    reach = np.zeros(len(sizes), dtype=np.int64)
    np.maximum.at(reach, windows.record[rows], windows.windows.end[rows])
    if annotated.all() and np.array_equal(reach, sizes):
        return splits, slice(None)
    return bounds(reach[annotated]), ranges(splits[:-1][annotated], reach[annotated])
