"""What the heads of `mini` are compared with, on the same held-out sentences: `python -m benchmarks.baselines`.

Language: langid and lingua, see `benchmarks.languages`. Topics, parts of speech and entities: the most frequent label,
and a logistic regression on n-grams of characters, one model a language, trained on what the head is trained on.
Transfer: such a regression trained on the English topics of SIB-200, asked in the other languages.
"""

import argparse
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline

from benchmarks.languages import CODES, TOOLS, right_by_label
from pipelines.finetune.mini_corpus import Tagged, Topic
from pipelines.finetune.mini_files import read_tagged, read_topics
from pipelines.finetune.mini_measure import language_sentences, topic_sentences
from xlmr_core.metrics import Classification, EntityScores

logger = logging.getLogger(__name__)

MAX_TRAINING_SENTENCES = 5_000
Shares = dict[str, dict[str, float]]


def n_grams() -> Any:
    """The regression for whole texts; of several widths and strengths the one that did best in the other languages."""
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False, sublinear_tf=True)
    return make_pipeline(vectors, LogisticRegression(C=10, max_iter=1_000))


def topics(train: Sequence[Topic], held_out: Sequence[Topic]) -> dict[str, Shares]:
    """Accuracy of both baselines in each language of the held-out texts."""
    of_language = _by_language(train)
    found: dict[str, Shares] = {"majority": {}, "n-grams": {}}
    for language, rows in _by_language(held_out).items():
        texts, labels = [row.text for row in of_language[language]], [row.label for row in of_language[language]]
        gold = [row.label for row in rows]
        most = Counter(labels).most_common(1)[0][0]
        found["majority"][language] = _classes(gold, [most] * len(gold))
        found["n-grams"][language] = _classes(gold, n_grams().fit(texts, labels).predict([row.text for row in rows]))
    return found


def transfer(folder: Path) -> dict[str, Shares]:
    """SIB-200: trained on the English train split, accuracy on the dev split of each language."""
    english = topic_sentences(folder / "eng_Latn" / "train.tsv")
    model = n_grams().fit([text for _, text in english], [label for label, _ in english])
    most = Counter(label for label, _ in english).most_common(1)[0][0]
    found: dict[str, Shares] = {"majority": {}, "n-grams": {}}
    for path in sorted(folder.glob("*/dev.tsv")):
        rows = topic_sentences(path)
        gold = [label for label, _ in rows]
        found["majority"][path.parent.name] = _classes(gold, [most] * len(gold))
        found["n-grams"][path.parent.name] = _classes(gold, model.predict([text for _, text in rows]))
    return found


def tags(train: Sequence[Tagged], held_out: Sequence[Tagged], *, entities: bool) -> dict[str, Shares]:
    """Accuracy of words, or with `entities` F1 of entities, of both baselines in each language.

    The majority is that of the word in training, of all words where it was not seen.
    """
    of_language = _by_language(train)
    found: dict[str, Shares] = {"majority": {}, "n-grams": {}}
    measure = _entities if entities else _words
    for language, rows in _by_language(held_out).items():
        known = of_language[language][:MAX_TRAINING_SENTENCES]
        gold = [row.tags for row in rows]
        found["majority"][language] = measure(gold, _most_frequent(known, rows))
        found["n-grams"][language] = measure(gold, _regression(known, rows))
    return found


