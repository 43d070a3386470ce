"""Where tokens stand, counted in code points, in UTF-8 bytes or in UTF-16 units.

Python and Arrow's `utf8_length` count code points; Go, Rust and Arrow's buffers count UTF-8 bytes; Java and JavaScript
count UTF-16 units.

Letters: R texts, N tokens of all texts, K code points of all texts.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from xlmr_core.tokenization.encoding import Encodings, bounds

Unit = Literal["codepoint", "utf8", "utf16"]

# In which encoding a unit is how many bytes.
CODECS: Mapping[Unit, tuple[str, int]] = {
    "codepoint": ("utf-32-le", 4),
    "utf8": ("utf-8", 1),
    "utf16": ("utf-16-le", 2),
}

# By code point; no blank comes after the ideographic space.
_SPACES = np.array([chr(code).isspace() for code in range(0x3002)])


@dataclass(frozen=True, slots=True)
class CodePoints:
    """R texts end to end, one space before each: so "at the text's beginning" is a case of "after a space".

    Attributes:
        codes: Code points (K,), uint32.
        begins: Where each text begins, behind its space (R,), int64.
        space: Whether `str.isspace()` holds (K,), bool.
    """

    codes: np.ndarray
    begins: np.ndarray
    space: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> "CodePoints":
        """Puts texts without lone surrogates end to end."""
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        codes = np.frombuffer((" " + " ".join(texts)).encode("utf-32-le"), dtype=np.uint32)
        return cls(codes, bounds(lengths + 1)[:-1] + 1, _SPACES[np.minimum(codes, len(_SPACES) - 1)])

    def spans(self, encodings: Encodings) -> np.ndarray:
        """Where tokens stand among all characters (N, 2), int64; `encodings` are those of the texts."""
        assert encodings.offsets is not None
        spans: np.ndarray = encodings.offsets + np.repeat(self.begins, encodings.lengths)[:, None]
        return spans


def token_spans(texts: CodePoints, encodings: Encodings, unit: Unit) -> np.ndarray:
    """Where the tokens stand in their texts, without the blanks at their edges and with the marks on their last letter.

    A tokenizer that composes "e" and a combining accent to "é" gives the place of the letter alone; the accent, which
    belongs to no token then, is put back here. So are the later parts of a Korean syllable written in pieces.

    Args:
        texts: What was tokenised.
        encodings: With offsets in code points. Some tokenizers count the blank before a token as part of it.
        unit: What is counted in the result.

    Returns:
        Spans (N, 2), int32; those of blank tokens are empty. A text encoded in UTF-8 or UTF-16 and sliced there is
        the slice of the text, encoded.
    """
    spans = _with_marks(texts.codes, _without_blanks(texts.space, texts.spans(encodings)))
    begin_N1 = np.repeat(texts.begins, encodings.lengths)[:, None]
    if unit == "codepoint":
        in_text: np.ndarray = (spans - begin_N1).astype(np.int32)
        return in_text
    width = np.ones(len(texts.codes), dtype=np.int64)
    for first in (0x80, 0x800, 0x10000) if unit == "utf8" else (0x10000,):
        width += texts.codes >= first
    before = bounds(width)
    counted: np.ndarray = (before[spans] - before[begin_N1]).astype(np.int32)
    return counted


def _without_blanks(space: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Spans of code points, narrowed to begin and end with something else than a blank."""
    start, end = spans[:, 0], spans[:, 1]
    if not (space[np.minimum(start, len(space) - 1)].any() or space[end - 1].any()):
        return spans
    place = np.arange(len(space))
    # The next character that is no blank, and one past the last that is none.
    after = np.append(np.minimum.accumulate(np.where(space, len(space), place)[::-1])[::-1], len(space))
    behind = np.maximum.accumulate(np.where(space, 0, place + 1))
    first = np.minimum(after[start], end)
    return np.stack([first, np.maximum(behind[end - 1], first)], axis=1)


@cache
def _marks() -> np.ndarray:
    """Whether a code point below 0x20000 only ever stands behind another: a combining mark, or a later Korean jamo."""
    marks = np.array([unicodedata.category(chr(code))[0] == "M" for code in range(0x20000)])
    marks[0x1160:0x1200] = marks[0xD7B0:0xD800] = True
    return marks


def _with_marks(codes: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Spans of code points, widened over marks behind them that no span holds."""
    if not len(spans) or codes.max() < 0x300:
        return spans
    table = _marks()
    marks = table[np.minimum(codes, len(table) - 1)]
    if not marks.any():
        return spans
    start, end = spans[:, 0], spans[:, 1]
    count = len(codes) + 1
    held = np.cumsum(np.bincount(start, minlength=count) - np.bincount(end, minlength=count)) > 0
    free = np.append(marks, False) & ~held
    # For each place, the first one from it on that is no free mark.
    stop = np.minimum.accumulate(np.where(free, count, np.arange(count))[::-1])[::-1]
    return np.stack([start, np.where(end > start, stop[end], end)], axis=1)
