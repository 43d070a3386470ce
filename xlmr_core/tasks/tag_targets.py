"""Gold entities, or labels of words, to a training id for each token.

Letters: N tokens of all records, P records, E spans of all records, C labels, U units (what gets one label).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_core.errors import TaskError
from xlmr_core.heads import IGNORED
from xlmr_core.tasks.entities import TagScheme
from xlmr_core.tasks.labels import label_ids
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tokenization.encoding import bounds

# A span of a record: where it starts, where it ends, one past its last, counted as the records' offsets are; its type.
Span = tuple[int, int, str]

# Which prefixes suit the first, a middle, the last and the only unit of an entity, the best one first; "" is a bare
# label. The first label that the head has is taken, so that IO, IOB2, BIOES, BILOU and bare labels all work.
_PREFIXES = {"first": "BI", "middle": "IM", "last": "ELIM", "only": "SUBI"}


@dataclass(frozen=True, slots=True)
class _Spans:
    """The spans of all records, end to end.

    Attributes:
        record: Record of each span (E,).
        start: Where it starts (E,).
        end: One past its last (E,).
    """

    record: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, spans: Sequence[Sequence[Span | tuple[int, int]]]) -> "_Spans":
        flat = np.array([span[:2] for of_record in spans for span in of_record], dtype=np.int64).reshape(-1, 2)
        sizes = np.array([len(of_record) for of_record in spans], dtype=np.int64)
        return cls(np.repeat(np.arange(len(spans)), sizes), flat[:, 0], flat[:, 1])

    def of_tokens(self, records: WindowedRecords) -> np.ndarray:
        """The span that each token reaches into, the first of several; -1 for none (N,).

        The spans of a record are in order and do not overlap.
        """
        assert records.offsets is not None
        if not len(self.record):
            return np.full(len(records.ids), -1)
        # Texts one behind the other, so that one search serves them all.
        shift_N = np.repeat(np.arange(len(records), dtype=np.int64) << 32, np.diff(records.splits))
        shift_E = self.record << 32
        span_N = np.searchsorted(self.end + shift_E, records.offsets[:, 0] + shift_N, side="right")
        near_N = np.minimum(span_N, len(self.record) - 1)
        inside_N = (span_N < len(self.record)) & ((self.start + shift_E)[near_N] < records.offsets[:, 1] + shift_N)
        return np.where(inside_N, near_N, -1)


def entity_targets(
    entities: Sequence[Sequence[Span]],
    records: WindowedRecords,
    labels: tuple[str, ...],
    scheme: TagScheme,
    *,
    label_all: bool = False,
) -> np.ndarray:
    """Gold entities to a label for each token.

    A unit is a word, or the part of one that an entity begins or ends in. Its first token gets its label, by its place
    in the entity, the others none; with `label_all` every token is a unit. Units outside get the first label that marks
    no entity, or none where the head has no such label.

    Args:
        entities: Of each record, in any order.
        records: With offsets and word starts.
        labels: Label names, C of them.
        scheme: What they mean.
        label_all: Whether every token is labelled.

    Returns:
        Labels, -100 for none (N,), int64.

    Raises:
        TaskError: Entities of unknown types, that overlap or hold no token; all of them.
    """
    assert records.starts_word is not None
    ordered = [sorted(of_record) for of_record in entities]
    types = [name for of_record in ordered for _, _, name in of_record]
    table = {name: _labels_of_type(name, labels, scheme) for name in dict.fromkeys(types)}
    spans = _Spans.of(ordered)
    span_N = spans.of_tokens(records)
    _refuse_entities(spans, types, {name for name, found in table.items() if found is None}, span_N, scheme)
    first_in_record = np.zeros(len(span_N), dtype=bool)
    first_in_record[records.splits[:-1][np.diff(records.splits) > 0]] = True
    changes = np.diff(span_N, prepend=-2) != 0
    units = np.flatnonzero(label_all | records.starts_word | first_in_record | changes)
    span_U = span_N[units]
    # An entity's units stand side by side, and no two entities have the same number.
    first_U = np.diff(span_U, prepend=-2) != 0
    last_U = np.diff(span_U, append=-2) != 0
    place_U = np.select([first_U & last_U, first_U, last_U], [3, 0, 2], default=1)
    outside = np.flatnonzero(scheme.outside)
    targets_N = np.full(len(span_N), IGNORED, dtype=np.int64)
    targets_N[units] = outside[0] if len(outside) else IGNORED
    inside_U = span_U >= 0
    of_span = np.array([table[name] for name in types], dtype=np.int64).reshape(-1, len(_PREFIXES))
    targets_N[units[inside_U]] = of_span[span_U[inside_U], place_U[inside_U]]
    return targets_N


def word_targets(
    word_labels: Sequence[Sequence[str | None]],
    words: Sequence[Sequence[tuple[int, int]]],
    records: WindowedRecords,
    labels: tuple[str, ...],
    *,
    label_all: bool = False,
) -> np.ndarray:
    """Labels of pre-split words to a label for each token, as transformers' `run_ner.py` gives them.

    Args:
        word_labels: Names of the head's labels, of each word of each record; None for a word without one.
        words: Where the words stand in their text, in order; see `join_words`.
        records: With offsets.
        labels: Label names, C of them.
        label_all: Whether all tokens of a word get its label, "I-X" in place of "B-X" from the second one on; else the
            first one alone does.

    Returns:
        Labels, -100 for none (N,), int64.

    Raises:
        TaskError: Unknown labels, or more or fewer than words; all of them.
    """
    problems = [
        f"record {number} has {len(of_record)} labels and {len(spans)} words"
        for number, (of_record, spans) in enumerate(zip(word_labels, words, strict=True))
        if len(of_record) != len(spans)
    ]
    try:
        numbers = label_ids(word_labels, labels)
    except TaskError as error:
        raise TaskError("; ".join([*problems, str(error)])) from None
    if problems:
        raise TaskError("; ".join(problems) + "; each word needs a label")
    span_N = _Spans.of(words).of_tokens(records)
    gold = np.array([number for of_record in numbers for number in of_record] or [IGNORED], dtype=np.int64)
    targets_N = np.where(span_N >= 0, gold[span_N], IGNORED)
    goes_on = (np.diff(span_N, prepend=-2) == 0) & (span_N >= 0)
    if not label_all:
        return np.where(goes_on, IGNORED, targets_N)
    inside = {name: number for number, name in enumerate(labels)}
    follows = [inside.get(f"I{name[1:]}", number) if name[0] == "B" else number for number, name in enumerate(labels)]
    return np.where(goes_on & (targets_N >= 0), np.array(follows)[targets_N], targets_N)


def join_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """A text of words with a space between, and where each stands in it, in code points."""
    ends = bounds(np.array([len(word) + 1 for word in words], dtype=np.int64)).tolist()
    return " ".join(words), [(start, start + len(word)) for start, word in zip(ends, words, strict=False)]


def _labels_of_type(name: str, labels: tuple[str, ...], scheme: TagScheme) -> list[int] | None:
    """Labels of a type's first, middle, last and only unit; None where no label has the type."""
    own = [number for number in range(len(labels)) if scheme.names[scheme.types[number]] == name]
    by_prefix = {labels[number][0] if labels[number] != name else "": number for number in own}
    if not own:
        return None
    return [
        next((by_prefix[prefix] for prefix in (*prefixes, "") if prefix in by_prefix), own[0])
        for prefixes in _PREFIXES.values()
    ]


def _refuse_entities(spans: _Spans, types: list[str], unknown: set[str], span_N: np.ndarray, scheme: TagScheme) -> None:
    """Raises for entities that cannot be learnt."""
    held = np.isin(np.arange(len(types)), span_N)
    after = (np.diff(spans.record, prepend=-1) == 0) & (spans.start < np.roll(spans.end, 1))
    problems = []
    for number, name in enumerate(types):
        where = f"record {spans.record[number]}: {spans.start[number]} to {spans.end[number]} ({name!r:.100})"
        if name in unknown:
            problems.append(f"{where} is of an unknown type")
        if after[number]:
            problems.append(f"{where} overlaps the one before")
        elif not held[number]:
            problems.append(f"{where} holds no token")
    if problems:
        known = ", ".join(scheme.names[number] for number in np.unique(scheme.types[~scheme.outside]))
        raise TaskError(f"gold entities, {'; '.join(problems)}; types are {known}, entities must be apart")
