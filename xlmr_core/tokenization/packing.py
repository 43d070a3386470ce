"""Chosen windows as flat model input.

Letters: I items, T packed tokens, B sequences (chosen windows).
"""

from dataclasses import dataclass

import numpy as np

from xlmr_core.tokenization.encoding import Encodings, SpecialTokens, bounds, ranges
from xlmr_core.tokenization.windows import FRAME_PAIR, Windows


@dataclass(frozen=True, slots=True)
class Side:
    """The texts of one side of I items.

    Attributes:
        encodings: Their tokens; an item may share its text with others.
        of_item: Which text each item has (I,).
    """

    encodings: Encodings
    of_item: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each item (I,)."""
        lengths: np.ndarray = self.encodings.lengths[self.of_item]
        return lengths


def window_ids(
    text: Side,
    windows: Windows,
    order: np.ndarray,
    special: SpecialTokens,
    *,
    second: Side | None = None,
    text_first: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Lays windows end to end, framed as `<s> A </s>` or `<s> A </s></s> B </s>`.

    Args:
        text: The side that `start` and `end` of the windows count in.
        windows: The plan.
        order: Numbers of the chosen windows, in packed order (B,).
        special: Ids of the frame, and of the mask for hidden tokens.
        second: The other side, for windows that have one.
        text_first: Whether the text is A.

    Returns:
        Token ids (T,), int32, and bounds (B+1,), int64.
    """
    cu_seqlens = bounds(windows.length[order])
    ids = np.full(int(cu_seqlens[-1]), special.eos, dtype=np.int32)
    ids[cu_seqlens[:-1]] = special.bos
    text_at, second_at = content_starts(windows, text_first=text_first)
    _lay(ids, cu_seqlens[:-1] + text_at[order], text, windows.item[order], windows.start[order], windows.end[order])
    if second is not None and windows.pair_start is not None and windows.pair_end is not None:
        span = (windows.pair_start[order], windows.pair_end[order])
        _lay(ids, cu_seqlens[:-1] + second_at[order], second, windows.item[order], *span)
    if windows.hidden is not None:
        assert special.mask is not None
        ids[cu_seqlens[:-1] + (text_at + windows.hidden - windows.start)[order]] = special.mask
    return ids, cu_seqlens


def content_starts(windows: Windows, *, text_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where in each window the text and the second text begin (W,), (W,)."""
    one = np.ones(len(windows), dtype=np.int64)
    if windows.pair_start is None or windows.pair_end is None:
        return one, one
    sizes = windows.end - windows.start, windows.pair_end - windows.pair_start
    # A window of items whose texts stand apart has one side only, and no `</s></s>` between.
    between = np.where(windows.length - sizes[0] - sizes[1] == FRAME_PAIR, 2, 0)
    behind = 1 + between + (sizes[0] if text_first else sizes[1])
    return (one, behind) if text_first else (behind, one)


def _lay(
    ids: np.ndarray, places: np.ndarray, side: Side, items: np.ndarray, start: np.ndarray, end: np.ndarray
) -> None:
    """Copies tokens start to end of the items' texts to the given places."""
    sizes = end - start
    first = side.encodings.splits[side.of_item[items]] + start
    ids[ranges(places, sizes)] = side.encodings.ids[ranges(first, sizes)]
