"""What a model worker counts of a shard for the report, and how the counts of all shards add up.

Counts are integers in nested dicts, so plain JSON, and two of them add up key by key. Their keys are names of columns,
labels of the tasks, numbers of bins and language codes, never a word of a text.

    {"lengths": {BIN: rows}, "long": rows,
     "columns": {COLUMN: {"labels": {LABEL: n}, "others": n, "scores": {BIN: n}, "not_finite": n}},
     "languages": {COLUMN: {CODE: {"rows": n, "tokens": n, "long": n, "truncated": n, "quarantined": n}}}}
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.annotate.commit import Commit
from pipelines.annotate.lease import OutputError
from pipelines.annotate.timeline import Timeline
from xlmr_core.graph import GraphPlan

Counts = dict[str, Any]

# Bin i holds values over edge i - 1, up to and with edge i; the first and the last bin have no other end.
# Four bins an octave: a count of tokens is known to a quarter, and powers of two, the usual limits, are edges.
_OCTAVES = np.unique([2**k * (4 + quarter) // 4 for k in range(20) for quarter in range(4)]).astype(np.float64)
LENGTH_EDGES: npt.NDArray[np.float64] = np.concatenate([[0.0], _OCTAVES])
# Twentieths up to 1, where probabilities and cosines lie; beyond, for logits, four bins an octave again.
_POSITIVE = np.concatenate(
    [np.arange(1, 20) / 20, [2**k * (4 + quarter) / 4 for k in range(20) for quarter in range(4)]]
)
SCORE_EDGES: npt.NDArray[np.float64] = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE])

LANGUAGE_CODE = r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}"
NO_LANGUAGE, NOT_A_CODE = "", "?"
_LANGUAGE_NAMES = {"lang", "language"}
# Fewer labels may look like codes by chance: "neg", "neu", "pos".
_CERTAINLY_LANGUAGES = 16

# The first so many labels of a head are told apart; which ones must not depend on the shard.
_MOST_LABELS = 1_000
_MOST_LANGUAGES_OF_SHARD, _MOST_LANGUAGES = 500, 2_000


def count_shard(plan: GraphPlan, data: pa.Table, set_aside: pa.Table | None = None) -> Counts:
    """Counts one shard.

    Args:
        plan: Says which columns are annotations, and their labels.
        data: The rows that are written: `STATUS_FIELDS`, annotations, kept columns.
        set_aside: One row for each that is quarantined, with its kept columns if any are kept.
    """
    columns: Counts = {}
    for annotation in plan.annotations:
        labels = _vocabulary(getattr(annotation.task, "labels", ()))
        for column in annotation.task.fields(annotation.name):
            if counts := _count_column(data.column(column.name), labels):
                columns[column.name] = counts
    counts = {
        "lengths": histogram(_numbers(data, "n_tokens"), LENGTH_EDGES),
        "long": int((_numbers(data, "n_windows") > 1).sum()),
        "columns": columns,
    }
    source = _language_column(plan, data.column_names)
    return counts | ({"languages": {source: _count_languages(data, source, set_aside)}} if source else {})


def histogram(values: npt.NDArray[Any], edges: npt.NDArray[np.float64]) -> dict[str, int]:
    """Values by bin, empty bins left out."""
    bins, counts = np.unique(np.searchsorted(edges, values, side="left"), return_counts=True)
    return dict(zip(map(str, bins.tolist()), counts.tolist(), strict=True))


def add_counts(total: Counts, more: Mapping[str, Any]) -> None:
    """Adds counts to `total`, key by key."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            add_counts(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + int(value)


def _vocabulary(labels: Sequence[str]) -> frozenset[str]:
    """What may be counted by name: labels, and the types that tags such as B-PER stand for."""
    known = tuple(labels)[:_MOST_LABELS]
    return frozenset([*known, *(label[2:] for label in known if label[1:2] in ("-", "_"))])


def _count_column(column: pa.ChunkedArray, labels: frozenset[str]) -> Counts:
    """Labels or scores of a column, of the items where it holds lists; nothing of a type that has neither."""
    kinds = pa.types
    values = column.combine_chunks()
    if kinds.is_list(values.type):
        values = values.flatten()
    if kinds.is_struct(values.type):
        names = {part.name for part in values.type}
        parts = [
            _count_column(pa.chunked_array([pc.struct_field(values, name)]), labels)
            for name in ("label", "score")
            if name in names
        ]
        return {key: value for part in parts for key, value in part.items()}
    if kinds.is_string(values.type) and labels:
        return _count_labels(values, labels)
    # The scores of all labels, one list a row, say little in one histogram.
    if kinds.is_floating(values.type) and not kinds.is_list(column.type):
        return _count_scores(values.drop_null().to_numpy(zero_copy_only=False))
    return {}


def _count_labels(values: pa.Array, labels: frozenset[str]) -> Counts:
    found = Counter({entry["values"]: entry["counts"] for entry in values.drop_null().value_counts().to_pylist()})
    known = {label: count for label, count in found.items() if label in labels}
    return {"labels": known, "others": found.total() - sum(known.values())}


def _count_scores(values: npt.NDArray[Any]) -> Counts:
    finite = values[np.isfinite(values)].astype(np.float64)
    # A sigmoid that underflows belongs with the small ones, not with what is below zero.
    finite[finite == 0] = np.finfo(np.float64).tiny
    return {"scores": histogram(finite, SCORE_EDGES), "not_finite": len(values) - len(finite)}


