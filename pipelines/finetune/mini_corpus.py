"""The training texts of `mini`: read, merged into labels, deduplicated, and split into train and held-out."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

# Codes of one language under two names. aka > twi, ajp > apc as in FLORES+; kzj was retired into dtp (ISO 639-3).
MERGED = {"aka_Latn": "twi_Latn", "ajp_Arab": "apc_Arab", "kzj_Latn": "dtp_Latn"}
# No language: ber is a collection (its rows are Kabyle and others), qaf a private code for mixed Arabizi tweets.
LEFT_OUT = {"ber_Latn", "qaf_Latn", "und_Latn"}
FILES = {
    "sib200_train.parquet": "index_id",
    "ntrex_train.parquet": "line_no",
    "udhr_train.parquet": "article",
    "text_train.parquet": "group",
    "pos_train.parquet": None,
}
HELD_OUT_ONE_IN = 50
MAX_HELD_OUT = 100


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts with a language and, where there is one, a group of translations; columns of one length."""

    texts: list[str]
    languages: list[str]
    groups: list[str | None]
    held_out: np.ndarray

    def counts(self) -> Counter[str]:
        """Texts of each language."""
        return Counter(self.languages)


def read_corpus(folder: Path) -> Corpus:
    """Reads every text once: the same text in the same language is kept where it first comes.

    One text in `HELD_OUT_ONE_IN` (by hash, at most `MAX_HELD_OUT` a language) is marked as held out, together with
    its copies under other language codes, so that no held-out text is trained on under another name.
    """
    corpus = Corpus([], [], [], np.zeros(0, dtype=bool))
    seen: set[tuple[str, str]] = set()
    spent: Counter[str] = Counter()
    held: set[str] = set()
    for language, text, group in _rows(folder):
        if (language, text) in seen:
            continue
        seen.add((language, text))
        corpus.texts.append(text)
        corpus.languages.append(language)
        corpus.groups.append(group)
        if _held_out(text) and spent[language] < MAX_HELD_OUT:
            spent[language] += 1
            held.add(text)
    mask = np.fromiter((text in held for text in corpus.texts), dtype=bool, count=len(corpus.texts))
    return Corpus(corpus.texts, corpus.languages, corpus.groups, mask)


def choose_labels(corpus: Corpus, *, min_texts: int, min_bytes: int) -> tuple[str, ...]:
    """Languages with enough text, sorted by code."""
    size: Counter[str] = Counter()
    for text, language in zip(corpus.texts, corpus.languages, strict=True):
        size[language] += len(text.encode())
    counts = corpus.counts()
    return tuple(sorted(code for code in counts if counts[code] >= min_texts and size[code] >= min_bytes))


def _rows(folder: Path) -> Iterator[tuple[str, str, str | None]]:
    for name, group_column in FILES.items():
        columns = ["lang", "text"] + ([group_column] if group_column else [])
        table = pq.read_table(folder / name, columns=columns)
        groups = table[group_column].to_pylist() if group_column else [None] * len(table)
        source = name.split("_")[0]
        for language, text, group in zip(table["lang"].to_pylist(), table["text"].to_pylist(), groups, strict=True):
            text = " ".join(text.split())
            if text and language not in LEFT_OUT:
                yield MERGED.get(language, language), text, None if group is None else f"{source}:{group}"


def _held_out(text: str) -> bool:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % HELD_OUT_ONE_IN == 0


def number_groups(groups: list[str | None]) -> np.ndarray:
    """Groups as numbers 0, 1, ... in order of first appearance; -1 for none (R,), int32."""
    numbers: dict[str, int] = {}
    return np.array([-1 if name is None else numbers.setdefault(name, len(numbers)) for name in groups], dtype=np.int32)
