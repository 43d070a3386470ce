"""Text to token ids and code-point offsets.

A literal special token in a text, such as "</s>" or "<mask>", becomes that token, as it does in transformers'
fast tokenizers; "<mask>" also takes the blanks before it into its span.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers

from xlmr_core.errors import InputError
from xlmr_core.tokenization.boundaries import word_boundary
from xlmr_core.tokenization.encoding import Encodings, SpecialTokens, bounds, join
from xlmr_core.tokenization.loading import TokenizerFiles, read_tokenizer
from xlmr_core.tokenization.words import WordTable, encode_words

# Texts are worked through in portions of about so many characters, so that memory follows the output, not the
# input.
_PORTION = 1 << 20


def text_problem(value: object) -> str | None:
    """Why a value cannot be tokenised: "null", "not_a_string" or "lone_surrogate"; None when it can be."""
    if value is None:
        return "null"
    if not isinstance(value, str):
        return "not_a_string"
    if value.isascii():
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "lone_surrogate"
    return None


class Tokenizer:
    """The tokenizer of one model directory; safe for threads, pickled by content."""

    def __init__(self, files: TokenizerFiles) -> None:
        """Takes what `read_tokenizer` found; `Tokenizer.load` does both."""
        self._library = files.library
        self.special: SpecialTokens = files.special
        self.model_max_length: int | None = files.model_max_length
        self._boundary = word_boundary(files.library)
        self._tables = {wanted: WordTable(files.library, offsets=wanted) for wanted in (False, True)}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, directory: Path) -> "Tokenizer":
        """Reads the tokenizer of a model directory.

        Args:
            directory: Holds `tokenizer.json`, or `sentencepiece.bpe.model` alone, or `vocab.json` and
                `merges.txt`.

        Raises:
            CheckpointError: No tokenizer there, an unreadable one, or one of another family.
        """
        return cls(read_tokenizer(Path(directory)))

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self._library.to_str(), self.special, self.model_max_length)

    @cached_property
    def vocab_size(self) -> int:
        """The highest id plus one."""
        return max(self._library.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def begins_word(self) -> np.ndarray | None:
        """Whether a token begins a word as this tokenizer cuts them (V,), bool; None where ids do not tell.

        Metaspace marks the beginning of every word it cuts; added tokens are words of their own. Words of byte-level
        tokenizers are cut by a pattern that leaves no mark.
        """
        splitter = self._library.pre_tokenizer
        if splitter is None or b'"Metaspace"' not in splitter.__getstate__():
            return None
        begins = np.zeros(self.vocab_size, dtype=bool)
        vocabulary = self._library.get_vocab(with_added_tokens=False)
        begins[[token for piece, token in vocabulary.items() if piece.startswith("▁")]] = True
        begins[list(self._library.get_added_tokens_decoder())] = True
        begins[self.special.unk] = False
        return begins

    @cached_property
    def sha256(self) -> str:
        """Identity of the content: equal for tokenizers that give equal ids, whatever file they came from."""
        content = f"{self._library.to_str()}\n{self.special}"
        return hashlib.sha256(content.encode()).hexdigest()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The pieces as the vocabulary writes them, such as "▁Hello"."""
        return [self._library.id_to_token(token) or "" for token in ids]

    def token_id(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary writes it, None for an unknown one."""
        token: int | None = self._library.token_to_id(piece)
        return token

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text again; blanks and normalised characters do not come back as they were."""
        return self._library.decode(list(ids), skip_special_tokens=skip_special)

    def join(self, pieces: Sequence[str]) -> str:
        """Text again of pieces as the vocabulary writes them, those of special tokens included."""
        decoder = self._library.decoder
        joined: str = " ".join(pieces) if decoder is None else decoder.decode(list(pieces))
        return joined

    def encode(self, texts: Sequence[str], *, offsets: bool = False) -> Encodings:
        """Tokenises texts.

        Args:
            texts: R strings; an empty one has no tokens.
            offsets: Whether spans into the original texts are wanted.

        Raises:
            InputError: A text is no string or holds a lone surrogate (the message names its row);
                `text_problem` tells such values beforehand.
        """
        try:
            parts = [self._encode_portion(portion, offsets=offsets) for portion in _portions(texts)]
        except (TypeError, UnicodeError) as error:
            for row, text in enumerate(texts):
                if code := text_problem(text):
                    raise InputError(f"text {row} is unusable ({code}), it must be valid Unicode", code=code) from error
            raise
        return join(parts)

    def _encode_portion(self, texts: Sequence[str], *, offsets: bool) -> Encodings:
        if self._boundary is None:
            return encode_words(self._library, list(texts), offsets=offsets)
        cut = list(map(self._boundary.split, texts))
        words = list(chain.from_iterable(cut))
        with self._lock:
            tokens = self._tables[offsets].look_up(words)
        words_of_text = bounds(np.fromiter(map(len, cut), np.int64, len(cut)))
        return Encodings(
            ids=tokens.ids,
            splits=tokens.splits[words_of_text],
            offsets=_in_text(tokens, words, words_of_text) if offsets else None,
        )


def _in_text(tokens: Encodings, words: list[str], words_of_text: np.ndarray) -> np.ndarray:
    """Spans inside words to spans inside texts; the words of a text lie end to end."""
    assert tokens.offsets is not None
    starts = bounds(np.fromiter(map(len, words), np.int64, len(words)))
    in_text = starts[:-1] - np.repeat(starts[words_of_text[:-1]], np.diff(words_of_text))
    shift = np.repeat(in_text, tokens.lengths).astype(np.int32)
    spans: np.ndarray = tokens.offsets + shift[:, None]
    return spans


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive texts of together about `_PORTION` characters; at least one portion, maybe empty."""
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    first = 0
    while True:
        done = int(ends[first - 1]) if first else 0
        stop = max(int(np.searchsorted(ends, done + _PORTION, side="right")), first + 1)
        yield texts[first:stop]
        first = stop
        if first >= len(texts):
            return


def _restore(serialised: str, special: SpecialTokens, model_max_length: int | None) -> Tokenizer:
    return Tokenizer(TokenizerFiles(tokenizers.Tokenizer.from_str(serialised), special, model_max_length))
