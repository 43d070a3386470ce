"""Answers of question answering: at the place the data gives, or found again near it.

Published sets give wrong places for some answers: counted in UTF-16 units or bytes, before blanks were squeezed, or in
another normal form.
"""

import sys
import unicodedata
from bisect import bisect_left

from pipelines.examples.example import Span

# How far from the given place an answer is looked for, in code points of the (normalised) context: within the first of
# these that holds it at all, it must be there once.
_RADII = (10, 50, 200, sys.maxsize)


def place_answer(context: str, answer: str, start: int) -> tuple[Span | None, bool]:
    """Where an answer stands in its context.

    It is where `start` says, else its one occurrence near by, else, further and further away, its one occurrence there;
    first letter by letter without the blanks around it, then under compatibility decomposition, case folding and
    squeezed blanks (a letter that stands for several counts as a whole). Where it is somewhere a word or number of its
    own, places inside of words and numbers do not count ("1" in "2015"). What that does not settle has no place.

    Returns:
        The span in code points, None where it cannot be told; and whether it was repaired.
    """
    if answer and start >= 0 and context.startswith(answer, start):
        return (start, start + len(answer)), False
    answer = answer.strip()
    if not answer:
        return None, False
    found = _nearest(_occurrences(context, answer), start)
    if found is not None:
        return (found, found + len(answer)), True
    folded, origin = _fold(context)
    wanted = _fold(answer)[0].strip()
    if not wanted:
        return None, False
    at = _nearest(_occurrences(folded, wanted), bisect_left(origin, start))
    if at is None:
        return None, False
    return (origin[at], origin[at + len(wanted) - 1] + 1), True


def _occurrences(text: str, wanted: str) -> list[int]:
    places, at = [], text.find(wanted)
    while at >= 0:
        places.append(at)
        at = text.find(wanted, at + 1)
    whole = [at for at in places if not (_joined(text, at) or _joined(text, at + len(wanted)))]
    return whole or places


def _joined(text: str, at: int) -> bool:
    """Whether a word goes on across a place, as far as ASCII letters and digits tell: not all scripts have blanks."""
    around = text[max(at - 1, 0) : at + 1]
    return 0 < at < len(text) and around.isascii() and around.isalnum()


def _nearest(places: list[int], start: int) -> int | None:
    for radius in _RADII:
        near = [place for place in places if abs(place - start) <= radius]
        if near:
            return near[0] if len(near) == 1 else None
    return None


def _fold(text: str) -> tuple[str, list[int]]:
    """Text under decomposition, case folding and squeezed blanks, and which character each of its letters is from."""
    letters: list[str] = []
    origin: list[int] = []
    for place, character in enumerate(text):
        if unicodedata.category(character) == "Cf":
            continue
        if character.isspace():
            if not letters or letters[-1] != " ":
                letters.append(" ")
                origin.append(place)
            continue
        for letter in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold()):
            letters.append(letter)
            origin.append(place)
    return "".join(letters), origin
