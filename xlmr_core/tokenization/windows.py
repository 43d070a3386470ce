"""Long records as windows: which tokens go through the model together.

A window holds at most `limit` tokens, special ones included; neighbours overlap by `stride` content tokens.
Positions are those of Hugging Face's `return_overflowing_tokens`.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from xlmr_core.errors import InputError, TaskError
from xlmr_core.tokenization.encoding import Encodings, ranges

OnLong = Literal["window", "truncate", "error"]

# `<s> A </s>` and `<s> A </s></s> B </s>`.
_FRAME_SINGLE, _FRAME_PAIR = 2, 4


@dataclass(frozen=True, slots=True)
class Windows:
    """W windows of the records that have any, in the order of the records.

    Attributes:
        record: Whose tokens (W,), int32.
        start: First token inside the record's (first) text (W,), int32.
        end: Token behind the last one (W,), int32.
        pair_start: As `start`, in the second text (W,); None for single texts.
        pair_end: As `end`, in the second text (W,); None for single texts.
        length: Tokens, special ones included (W,), int32.
        refused: Records that get no window although they hold tokens, each with its reason.
    """

    record: np.ndarray
    start: np.ndarray
    end: np.ndarray
    pair_start: np.ndarray | None
    pair_end: np.ndarray | None
    length: np.ndarray
    refused: dict[int, InputError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.record)


def plan_windows(encodings: Encodings, *, limit: int, stride: int, on_long: OnLong) -> Windows:
    """Decides the windows of every record; records without tokens get none.

    Pairs: "truncate" takes tokens from the longer text first, as transformers' `longest_first`. "window"
        slides over the longer text (the first when equal) and repeats the shorter one whole; overlaps are at
        most half of what is left for the longer one, and a record where that is less than a quarter of the
        limit is refused as "pair_too_long".

    Args:
        encodings: Tokenised records.
        limit: Most tokens of a window, special ones included.
        stride: Content tokens that neighbouring windows share.
        on_long: For records over the limit: several windows, the first one alone, or none ("too_long").

    Raises:
        TaskError: The limit leaves no room for content, or the stride is not smaller than that room.
    """
    frame = _FRAME_SINGLE if encodings.pair is None else _FRAME_PAIR
    room = limit - frame
    if room < 1 or not 0 <= stride < room:
        raise TaskError(
            f"limit {limit} with stride {stride}, a window needs {frame} special tokens and must move on "
            "by at least one token; raise the limit or lower the stride"
        )
    if encodings.pair is None:
        return _plan_single(encodings.lengths, limit=limit, stride=stride, on_long=on_long)
    return _plan_pairs(encodings.lengths, encodings.pair.lengths, limit=limit, stride=stride, on_long=on_long)


def _plan_single(lengths: np.ndarray, *, limit: int, stride: int, on_long: OnLong) -> Windows:
    refused: dict[int, InputError] = {}
    usable = lengths > 0
    room = np.full(len(lengths), limit - _FRAME_SINGLE)
    if on_long == "truncate":
        lengths = np.minimum(lengths, room)
    elif on_long == "error":
        refused = _refuse(lengths > room, lengths + _FRAME_SINGLE, limit=limit)
        usable &= lengths <= room
    record, start, end = _slide(lengths, room, np.full(len(lengths), stride), usable)
    length = (end - start + _FRAME_SINGLE).astype(np.int32)
    return Windows(record, start, end, None, None, length, refused)


def _plan_pairs(first: np.ndarray, second: np.ndarray, *, limit: int, stride: int, on_long: OnLong) -> Windows:
    room, total = limit - _FRAME_PAIR, first + second
    usable, refused = total > 0, {}
    if on_long == "truncate":
        first, second = _longest_first(first, second, room)
    elif on_long == "error":
        refused = _refuse(total > room, total + _FRAME_PAIR, limit=limit)
    else:
        cramped = (total > room) & ((room - np.minimum(first, second)) * 4 < limit)
        refused = _refuse_pairs(cramped, np.minimum(first, second), limit=limit)
    usable[list(refused)] = False
    # After this the shorter text is whole in every window and the longer one gets what it leaves.
    slides_first = first >= second
    longer, shorter = np.maximum(first, second), np.minimum(first, second)
    left = room - shorter
    record, start, end = _slide(longer, left, np.minimum(stride, left // 2), usable)
    on_first, whole = slides_first[record], shorter[record].astype(np.int32)
    zero = np.zeros_like(start)
    return Windows(
        record=record,
        start=np.where(on_first, start, zero),
        end=np.where(on_first, end, whole),
        pair_start=np.where(on_first, zero, start),
        pair_end=np.where(on_first, whole, end),
        length=end - start + whole + np.int32(_FRAME_PAIR),
        refused=refused,
    )


def _longest_first(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each text stays. Source: `truncate_encodings` of the tokenizers library."""
    shorter = np.minimum(first, second)
    # The shorter text stays whole if it fits in its half; else both get half, and an odd token goes to the
    # longer.
    both_cut = 2 * shorter > room
    short_kept = np.where(both_cut, room // 2, shorter)
    long_kept = np.minimum(room - short_kept, np.maximum(first, second))
    swapped = first > second
    keep_first, keep_second = (
        np.where(swapped, long_kept, short_kept),
        np.where(swapped, short_kept, long_kept),
    )
    fits = first + second <= room
    return np.where(fits, first, keep_first), np.where(fits, second, keep_second)


def _slide(
    lengths: np.ndarray, room: np.ndarray, stride: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows over `lengths` tokens each: (record, start, end), all (W,), int32."""
    # A refused record may leave no room at all; it gets no window, so any step will do.
    step = np.maximum(room - stride, 1)
    counts = np.where(usable, 1 + np.maximum(-(-(lengths - room) // step), 0), 0)
    record = np.repeat(np.arange(len(lengths)), counts)
    start = ranges(np.zeros(len(lengths), np.int64), counts) * step[record]
    end = np.minimum(start + room[record], lengths[record])
    return record.astype(np.int32), start.astype(np.int32), end.astype(np.int32)


def _refuse(where: np.ndarray, tokens: np.ndarray, *, limit: int) -> dict[int, InputError]:
    return {
        int(row): InputError(
            f"record of {tokens[row]} tokens, the limit is {limit}; use windows or truncate", code="too_long"
        )
        for row in np.flatnonzero(where)
    }


def _refuse_pairs(where: np.ndarray, shorter: np.ndarray, *, limit: int) -> dict[int, InputError]:
    return {
        int(row): InputError(
            f"shorter text of a pair has {shorter[row]} tokens, it must leave the longer one a quarter of "
            f"the limit of {limit}; shorten it or truncate",
            code="pair_too_long",
        )
        for row in np.flatnonzero(where)
    }
