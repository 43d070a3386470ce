"""The options of a tokenizer's call, checked all at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

from xlmr_core.errors import ArgumentError
from xlmr_core.pretrained_tokenizers.view import Padding, Settings, Side, Truncation

Strategy = Literal["longest_first", "only_first", "only_second"]

_PADDING = {True: "longest", "longest": "longest", "max_length": "max_length", False: None, "do_not_pad": None}
_TRUNCATION: Mapping[Any, Strategy | None] = {
    True: "longest_first",
    "longest_first": "longest_first",
    "only_first": "only_first",
    "only_second": "only_second",
    False: None,
    None: None,
    "do_not_truncate": None,
}
_TENSORS = ("pt", "np")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a call asks for, as transformers names it; `extra` is what it names besides."""

    add_special_tokens: bool = True
    padding: bool | str = False
    truncation: bool | str | None = None
    max_length: int | None = None
    stride: int = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: str | None = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    verbose: bool = True
    split_special_tokens: bool | None = None
    add_prefix_space: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, *, takes_prefix_space: bool) -> None:
        """Refuses what can be seen without the texts.

        Args:
            takes_prefix_space: Whether the tokenizer knows `add_prefix_space`.

        Raises:
            ArgumentError: All problems, one a line.
        """
        problems = [*self._unknown(takes_prefix_space), *self._wrong_values()]
        if problems:
            raise ArgumentError("\n".join(problems))

    def _unknown(self, takes_prefix_space: bool) -> Iterator[str]:
        names = sorted(self.extra)
        if self.add_prefix_space is not None and not takes_prefix_space:
            names.append("add_prefix_space")
        if names:
            known = [one.name for one in fields(self) if one.name not in ("extra", "add_prefix_space")]
            yield f"unknown argument {', '.join(names)}; known are text, text_pair, text_target, {', '.join(known)}"

    def _wrong_values(self) -> Iterator[str]:
        if not _is_key(self.padding, _PADDING):
            yield f"padding {self.padding!r}, it must be True, False, 'longest', 'max_length' or 'do_not_pad'"
        if not _is_key(self.truncation, _TRUNCATION):
            yield (
                f"truncation {self.truncation!r}, it must be True, False, 'longest_first', 'only_first', "
                "'only_second' or 'do_not_truncate'"
            )
        for name, least in (("max_length", 1), ("pad_to_multiple_of", 1), ("stride", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                yield f"{name} {value!r}, it must be a whole number from {least} on"
        if self.stride is None:
            yield "stride None, it must be a whole number from 0 on"
        if self.padding_side not in ("left", "right", None):
            yield f"padding_side {self.padding_side!r}, it must be 'left' or 'right'"
        if self.return_tensors not in (*_TENSORS, None):
            yield f"return_tensors {self.return_tensors!r}, it must be 'pt', 'np' or None"
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                yield f"{name} {getattr(self, name)!r}, it must be True or False"
        for name in _MAYBE_FLAGS:
            if not isinstance(getattr(self, name), bool | None):
                yield f"{name} {getattr(self, name)!r}, it must be True, False or None"

    @property
    def strategy(self) -> Strategy | None:
        """How texts are cut; a `max_length` alone means that they are, as in transformers."""
        if self.max_length is not None and self.padding is False and self.truncation is None:
            return "longest_first"
        return _TRUNCATION[self.truncation]

    def settings(
        self,
        *,
        limit: int | None,
        n_special: int,
        sides: tuple[str, str],
        pad: tuple[str | None, int | None],
        splits_special_tokens: bool,
    ) -> Settings:
        """What the library has to be set to.

        Args:
            limit: Tokens the model takes; None for no statement: then nothing is cut or filled up to it.
            n_special: Tokens that frame the texts of this call.
            sides: Where the tokenizer truncates, and where it pads.
            pad: The padding token and its id.
            splits_special_tokens: Whether the tokenizer cuts special tokens found in texts.

        Raises:
            ArgumentError: Lengths that do not fit each other, a tokenizer without a padding token.
        """
        return Settings(
            truncation=self._truncation(limit, n_special, cast(Side, sides[0])),
            padding=self._padding(limit, cast(Side, sides[1]), pad),
            split_special_tokens=splits_special_tokens
            if self.split_special_tokens is None
            else self.split_special_tokens,
            add_prefix_space=self.add_prefix_space,
        )

    def _truncation(self, limit: int | None, n_special: int, side: Side) -> Truncation | None:
        length = limit if self.max_length is None else self.max_length
        if self.strategy is None or length is None:
            return None
        room = length - n_special
        if room < 0:
            raise ArgumentError(f"max_length {length}, the special tokens alone are {n_special}; make it larger")
        if self.stride and self.stride >= room:
            raise ArgumentError(
                f"stride {self.stride}, it must be smaller than the {room} tokens of text that max_length {length} "
                f"leaves beside {n_special} special ones"
            )
        multiple = self.pad_to_multiple_of
        if multiple is not None and _PADDING[self.padding] and length % multiple:
            raise ArgumentError(
                f"max_length {length}, it must be a multiple of pad_to_multiple_of {multiple} when texts are both cut "
                "and padded"
            )
        return Truncation(length, self.stride, self.strategy, side)

    def _padding(self, limit: int | None, side: Side, pad: tuple[str | None, int | None]) -> Padding | None:
        kind = _PADDING[self.padding]
        length = (limit if self.max_length is None else self.max_length) if kind == "max_length" else None
        if kind is None or (kind == "max_length" and length is None):
            return None
        token, number = pad
        if token is None or number is None:
            raise ArgumentError("padding needs a padding token, the tokenizer has none; set tokenizer.pad_token")
        return Padding(
            length, self.pad_to_multiple_of, cast(Side, self.padding_side) if self.padding_side else side, token, number
        )


_FLAGS = [one.name for one in fields(CallOptions) if one.type is bool]
_MAYBE_FLAGS = [one.name for one in fields(CallOptions) if one.type == (bool | None)]


def _is_key(value: Any, table: Mapping[Any, Any]) -> bool:
    """Whether a value is named in a table; 1 and 0 are not True and False here."""
    return isinstance(value, (bool, str, type(None))) and value in table