def _numbers(data: pa.Table, name: str) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = data.column(name).to_numpy().astype(np.int64)
    return numbers


def _language_column(plan: GraphPlan, names: Iterable[str]) -> str | None:
    """The column that tells a row's language: one that came with the input, else that of a language head."""
    own = {column.name for annotation in plan.annotations for column in annotation.task.fields(annotation.name)}
    for name in names:
        if name not in own and name.rpartition(".")[2].lower() in _LANGUAGE_NAMES:
            return name
    for annotation in plan.annotations:
        labels = getattr(annotation.task, "labels", ())
        codes = sum(re.fullmatch(LANGUAGE_CODE, label) is not None for label in labels)
        certain = annotation.name.lower() in _LANGUAGE_NAMES or len(labels) >= _CERTAINLY_LANGUAGES
        column = f"{annotation.name}_label"
        if certain and column in own and codes >= 0.9 * len(labels) > 0:
            return column
    return None


def _count_languages(data: pa.Table, source: str, set_aside: pa.Table | None) -> Counts:
    codes, names = _codes(data.column(source))
    tokens = _numbers(data, "n_tokens")
    truncated = pc.equal(data.column("status"), "truncated").to_numpy().astype(bool)
    measures = {
        "rows": np.ones_like(tokens),
        "tokens": tokens,
        "long": _numbers(data, "n_windows") > 1,
        "truncated": truncated,
    }
    counts: Counts = {name: {} for name in names}
    for key, values in measures.items():
        sums = np.bincount(codes, weights=values, minlength=len(names)).astype(np.int64)
        add_counts(counts, {name: {key: total} for name, total in zip(names, sums.tolist(), strict=True) if total})
    if set_aside is not None and set_aside.num_rows:
        known = source in set_aside.column_names
        codes, names = _codes(set_aside.column(source) if known else pa.chunked_array([pa.nulls(set_aside.num_rows)]))
        sums = np.bincount(codes, minlength=len(names))
        add_counts(counts, {name: {"quarantined": n} for name, n in zip(names, sums.tolist(), strict=True) if n})
    return _fewer_languages(counts, _MOST_LANGUAGES_OF_SHARD)


def _codes(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """A number for each row and what the numbers mean; values that are no language code are not repeated."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = pa.chunked_array([pa.nulls(len(column), pa.string())])
    # As bytes, since nobody has checked that a kept column is UTF-8.
    encoded = column.cast(pa.large_binary()).combine_chunks().dictionary_encode(null_encoding="encode")
    names: dict[str, int] = {}
    number = [names.setdefault(_code(value), len(names)) for value in encoded.dictionary.to_pylist()]
    return np.array(number, dtype=np.int64)[encoded.indices.to_numpy()], list(names)


def _code(value: bytes | None) -> str:
    if value is None:
        return NO_LANGUAGE
    text = value[:64].decode("ascii", errors="replace")
    return text if re.fullmatch(LANGUAGE_CODE, text) else NOT_A_CODE


def _fewer_languages(languages: Counts, most: int) -> Counts:
    """The same counts with the rarest languages as one, when there are more than so many."""
    if len(languages) <= most:
        return languages
    ranked = sorted(languages, key=lambda code: (-languages[code].get("rows", 0), code))
    kept = {code: languages[code] for code in ranked[:most]}
    for code in ranked[most:]:
        add_counts(kept, {NOT_A_CODE: languages[code]})
    return kept


@dataclass(slots=True)
class Totals:
    """All commits so far, as one: its size does not grow with their number.

    Attributes:
        shards, uncounted: Committed, and those of them without counts for a report.
        rows, ok, quarantined: Of these shards; ok are the rows of the data.
        statuses, codes: Rows of the data by status, quarantined ones by reason.
        tokens: Of the texts, once.
        encoder_tokens, windows: That went through encoders.
        busy_s: Seconds of all models.
        counts: See the top of this file.
        timeline: Tokens over time.
    """

    shards: int = 0
    uncounted: int = 0
    rows: int = 0
    ok: int = 0
    quarantined: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    encoder_tokens: int = 0
    windows: int = 0
    busy_s: float = 0.0
    counts: Counts = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)

    def add(self, commit: Commit) -> None:
        """Adds one shard.

        Raises:
            OutputError: What its record holds for the report is damaged.
        """
        self.shards += 1
        self.rows += commit.planned
        self.ok += commit.ok
        self.quarantined += commit.quarantined
        self.statuses.update(commit.statuses)
        self.tokens += commit.tokens
        try:
            self._add_stats(commit.stats)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise OutputError(
                f"the commit record of shard {commit.shard} is damaged ({type(error).__name__}); "
                "xlmr verify says what else is"
            ) from error

    def _add_stats(self, stats: Mapping[str, Any]) -> None:
        self.codes.update({code: int(count) for code, count in stats.get("codes", {}).items()})
        self.encoder_tokens += stats.get("encoder_tokens", 0)
        self.windows += stats.get("windows", 0)
        self.busy_s += stats.get("busy_s", 0.0)
        if "counts" not in stats:
            self.uncounted += 1
            return
        add_counts(self.counts, stats["counts"])
        for source, languages in self.counts.get("languages", {}).items():
            self.counts["languages"][source] = _fewer_languages(languages, _MOST_LANGUAGES)
        ended = float(stats["ended"])
        self.timeline.add(str(stats["lease"]), ended - stats["busy_s"], ended, stats["encoder_tokens"])
