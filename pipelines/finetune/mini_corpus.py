"""The training texts of `mini`: read, merged into labels, each once, and cut into a training and a held-out part.

What is held out of one task is held out of all of them, whatever file it stands in and however it is spaced or cased.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import pyarrow.parquet as pq

from pipelines.examples.words import find_words, join_words

# Codes of one language under two names. aka > twi, ajp > apc as in FLORES+; kzj was retired into dtp (ISO 639-3).
MERGED = {"aka_Latn": "twi_Latn", "ajp_Arab": "apc_Arab", "kzj_Latn": "dtp_Latn"}
# No language: ber is a collection (its rows are Kabyle and others), qaf a private code for mixed Arabizi tweets.
LEFT_OUT = {"ber_Latn", "qaf_Latn", "und_Latn"}
# Files of texts, each with the column whose equal values are translations of each other.
TEXTS = {
    "sib200_train.parquet": "index_id",
    "ntrex_train.parquet": "line_no",
    "udhr_train.parquet": "article",
    "text_train.parquet": "group",
    "pos_train.parquet": None,
}
TOPICS = "sib200_train.parquet"
# The second one repeats the texts of Universal NER's dev splits, for languages without other permissive treebanks.
POS = ("pos_train.parquet", "optional/pos_overlap_uner_dev.parquet")
ENTITIES = "ner_train.parquet"
FILES = (*TEXTS, POS[1], ENTITIES)
# Texts, sentences of the topics, tagged sentences.
HELD_OUT_ONE_IN, HELD_OUT_TOPICS_ONE_IN, HELD_OUT_TAGGED_ONE_IN = 50, 20, 25
MAX_HELD_OUT = 100
# Scripts that put no blanks between words, and what stands close to its neighbour in the others.
UNSPACED = {"Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"}
_CLOSING, _OPENING = set(".,;:!?)]}»”’%…।॥،؛؟"), set("([{«“‘")


class Row(Protocol):
    """A text of some language."""

    @property
    def language(self) -> str:
        """Language and script, as in FLORES-200."""

    @property
    def text(self) -> str:
        """With single blanks."""


RowT = TypeVar("RowT", bound=Row)


class Text(NamedTuple):
    """A text; those of one group are translations of each other."""

    language: str
    text: str
    group: str | None


class Topic(NamedTuple):
    """A text with a topic; `group` is the sentence that it says in its language."""

    language: str
    text: str
    label: str
    group: str


class Tagged(NamedTuple):
    """A text with a tag for each of its words, which follow each other in it."""

    language: str
    text: str
    words: list[str]
    tags: list[str]


@dataclass(frozen=True, slots=True)
class Part(Generic[RowT]):
    """Rows to train on, and rows to measure on, which nothing is trained on."""

    train: list[RowT]
    held_out: list[RowT]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything `mini` may see, by what is learnt from it; `texts` also for masked words and for translations."""

    texts: Part[Text]
    topics: Part[Topic]
    pos: Part[Tagged]
    entities: Part[Tagged]


def read_corpus(folder: Path) -> Corpus:
    """Reads the files of `FILES`.

    Held out are: one text in `HELD_OUT_ONE_IN` and one tagged sentence in `HELD_OUT_TAGGED_ONE_IN`, by hash and at most
    `MAX_HELD_OUT` a language; and one sentence of the topics in `HELD_OUT_TOPICS_ONE_IN`, in all its languages, since a
    translation gives its topic away.
    """
    texts, topics = list(_unique(_texts(folder))), list(_unique(_topics(folder)))
    pos = list(_unique(row for name in POS for row in _treebanks(folder / name)))
    entities = list(_unique(_entities(folder / ENTITIES)))
    chosen = _choose(texts, HELD_OUT_ONE_IN), [row for row in topics if one_in(row.group, HELD_OUT_TOPICS_ONE_IN)]
    tagged = _choose(pos, HELD_OUT_TAGGED_ONE_IN), _choose(entities, HELD_OUT_TAGGED_ONE_IN)
    held = {key(row.text) for part in (*chosen, *tagged) for row in part}

    def part(rows: list[RowT], held_out: list[RowT]) -> Part[RowT]:
        return Part([row for row in rows if key(row.text) not in held], held_out)

    return Corpus(
        texts=part(texts, chosen[0]),
        topics=part(topics, chosen[1]),
        pos=part(pos, tagged[0]),
        entities=part(entities, tagged[1]),
    )


def key(text: str) -> str:
    """What texts are compared by: letters alone, without case, spacing and width."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def one_in(text: str, share: int) -> bool:
    """Whether the hash of a text is the one in `share`; never another answer."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % share == 0


