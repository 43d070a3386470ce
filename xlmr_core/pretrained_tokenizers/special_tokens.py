"""The special tokens of a tokenizer: seven with a role, and those without one."""

from collections.abc import Iterable, Mapping
from typing import Any, overload

import tokenizers
from tokenizers import AddedToken

from xlmr_core.errors import ArgumentError

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Both names are transformers': the first up to version 4, the second since 5.
EXTRA = ("additional_special_tokens", "extra_special_tokens")

Token = str | AddedToken


class _Text:
    """`tokenizer.mask_token`: the token itself, or None; settable."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._role = name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> "_Text": ...
    @overload
    def __get__(self, tokenizer: "SpecialTokenAttributes", owner: type) -> str | None: ...
    def __get__(self, tokenizer: "SpecialTokenAttributes | None", owner: type) -> "_Text | str | None":
        return self if tokenizer is None else tokenizer._role_tokens.get(self._role)

    def __set__(self, tokenizer: "SpecialTokenAttributes", value: Token | None) -> None:
        if value is not None and not isinstance(value, Token):
            raise ArgumentError(f"{self._role} {value!r}, it must be a string or an AddedToken")
        tokenizer._role_tokens[self._role] = None if value is None else str(value)


class _Number:
    """`tokenizer.mask_token_id`: its id, or None; settable."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._role = name, name.removesuffix("_id")

    @overload
    def __get__(self, tokenizer: None, owner: type) -> "_Number": ...
    @overload
    def __get__(self, tokenizer: "SpecialTokenAttributes", owner: type) -> int | None: ...
    def __get__(self, tokenizer: "SpecialTokenAttributes | None", owner: type) -> "_Number | int | None":
        if tokenizer is None:
            return self
        token = tokenizer._role_tokens.get(self._role)
        return None if token is None else tokenizer._id_of(token)

    def __set__(self, tokenizer: "SpecialTokenAttributes", value: int | None) -> None:
        token = None if value is None else tokenizer._library.id_to_token(value)
        if value is not None and token is None:
            raise ArgumentError(f"{self._name} {value}, the vocabulary has no such id")
        tokenizer._role_tokens[self._role] = token


class SpecialTokenAttributes:
    """What the tokenizers call their special tokens. Assigning changes the name only: neither vocabulary nor frame."""

    _library: tokenizers.Tokenizer
    _role_tokens: dict[str, str | None]
    _extra_tokens: list[str]

    bos_token, bos_token_id = _Text(), _Number()
    eos_token, eos_token_id = _Text(), _Number()
    unk_token, unk_token_id = _Text(), _Number()
    sep_token, sep_token_id = _Text(), _Number()
    pad_token, pad_token_id = _Text(), _Number()
    cls_token, cls_token_id = _Text(), _Number()
    mask_token, mask_token_id = _Text(), _Number()

    def _id_of(self, token: str) -> int | None:
        """The id of a piece, that of the unknown token for one that is none."""
        number: int | None = self._library.token_to_id(token)
        unknown = self._role_tokens.get("unk_token")
        return self._library.token_to_id(unknown) if number is None and unknown is not None else number

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a role; settable."""
        return list(self._extra_tokens)

    @additional_special_tokens.setter
    def additional_special_tokens(self, value: Iterable[Token] | None) -> None:
        self._extra_tokens = [str(token) for token in checked_extra(value)]

    extra_special_tokens = additional_special_tokens

    @property
    def additional_special_tokens_ids(self) -> list[int | None]:
        """Their ids."""
        return [self._id_of(token) for token in self._extra_tokens]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The tokens by their role, without those that are None."""
        return {role: token for role in ROLES if (token := self._role_tokens.get(role)) is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once, those with a role first."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self._extra_tokens]))

    @property
    def all_special_ids(self) -> list[int | None]:
        """Their ids, in the same order."""
        return [self._id_of(token) for token in self.all_special_tokens]


def checked_extra(value: Any) -> list[Token]:
    """Special tokens without a role, as a list.

    Raises:
        ArgumentError: It holds something else than tokens.
    """
    if value is None:
        return []
    if isinstance(value, (list, tuple)) and all(isinstance(token, Token) for token in value):
        return list(value)
    raise ArgumentError(f"additional_special_tokens {value!r}, it must be a list of strings or AddedTokens")


def register(library: tokenizers.Tokenizer, tokens: Mapping[str, Token | None], extra: Iterable[Token]) -> None:
    """Makes the tokens special: found in texts, never cut, skipped in decoding; unknown ones get new ids.

    A string that is an added token already keeps the flags it has; a mask token takes the blank on its left.
    """
    known = {token.content for token in library.get_added_tokens_decoder().values() if token.special}
    named = [(role == "mask_token", token) for role, token in tokens.items() if token is not None]
    added = [
        AddedToken(token, special=True, normalized=False, lstrip=is_mask) if isinstance(token, str) else token
        for is_mask, token in [*named, *((False, token) for token in extra)]
        if isinstance(token, AddedToken) or token not in known
    ]
    library.add_special_tokens(list(dict.fromkeys(added)))
