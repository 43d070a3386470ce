"""Texts to tokens where one text that the tokenizer cannot take must not spoil the others."""

from collections.abc import Sequence

import numpy as np

from pipelines.annotate.lines import Problem
from xlmr_core.graph import EncodedRecords, Preprocessor


def tokenise_usable(
    preprocess: Preprocessor,
    texts: Sequence[str],
    pairs: Sequence[Sequence[str]] | None,
    languages: Sequence[str | None] | None = None,
) -> tuple[np.ndarray, EncodedRecords, dict[int, Problem]]:
    """Tokenises all texts at once, or, when that raises, those that can be tokenised alone.

    Letters: R texts, U of them usable.

    Args:
        preprocess: Tokenises.
        texts: R texts.
        pairs: The second texts of each, for tasks that read them.
        languages: The language of each, for tasks that ask for it.

    Returns:
        Positions of the usable texts (U,), int64; their tokens; and for the other positions the Problem.

    Raises:
        RuntimeError: The tokenizer raised for all texts together and for none alone.
    """
    usable = np.arange(len(texts), dtype=np.int64)
    together = _attempt(preprocess, texts, pairs, languages)
    if isinstance(together, EncodedRecords):
        return usable, together, {}
    problems = {
        position: Problem("tokenizer_error", f"the tokenizer raised {type(found).__name__} on this record")
        for position in range(len(texts))
        if isinstance(found := _attempt(preprocess, [texts[position]], pairs and [pairs[position]]), BaseException)
    }
    usable = np.setdiff1d(usable, list(problems))
    chosen = [texts[position] for position in usable.tolist()]
    chosen_pairs = None if pairs is None else [pairs[position] for position in usable.tolist()]
    chosen_languages = None if languages is None else [languages[position] for position in usable.tolist()]
    encoded = _attempt(preprocess, chosen, chosen_pairs, chosen_languages)
    if isinstance(encoded, BaseException):
        raise RuntimeError("the tokenizer raised for all texts together and for none alone") from encoded
    return usable, encoded, problems


def _attempt(
    preprocess: Preprocessor,
    texts: Sequence[str],
    pairs: Sequence[Sequence[str]] | None,
    languages: Sequence[str | None] | None = None,
) -> EncodedRecords | BaseException:
    """The tokens, or what was raised instead."""
    try:
        return preprocess(texts, pairs, languages)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no Exceptions
        return error
