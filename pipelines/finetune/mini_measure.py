"""What `mini` is measured on: sentences kept out of its training, and sentences of other texts."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.evaluate.scores import Scores, score
from pipelines.examples import Example, ReadSettings, WordLabels, open_examples
from pipelines.examples.example import Gold, Task
from pipelines.examples.words import find_words
from pipelines.finetune.mini_files import read_tagged, read_topics
from xlmr_core.checkpoint import Checkpoint

# NTREX names files by language, sometimes by macro-language; the labels are FLORES-200 codes. All others are Latin.
NTREX_LABELS = {
    "amh": "amh_Ethi", "arb": "arb_Arab", "ben": "ben_Beng", "ell": "ell_Grek", "fas": "pes_Arab", "heb": "heb_Hebr",
    "hin": "hin_Deva", "hye": "hye_Armn", "jpn": "jpn_Jpan", "kat": "kat_Geor", "khm": "khm_Khmr", "kor": "kor_Hang",
    "lao": "lao_Laoo", "mar": "mar_Deva", "mya": "mya_Mymr", "por-BR": "por_Latn", "rus": "rus_Cyrl",
    "swa": "swh_Latn", "tam": "tam_Taml", "tel": "tel_Telu", "tha": "tha_Thai", "ukr": "ukr_Cyrl", "urd": "urd_Arab",
    "zho-CN": "zho_Hans",
}  # fmt: skip
SHORT = (1, 2, 3, 5, 8)
HELD_OUT, NTREX, SIB, TREEBANKS, UNER = "held_out", "ntrex", "sib200", "treebanks", "uner"
# Of a sentence set, the measures of each language.
ByLanguage = dict[str, dict[str, float]]
# What a text is in and the text.
Sentence = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Measures:
    """All figures of the model card.

    Attributes:
        language: Of each set of sentences, `accuracy` and `total` of each label.
        language_codes: Of each set, right answers and all by (gold label, predicted label), the most frequent first.
        short: Share of right languages on the first 1, 2, ... words of the NTREX lines.
        topic, pos, entities: Of each set, measures of each language.
        retrieval: Of each NTREX file, how often the nearest English line is the translation (`forward`), and back.
    """

    language: dict[str, ByLanguage]
    language_codes: dict[str, list[tuple[str, str, int]]]
    short: dict[int, float]
    topic: dict[str, ByLanguage]
    pos: dict[str, ByLanguage]
    entities: dict[str, ByLanguage]
    retrieval: ByLanguage

    def save(self, path: Path) -> None:
        """Writes all figures as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")


def measure(model: str, files: Path, data: Path) -> Measures:
    """Runs every measurement; heads that the model lacks are left out.

    Args:
        model: Model directory, or `mini`.
        files: What `mini prepare` wrote into `WORK/files`.
        data: Folder with texts that nothing was trained on: `parallel/ntrex`, `seqcls/sib200`, `pos/ud`, `ner/uner`.
    """
    lines = read_ntrex(data)
    languages = {name: _told(model, rows) for name, rows in language_sentences(files, data).items()}
    short = {}
    for words in SHORT:
        cut = [(ntrex_label(name), first_words(text, words)) for name, file in lines.items() for text in file]
        short[words] = _told(model, cut).together()["accuracy"]
    heads = {path.name for path in (Checkpoint.open(model).directory / "heads").iterdir()}
    rows: Mapping[str, Mapping[str, list[Example]]] = {
        "topic": {HELD_OUT: held_out_topics(files), SIB: sib_topics(data)},
        "pos": {HELD_OUT: held_out_words(files, "pos"), TREEBANKS: treebanks(data)},
        "entities": {HELD_OUT: held_out_words(files, "entities"), UNER: uner(data)},
    }
    tasks: dict[str, Task] = {
        "topic": "sequence-classification",
        "pos": "token-classification",
        "entities": "token-classification",
    }
    found: dict[str, dict[str, ByLanguage]] = {
        name: {of: score(f"{model}#{name}", task, rows[name][of]).measures() for of in rows[name]}
        if name in heads
        else {}
        for name, task in tasks.items()
    }
    return Measures(
        language={name: scores.measures() for name, scores in languages.items()},
        language_codes={
            name: [(gold, said, count) for (gold, said), count in sorted(scores.confusions().items(), key=_falling)]
            for name, scores in languages.items()
        },
        short=short,
        topic=found["topic"],
        pos=found["pos"],
        entities=found["entities"],
        retrieval=score(f"{model}#embedding", "embedding", _translations(lines)).measures(),
    )


