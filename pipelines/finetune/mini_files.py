"""The corpus of `mini` as labelled files, one for each thing that is learnt; what is drawn, is drawn here, once.

DIR/masked.parquet         text, language
DIR/translations.parquet   text, translation, language, group: the language is that of the text
DIR/language.parquet       text, label
DIR/topic.parquet          text, label, language, group
DIR/pos.parquet            text, words, tags, language
DIR/entities.parquet       text, words, tags, language
DIR/held_out/*.parquet     the same for `language`, `topic`, `pos` and `entities`; nothing of it is in the files above
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.finetune.mini_corpus import Corpus, Row, Tagged, Text, Topic

PIVOT = "eng_Latn"
# Rows of a language, at least and at most: more are not read in the time there is, fewer repeat the same fragments.
MASKED_ROWS, LANGUAGE_ROWS, TRANSLATION_ROWS = (0, 4_000), (1_200, 2_500), (0, 2_000)
# How language is learnt: from fragments, from several texts in a row, else from whole texts.
FRAGMENTS, JOINED = 0.45, 0.05
MAX_FRAGMENT_WORDS, MAX_JOINED, MAX_WHOLE_CHARS = 8, 4, 200
PIVOT_SHARE = 0.5
_CHARS_OF_A_WORD = 3
RowT = TypeVar("RowT", bound=Row)


def write_files(corpus: Corpus, languages: Sequence[str], folder: Path, *, seed: int = 0) -> None:
    """Writes every file.

    Args:
        corpus: All texts.
        languages: Those that get a label; texts of others are only tagged or have a topic.
        folder: Made, with `held_out/` in it.
        seed: Of what is drawn.
    """
    (folder / "held_out").mkdir(parents=True, exist_ok=True)
    known = set(languages)
    texts = [row for row in corpus.texts.train if row.language in known]
    rng = np.random.default_rng(seed)
    masked = draw(texts, MASKED_ROWS, rng)
    _write(folder / "masked.parquet", text=[row.text for row in masked], language=[row.language for row in masked])
    pairs = list(translations(texts, rng))
    _write(
        folder / "translations.parquet",
        text=[row.text for row, _ in pairs],
        translation=[other.text for _, other in pairs],
        language=[row.language for row, _ in pairs],
        group=[row.group for row, _ in pairs],
    )
    told = list(vary(draw(texts, LANGUAGE_ROWS, rng), rng))
    _write(folder / "language.parquet", text=[text for text, _ in told], label=[label for _, label in told])
    held = [row for row in corpus.texts.held_out if row.language in known]
    _write(folder / "held_out/language.parquet", text=[row.text for row in held], label=[row.language for row in held])
    for where, topics in ((folder, corpus.topics.train), (folder / "held_out", corpus.topics.held_out)):
        _write_topics(where / "topic.parquet", topics)
    for name, part in (("pos", corpus.pos), ("entities", corpus.entities)):
        _write_tagged(folder / f"{name}.parquet", part.train)
        _write_tagged(folder / f"held_out/{name}.parquet", part.held_out)


def draw(rows: Iterable[RowT], bounds: tuple[int, int], rng: np.random.Generator) -> list[RowT]:
    """Rows of each language, all once before one repeats, so that there are at least and at most so many."""
    drawn: list[RowT] = []
    for of_language in _by_language(rows).values():
        wanted, there = int(np.clip(len(of_language), *bounds)), len(of_language)
        decks = [rng.permutation(there) for _ in range(-(-wanted // there))]
        drawn += [of_language[number] for number in np.concatenate(decks)[:wanted].tolist()]
    return drawn


def translations(rows: Sequence[Text], rng: np.random.Generator) -> Iterator[tuple[Text, Text]]:
    """A translation for texts that have any, into the pivot language or any other, each as likely."""
    groups: dict[str, list[Text]] = defaultdict(list)
    pivots: dict[str, Text] = {}
    for row in rows:
        if row.group is not None:
            groups[row.group].append(row)
            if row.language == PIVOT:
                pivots.setdefault(row.group, row)
    for row in draw([row for row in rows if row.group is not None], TRANSLATION_ROWS, rng):
        assert row.group is not None
        others = groups[row.group]
        other = others[int(rng.integers(len(others)))]
        if rng.random() < PIVOT_SHARE:
            other = pivots.get(row.group, other)
        if other.language != row.language:
            yield row, other


def vary(rows: Sequence[Row], rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Texts with their language: whole, cut to some words, or several in a row.

    What is asked at work is often shorter than a sentence, sometimes longer.
    """
    by_language = _by_language(rows)
    for row, kind in zip(rows, rng.random(len(rows)).tolist(), strict=True):
        if kind < FRAGMENTS:
            yield fragment(row.text, rng), row.language
        elif kind < FRAGMENTS + JOINED:
            others = by_language[row.language]
            numbers = rng.integers(0, len(others), int(rng.integers(1, MAX_JOINED)))
            yield " ".join([row.text, *(others[number].text for number in numbers.tolist())]), row.language
        else:
            yield shorten(row.text, MAX_WHOLE_CHARS), row.language


def fragment(text: str, rng: np.random.Generator) -> str:
    """Up to `MAX_FRAGMENT_WORDS` words from anywhere in a text; without blanks three characters stand for a word."""
    units = text.split()
    blank = " "
    if len(text) > 12 * len(units):
        units, blank = [text[at : at + _CHARS_OF_A_WORD] for at in range(0, len(text), _CHARS_OF_A_WORD)], ""
    words = int(rng.integers(1, MAX_FRAGMENT_WORDS + 1))
    first = int(rng.integers(0, max(len(units) - words, 0) + 1))
    return blank.join(units[first : first + words]).strip() or text


def shorten(text: str, limit: int) -> str:
    """A text of at most so many characters, cut between words where there are some."""
    if len(text) <= limit:
        return text
    whole = text[:limit].rpartition(" ")[0]
    return whole or text[:limit]


def read_topics(path: Path) -> list[Topic]:
    """Rows of a written file."""
    return [Topic(**row) for row in pq.read_table(path).to_pylist()]


def read_tagged(path: Path) -> list[Tagged]:
    """Rows of a written file."""
    return [Tagged(**row) for row in pq.read_table(path).to_pylist()]


def _by_language(rows: Iterable[RowT]) -> dict[str, list[RowT]]:
    found: dict[str, list[RowT]] = defaultdict(list)
    for row in rows:
        found[row.language].append(row)
    return dict(sorted(found.items()))


def _write_topics(path: Path, rows: Sequence[Topic]) -> None:
    _write(
        path,
        text=[row.text for row in rows],
        label=[row.label for row in rows],
        language=[row.language for row in rows],
        group=[row.group for row in rows],
    )


def _write_tagged(path: Path, rows: Sequence[Tagged]) -> None:
    _write(
        path,
        text=[row.text for row in rows],
        words=[row.words for row in rows],
        tags=[row.tags for row in rows],
        language=[row.language for row in rows],
    )


def _write(path: Path, **columns: list[object]) -> None:
    pq.write_table(pa.table(columns), path, compression="zstd")
