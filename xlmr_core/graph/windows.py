"""Which windows each encoder pass computes, and which of them belong to which annotation and record.

Annotations on one encoder may want different windows of long texts. The pass computes the distinct ones; each
annotation reads only its own, so what it says does not depend on what else runs. Short texts have one window for all.

Letters: R records, P annotated records, W windows of a pass.
"""

from dataclasses import dataclass

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.graph.plan import Annotation, GraphPlan
from xlmr_core.graph.preprocess import EncodedRecords
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tokenization import Encodings, Windows, plan_windows
from xlmr_core.tokenization.encoding import bounds, ranges


@dataclass(frozen=True, slots=True)
class WindowSet:
    """The windows of one encoder pass.

    Attributes:
        encoder_sha256: Which encoder.
        view: Which tokenisation.
        windows: Distinct windows, ordered by record (W).
        rows: For each annotation by name, its windows as indices into `windows`, ordered by record.
        used: For each annotation by name, the tokens its windows hold, of each record (R,).
        total: Tokens of each record, special tokens included; 0 for empty ones (R,).
        refused: Records that `on_long` or the length of a pair refuses.
    """

    encoder_sha256: str
    view: int
    windows: Windows
    rows: dict[str, np.ndarray]
    used: dict[str, np.ndarray]
    total: np.ndarray
    refused: dict[int, InputError]

    def counts(self, name: str) -> np.ndarray:
        """Windows of each record for one annotation (R,), int32."""
        return np.bincount(self.windows.record[self.rows[name]], minlength=len(self.total)).astype(np.int32)


def plan_window_sets(plan: GraphPlan, encoded: EncodedRecords) -> list[WindowSet]:
    """One window set for each distinct pair of encoder and view, in order of first use."""
    passes: dict[tuple[str, int], list[Annotation]] = {}
    for annotation in plan.annotations:
        passes.setdefault((annotation.encoder_sha256, annotation.view), []).append(annotation)
    return [
        _window_set(plan, encoded.views[view], encoder, view, annotations)
        for (encoder, view), annotations in passes.items()
    ]


def _window_set(
    plan: GraphPlan, encodings: Encodings, encoder: str, view: int, annotations: list[Annotation]
) -> WindowSet:
    count = len(encodings.splits) - 1
    total = _total_tokens(encodings)
    refused: dict[int, InputError] = {}
    wanted: dict[tuple[int, int], Windows] = {}
    for annotation in annotations:
        key = (annotation.max_length, annotation.stride)
        if key not in wanted:
            wanted[key] = plan_windows(encodings, limit=key[0], stride=key[1], on_long=plan.on_long)
            refused |= wanted[key].refused
    windows, rows_of = _distinct(list(wanted.values()))
    rows = {a.name: rows_of[list(wanted).index((a.max_length, a.stride))] for a in annotations}
    used = {a.name: _used_tokens(wanted[a.max_length, a.stride], count) for a in annotations}
    return WindowSet(encoder, view, windows, rows, used, total, refused)


def _distinct(plans: list[Windows]) -> tuple[Windows, list[np.ndarray]]:
    """Distinct windows of several plans, ordered by record, and where each plan's windows are among them."""
    if len(plans) == 1:
        return plans[0], [np.arange(len(plans[0].record))]
    keys = [np.stack(_key_columns(plan), axis=1) for plan in plans]
    distinct, inverse = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    columns = list(distinct.T)
    pair_start, pair_end = columns[4:] or (None, None)
    windows = Windows(columns[0], columns[1], columns[2], pair_start, pair_end, columns[3])
    return windows, np.split(inverse.reshape(-1), np.cumsum([len(key) for key in keys])[:-1])


def _key_columns(plan: Windows) -> list[np.ndarray]:
    """What makes a window this one and no other; the record comes first, so that sorting keeps records together."""
    columns = [plan.record, plan.start, plan.end, plan.length]
    return columns if plan.pair_start is None or plan.pair_end is None else [*columns, plan.pair_start, plan.pair_end]


def _total_tokens(encodings: Encodings) -> np.ndarray:
    """Tokens of each record with its special tokens; 0 where there is no text (R,), int32."""
    content, frame = encodings.lengths, 2
    if encodings.pair is not None:
        content, frame = content + encodings.pair.lengths, 4
    return np.where(content > 0, content + frame, 0).astype(np.int32)


def _used_tokens(windows: Windows, count: int) -> np.ndarray:
    """Tokens of each record that some window holds, special tokens counted once (R,), int32."""
    reach = np.zeros(count, dtype=np.int32)
    np.maximum.at(reach, windows.record, windows.end)
    frame = 2
    if windows.pair_end is not None:
        second = np.zeros(count, dtype=np.int32)
        np.maximum.at(second, windows.record, windows.pair_end)
        reach, frame = reach + second, 4
    return np.where(reach > 0, reach + frame, 0).astype(np.int32)


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
        The windows, with records renumbered 0 to P - 1, and which rows of the head's raw output are theirs.
    """
    rows = windows.rows[annotation.name]
    rows = rows[annotated[windows.windows.record[rows]]]
    chosen = windows.windows
    number = np.cumsum(annotated) - 1
    encodings = encoded.views[windows.view]
    starts_word = encoded.starts_word[windows.view]
    sizes = np.diff(encodings.splits)
    splits = bounds(sizes[annotated])
    kept = slice(None) if annotated.all() else np.repeat(annotated, sizes)
    records = WindowedRecords(
        record=number[chosen.record[rows]],
        start=chosen.start[rows],
        end=chosen.end[rows],
        length=chosen.length[rows],
        splits=splits,
        ids=encodings.ids[kept],
        offsets=None if encodings.offsets is None else encodings.offsets[kept],
        starts_word=None if starts_word is None else starts_word[kept],
    )
    if not annotation.task.per_token:
        return records, rows
    return records, ranges(bounds(chosen.length)[rows], records.length)
