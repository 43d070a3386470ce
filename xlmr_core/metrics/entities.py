"""Entities of a text or a tag sequence against gold ones: an entity is right when its bounds and its type are.

Agrees with seqeval 1.2.2 in its default mode (the rules of conlleval, Tjong Kim Sang and De Meulder 2003) and in its
strict mode with each of its schemes, with these deliberate differences:
- Bare labels ("PER") are read as "I-PER"; seqeval takes "O" from "ORG" for the tag.
- The default mode reads L-, U- and M- (BILOU, BMES) as E-, S- and I-; seqeval joins "U-PER U-PER" into one entity.
- Strict IOB1: a single "B-X" before a "B-Y" is an entity; seqeval loses it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics.hits import Hits
from xlmr_core.metrics.means import share

Scheme = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU"]
# Start, one past the end (of characters or tags), type.
Span = tuple[int, int, str]

# An entity, by the prefixes of neighbours of one type. In IOB1 and IOE1 the mark only parts entities of one type. A
# group is what lacks its last tag; to pass over it at once keeps the search linear.
_ENTITY: dict[Scheme | None, re.Pattern[str]] = {
    None: re.compile("S|[BI]I*E?|E"),
    "IOB1": re.compile("(?<=[BI])BI*|I+"),
    "IOB2": re.compile("BI*"),
    "IOE1": re.compile("I++E(?=[IE])|(?<=E)E(?=[IE])|I++$|(I++)"),
    "IOE2": re.compile("I*+E|(I++)"),
    "IOBES": re.compile("S|BI*E"),
    "BILOU": re.compile("U|BI*L"),
}
_ALLOWED: dict[Scheme, str] = {"IOB1": "BI", "IOB2": "BI", "IOE1": "IE", "IOE2": "IE", "IOBES": "BIES", "BILOU": "BILU"}
_SAME_MEANING = str.maketrans("LUM", "ESI")


def spans_of_tags(tags: Sequence[str], scheme: Scheme | None = None) -> list[Span]:
    """The entities of a tag sequence, bounds counted in tags.

    Args:
        tags: "O", or a prefix and a type with "-" or "_" between; bare types only without a scheme.
        scheme: Only entities that are well formed in it; default: whatever can be read as one, as conlleval does.

    Raises:
        ArgumentError: Tags that the scheme does not have; all of them.
    """
    parsed = [_split(tag) for tag in tags]
    if scheme is None:
        parsed = [((prefix or "I").translate(_SAME_MEANING), name) for prefix, name in parsed]
    elif wrong := {
        tag for tag, (prefix, _) in zip(tags, parsed, strict=True) if prefix not in ("O", *_ALLOWED[scheme])
    }:
        known = ", ".join(f"{prefix}-" for prefix in _ALLOWED[scheme])
        raise ArgumentError(
            f"tags {', '.join(sorted(wrong)):.200}, {scheme} has O, {known}; name the scheme they are in"
        )
    spans, start = [], 0
    for (outside, name), run in groupby(parsed, key=lambda tag: (tag[0] == "O", tag[1])):
        prefixes = "".join(prefix for prefix, _ in run)
        if not outside:
            found = (match for match in _ENTITY[scheme].finditer(prefixes) if match.lastindex is None)
            spans += [(start + match.start(), start + match.end(), name) for match in found]
        start += len(prefixes)
    return spans


def _split(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag; no prefix for a bare type, and the type "_" for a bare prefix, as in seqeval."""
    if tag == "O" or tag.startswith(("O-", "O_")):
        return "O", ""
    if tag[:1] in tuple("BIESLUM") and (len(tag) == 1 or tag[1] in "-_"):
        return tag[0], tag[1:].strip("-_") or "_"
    return "", tag


@dataclass(slots=True)
class EntityScores:
    """Entities by type, and how many tags were right where tags were counted.

    Attributes:
        hits: Counts of each type.
        tags_right: Tags that are equal.
        tags: All tags.
    """

    hits: Hits = field(default_factory=Hits)
    tags_right: int = 0
    tags: int = 0

    def add(self, gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]]) -> None:
        """Counts entities; row r of both is one record, what it says twice counts once."""
        for of_record, guesses in zip(map(set, gold), map(set, predicted), strict=True):
            self.hits.add(
                (name for _, _, name in of_record & guesses),
                (name for _, _, name in of_record),
                (name for _, _, name in guesses),
            )

    def add_tags(
        self, gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme | None = None
    ) -> None:
        """Counts tag sequences, and the entities in them.

        Args:
            gold: Tags of each record.
            predicted: As many for each record.
            scheme: As in `spans_of_tags`.

        Raises:
            ArgumentError: Records of different lengths, or tags that the scheme does not have.
        """
        wrong = [row for row, (one, other) in enumerate(zip(gold, predicted, strict=True)) if len(one) != len(other)]
        if wrong:
            raise ArgumentError(
                f"records {wrong!s:.200} have more or fewer predicted than gold tags, must have as many"
            )
        self.add([spans_of_tags(tags, scheme) for tags in gold], [spans_of_tags(tags, scheme) for tags in predicted])
        for one, other in zip(gold, predicted, strict=True):
            self.tags_right += sum(g == p for g, p in zip(one, other, strict=True))
            self.tags += len(one)

    def merge(self, other: "EntityScores") -> "EntityScores":
        """Both together."""
        return EntityScores(self.hits.merge(other.hits), self.tags_right + other.tags_right, self.tags + other.tags)

    def by_type(self) -> dict[str, dict[str, float]]:
        """`precision`, `recall`, `f1` and `support` of each entity type."""
        return self.hits.by_name()

    def result(self) -> dict[str, float]:
        """`micro_`, `macro_`, `weighted_` `precision`, `recall`, `f1`; `support`; `tag_accuracy`, nan without tags."""
        return {
            **self.hits.averages(),
            "support": float(self.hits.gold.total()),
            "tag_accuracy": share(self.tags_right, self.tags),
        }
