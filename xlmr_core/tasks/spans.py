"""From windows back to records: merging what a long text's windows say, and stitching its tokens together.

Letters: W windows, B of them in a batch, I items, P annotated records, T tokens of all windows (special tokens
included), N tokens of all records (special tokens excluded), C outputs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xlmr_core.batch import PackedBatch
from xlmr_core.tasks.reading import Rows
from xlmr_core.tokenization.encoding import SpecialTokens, bounds, ranges
from xlmr_core.tokenization.windows import FRAME_SINGLE, widest_window

Merge = Literal["mean", "max", "tokens", "noisy_or"]


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows that go through an encoder together.

    Attributes:
        packed: Their tokens.
        prompt_B: How many tokens at the start of each window, `<s>` included, are no content of the record: what a
            prompt-excluding pooling skips (B,), int64; None without a prompt.
        hidden_B: Id of the token that each window hides (B,), int64; None where none is hidden.
        hidden_at_B: Where it stands among the packed tokens (B,), int64.
    """

    packed: PackedBatch
    prompt_B: Tensor | None = None
    hidden_B: Tensor | None = None
    hidden_at_B: Tensor | None = None

    def rows(self, which: Rows) -> Tensor | None:
        """Places of the tokens that a task reads (B,); None for all tokens."""
        match which:
            case "all":
                return None
            case "first":
                return self.packed.starts
            case "hidden":
                return self.hidden_at_B

    def single_tokens(self, rows: Tensor) -> "WindowBatch":
        """The windows as a task sees them of which only one token each was computed."""
        places = None if self.hidden_at_B is None else torch.arange(len(rows), device=rows.device)
        return WindowBatch(self.packed.single_tokens(rows), None, self.hidden_B, places)


@dataclass(frozen=True, slots=True)
class WindowedRecords:
    """How windows belong to records, for P records that each have at least one window.

    An item is what one answer of the model is about: a record's text, or its text with one of its second texts.

    Attributes:
        item: Item of each window (W,), non-decreasing, 0 to I - 1.
        start: First token of each window, counted in its text (W,).
        end: One past its last token (W,).
        length: Tokens of each window with special tokens (W,).
        splits: Record p owns tokens splits[p] to splits[p + 1] of the arrays below (P+1,).
        ids: Token ids of the texts (N,).
        offsets: Where each token stands in the original text (N, 2); None where no task asked.
        starts_word: Whether a token starts a word (N,); None where no task asked.
        items: Record p owns items items[p] to items[p + 1] (P+1,); None when each record is one item.
        text_at: Where in each window its text begins (W,); None when it begins behind `<s>`.
        hidden: Token of the text that each window hides (W,); None where none is hidden.
        texts: The texts themselves (P); None where no task asked.
        languages: Languages of the records, as the data calls them, None where it does not say (P); None where no task
            asked, or nothing is known of any.
        special: Ids of the tokenizer's special tokens, which texts may hold too; the graph always tells.
    """

    item: np.ndarray
    start: np.ndarray
    end: np.ndarray
    length: np.ndarray
    splits: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray | None = None
    starts_word: np.ndarray | None = None
    items: np.ndarray | None = None
    text_at: np.ndarray | None = None
    hidden: np.ndarray | None = None
    texts: tuple[str, ...] | None = None
    languages: tuple[str | None, ...] | None = None
    special: SpecialTokens | None = None

    def __len__(self) -> int:
        return len(self.splits) - 1

    @property
    def item_splits(self) -> np.ndarray:
        """Record p owns items item_splits[p] to item_splits[p + 1] (P+1,)."""
        return np.arange(len(self.splits)) if self.items is None else self.items

    @property
    def record_of_item(self) -> np.ndarray:
        """Record of each item (I,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.item_splits))

    def merge_windows(self, raw_WC: np.ndarray, how: Merge) -> np.ndarray:
        """Reduces one row a window to one row an item.

        Args:
            raw_WC: Outputs of the windows (W, C).
            how: "mean" and "max" treat windows alike; "tokens" is the mean weighted by content tokens, for windows of
                one text each; "noisy_or" takes probabilities and gives that of at least one window, were they
                independent: 1 - prod(1 - p).

        Returns:
            (I, C), float32.
        """
        first_I = np.flatnonzero(np.diff(self.item, prepend=-1))
        if len(first_I) == len(self.item):
            return np.asarray(raw_WC, dtype=np.float32)
        if how == "max":
            merged: np.ndarray = np.maximum.reduceat(raw_WC, first_I, axis=0)
            return merged.astype(np.float32)
        if how == "noisy_or":
            none_IC: np.ndarray = np.multiply.reduceat(1 - raw_WC.astype(np.float64), first_I, axis=0)
            return (1 - none_IC).astype(np.float32)
        weight_W = self.length - FRAME_SINGLE if how == "tokens" else np.ones(len(self.item))
        weight_W1 = weight_W.astype(np.float64)[:, None]
        total_IC = np.add.reduceat(raw_WC * weight_W1, first_I, axis=0)
        mean_IC: np.ndarray = total_IC / np.add.reduceat(weight_W1, first_I, axis=0)
        return mean_IC.astype(np.float32)

    def stitch_tokens(self, raw_TC: np.ndarray) -> np.ndarray:
        """Picks one output for each token of each record, read in its widest window (`widest_window`).

        Args:
            raw_TC: Outputs of all tokens of all windows, special tokens included (T, C); records are one item each.

        Returns:
            (N, C).
        """
        rows_M = self.content_rows()
        if len(self.item) == len(self):
            only: np.ndarray = raw_TC[rows_M]
            return only
        window_N, token_N = widest_window(self.item, self.start, self.end, np.diff(self.splits))
        begins_W = bounds(self.end - self.start)[:-1]
        picked: np.ndarray = raw_TC[rows_M[begins_W[window_N] + token_N - self.start[window_N]]]
        return picked

    def content_rows(self) -> np.ndarray:
        """Where the text's tokens of each window stand among all T tokens, window after window."""
        begins_W = bounds(self.length)[:-1] + (1 if self.text_at is None else self.text_at)
        return ranges(begins_W, self.end - self.start)

    def content_tokens(self) -> np.ndarray:
        """Which of the records' N tokens the text's tokens of each window are, in the order of `content_rows`."""
        return ranges(self.splits[self.record_of_item[self.item]] + self.start, self.end - self.start)