def choose_languages(texts: Sequence[Text], *, min_texts: int, min_bytes: int) -> tuple[str, ...]:
    """Languages with enough text, sorted by code."""
    count, size = Counter(row.language for row in texts), Counter[str]()
    for row in texts:
        size[row.language] += len(row.text.encode())
    return tuple(sorted(code for code in size if count[code] >= min_texts and size[code] >= min_bytes))


def _choose(rows: Sequence[RowT], share: int) -> list[RowT]:
    """Rows to hold out by hash, the first ones of each language."""
    spent: Counter[str] = Counter()
    chosen = []
    for row in rows:
        if spent[row.language] < MAX_HELD_OUT and one_in(row.text, share):
            spent[row.language] += 1
            chosen.append(row)
    return chosen


def _unique(rows: Iterable[RowT]) -> Iterator[RowT]:
    """The same text in the same language is kept where it first comes; empty ones are not."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if row.text and (row.language, row.text) not in seen:
            seen.add((row.language, row.text))
            yield row


def _columns(path: Path, *names: str) -> Iterator[tuple[Any, ...]]:
    """Language and further columns; two codes of one language become one, what is no language is passed over."""
    table = pq.read_table(path, columns=["lang", *names])
    for language, *values in zip(*(table[name].to_pylist() for name in ("lang", *names)), strict=True):
        if language not in LEFT_OUT:
            yield MERGED.get(language, language), *values


def _texts(folder: Path) -> Iterator[Text]:
    for name, column in TEXTS.items():
        source = name.split("_")[0]
        for language, text, *group in _columns(folder / name, "text", *([column] if column else [])):
            translated = bool(group) and group[0] is not None
            yield Text(language, " ".join(text.split()), f"{source}:{group[0]}" if translated else None)


def _topics(folder: Path) -> Iterator[Topic]:
    for language, text, topic, index in _columns(folder / TOPICS, "text", "topic", "index_id"):
        yield Topic(language, " ".join(text.split()), topic, str(index))


def _treebanks(path: Path) -> Iterator[Tagged]:
    for language, text, *columns in _columns(path, "text", "words", "upos", "space_after"):
        text = " ".join(text.split())
        found = surface_words(text, *columns)
        if found is not None:
            yield Tagged(language, text, *found)


def surface_words(
    text: str, words: Sequence[str], tags: Sequence[str], space_after: Sequence[bool]
) -> tuple[list[str], list[str]] | None:
    """Words as they stand in the text: where "du" stands for "de le", "du" with the tag of "de".

    Returns:
        Words that follow each other in the text, and their tags; None where words and text do not go together.
    """
    groups: list[list[tuple[str, str]]] = [[]]
    for word, tag, blank in zip(words, tags, space_after, strict=True):
        groups[-1].append((word, tag))
        if blank:
            groups.append([])
    groups = [group for group in groups if group]
    pieces = text.split()
    if find_words(words, text) is not None:
        return list(words), list(tags)
    if len(groups) != len(pieces):
        return None
    found = [pair for piece, group in zip(pieces, groups, strict=True) for pair in _surface(piece, group)]
    return [word for word, _ in found], [tag for _, tag in found]


def _surface(piece: str, group: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Words of a piece of text without blanks; those in its middle that are not in it are one, with the first's tag."""
    before: list[tuple[str, str]] = []
    after: list[tuple[str, str]] = []
    middle = list(group)
    while middle and piece.startswith(middle[0][0]):
        before.append(middle.pop(0))
        piece = piece.removeprefix(before[-1][0])
    while middle and piece.endswith(middle[-1][0]):
        after.insert(0, middle.pop())
        piece = piece.removesuffix(after[0][0])
    return before + ([(piece, middle[0][1])] if piece and middle else []) + after


def _entities(path: Path) -> Iterator[Tagged]:
    for language, words, tags in _columns(path, "words", "tags"):
        # A few words have blanks around them.
        kept = [(clean, tag) for word, tag in zip(words, tags, strict=True) if (clean := " ".join(word.split()))]
        words, tags = [word for word, _ in kept], [tag for _, tag in kept]
        yield Tagged(language, write_out(words, language), words, tags)


def write_out(words: Sequence[str], language: str) -> str:
    """Words as one would write them: without blanks in scripts that have none, punctuation close to its word."""
    blank = "" if language.rpartition("_")[2] in UNSPACED else " "
    gaps = [
        "" if set(after) <= _CLOSING or set(word) <= _OPENING else blank
        for word, after in zip(words, [*words[1:], "."], strict=True)
    ]
    text, _ = join_words(words, gaps)
    return text
