"""From windows back to records: merging what a long text's windows say, and stitching its tokens together.

Letters: W windows, P annotated records, T tokens of all windows (special tokens included), N tokens of all records
(special tokens excluded), C outputs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xlmr_core.tokenization.encoding import bounds, ranges

Merge = Literal["mean", "max", "tokens"]


@dataclass(frozen=True, slots=True)
class WindowedRecords:
    """How windows belong to records, for P records that each have at least one window.

    Attributes:
        record: Record of each window (W,), non-decreasing, 0 to P - 1.
        start: First token of each window, counted in its record (W,).
        end: One past its last token (W,).
        length: Tokens of each window with special tokens (W,).
        splits: Record p owns tokens splits[p] to splits[p + 1] of the arrays below (P+1,).
        ids: Token ids (N,).
        offsets: Code points of each token in the original text (N, 2); None where no task asked.
        starts_word: Whether a token starts a word (N,); None where no task asked.
    """

    record: np.ndarray
    start: np.ndarray
    end: np.ndarray
    length: np.ndarray
    splits: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray | None = None
    starts_word: np.ndarray | None = None

    def merge_windows(self, raw_WC: np.ndarray, how: Merge) -> np.ndarray:
        """Reduces one row a window to one row a record.

        Args:
            raw_WC: Outputs of the windows (W, C).
            how: "mean" and "max" treat windows alike; "tokens" is the mean weighted by content tokens.

        Returns:
            (P, C), float32.
        """
        first_P = np.flatnonzero(np.diff(self.record, prepend=-1))
        if len(first_P) == len(self.record):
            return np.asarray(raw_WC, dtype=np.float32)
        if how == "max":
            merged: np.ndarray = np.maximum.reduceat(raw_WC, first_P, axis=0)
            return merged.astype(np.float32)
        weight_W1 = (self.end - self.start if how == "tokens" else np.ones(len(self.record))).astype(np.float64)[
            :, None
        ]
        total_PC = np.add.reduceat(raw_WC * weight_W1, first_P, axis=0)
        mean_PC: np.ndarray = total_PC / np.add.reduceat(weight_W1, first_P, axis=0)
        return mean_PC.astype(np.float32)

    def stitch_tokens(self, raw_TC: np.ndarray) -> np.ndarray:
        """Picks one output for each token of each record.

        A token that stands in several windows is read in the one where it is farthest from an edge, because there
        the model saw most of its neighbourhood; ties go to the earlier window. The bounds of the text itself are
        no edges.

        Args:
            raw_TC: Outputs of all tokens of all windows, special tokens included (T, C).

        Returns:
            (N, C).
        """
        if len(self.record) == len(self.splits) - 1:
            only: np.ndarray = raw_TC[self._content_rows()]
            return only
        counts_W = self.end - self.start
        window_M = np.repeat(np.arange(len(counts_W)), counts_W)
        inside_M = ranges(np.zeros(len(counts_W), np.int64), counts_W)
        token_M = inside_M + self.start[window_M]
        far = np.iinfo(np.int64).max
        total_M = np.diff(self.splits)[self.record][window_M]
        left_M = np.where(self.start[window_M] == 0, far, inside_M)
        right_M = np.where(self.end[window_M] == total_M, far, self.end[window_M] - 1 - token_M)
        global_M = token_M + self.splits[self.record][window_M]
        # Last key is the primary one: by token, then the widest margin, then the earliest window.
        order = np.lexsort((window_M, -np.minimum(left_M, right_M), global_M))
        chosen = order[np.flatnonzero(np.diff(global_M[order], prepend=-1))]
        picked: np.ndarray = raw_TC[self._content_rows()[chosen]]
        return picked

    def _content_rows(self) -> np.ndarray:
        """Where the content tokens of each window stand among all T tokens; `<s>` comes first in each window."""
        return ranges(bounds(self.length)[:-1] + 1, self.end - self.start)
