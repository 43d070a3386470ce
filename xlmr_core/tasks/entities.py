"""Tokens to entities: tag schemes and aggregation strategies, vectorised over all records at once.

Agrees with transformers' `token-classification` pipeline (5.23) on labels, scores and offsets for its own scheme
(BIO and bare labels), with these deliberate differences, each a known fault there:
- E-, S-, L-, U- prefixes (BIOES, BILOU) mark bounds; there they become types of their own ("E-PER").
- A word starts after any white space; there only after U+0020, so a tab or a line break fuses two words. In scripts
  without spaces it starts at a Unicode word boundary (see `tokenization.word_starts`); there a sentence is one word.
- Entities do not overlap, begin and end with something else than a blank and are never empty. What several tokens share
  belongs to the last of them, and an entity of tokens that own nothing is none. There the marker that stands alone
  before "日本" in a text claims "日" for an entity of its own, and so does each token of "㍿".
- A type that occurs only as "I-X" needs no "B-X" here or there (IOB1).

Letters: N tokens of all records, C labels, G groups (words or entities), E entities.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xlmr_core.tasks.columns import Labels, Lists, Structs

Aggregation = Literal["none", "simple", "first", "average", "max"]

# How a prefix moves the bounds of an entity: it starts one, ends one, or both. "I" and "M" do neither.
STARTS, ENDS = set("BSU"), set("ELS") | set("U")
PREFIXES = set("BIOESLUM")


@dataclass(frozen=True, slots=True)
class Entities:
    """Any number of entities a record; record p owns rows splits[p] to splits[p + 1].

    Attributes:
        splits: Bounds (P+1,), int64.
        codes: Index into `names` (E,).
        names: Entity types.
        start: Where it begins in the original text (E,), int32; code points or what else the offsets count.
        end: One past its end (E,), int32.
        score: Confidence (E,), float32.
    """

    splits: np.ndarray
    codes: np.ndarray
    names: tuple[str, ...]
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray

    def column(self) -> Lists:
        """The entities as a column of `columns.ENTITIES`."""
        label = Labels(self.codes, self.names)
        return Lists(self.splits, Structs({"label": label, "start": self.start, "end": self.end, "score": self.score}))


@dataclass(frozen=True, slots=True)
class TagScheme:
    """What each of the C labels means.

    Attributes:
        types: Entity type of each label, an index into `names` (C,).
        names: Types in the order of first use.
        starts: Whether the label always begins an entity (C,).
        ends: Whether the label always ends one (C,).
        outside: Whether the label marks no entity (C,).
    """

    types: np.ndarray
    names: tuple[str, ...]
    starts: np.ndarray
    ends: np.ndarray
    outside: np.ndarray

    @classmethod
    def of_labels(cls, labels: tuple[str, ...], ignore: tuple[str, ...]) -> "TagScheme":
        """Reads IO, IOB1, IOB2, BIOES, BILOU or bare labels; the prefix may be joined by "-" or "_".

        Args:
            labels: Label names in the head's order.
            ignore: Labels or types that mark no entity.
        """
        parsed = [_split(label) for label in labels]
        names = tuple(dict.fromkeys(name for _, name in parsed))
        return cls(
            types=np.array([names.index(name) for _, name in parsed], dtype=np.int32),
            names=names,
            starts=np.array([prefix in STARTS for prefix, _ in parsed]),
            ends=np.array([prefix in ENDS for prefix, _ in parsed]),
            outside=np.array(
                [label in ignore or name in ignore for label, (_, name) in zip(labels, parsed, strict=True)]
            ),
        )


def _split(label: str) -> tuple[str, str]:
    """Prefix and type of a label; a bare label is "I" of itself."""
    if len(label) > 2 and label[1] in "-_" and label[0] in PREFIXES - {"O"}:
        return label[0], label[2:]
    return "I", label


def aggregate(
    scores_NC: np.ndarray,
    splits: np.ndarray,
    offsets_N2: np.ndarray,
    starts_word_N: np.ndarray | None,
    labels: tuple[str, ...],
    scheme: TagScheme,
    strategy: Aggregation,
) -> Entities:
    """Groups tokens into entities.

    Strategies, as in transformers: "none" gives every token by itself under its full label; "simple" joins tokens;
    "first", "average" and "max" first give all tokens of a word one label: that of its first token, that of its
    mean scores, or that of its most certain token.

    Args:
        scores_NC: Softmax scores of all tokens (N, C).
        splits: Record p owns tokens splits[p] to splits[p + 1] (P+1,).
        offsets_N2: Where each token stands in its text (N, 2).
        starts_word_N: Whether a token starts a word (N,); None for "none" and "simple".
        labels: Label names, C of them.
        scheme: What the labels mean.
        strategy: How tokens become entities.
    """
    if len(scores_NC) == 0:
        nothing = np.zeros(0, np.int32)
        return Entities(np.zeros_like(splits), nothing, scheme.names, nothing, nothing, np.zeros(0, np.float32))
    first_in_record = np.zeros(len(scores_NC), dtype=bool)
    first_in_record[splits[:-1][splits[:-1] < splits[1:]]] = True
    if strategy in ("none", "simple"):
        units = np.arange(len(scores_NC))
    else:
        assert starts_word_N is not None
        units = np.flatnonzero(starts_word_N | first_in_record)
    code_U, score_U = _label_units(scores_NC, units, strategy)
    ends_U = np.append(units[1:], len(scores_NC)) - 1
    if strategy == "none":
        groups, codes, names = np.arange(len(units)), code_U, labels
        last_U, score_G = np.arange(len(units)), score_U
    else:
        type_U = scheme.types[code_U]
        after_end = np.append(False, scheme.ends[code_U][:-1])
        changed = np.append(True, type_U[1:] != type_U[:-1])
        breaks = changed | scheme.starts[code_U] | after_end | first_in_record[units]
        groups = np.flatnonzero(breaks)
        codes, names = type_U[groups], scheme.names
        last_U = np.append(groups[1:], len(units)) - 1
        score_G = np.add.reduceat(score_U.astype(np.float64), groups) / (last_U - groups + 1)
    first_G, last_G = units[groups], ends_U[last_U]
    start_G, end_G = _exact_spans(offsets_N2, splits, first_G, last_G)
    kept = ~scheme.outside[code_U[groups]] & (start_G < end_G)
    record = np.searchsorted(splits, first_G[kept], side="right") - 1
    return Entities(
        splits=np.searchsorted(record, np.arange(len(splits))),
        codes=codes[kept].astype(np.int32),
        names=names,
        start=start_G[kept].astype(np.int32),
        end=end_G[kept].astype(np.int32),
        score=score_G[kept].astype(np.float32),
    )


def _exact_spans(
    offsets_N2: np.ndarray, splits: np.ndarray, first_G: np.ndarray, last_G: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of groups of tokens, each from what its first token owns to what its last one owns (G,), (G,).

    A token owns what it spans up to where the next token of its text begins; a group that owns nothing is empty.
    """
    # Texts one behind the other: then the next token's text needs no look, and no text's end reaches into it.
    shift_N = np.repeat(np.arange(len(splits) - 1, dtype=np.int64) << 32, np.diff(splits))
    start_N, end_N = offsets_N2[:, 0] + shift_N, offsets_N2[:, 1] + shift_N
    next_N = np.append(np.minimum.accumulate(start_N[::-1])[::-1][1:], np.iinfo(np.int64).max)
    own_N = np.minimum(end_N, next_N)
    owns, place = own_N > start_N, np.arange(len(start_N))
    # The next token that owns something, and the last one that does.
    after_N = np.minimum.accumulate(np.where(owns, place, len(place))[::-1])[::-1]
    before_N = np.maximum.accumulate(np.where(owns, place, -1))
    first_G, last_G = after_N[first_G], before_N[last_G]
    full = first_G <= last_G
    start_G = np.where(full, offsets_N2[np.minimum(first_G, len(place) - 1), 0], 0)
    end_G = np.where(full, own_N[last_G] - shift_N[last_G], 0)
    return start_G, end_G


def _label_units(scores_NC: np.ndarray, units: np.ndarray, strategy: Aggregation) -> tuple[np.ndarray, np.ndarray]:
    """Label and score of each unit (a token, or a word that begins at `units`)."""
    match strategy:
        case "none" | "simple" | "first":
            scores_UC = scores_NC[units]
        case "average":
            sizes = np.diff(np.append(units, len(scores_NC)))
            scores_UC = np.add.reduceat(scores_NC.astype(np.float64), units, axis=0) / sizes[:, None]
        case "max":
            best_N = scores_NC.max(axis=1)
            word_N = np.repeat(np.arange(len(units)), np.diff(np.append(units, len(scores_NC))))
            # The first of equals wins, as Python's max does: stable order by word, then by falling score.
            order = np.lexsort((-best_N, word_N))
            scores_UC = scores_NC[order[units]]
    code_U = scores_UC.argmax(axis=1)
    return code_U, scores_UC[np.arange(len(units)), code_U]
