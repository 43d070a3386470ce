"""`key=value` options of an annotation, read into the task's typed dataclass."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from xlmr_core.errors import TaskError

OptionsT = TypeVar("OptionsT")
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_options(kind: type[OptionsT], raw: Mapping[str, object], *, where: str) -> OptionsT:
    """Reads options as a user typed them.

    Args:
        kind: A dataclass whose fields are str, int, float, bool, Literal, tuple[str, ...] or one of these or None.
        raw: Option names and values. Text is read by the field's type, lists of it separated by `|`; other values are
            taken as they are.
        where: What the options belong to, for the message.

    Raises:
        TaskError: Unknown names and unreadable values, all at once.
    """
    hints = get_type_hints(kind)
    allowed = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # OptionsT is a dataclass by contract
    values, problems = {}, []
    for name, text in raw.items():
        if name not in allowed:
            close = get_close_matches(name, allowed, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(allowed)}"
            problems.append(f"unknown option {name!r}; {hint}")
            continue
        try:
            values[name] = _convert(hints[name], text) if isinstance(text, str) else _checked(hints[name], text)
        except ValueError as error:
            problems.append(f"option {name}={text!r}, {error}")
    if problems:
        raise TaskError(f"{where}: " + "; ".join(problems))
    return kind(**values)


def _checked(hint: Any, value: object) -> Any:
    """A value that is no text, if its type is the field's or a list where the field is a tuple."""
    parts = _parts(hint)
    listed = next((part for part in parts if get_origin(part) is tuple), None)
    if isinstance(value, list | tuple) and listed is not None:
        if not all(isinstance(item, str) for item in value):
            raise ValueError("it must be a list of texts")
        return tuple(_convert(get_args(listed)[0], item) for item in value)
    plain = [part for part in parts if isinstance(part, type)]
    if float in plain and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # True is an int to Python, not to a user.
    if not isinstance(value, tuple(plain)) or (isinstance(value, bool) and bool not in plain):
        expected = [part.__name__ for part in plain if part is not type(None)]
        # A value of any of the other kinds is written as text, or as a list of texts.
        raise ValueError(f"it must be {' or '.join(expected) or 'a text'}")
    return value


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, else the hint alone; `Literal[...] | None` is a Union of its own, no UnionType."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _convert(hint: Any, text: str) -> Any:
    (hint,) = [part for part in _parts(hint) if part is not type(None)]
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError(f"it must be one of {', '.join(get_args(hint))}")
        return text
    if get_origin(hint) is tuple:
        return tuple(_convert(get_args(hint)[0], part) for part in text.split("|"))
    if hint is bool:
        if text.lower() not in BOOLEANS:
            raise ValueError("it must be true or false")
        return BOOLEANS[text.lower()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"it must be a {'whole ' if hint is int else ''}number") from None
    return text
