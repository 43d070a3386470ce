"""What a tokenizer is called with: one text or many, alone or in pairs, whole or cut into words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from xlmr_core.errors import ArgumentError, InputError
from xlmr_core.tokenization import text_problem


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts as the library reads them.

    Attributes:
        rows: Texts, lists of words, or pairs of either.
        batched: Whether they came as a list.
        paired: Whether any of them is a pair.
        words: Whether texts are lists of words.
    """

    rows: Sequence[Any]
    batched: bool
    paired: bool
    words: bool


def read_rows(text: Any, text_pair: Any, *, words: bool) -> Rows:
    """Sorts out what was given: `text` is a text (or a list of words), a list of them, or a list of pairs.

    Whether each text is one is left to `encode_rows`.

    Raises:
        ArgumentError: Something that is neither, or lists of different lengths.
    """
    _refuse_non_sequence("text", text, words=words)
    batched = _is_batch(text, words=words)
    if text_pair is None:
        rows = text if batched else [text]
        return Rows(rows, batched, any(_is_pair(row, words=words) for row in rows), words)
    _refuse_non_sequence("text_pair", text_pair, words=words)
    if not batched:
        if words and _is_batch(text_pair, words=True):
            raise ArgumentError("text_pair is a batch, text is one text; give both as lists of texts or as one each")
        if not words and not isinstance(text_pair, str):
            raise ArgumentError(
                f"text_pair is a {type(text_pair).__name__}, text is one text; give both as lists or one each"
            )
        return Rows([(text, text_pair)], False, True, words)
    if not _is_batch(text_pair, words=words) and len(text_pair):
        raise ArgumentError("text_pair is one text, text is a batch; give as many second texts as texts")
    if len(text) != len(text_pair):
        raise ArgumentError(f"text_pair has {len(text_pair)} texts, text has {len(text)}; each text needs its own")
    return Rows(list(zip(text, text_pair, strict=True)), True, bool(text), words)


def _refuse_non_sequence(name: str, value: Any, *, words: bool) -> None:
    if isinstance(value, str) and words:
        raise ArgumentError(
            f"{name} is a string, is_split_into_words=True reads lists of words; cut it, or leave that out"
        )
    if not isinstance(value, (str, list, tuple)):
        code = text_problem(value)
        hint = "; use .tolist()" if hasattr(value, "tolist") else ""
        raise InputError(
            f"{name} is a {type(value).__name__}, it must be a string or a list of strings{hint}",
            code=code or "not_a_string",
        )


def _is_batch(value: Any, *, words: bool) -> bool:
    if words:
        return bool(value) and isinstance(value[0], (list, tuple))
    return isinstance(value, (list, tuple))


def _is_pair(row: Any, *, words: bool) -> bool:
    if words:
        return isinstance(row, (list, tuple)) and len(row) == 2 and all(isinstance(one, (list, tuple)) for one in row)
    return isinstance(row, (list, tuple)) and len(row) == 2


def encode_rows(library: tokenizers.Tokenizer, texts: Rows, *, add_special_tokens: bool) -> list[tokenizers.Encoding]:
    """Runs the library over all texts at once.

    Raises:
        InputError: The first text that is none, or that cannot be cut as asked, by its row.
    """
    try:
        return library.encode_batch(
            list(texts.rows), is_pretokenized=texts.words, add_special_tokens=add_special_tokens
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library panics, which is no Exception, when a stride does not fit
        problem = _unusable(texts) or _uncuttable(library, texts, add_special_tokens=add_special_tokens)
        if problem is None:
            raise
        raise problem from error


def _unusable(texts: Rows) -> InputError | None:
    """The first text that is no string or no valid Unicode."""
    for number, row in enumerate(texts.rows):
        if not texts.words and isinstance(row, (list, tuple)) and len(row) != 2:
            return InputError(f"text {number} is a {type(row).__name__} of {len(row)}, a pair has 2", code="not_a_pair")
        parts = list(row) if _is_pair(row, words=texts.words) else [row]
        if texts.words:
            if not all(isinstance(part, (list, tuple)) for part in parts):
                return InputError(
                    f"text {number} is no list of words, it must be with is_split_into_words=True", code="not_a_list"
                )
            parts = [word for part in parts for word in part]
        for part in parts:
            if code := text_problem(part):
                return InputError(f"text {number} is unusable ({code}), it must be valid Unicode", code=code)
    return None


def _uncuttable(library: tokenizers.Tokenizer, texts: Rows, *, add_special_tokens: bool) -> InputError | None:
    """The first text that the library's truncation cannot handle."""
    cut = library.truncation
    if cut is None:
        return None
    for number, row in enumerate(texts.rows):
        try:
            library.encode_batch([row], is_pretokenized=texts.words, add_special_tokens=add_special_tokens)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return InputError(
                f"text {number} cannot be cut to max_length {cut['max_length']} with truncation {cut['strategy']!r} "
                f"and stride {cut['stride']}, the text to be cut must be there and keep more tokens than the stride; "
                "use another truncation, max_length or stride",
                code="cannot_be_cut",
            )
    return None
