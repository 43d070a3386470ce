"""Chosen windows as flat model input.

Letters: T packed tokens, B sequences (chosen windows).
"""

import numpy as np

from xlmr_core.tokenization.encoding import Encodings, SpecialTokens, bounds, ranges
from xlmr_core.tokenization.windows import Windows


def window_ids(
    encodings: Encodings, windows: Windows, order: np.ndarray, special: SpecialTokens
) -> tuple[np.ndarray, np.ndarray]:
    """Lays windows end to end, framed as `<s> A </s>` or `<s> A </s></s> B </s>`.

    Args:
        encodings: What the windows were planned for.
        windows: The plan.
        order: Numbers of the chosen windows, in packed order (B,).
        special: Ids of the frame.

    Returns:
        Token ids (T,), int32, and bounds (B+1,), int64.
    """
    cu_seqlens = bounds(windows.length[order])
    ids = np.full(int(cu_seqlens[-1]), special.eos, dtype=np.int32)
    ids[cu_seqlens[:-1]] = special.bos
    record = windows.record[order]
    for (place, token, lengths), side in zip(
        _content(windows, order, cu_seqlens), (encodings, encodings.pair), strict=False
    ):
        assert side is not None
        ids[place] = side.ids[token + np.repeat(side.splits[record], lengths)]
    return ids, cu_seqlens


def _content(
    windows: Windows, order: np.ndarray, cu_seqlens: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each side: places in the packed batch, tokens inside the record's text, and tokens a window."""
    start, lengths = windows.start[order], windows.end[order] - windows.start[order]
    first = cu_seqlens[:-1] + 1
    sides = [(ranges(first, lengths), ranges(start, lengths), lengths)]
    if windows.pair_start is not None and windows.pair_end is not None:
        pair_start = windows.pair_start[order]
        pair_lengths = windows.pair_end[order] - pair_start
        sides.append((ranges(first + lengths + 2, pair_lengths), ranges(pair_start, pair_lengths), pair_lengths))
    return sides
