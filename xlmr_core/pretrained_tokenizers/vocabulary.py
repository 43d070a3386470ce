"""What ids mean: the vocabulary, the frame of special tokens, and the way back to text."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tokenizers
import torch
from tokenizers import AddedToken

from xlmr_core.errors import ArgumentError, InputError
from xlmr_core.pretrained_tokenizers.special_tokens import (
    EXTRA,
    ROLES,
    SpecialTokenAttributes,
    Token,
    checked_extra,
    register,
)


class Vocabulary(SpecialTokenAttributes):
    """The methods of a tokenizer that need no text."""

    pad_token_type_id: ClassVar[int] = 0

    model_max_length: int
    clean_up_tokenization_spaces: bool

    # The vocabulary

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        """The library's tokenizer. To be read only, except before the first call."""
        return self._library

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary without added tokens; `len(tokenizer)` counts them too."""
        return self._library.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._library.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, added ones included."""
        return self._library.get_vocab(with_added_tokens=True)

    vocab = property(get_vocab)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The added tokens by id."""
        return self._library.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Ids of the added tokens, in their order."""
        return {token.content: number for number, token in sorted(self.added_tokens_decoder.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """Ids of the added tokens, in their order."""
        return self.added_tokens_encoder

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Adds tokens behind the vocabulary; the model must be resized. The number of new ones.

        Args:
            new_tokens: One or several; those known already become tokens that are never cut.
            special_tokens: Whether they are skipped in decoding and found in the text as it is written.
        """
        tokens = [new_tokens] if isinstance(new_tokens, Token) else checked_extra(new_tokens)
        before = len(self)
        add = self._library.add_special_tokens if special_tokens else self._library.add_tokens
        add(tokens)
        return len(self) - before

    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, Token | Sequence[Token]],
        replace_additional_special_tokens: bool = True,
    ) -> int:
        """Gives roles to tokens, and adds those that the vocabulary lacks. The number of new ones.

        Args:
            special_tokens_dict: Tokens by role; under "additional_special_tokens" a list.
            replace_additional_special_tokens: Whether such a list replaces the present one, or is put behind it.

        Raises:
            ArgumentError: Names that are no roles.
        """
        unknown = sorted(special_tokens_dict.keys() - {*ROLES, *EXTRA})
        if unknown:
            raise ArgumentError(f"special token {', '.join(unknown)}; known are {', '.join([*ROLES, EXTRA[0]])}")
        before = len(self)
        for name, value in special_tokens_dict.items():
            if name in EXTRA:
                tokens = checked_extra(value)
                register(self._library, {}, tokens)
                kept = [] if replace_additional_special_tokens else self._extra_tokens
                self._extra_tokens = list(dict.fromkeys([*kept, *map(str, tokens)]))
            else:
                setattr(self, name, value)
                register(self._library, {name: value}, [])  # type: ignore[dict-item]
        return len(self) - before

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or a list for a list; unknown ones get that of the unknown token."""
        return self._id_of(tokens) if isinstance(tokens, str) else [self._id_of(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or a list for several; None for ids that the vocabulary does not have."""
        numbers = _ids(ids)
        if isinstance(numbers, int):
            return self._library.id_to_token(numbers)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._library.id_to_token(number) for number in numbers if number not in skipped]

    # Special tokens around ids

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens frame a text, or a pair."""
        return self._library.num_special_tokens_to_add(pair)

    @property
    def max_len_single_sentence(self) -> int:
        """Tokens of a text that fit the model."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """Tokens of a pair that fit the model."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Frames ids: `<s> X </s>`, and for a pair `<s> A </s></s> B </s>`."""
        cls, sep = self.cls_token_id, self.sep_token_id
        if cls is None or sep is None:
            raise ArgumentError("cls_token or sep_token is None, both frame a text; set them")
        first = [cls, *token_ids_0, sep]
        return first if token_ids_1 is None else [*first, sep, *token_ids_1, sep]

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for special tokens, 0 for others.

        Args:
            token_ids_0: Ids of a text.
            token_ids_1: Ids of a second text.
            already_has_special_tokens: Whether `token_ids_0` is framed already; else the mask is for the framed ids.

        Raises:
            ArgumentError: A second text beside a framed sequence.
        """
        if not already_has_special_tokens:
            bare = [[0] * len(ids) for ids in (token_ids_0, token_ids_1) if ids is not None]
            return [1, *bare[0], 1] if len(bare) == 1 else [1, *bare[0], 1, 1, *bare[1], 1]
        if token_ids_1 is not None:
            raise ArgumentError(
                "token_ids_1 given with already_has_special_tokens=True, token_ids_0 is the whole sequence"
            )
        special = set(self.all_special_ids)
        return [int(token in special) for token in _ids(token_ids_0)]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Zeros, one for each token of the framed sequence: the family has no token types."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    # Ids to text

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """Text again, a list of texts for a batch; ids that the vocabulary does not have are left out.

        Args:
            token_ids: An id, ids, or a batch of them; lists, arrays or tensors.
            skip_special_tokens: Whether special tokens are left out.
            clean_up_tokenization_spaces: Whether blanks before punctuation are removed; None means as the tokenizer is
                set.

        Raises:
            InputError: Ids below zero, such as the -100 of labels.
        """
        ids = _ids(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        row = [ids] if isinstance(ids, int) else ids
        if row and min(row) < 0:
            below = next(place for place, number in enumerate(row) if number < 0)
            raise InputError(
                f"id {row[below]} at {below} is no token, ids are 0 or more; leave it out, or put pad_token_id there",
                code="no_token",
            )
        text = self._text_of(row, skip_special_tokens=skip_special_tokens)
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """The texts of a batch of ids, see `decode`."""
        decoded = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [decoded] if isinstance(decoded, str) else decoded

    def _text_of(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return self._library.decode(ids, skip_special_tokens=skip_special_tokens)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Text again of tokens as the vocabulary writes them, special ones included."""
        decoder = self._library.decoder
        joined: str = " ".join(tokens) if decoder is None else decoder.decode(list(tokens))
        return joined

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """Removes the blanks before punctuation and English contractions."""
        for apart, together in _CLEANED:
            text = text.replace(apart, together)
        return text


_CLEANED = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)


def _ids(ids: Any) -> Any:
    """Ids as Python numbers: one, a list, or a list of lists.

    Raises:
        InputError: Something else.
    """
    if isinstance(ids, Mapping):
        ids = ids["input_ids"]
    if isinstance(ids, (torch.Tensor, np.ndarray, np.generic)):
        ids = ids.tolist()
    if isinstance(ids, (list, tuple)):
        return list(ids) if set(map(type, ids)) <= {int} else [_ids(one) for one in ids]
    if isinstance(ids, int) and not isinstance(ids, bool):
        return ids
    raise InputError(f"id {ids!r} is a {type(ids).__name__}, ids are whole numbers", code="no_token")
