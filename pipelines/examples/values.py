"""Single values of a record, checked: texts, label names, numbers. What is wrong is raised, for the record."""

import sys
from collections.abc import Sequence

from xlmr_core.errors import InputError

MAX_SECOND_TEXTS = 1_000
_LARGEST = sys.float_info.max
# Digits of a label's number in a text.
_MOST_DIGITS = 9
# How several labels stand in one string.
LABEL_SEPARATOR = "|"


def text_of(value: object, column: str, *, blank: bool = False) -> str:
    """A text.

    Args:
        value: As the file has it.
        column: For messages.
        blank: Whether it may be empty or white space.

    Raises:
        InputError: Codes "null", "not_a_string", "undecodable", "lone_surrogate", "empty_text".
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{column!r} is not UTF-8 at byte {error.start}", code="undecodable") from error
    if value is None:
        raise InputError(f"{column!r} is null, it must be a text", code="null")
    if not isinstance(value, str):
        raise InputError(f"{column!r} is a {type(value).__name__}, it must be a string", code="not_a_string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            what = f"{column!r} has half a surrogate pair at character {error.start}"
            raise InputError(what, code="lone_surrogate") from error
    if not blank and not value.strip():
        raise InputError(f"{column!r} is empty, it must be a text", code="empty_text")
    return value


def texts_of(value: object, column: str) -> tuple[str, ...]:
    """One text, or a list of them; an object stands for its `text`. None gives none.

    Raises:
        InputError: As `text_of`, and "too_many_texts".
    """
    if value is None:
        return ()
    several = value if isinstance(value, list) else [value]
    if len(several) > MAX_SECOND_TEXTS:
        what = f"{column!r} has {len(several)} texts, at most {MAX_SECOND_TEXTS} are read"
        raise InputError(what, code="too_many_texts")
    return tuple(text_of(part.get("text") if isinstance(part, dict) else part, column) for part in several)


def words_of(value: object, column: str) -> list[str]:
    """Words of a text.

    Raises:
        InputError: As `text_of`, and "not_a_list", "empty_text" without words, "empty_word".
    """
    words = [text_of(word, column, blank=True) for word in list_of(value, column)]
    if not words or not any(word.strip() for word in words):
        raise InputError(f"{column!r} has no words, a text needs one", code="empty_text")
    if not all(words):
        raise InputError(f"{column!r} has an empty word at {words.index('')}, leave it out", code="empty_word")
    return words


def list_of(value: object, column: str) -> list[object]:
    """A list.

    Raises:
        InputError: Codes "null", "not_a_list".
    """
    if value is None:
        raise InputError(f"{column!r} is null, it must be a list", code="null")
    if not isinstance(value, list):
        raise InputError(f"{column!r} is a {type(value).__name__}, it must be a list", code="not_a_list")
    return value


def label_of(value: object, column: str, names: Sequence[str]) -> str:
    """A label's name; a whole number stands for one of `names`.

    Raises:
        InputError: Codes "missing_label", "wrong_label_type", "unknown_label".
    """
    if type(value) is str:
        number = digits(value)
        if names and value not in names and number is not None:
            return label_of(number, column, names)
        if not value.strip():
            raise InputError(f"{column!r} is empty, it must be a label", code="missing_label")
        return text_of(value, column)
    # -1 is what `datasets` writes for a label that is not told.
    if value is None or (value == -1 and names):
        raise InputError(f"{column!r} is null, it must be a label", code="missing_label")
    if type(value) is not int:
        what = f"{column!r} is a {type(value).__name__}, it must be the name of a label"
        raise InputError(what, code="wrong_label_type")
    if not names:
        what = f"{column!r} is a number, labels are names; pass label_names= in the order of the numbers"
        raise InputError(what, code="wrong_label_type")
    if not 0 <= value < len(names):
        raise InputError(f"{column!r} is {value}, the labels are 0 to {len(names) - 1}", code="unknown_label")
    return names[value]


def digits(value: str) -> int | None:
    """The number that some digits stand for; None where there is anything else."""
    return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else None


def labels_of_list(value: object, column: str, names: Sequence[str]) -> tuple[str, ...]:
    """Label names from a list, or from one string with "|" between; an empty one means none, null is missing.

    Raises:
        InputError: As `label_of`, and "not_a_list".
    """
    if value is None:
        raise InputError(f"{column!r} is null, it must be a list of labels, which may be empty", code="missing_label")
    several = value
    if isinstance(value, str):
        several = [part.strip() for part in value.split(LABEL_SEPARATOR)] if value.strip() else []
    return tuple(dict.fromkeys(label_of(part, column, names) for part in list_of(several, column)))


def number_of(value: object, column: str) -> float:
    """A finite number, also from its text.

    Raises:
        InputError: Codes "missing_label", "wrong_label_type".
    """
    if value is None or value == "":
        raise InputError(f"{column!r} is null, it must be a number", code="missing_label")
    number: object = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not -_LARGEST <= number <= _LARGEST:
        raise InputError(f"{column!r} is no finite number, it must be one", code="wrong_label_type")
    return float(number)


def numbers_of(value: object, column: str) -> tuple[float, ...]:
    """Finite numbers from one or a list.

    Raises:
        InputError: As `number_of`.
    """
    return tuple(number_of(part, column) for part in (value if isinstance(value, list) else [value]))
