"""What a labelled record is, whatever file it came from; and what is wrong with one that cannot be used."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pipelines.annotate.lines import Problem

Task = Literal[
    "sequence-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "rerank",
    "similarity",
    "embedding",
    "fill-mask",
    "causal-lm",
]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
# Places shown for each kind of problem or notice.
MAX_PLACES = 20

# A place in the text, code points: where it starts, and one past its end.
Span = tuple[int, int]
# A span and its type.
Entity = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class WordLabels:
    """A label for each word of a text.

    Attributes:
        labels: Label names; None for a word without one.
        spans: Where each word stands in the text, in order. Words that one surface token stands for ("du" for "de le")
            all have its span.
    """

    labels: tuple[str | None, ...]
    spans: tuple[Span, ...]


# By task:
#   sequence-classification  a label's name; names, may be none (multi_label_classification); a number or several
#                            (regression)
#   token-classification     `WordLabels`, or entities in order of their start
#   question-answering       spans of the answers in the text, which is the context; none where it holds no answer
#   multiple-choice          number of the right second text, counted from 0
#   rerank, similarity, embedding    a number for each second text
#   fill-mask, causal-lm     None
Gold = str | float | WordLabels | tuple[str, ...] | tuple[float, ...] | tuple[Entity, ...] | tuple[Span, ...] | None


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled record.

    Attributes:
        text: Never empty.
        second: What it is read with: the pair, the question, the choices, the documents.
        gold: The right answer, by task; see `Gold`.
        language: As the data calls it, "" where nothing tells.
        id: Given by the data, else made from file and line.
        source: "file:line", for messages.
    """

    text: str
    second: tuple[str, ...]
    gold: Gold
    language: str
    id: str
    source: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be used.

    Attributes:
        id: As that of an `Example`.
        source: "file:line".
        problem: Why, without any of the record's own text.
    """

    id: str
    source: str
    problem: Problem


@dataclass(slots=True)
class Row:
    """One record as its file has it.

    Attributes:
        place: Line in the file, counted from 1; row where there are no lines; path inside a JSON document.
        values: Values by column; a column that the record has not is None.
        problem: Why it could not be parsed.
        spans: Where the words stand in the text, where the format tells.
        notice: Code of what is odd about it.
    """

    place: int | str
    values: dict[str, object]
    problem: Problem | None = None
    spans: tuple[Span, ...] | None = None
    notice: str | None = None


@dataclass(slots=True)
class Notices:
    """What was found by the way: counts by code, and the first places of each.

    Attributes:
        counts: How often.
        places: "file:line", at most `MAX_PLACES` a code.
    """

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, code: str, place: str, count: int = 1) -> None:
        """Counts something at a place."""
        self.counts[code] += count
        shown = self.places.setdefault(code, [])
        if len(shown) < MAX_PLACES:
            shown.append(place)
