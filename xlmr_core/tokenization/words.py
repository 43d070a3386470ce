"""Every distinct word is tokenised once.

Text repeats itself: of a million short rows, a few per cent of the words are new. So the tokens of the words
already met stay in flat arrays, and a batch becomes one dictionary look-up a word and one gather.
"""

from collections.abc import Iterable
from itertools import chain

import numpy as np
import tokenizers

from xlmr_core.tokenization.encoding import Encodings, bounds, join, ranges

# One call of the library holds some hundred bytes a token in its own objects, so calls stay small.
_WORDS_PER_CALL = 8_192
# What is remembered before everything is forgotten: about 100 MB with offsets.
_MAX_WORDS = 400_000
_MAX_TOKENS = 4_000_000
_MAX_CHARACTERS = 40_000_000


def encode_words(library: tokenizers.Tokenizer, words: list[str], *, offsets: bool) -> Encodings:
    """Tokenises with the library, as it is: special tokens are never added.

    Args:
        library: Without truncation and padding.
        words: Words or whole texts.
        offsets: Whether spans, relative to each word, are wanted.

    Raises:
        Exception: Whatever the library makes of a string with a lone surrogate or of a non-string.
    """
    starts = range(0, max(len(words), 1), _WORDS_PER_CALL)
    return join([_encode_call(library, words[i : i + _WORDS_PER_CALL], offsets=offsets) for i in starts])


def _encode_call(library: tokenizers.Tokenizer, words: list[str], *, offsets: bool) -> Encodings:
    call = library.encode_batch if offsets else library.encode_batch_fast
    encoded = call(words, add_special_tokens=False)
    ids = [one.ids for one in encoded]
    splits = bounds(np.fromiter(map(len, ids), np.int64, len(ids)))
    flat = np.fromiter(chain.from_iterable(ids), np.int32, int(splits[-1]))
    if not offsets:
        return Encodings(flat, splits)
    spans: Iterable[tuple[int, int]] = chain.from_iterable(one.offsets for one in encoded)
    ends = np.fromiter(chain.from_iterable(spans), np.int32, 2 * len(flat))
    return Encodings(flat, splits, ends.reshape(-1, 2))


class WordTable:
    """The tokens of the words met so far. Not safe for threads: its owner locks."""

    def __init__(self, library: tokenizers.Tokenizer, *, offsets: bool) -> None:
        """Starts empty; `library` and `offsets` are those of `encode_words`."""
        self._library = library
        self._with_offsets = offsets
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        self._starts = np.zeros(1 << 10, np.int64)
        self._lengths = np.zeros(1 << 10, np.int64)
        self._ids = np.zeros(1 << 10, np.int32)
        self._offsets = np.zeros((1 << 10, 2), np.int32)
        self._n_tokens = 0
        self._n_characters = 0

    def look_up(self, words: list[str]) -> Encodings:
        """Tokens of `words`, in order, duplicates and all; unknown ones are tokenised in one batch and kept.

        Raises:
            Exception: As `encode_words`; the table stays as it was.
        """
        full = len(self._numbers) > _MAX_WORDS or self._n_tokens > _MAX_TOKENS
        if full or self._n_characters > _MAX_CHARACTERS:
            self._forget()
        new = list(set(words).difference(self._numbers))
        if new:
            self._learn(new, encode_words(self._library, new, offsets=self._with_offsets))
        rows = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        lengths = self._lengths[rows]
        picked = ranges(self._starts[rows], lengths)
        offsets = self._offsets[picked] if self._with_offsets else None
        return Encodings(self._ids[picked], bounds(lengths), offsets)

    def _learn(self, words: list[str], tokens: Encodings) -> None:
        n_words = len(self._numbers)
        self._starts = _extend(self._starts, n_words, tokens.splits[:-1] + self._n_tokens)
        self._lengths = _extend(self._lengths, n_words, tokens.lengths)
        self._ids = _extend(self._ids, self._n_tokens, tokens.ids)
        if tokens.offsets is not None:
            self._offsets = _extend(self._offsets, self._n_tokens, tokens.offsets)
        self._n_tokens += len(tokens.ids)
        self._n_characters += sum(map(len, words))
        self._numbers.update(zip(words, range(n_words, n_words + len(words)), strict=True))


def _extend(column: np.ndarray, used: int, new: np.ndarray) -> np.ndarray:
    """Writes `new` behind the used part of a column; the room at least doubles when it does not fit."""
    need = used + len(new)
    if need > len(column):
        wider = np.zeros((max(need, 2 * len(column)), *column.shape[1:]), column.dtype)
        wider[:used] = column[:used]
        column = wider
    column[used:need] = new
    return column