def _falling(item: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -item[1], item[0]


def _told(model: str, rows: Sequence[Sentence]) -> Scores:
    return score(f"{model}#language", "sequence-classification", examples(rows))


def examples(rows: Sequence[Sentence]) -> Iterator[Example]:
    """Texts with the languages that they are in."""
    for number, (label, text) in enumerate(rows):
        yield _example(number, text, label, label)


def _example(number: int, text: str, gold: Gold, language: str, second: tuple[str, ...] = ()) -> Example:
    return Example(text, second, gold, language, str(number), str(number))


def language_sentences(files: Path, data: Path) -> dict[str, list[Sentence]]:
    """Sets of (label, text): held out of training, other documents (NTREX), other sentences of FLORES (SIB-200)."""
    table = pq.read_table(files / "held_out/language.parquet")
    return {
        HELD_OUT: list(zip(table["label"].to_pylist(), table["text"].to_pylist(), strict=True)),
        NTREX: [(ntrex_label(name), line) for name, file in read_ntrex(data).items() for line in file],
        SIB: [(example.language, example.text) for example in sib_topics(data)],
    }


def read_ntrex(data: Path) -> dict[str, list[str]]:
    """Lines of each language file, by the name of the file."""
    files = sorted(path for path in (data / "parallel/ntrex").glob("*.txt") if path.stem != "document_ids")
    return {path.stem: path.read_text(encoding="utf-8").splitlines() for path in files}


def ntrex_label(name: str) -> str:
    """The label of an NTREX file."""
    return NTREX_LABELS.get(name, f"{name}_Latn")


def _translations(lines: Mapping[str, Sequence[str]]) -> list[Example]:
    return [
        _example(number, text, (1.0,), name, (english,))
        for name, file in lines.items()
        if name != "eng"
        for number, (text, english) in enumerate(zip(file, lines["eng"], strict=True))
    ]


def held_out_topics(files: Path) -> list[Example]:
    """Sentences of SIB-200's train split that were held out in all languages."""
    rows = read_topics(files / "held_out/topic.parquet")
    return [_example(number, row.text, row.label, row.language) for number, row in enumerate(rows)]


def sib_topics(data: Path) -> list[Example]:
    """The dev splits of SIB-200."""
    return [
        _example(number, text, topic, path.parent.name)
        for path in sorted((data / "seqcls/sib200").glob("*/dev.tsv"))
        for number, (topic, text) in enumerate(topic_sentences(path))
    ]


def topic_sentences(path: Path) -> list[Sentence]:
    """(topic, text) of a file of SIB-200."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["category"], row["text"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def held_out_words(files: Path, name: str) -> list[Example]:
    """Tagged sentences that were held out."""
    found = []
    for number, row in enumerate(read_tagged(files / f"held_out/{name}.parquet")):
        spans = find_words(row.words, row.text)
        assert spans is not None
        found.append(_example(number, row.text, WordLabels(tuple(row.tags), spans), row.language))
    return found


def treebanks(data: Path) -> list[Example]:
    """Test splits of Universal Dependencies; a surface word counts once, with the tag of its first word."""
    found: list[Example] = []
    for example in open_examples([data / "pos/ud"], ReadSettings("token-classification")):
        assert isinstance(example.gold, WordLabels)
        pairs = [next(same) for _, same in groupby(zip(example.gold.spans, example.gold.labels, strict=True), _first)]
        gold = WordLabels(tuple(label for _, label in pairs), tuple(span for span, _ in pairs))
        found.append(_example(len(found), example.text, gold, example.language))
    return found


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def uner(data: Path) -> list[Example]:
    """Dev splits of Universal NER."""
    paths = sorted((data / "ner/uner").glob("*-dev.iob2"))
    return list(open_examples(paths, ReadSettings("token-classification")))


def first_words(text: str, words: int) -> str:
    """The beginning of a text; for scripts without spaces four characters stand for a word."""
    parts = text.split()
    if len(text) > 12 * len(parts):
        return text[: 4 * words]
    return " ".join(parts[:words])
