"""The labels of a data set: their names in a stable order, and how often each occurs, by language."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelines.examples.example import Example, WordLabels

# Tags of one type in the order in which they occur in an entity.
_ORDER = "BIMELSU"


@dataclass(slots=True)
class LabelCounts:
    """How often labels occur; filled as examples pass.

    Attributes:
        labels: By name.
        by_language: By language, then by name.
    """

    labels: Counter[str] = field(default_factory=Counter)
    by_language: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Counts the labels of one example; numbers, spans and choices are none."""
        names = labels_of(example)
        if names:
            self.labels.update(names)
            self.by_language.setdefault(example.language, Counter()).update(names)

    @property
    def names(self) -> tuple[str, ...]:
        """The label names in their order; see `label_order`."""
        return label_order(self.labels)


def labels_of(example: Example) -> list[str]:
    """The label names in an example's gold value, with repeats."""
    gold = example.gold
    if isinstance(gold, str):
        return [gold]
    if isinstance(gold, WordLabels):
        return [label for label in gold.labels if label is not None]
    if not isinstance(gold, tuple):
        return []
    names: list[str] = []
    for value in gold:
        if isinstance(value, str):
            names.append(value)
        elif isinstance(value, tuple) and len(value) == 3:
            names.append(value[2])
    return names


def label_set(examples: Iterable[Example]) -> tuple[str, ...]:
    """All label names of some examples, in order; the counts are in `LabelCounts`."""
    counts = LabelCounts()
    for example in examples:
        counts.add(example)
    return counts.names


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted by code point; tags with "O" first, then type by type: "B-X", "I-X".

    Names are tags only when each is "O" or has a prefix, so that a class called "B-movie" stays where it was.
    """
    unique = set(names)
    if is_tag_set(unique):
        return tuple(sorted(unique, key=lambda name: (name != "O", name[2:], _ORDER.find(name[0]), name)))
    return tuple(sorted(unique))


def is_tag_set(names: set[str]) -> bool:
    """Whether labels mark entities: each is "O" or has a prefix, and not all are "O"."""
    return bool(names - {"O"}) and all(name == "O" or _is_tag(name) for name in names)


def _is_tag(name: str) -> bool:
    return len(name) > 2 and name[0] in _ORDER and name[1] in "-_"
