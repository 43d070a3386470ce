"""Long texts as windows: which tokens go through the model together.

What is cut is an item: a text alone, or a text with a second one. A window holds at most `limit` tokens, special ones
included; neighbours overlap by `stride` content tokens. Positions are those of Hugging Face's
`return_overflowing_tokens`.

Letters: I items, W windows.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from xlmr_core.errors import InputError, TaskError
from xlmr_core.tokenization.encoding import ranges

OnLong = Literal["window", "truncate", "error"]
# Which text of a pair is cut when both together are too long.
Slides = Literal["longer", "text"]

# `<s> A </s>` and `<s> A </s></s> B </s>`.
FRAME_SINGLE, FRAME_PAIR = 2, 4


@dataclass(frozen=True, slots=True)
class Windows:
    """W windows of the items that have any, in the order of the items.

    Attributes:
        item: Whose tokens (W,), int32.
        start: First token inside the item's text (W,), int32.
        end: Token behind the last one (W,), int32.
        pair_start: As `start`, in the second text (W,); None for single texts.
        pair_end: As `end`, in the second text (W,); None for single texts.
        length: Tokens, special ones included (W,), int32.
        hidden: Token of the text, counted in the item, that the mask stands for (W,), int32; None where none is.
        refused: Items that get no window although they hold tokens, each with its reason.
    """

    item: np.ndarray
    start: np.ndarray
    end: np.ndarray
    pair_start: np.ndarray | None
    pair_end: np.ndarray | None
    length: np.ndarray
    hidden: np.ndarray | None = None
    refused: dict[int, InputError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.item)


def plan_windows(
    lengths: np.ndarray,
    second: np.ndarray | None = None,
    *,
    limit: int,
    stride: int,
    on_long: OnLong,
    slides: Slides = "longer",
) -> Windows:
    """Decides the windows of every item; items without tokens get none.

    Pairs, when the longer text slides: "truncate" takes tokens from the longer text first, as transformers'
        `longest_first`. "window" slides over the longer text (the first when equal) and repeats the shorter one
        whole; overlaps are at most half of what is left for the longer one, and an item where that is less than a
        quarter of the limit is refused as "pair_too_long".
    Pairs, when only the text slides: the second text is whole in every window, "truncate" keeps the first one. An item
        whose second text leaves less than a quarter of the limit, and less than its text needs, is refused
        whatever `on_long` says; one without a text has no windows.

    Args:
        lengths: Tokens of each item's text (I,).
        second: Tokens of each item's second text (I,); None for single texts.
        limit: Most tokens of a window, special ones included.
        stride: Content tokens that neighbouring windows share.
        on_long: For items over the limit: several windows, the first one alone, or none ("too_long").
        slides: Which text of a pair is cut.

    Raises:
        TaskError: The limit leaves no room for content, or the stride is not smaller than that room.
    """
    frame = FRAME_SINGLE if second is None else FRAME_PAIR
    room = limit - frame
    if room < 1 or not 0 <= stride < room:
        raise TaskError(
            f"limit {limit} with stride {stride}, a window needs {frame} special tokens and must move on "
            "by at least one token; raise the limit or lower the stride"
        )
    if second is None:
        return _plan_single(lengths, limit=limit, stride=stride, on_long=on_long)
    if slides == "text":
        return _plan_beside(lengths, second, limit=limit, stride=stride, on_long=on_long)
    return _plan_pairs(lengths, second, limit=limit, stride=stride, on_long=on_long)


def _plan_single(lengths: np.ndarray, *, limit: int, stride: int, on_long: OnLong) -> Windows:
    refused: dict[int, InputError] = {}
    usable = lengths > 0
    room = np.full(len(lengths), limit - FRAME_SINGLE)
    if on_long == "truncate":
        lengths = np.minimum(lengths, room)
    elif on_long == "error":
        refused = _refuse(lengths > room, lengths + FRAME_SINGLE, limit=limit)
        usable &= lengths <= room
    item, start, end = _slide(lengths, room, np.full(len(lengths), stride), usable)
    length = (end - start + FRAME_SINGLE).astype(np.int32)
    return Windows(item, start, end, None, None, length, refused=refused)


def _plan_pairs(first: np.ndarray, second: np.ndarray, *, limit: int, stride: int, on_long: OnLong) -> Windows:
    room, total = limit - FRAME_PAIR, first + second
    usable, refused = total > 0, {}
    if on_long == "truncate":
        first, second = _longest_first(first, second, room)
    elif on_long == "error":
        refused = _refuse(total > room, total + FRAME_PAIR, limit=limit)
    else:
        cramped = (total > room) & ((room - np.minimum(first, second)) * 4 < limit)
        refused = _refuse_pairs(cramped, np.minimum(first, second), limit=limit, which="shorter text of a pair")
    usable[list(refused)] = False
    # After this the shorter text is whole in every window and the longer one gets what it leaves.
    slides_first = first >= second
    longer, shorter = np.maximum(first, second), np.minimum(first, second)
    left = room - shorter
    item, start, end = _slide(longer, left, np.minimum(stride, left // 2), usable)
    on_first, whole = slides_first[item], shorter[item].astype(np.int32)
    zero = np.zeros_like(start)
    return Windows(
        item=item,
        start=np.where(on_first, start, zero),
        end=np.where(on_first, end, whole),
        pair_start=np.where(on_first, zero, start),
        pair_end=np.where(on_first, whole, end),
        length=end - start + whole + np.int32(FRAME_PAIR),
        refused=refused,
    )


def _plan_beside(first: np.ndarray, second: np.ndarray, *, limit: int, stride: int, on_long: OnLong) -> Windows:
    left, usable = limit - FRAME_PAIR - second, first > 0
    cramped = usable & (first > left) & (left * 4 < limit)
    refused = _refuse_pairs(cramped, second, limit=limit, which="second text")
    if on_long == "truncate":
        first = np.minimum(first, np.maximum(left, 0))
    elif on_long == "error":
        refused |= _refuse(usable & (first > left) & ~cramped, first + second + FRAME_PAIR, limit=limit)
    usable[list(refused)] = False
    # Windows move on by a sixteenth of their room at least, so that their number stays bounded by the text's length.
    item, start, end = _slide(first, left, np.minimum(stride, left - left // 16 - 1), usable)
    whole = second[item].astype(np.int32)
    return Windows(
        item, start, end, np.zeros_like(start), whole, end - start + whole + np.int32(FRAME_PAIR), refused=refused
    )


def hide_each_token(windows: Windows, lengths: np.ndarray) -> Windows:
    """One copy of a window for each token of the text, with that token behind the mask.

    A token that stands in several windows is hidden in the one where it is farthest from an edge (`widest_window`).

    Args:
        windows: Windows of single texts.
        lengths: Tokens of each item (I,).
    """
    window, token = widest_window(windows.item, windows.start, windows.end, lengths)
    order = np.lexsort((token, window))
    window, token = window[order], token[order]
    return Windows(
        windows.item[window],
        windows.start[window],
        windows.end[window],
        None,
        None,
        windows.length[window],
        hidden=token.astype(np.int32),
        refused=windows.refused,
    )


def widest_window(
    item: np.ndarray, start: np.ndarray, end: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For every token of every item that has windows, the window in which it is farthest from an edge.

    There the model saw most of its neighbourhood; ties go to the earlier window. The bounds of the text itself are no
    edges.

    Args:
        item: Item of each window, non-decreasing (W,).
        start: First token of each window (W,).
        end: One past its last token (W,).
        lengths: Tokens of each item (I,).

    Returns:
        Window and token inside the item, ordered by item and token (N,).
    """
    counts = end - start
    window = np.repeat(np.arange(len(counts)), counts)
    inside = ranges(np.zeros(len(counts), np.int64), counts)
    token = inside + start[window]
    far = np.iinfo(np.int64).max
    left = np.where(start[window] == 0, far, inside)
    right = np.where(end[window] == lengths[item][window], far, end[window] - 1 - token)
    # Last key is the primary one: by item, by token, then the widest margin, then the earliest window.
    order = np.lexsort((window, -np.minimum(left, right), token, item[window]))
    new = np.diff(token[order], prepend=-1) != 0
    new |= np.diff(item[window][order], prepend=-1) != 0
    chosen = order[new]
    return window[chosen], token[chosen]


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
    """Windows over `lengths` tokens each: (item, start, end), all (W,), int32."""
    # A refused item may leave no room at all; it gets no window, so any step will do.
    step = np.maximum(room - stride, 1)
    counts = np.where(usable, 1 + np.maximum(-(-(lengths - room) // step), 0), 0)
    item = np.repeat(np.arange(len(lengths)), counts)
    start = ranges(np.zeros(len(lengths), np.int64), counts) * step[item]
    end = np.minimum(start + room[item], lengths[item])
    return item.astype(np.int32), start.astype(np.int32), end.astype(np.int32)


def _refuse(where: np.ndarray, tokens: np.ndarray, *, limit: int) -> dict[int, InputError]:
    return {
        int(row): InputError(
            f"record of {tokens[row]} tokens, the limit is {limit}; use windows or truncate", code="too_long"
        )
        for row in np.flatnonzero(where)
    }


def _refuse_pairs(where: np.ndarray, tokens: np.ndarray, *, limit: int, which: str) -> dict[int, InputError]:
    return {
        int(row): InputError(
            f"{which} has {tokens[row]} tokens, it must leave the other one a quarter of the limit of {limit}; "
            "shorten it",
            code="pair_too_long",
        )
        for row in np.flatnonzero(where)
    }
