"""Which tokens start a word: at white space as in transformers, and inside scripts that put none between words.

A stretch between blanks that holds a character of such a script (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan
and others) is cut at the word boundaries of Unicode (UAX #29, default rules, no dictionary). These give single
ideographs and hiragana, runs of katakana, Tibetan and Burmese syllables, Thai, Lao and Khmer consonants with their
marks, and in Javanese, Balinese and Yi all letters between two marks of punctuation: pieces of words, seldom too long.

Letters: N tokens of all texts, K code points of all texts.
"""

from functools import cache

import numpy as np
import regex

from xlmr_core.tokenization.encoding import Encodings, bounds
from xlmr_core.tokenization.units import CodePoints

# Scripts written without spaces between words, by Unicode's names; the katakana length marks belong to no script.
_UNSPACED = [
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Nushu", "Tangut", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"),
    *("Javanese", "Balinese", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom"),
]
# All of them lie in here, from Thai to Han; texts of lower characters alone need no look.
_FIRST_UNSPACED, _LAST_UNSPACED = 0x0E00, 0x3FFFF
# One segment between two default word boundaries.
_SEGMENT = regex.compile(r".+?\b", regex.V1 | regex.WORD | regex.DOTALL)


def word_starts(texts: CodePoints, encodings: Encodings, unk: int) -> np.ndarray:
    """Whether each token starts a word (N,), bool.

    A token does at the text's beginning, after or at white space, and where a word boundary of a script without spaces
    lies at its beginning. An unknown token always does; that is transformers' rule too.

    Args:
        texts: What was tokenised.
        encodings: With offsets in code points.
        unk: Id of the unknown token.
    """
    begin = texts.spans(encodings)[:, 0]
    here = np.minimum(begin, len(texts.codes) - 1)
    starts: np.ndarray = (encodings.ids == unk) | texts.space[begin - 1] | texts.space[here]
    if texts.codes.max() >= _FIRST_UNSPACED:
        starts |= _unspaced_boundaries(texts)[here]
    return starts


def _unspaced_boundaries(texts: CodePoints) -> np.ndarray:
    """Where words begin in the stretches that hold a character of a script without spaces (K,), bool."""
    boundary = np.zeros(len(texts.codes), dtype=bool)
    unspaced = _unspaced_code_points()[np.minimum(texts.codes, _LAST_UNSPACED)]
    if not unspaced.any():
        return boundary
    # A stretch begins with the blank before it, so that stretches put end to end stay apart.
    stretch = np.cumsum(texts.space)
    chosen = np.flatnonzero(np.isin(stretch, stretch[unspaced], kind="table"))
    segments = _SEGMENT.findall(texts.codes[chosen].tobytes().decode("utf-32-le"))
    boundary[chosen[bounds(np.fromiter(map(len, segments), np.int64, len(segments)))[:-1]]] = True
    return boundary


@cache
def _unspaced_code_points() -> np.ndarray:
    """For each code point up to `_LAST_UNSPACED`, whether its script is written without spaces."""
    runs = regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in _UNSPACED) + "ーｰ]+")
    codes = np.arange(_LAST_UNSPACED + 1, dtype=np.uint32)
    table = np.zeros(len(codes), dtype=bool)
    for run in runs.finditer(codes.tobytes().decode("utf-32-le", "surrogatepass"), _FIRST_UNSPACED):
        table[run.start() : run.end()] = True
    return table
