"""What a tokenizer answers: ids, masks and offsets by name, and the way from tokens to words and characters.

The methods are those of transformers' `BatchEncoding`.
"""

from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers
import torch

from xlmr_core.errors import ArgumentError


class CharSpan(NamedTuple):
    """Characters of the original text, `end` excluded."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens of an encoded text, `end` excluded."""

    start: int
    end: int


class BatchEncoding(UserDict[str, Any]):
    """Lists or tensors by name, also as attributes: `encoding["input_ids"]`, `encoding.input_ids`.

    Methods that look into one text of a batch take its row first; for a single text the row may be left out. Rows,
    tokens, words and characters below zero count from the end.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: tokenizers.Encoding | Sequence[tokenizers.Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        """Takes names and values, and the library's encodings they came from.

        Raises:
            ArgumentError: `tensor_type` asks for tensors that the values do not make.
        """
        super().__init__(dict(data or {}))
        self._encodings = [encoding] if isinstance(encoding, tokenizers.Encoding) else encoding and list(encoding)
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, item: Any) -> Any:
        """The value of a name, the encoding of a row, or for a slice the rows of every value."""
        if isinstance(item, str):
            return self.data[item]
        if self._encodings is not None:
            return self._encodings[item]
        if isinstance(item, slice):
            return {key: value[item] for key, value in self.data.items()}
        raise KeyError(f"{item!r}: a name, a row of a tokenizer's answer, or a slice can be asked for")

    def __getattr__(self, item: str) -> Any:
        # Asked for before __init__ when an object is unpickled.
        data = self.__dict__.get("data", {})
        if item in data:
            return data[item]
        raise AttributeError(
            f"{type(self).__name__} has no {item!r}; it holds {', '.join(map(str, data)) or 'nothing'}"
        )

    @property
    def encodings(self) -> Sequence[tokenizers.Encoding] | None:
        """The library's encodings, one for each row; None for values that came from elsewhere."""
        return self._encodings

    @property
    def is_fast(self) -> bool:
        """Whether there are encodings."""
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for single texts, 2 for pairs, None where it is not known."""
        return self._encodings[0].n_sequences if self._n_sequences is None and self._encodings else self._n_sequences

    def _row(self, index: int = 0) -> tokenizers.Encoding:
        if not self._encodings:
            raise ArgumentError(
                "this encoding did not come from a tokenizer's call, only those know words and characters"
            )
        if not -len(self._encodings) <= index < len(self._encodings):
            raise ArgumentError(f"row {index}, the batch has {len(self._encodings)}")
        return self._encodings[index]

    def _at(self, first: int, second: int | None) -> tuple[tokenizers.Encoding, int]:
        """The row and the place in it of `method(place)` and `method(row, place)`."""
        return (self._row(), first) if second is None else (self._row(first), second)

    def _token_at(self, first: int, second: int | None) -> tuple[tokenizers.Encoding, int]:
        row, token = self._at(first, second)
        if not -len(row) <= token < len(row):
            raise ArgumentError(f"token {token}, the row has {len(row)}")
        return row, token % len(row)

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row as the vocabulary writes them."""
        return self._row(batch_index).tokens

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token 0 for the first text, 1 for the second, None for special tokens."""
        return self._row(batch_index).sequence_ids

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token the number of its word, None for special tokens."""
        return self._row(batch_index).word_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Whether a token is of the first text (0) or the second (1); None for special tokens."""
        row, token = self._token_at(batch_or_token_index, token_index)
        return row.token_to_sequence(token)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The number of a token's word; None for special tokens."""
        row, token = self._token_at(batch_or_token_index, token_index)
        return row.token_to_word(token)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Where a token stands in its text; None for special tokens."""
        row, token = self._token_at(batch_or_token_index, token_index)
        span = row.token_to_chars(token)
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word; None for one without any."""
        row, word = self._at(batch_or_word_index, word_index)
        span = row.word_to_tokens(_from_end(word, row.word_ids), sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Where a word stands in its text; None for one without tokens."""
        row, word = self._at(batch_or_word_index, word_index)
        span = row.word_to_chars(_from_end(word, row.word_ids), sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that holds a character; None for a blank or a character no token holds."""
        row, char = self._at(batch_or_char_index, char_index)
        return row.char_to_token(_not_negative(char), sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word that holds a character; None for one that no token holds."""
        row, char = self._at(batch_or_char_index, char_index)
        return row.char_to_word(_not_negative(char), sequence_index)

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> "BatchEncoding":
        """Makes tensors of all values.

        Args:
            tensor_type: "pt" or "np"; None changes nothing.
            prepend_batch_axis: Whether values without a batch get one.

        Raises:
            ArgumentError: Another type, or rows of different lengths.
        """
        if tensor_type is None:
            return self
        make = _TENSORS.get(tensor_type)
        if make is None:
            raise ArgumentError(f"return_tensors {tensor_type!r}, it must be {' or '.join(map(repr, _TENSORS))}")
        for key, value in self.data.items():
            if isinstance(value, (np.ndarray, torch.Tensor)):
                continue
            try:
                self.data[key] = make([value] if prepend_batch_axis else value)
            except (ValueError, TypeError, RuntimeError) as error:
                raise ArgumentError(
                    f"{key} makes no tensor, its rows have different lengths or hold no numbers; call with "
                    "padding=True and truncation=True"
                ) from error
        return self

    def to(self, device: str | int | torch.device, *, non_blocking: bool = False) -> "BatchEncoding":
        """Moves all tensors; the same object again."""
        if isinstance(device, torch.dtype):
            raise ArgumentError(f"to({device}), token ids keep their type; name a device")
        self.data = {
            key: value.to(device=device, non_blocking=non_blocking) if isinstance(value, torch.Tensor) else value
            for key, value in self.data.items()
        }
        return self


def _numpy(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iufb":
        raise ValueError(array.dtype)
    # A batch of empty texts has nothing that says that ids are whole numbers.
    return array if array.size else array.astype(np.int64)


def _torch(value: Any) -> torch.Tensor:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
        return torch.stack(list(value))
    numbers = torch.from_numpy(_numpy(value))
    # Python's floats are torch's default type, not numpy's.
    return numbers.float() if numbers.dtype == torch.float64 and not isinstance(value, np.ndarray) else numbers


_TENSORS = {"pt": _torch, "np": _numpy}


def _from_end(word: int, word_ids: list[int | None]) -> int:
    return word if word >= 0 else word + 1 + max((number for number in word_ids if number is not None), default=-1)


def _not_negative(char: int) -> int:
    if char < 0:
        raise ArgumentError(f"character {char}, it must be 0 or more")
    return char