def _most_frequent(train: Sequence[Tagged], rows: Sequence[Tagged]) -> list[list[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    whole: Counter[str] = Counter()
    for row in train:
        whole.update(row.tags)
        for word, tag in zip(row.words, row.tags, strict=True):
            counts[word][tag] += 1
    best = {word: of_word.most_common(1)[0][0] for word, of_word in counts.items()}
    most = whole.most_common(1)[0][0]
    return [[best.get(word, most) for word in row.words] for row in rows]


def _regression(train: Sequence[Tagged], rows: Sequence[Tagged]) -> list[list[str]]:
    hasher = FeatureHasher(n_features=1 << 18, input_type="string", alternate_sign=False)
    seen = hasher.transform(features for row in train for features in word_features(row.words))
    labels = [tag for row in train for tag in row.tags]
    if len(set(labels)) == 1:
        return [[labels[0]] * len(row.words) for row in rows]
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=8, tol=None, random_state=0, average=True)
    said = iter(
        model.fit(seen, labels).predict(
            hasher.transform(features for row in rows for features in word_features(row.words))
        )
    )
    return [[str(next(said)) for _ in row.words] for row in rows]


def word_features(words: Sequence[str]) -> Iterator[list[str]]:
    """The word, its beginnings and ends, its shape, and both neighbours, for each word of a sentence."""
    padded = ["<s>", "<s>", *words, "</s>", "</s>"]
    for at in range(2, len(padded) - 2):
        word, low = padded[at], padded[at].lower()
        found = ["bias", f"w={word}", f"l={low}", f"shape={_shape(word)}", f"first={at == 2}"]
        found += [f"p{n}={low[:n]}" for n in (1, 2, 3, 4)] + [f"s{n}={low[-n:]}" for n in (1, 2, 3, 4)]
        found += [f"{step}={padded[at + step].lower()}" for step in (-2, -1, 1, 2)]
        found += [f"{step}s={padded[at + step][-3:].lower()}" for step in (-1, 1)]
        found += [f"{step}c={_shape(padded[at + step])}" for step in (-1, 1)]
        found += [f"-1={padded[at - 1].lower()} {low}", f"1={low} {padded[at + 1].lower()}"]
        yield found


def _shape(word: str) -> str:
    kinds = ("X" if char.isupper() else "x" if char.isalpha() else "9" if char.isdigit() else char for char in word)
    shape: list[str] = []
    for kind in kinds:
        if shape[-1:] != [kind]:
            shape.append(kind)
    return "".join(shape)


def _classes(gold: Sequence[str], said: Sequence[str]) -> dict[str, float]:
    counts = Classification()
    counts.add(gold, list(map(str, said)))
    return counts.result()


def _words(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> dict[str, float]:
    return _classes([tag for row in gold for tag in row], [tag for row in said for tag in row])


def _entities(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> dict[str, float]:
    counts = EntityScores()
    counts.add_tags(gold, said)
    return counts.result()


def _by_language(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.language].append(row)
    return dict(sorted(found.items()))


def measure(files: Path, data: Path) -> dict[str, Callable[[], Any]]:
    """Every comparison by name, not yet computed.

    Args:
        files: What `mini prepare` wrote into `WORK/files`.
        data: Folder with the texts that nothing was trained on.
    """
    held_out = files / "held_out"

    def tagged(name: str) -> dict[str, Shares]:
        train, rows = read_tagged(files / f"{name}.parquet"), read_tagged(held_out / f"{name}.parquet")
        return tags(train, rows, entities=name == "entities")

    def language() -> dict[str, Any]:
        sets = language_sentences(files, data)
        tools = {tool: {name: right_by_label(tool, rows) for name, rows in sets.items()} for tool in TOOLS}
        return {"codes": dict(CODES), "tools": tools}

    return {
        "language": language,
        "topic": lambda: topics(read_topics(files / "topic.parquet"), read_topics(held_out / "topic.parquet")),
        "pos": lambda: tagged("pos"),
        "entities": lambda: tagged("entities"),
        "transfer": lambda: transfer(data / "seqcls/sib200"),
    }


def main() -> None:
    """Computes the comparisons and writes them as JSON; what the file has already stays."""
    parser = argparse.ArgumentParser(prog="benchmarks.baselines", description="What `mini` is compared with.")
    parser.add_argument("names", nargs="*", help="language, topic, pos, entities, transfer; all without")
    parser.add_argument("--files", type=Path, required=True, help="WORK/files of `mini prepare`")
    parser.add_argument("--data", type=Path, required=True, help="folder with texts that nothing was trained on")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    comparisons = measure(arguments.files, arguments.data)
    unknown = set(arguments.names) - set(comparisons)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: known are {', '.join(comparisons)}")
    found = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
    for name in arguments.names or comparisons:
        since = time.monotonic()
        found[name] = comparisons[name]()
        arguments.output.write_text(json.dumps(found, indent=1), encoding="utf-8")
        logger.info("%s: %.0f s", name, time.monotonic() - since)


if __name__ == "__main__":
    main()
