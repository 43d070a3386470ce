"""Sequences of tags that no scheme allows, counted file by file."""

from collections.abc import Sequence

_SCHEMES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}


def _split(tag: str | None) -> tuple[str, str]:
    """Place and type of a tag: ("B", "PER"); ("O", "") for what marks no entity, ("", tag) for a bare label."""
    if tag is None or tag == "O":
        return "O", ""
    if len(tag) > 1 and tag[1] in "-_" and tag[0] in _SCHEMES:
        return _SCHEMES[tag[0]], tag[2:]
    return "", tag


class TagCheck:
    """Counts tags that cannot follow each other.

    With E- or S- tags (BIOES, BILOU) every entity must begin, go on and end by its tags. Without them, "I-X" may begin
    an entity (IOB1) unless others begin with "B-X" where IOB1 has no such tag (IOB2): what is rarer of the two is
    wrong.
    """

    def __init__(self) -> None:
        self._closed = 0
        self._begun_by_b = 0
        self._begun_by_i = 0
        self._ends_marked = False

    def add(self, tags: Sequence[str | None]) -> None:
        """Takes the tags of one text."""
        before, type_before = "O", ""
        for tag in [*tags, None]:
            place, type = _split(tag)
            self._ends_marked |= place in ("E", "S")
            goes_on = before in ("B", "I") and type == type_before
            # By BIOES: an open entity must be continued by its own kind, and only an open one can be.
            self._closed += (before in ("B", "I")) != (place in ("I", "E")) or (place in ("I", "E") and not goes_on)
            if not (before in ("B", "I", "E", "S") and type == type_before):
                self._begun_by_b += place == "B"
                self._begun_by_i += place == "I"
            before, type_before = place, type

    @property
    def broken(self) -> int:
        """Tags that cannot stand where they stand."""
        return self._closed if self._ends_marked else min(self._begun_by_b, self._begun_by_i)
