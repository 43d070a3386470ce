"""Start and end logits to ranked answers, for all windows at once.

The rules are those of the question-answering pipeline that transformers had until version 5 (read in 4.56.2), with
what its scores are not:
- A score is a probability inside one window: each window's softmax runs over its own tokens of the text and `<s>`,
  and what `<s>` takes is lost. A longer text does not make scores smaller.
- Equal answers are one answer with the sum of their scores, wherever they stand: equal by `str.lower()` of the text,
  the first one (earlier window, then higher score) lends its place. A span that two windows share counts twice, so a
  score may exceed 1.
- Only the best spans of each window take part, twice `top_k` and ten more when answers are widened to whole words.
  So `top_k` moves scores, and may even move the best answer.
- No answer has the smallest score that any window gave it.

What differs from it, each a fault there: spans of probability zero are no answers (there they fill up what `top_k`
asks for with empty or reversed texts); a literal "<s>" in the question cannot answer; spans without a character are
dropped.

Letters: W windows, T their tokens, M those of them that are the text's, I items, K candidate spans, A answers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from xlmr_core.tasks.columns import Lists, Structs
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tokenization.encoding import bounds, ranges
from xlmr_core.tokenization.units import CODECS, Unit

# Spans that are compared in one go; 16 MB.
_CELLS = 1 << 22


@dataclass(frozen=True, slots=True)
class Candidates:
    """Spans of tokens, ordered by window, then by falling score.

    Attributes:
        window: Where each was read (K,).
        first: Its first token, counted among the M (K,).
        last: Its last token, likewise (K,).
        score: Probability in that window (K,), float32.
    """

    window: np.ndarray
    first: np.ndarray
    last: np.ndarray
    score: np.ndarray


def probabilities(raw_T2: np.ndarray, records: WindowedRecords) -> tuple[np.ndarray, np.ndarray]:
    """Softmax of start and end logits in every window, over the text's tokens and `<s>`.

    Returns:
        For the text's tokens (M, 2) and for `<s>` (W, 2), float32.
    """
    text_M2 = raw_T2[records.content_rows()].astype(np.float32)
    special_W2 = raw_T2[bounds(records.length)[:-1]].astype(np.float32)
    sizes_W = records.end - records.start
    first_W = bounds(sizes_W)[:-1]
    top_W2 = np.maximum(np.maximum.reduceat(text_M2, first_W), special_W2)
    text_M2 = np.exp(text_M2 - np.repeat(top_W2, sizes_W, axis=0))
    special_W2 = np.exp(special_W2 - top_W2)
    total_W2 = np.add.reduceat(text_M2, first_W) + special_W2
    return text_M2 / np.repeat(total_W2, sizes_W, axis=0), special_W2 / total_W2


def best_spans(scores_M2: np.ndarray, sizes_W: np.ndarray, *, longest: int, count: int) -> Candidates:
    """The likeliest spans of each window.

    Args:
        scores_M2: Probability of each token to be the first and the last of an answer (M, 2).
        sizes_W: Tokens of the text in each window (W,).
        longest: Most tokens of a span.
        count: Most spans of a window.
    """
    nothing = np.zeros(0, dtype=np.int64)
    parts = [Candidates(nothing, nothing, nothing, np.zeros(0, dtype=np.float32))]
    width, height = min(longest, int(sizes_W.max(initial=1))), int(sizes_W.max(initial=1))
    step = max(_CELLS // (width * height), 1)
    first_W = bounds(sizes_W)
    for window in range(0, len(sizes_W), step):
        sizes = sizes_W[window : window + step]
        inside = np.arange(height) < sizes[:, None]
        # Only a band of the square of all (first, last) is allowed: one row a first token, `width` last ones.
        first, last = np.zeros((2, len(sizes), height + width - 1), dtype=np.float32)
        scores = scores_M2[first_W[window] : first_W[window + len(sizes)]]
        first[:, :height][inside], last[:, :height][inside] = scores[:, 0], scores[:, 1]
        band = first[:, :height, None] * sliding_window_view(last, width, axis=1)
        inner, row, column, score = _best_cells(band, count)
        begin = first_W[window + inner] + row
        parts.append(Candidates(window + inner, begin, begin + column, score))
    return Candidates(*(np.concatenate([getattr(part, name) for part in parts]) for name in Candidates.__slots__))


def _best_cells(cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Window, first token, further tokens and value of each window's `count` largest positive cells, largest first.

    Args:
        cells: One row a first token, one column for each number of further tokens (B, height, width).
        count: Most cells of a window.
    """
    height = cells.shape[1]
    least = np.full(len(cells), np.finfo(np.float32).smallest_subnormal)
    if count < height:
        # The largest cells of `count` rows are `count` cells, so none below the least of them is among the largest.
        largest = np.partition(cells.max(axis=2), height - count, axis=1)[:, height - count]
        least = np.maximum(least, largest)
    found = np.flatnonzero(cells >= least[:, None, None])
    score, window = cells.reshape(-1)[found], found // cells[0].size
    order = np.lexsort((-score, window))
    per_window = np.bincount(window, minlength=len(cells))
    kept = order[ranges(bounds(per_window)[:-1], np.minimum(per_window, count))]
    _, row, column = np.unravel_index(found[kept], cells.shape)
    return window[kept], row, column, score[kept]


