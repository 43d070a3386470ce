"""What `mini` is measured on: sentences kept out of its training, and sentences from other texts."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipelines.finetune.evaluate import (
    LabelReport,
    embed,
    first_words,
    predict_labels,
    report_labels,
    retrieval_accuracy,
)
from pipelines.finetune.mini_corpus import read_corpus

# NTREX names files by language, sometimes by macro-language; the labels are FLORES-200 codes. All others are Latin.
NTREX_LABELS = {
    "amh": "amh_Ethi", "arb": "arb_Arab", "ben": "ben_Beng", "ell": "ell_Grek", "fas": "pes_Arab", "heb": "heb_Hebr",
    "hin": "hin_Deva", "hye": "hye_Armn", "jpn": "jpn_Jpan", "kat": "kat_Geor", "khm": "khm_Khmr", "kor": "kor_Hang",
    "lao": "lao_Laoo", "mar": "mar_Deva", "mya": "mya_Mymr", "por-BR": "por_Latn", "rus": "rus_Cyrl",
    "swa": "swh_Latn", "tam": "tam_Taml", "tel": "tel_Telu", "tha": "tha_Thai", "ukr": "ukr_Cyrl", "urd": "urd_Arab",
    "zho-CN": "zho_Hans",
}  # fmt: skip
SHORT = (1, 2, 3, 5, 8)


@dataclass(frozen=True, slots=True)
class Measures:
    """All figures of the model card.

    Attributes:
        held_out: Languages on the held-out part of the training files.
        ntrex: Languages on NTREX lines that are not in the training files.
        sib200: Languages on the dev splits of SIB-200.
        short: Accuracy on the first 1, 2, ... words of the NTREX lines.
        to_english: For each NTREX file, how often the nearest English line is the translation.
        from_english: For each NTREX file, how often the nearest line is the translation of the English one.
    """

    held_out: LabelReport
    ntrex: LabelReport
    sib200: LabelReport
    short: dict[int, float]
    to_english: dict[str, float]
    from_english: dict[str, float]

    def save(self, path: Path) -> None:
        """Writes all figures as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")


def measure(model: str, labels: Sequence[str], *, train: Path, ntrex: Path, sib200: Path) -> Measures:
    """Runs every measurement.

    Args:
        model: Model directory with the heads `language` and `embedding`.
        labels: Languages the model knows; held-out texts of others do not count.
        train: Folder of the training files.
        ntrex: Folder with one text file a language, aligned by line.
        sib200: Folder with `<label>/dev.tsv`.
    """
    language, embedding = f"{model}#language", f"{model}#embedding"
    lines = read_ntrex(ntrex)
    texts = [line for file in lines.values() for line in file]
    gold = [ntrex_label(name) for name, file in lines.items() for _ in file]
    short = {}
    for words in SHORT:
        predicted = predict_labels(language, [first_words(text, words) for text in texts])
        short[words] = report_labels(gold, predicted).accuracy
    vectors = {name: embed(embedding, file) for name, file in lines.items()}
    others = [name for name in vectors if name != "eng"]
    return Measures(
        held_out=_held_out(language, labels, train),
        ntrex=report_labels(gold, predict_labels(language, texts)),
        sib200=_sib200(language, sib200),
        short=short,
        to_english={name: retrieval_accuracy(vectors[name], vectors["eng"]) for name in others},
        from_english={name: retrieval_accuracy(vectors["eng"], vectors[name]) for name in others},
    )


def read_ntrex(folder: Path) -> dict[str, list[str]]:
    """Lines of each language file, by the name of the file."""
    files = sorted(path for path in folder.glob("*.txt") if path.stem != "document_ids")
    return {path.stem: path.read_text(encoding="utf-8").splitlines() for path in files}


def ntrex_label(name: str) -> str:
    """The label of an NTREX file."""
    return NTREX_LABELS.get(name, f"{name}_Latn")


def _held_out(language: str, labels: Sequence[str], train: Path) -> LabelReport:
    corpus, known = read_corpus(train), set(labels)
    rows = [row for row in np.flatnonzero(corpus.held_out).tolist() if corpus.languages[row] in known]
    predicted = predict_labels(language, [corpus.texts[row] for row in rows])
    return report_labels([corpus.languages[row] for row in rows], predicted)


def _sib200(language: str, folder: Path) -> LabelReport:
    gold: list[str] = []
    texts: list[str] = []
    for path in sorted(folder.glob("*/dev.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            texts += [row["text"] for row in rows]
        gold += [path.parent.name] * (len(texts) - len(gold))
    return report_labels(gold, predict_labels(language, texts))