def spans_in_text(found: Candidates, records: WindowedRecords, *, whole_words: bool) -> np.ndarray:
    """Where candidates stand in their texts, widened to whole words if asked; counted as offsets are (K, 2).

    A word that a window's edge cuts is as long as the window shows it.
    """
    assert records.offsets is not None
    tokens_M = records.content_tokens()
    offsets_M2 = records.offsets[tokens_M]
    first, last = found.first, found.last
    if whole_words:
        assert records.starts_word is not None
        starts_M = records.starts_word[tokens_M]
        starts_M[bounds(records.end - records.start)[:-1]] = True
        word_M, begins = np.cumsum(starts_M) - 1, np.flatnonzero(starts_M)
        first, last = begins[word_M[first]], np.append(begins[1:], len(starts_M))[word_M[last]] - 1
    return np.stack([offsets_M2[first, 0], offsets_M2[last, 1]], axis=1)


def rank(
    found: Candidates,
    spans_K2: np.ndarray,
    records: WindowedRecords,
    no_answer_I: np.ndarray | None,
    top_k: int,
    unit: Unit = "codepoint",
) -> Lists:
    """Joins equal answers of an item and keeps its best ones.

    Args:
        found: Spans of all windows.
        spans_K2: Where they stand in their texts (K, 2).
        records: Their windows and texts.
        no_answer_I: Score of "no answer", which then takes part as the span (0, 0), behind equal scores (I,), or None.
        top_k: Most answers of an item.
        unit: What the spans count.

    Returns:
        One list of `columns.SPAN_TYPES` an item.
    """
    assert records.texts is not None
    kept = spans_K2[:, 0] < spans_K2[:, 1]
    spans_K2, item_K = spans_K2[kept], records.item[found.window[kept]]
    record_of_item = records.record_of_item
    numbers: dict[tuple[int, str], int] = {}
    codec, width = CODECS[unit]
    coded = [text.encode(codec) for text in records.texts]
    answer_K = np.array(
        [
            numbers.setdefault((item, coded[record][width * start : width * end].decode(codec).lower()), len(numbers))
            for item, record, (start, end) in zip(
                item_K.tolist(), record_of_item[item_K].tolist(), spans_K2.tolist(), strict=True
            )
        ],
        dtype=np.int64,
    )
    _, first_A = np.unique(answer_K, return_index=True)
    item_A, spans_A2 = item_K[first_A], spans_K2[first_A]
    score_A = np.bincount(answer_K, weights=found.score[kept], minlength=len(numbers))
    if no_answer_I is not None:
        item_A = np.append(item_A, np.arange(len(no_answer_I)))
        spans_A2 = np.concatenate([spans_A2, np.zeros((len(no_answer_I), 2), spans_A2.dtype)])
        score_A = np.append(score_A, no_answer_I)
    order = np.lexsort((np.arange(len(item_A)), -score_A, item_A))
    per_item = np.bincount(item_A, minlength=len(record_of_item))
    splits = bounds(np.minimum(per_item, top_k))
    best = order[ranges(bounds(per_item)[:-1], np.diff(splits))]
    start, end = spans_A2[best].astype(np.int32).T
    return Lists(splits, Structs({"start": start, "end": end, "score": score_A[best].astype(np.float32)}))
