"""How good a model directory is, measured with the graph that also labels corpora.

Letters: R texts, D width of a vector.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_core.graph import Annotations, GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.columns import Labels

CHUNK = 4096


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Right answers by label.

    Attributes:
        accuracy: Share of right answers of all texts.
        macro_accuracy: Mean of `by_label`.
        by_label: Share of right answers among the texts of each label (its recall).
        counts: Texts of each label.
        confusions: Most frequent errors: gold, predicted, how often.
    """

    accuracy: float
    macro_accuracy: float
    by_label: dict[str, float]
    counts: dict[str, int]
    confusions: list[tuple[str, str, int]]


def predict_labels(model: str, texts: Sequence[str]) -> list[str]:
    """The best label of each text; empty where a text has no tokens.

    Args:
        model: A sequence classification model, such as `mini#language`.
        texts: What to label.
    """
    predicted: list[str] = []
    for part in _run(model, texts):
        column = part.columns["out_label"]
        assert isinstance(column, Labels)
        labels = iter(column.codes.tolist())
        predicted += [column.names[next(labels)] if known else "" for known in part.annotated]
    return predicted


def embed(model: str, texts: Sequence[str]) -> np.ndarray:
    """One vector for each text (R, D), float32; none of the texts may be empty.

    Args:
        model: An embedding model, such as `mini#embedding`.
        texts: What to embed.
    """
    vectors = []
    for part in _run(model, texts):
        column = part.columns["out"]
        assert isinstance(column, np.ndarray)
        assert part.annotated.all()
        vectors.append(column)
    return np.concatenate(vectors)


def _run(model: str, texts: Sequence[str]) -> Iterator[Annotations]:
    plan = GraphPlan.resolve([Request("out", model)])
    preprocess, graph = Preprocessor(plan), ModelGraph(plan)
    for start in range(0, len(texts), CHUNK):
        yield graph(preprocess(texts[start : start + CHUNK]))


def report_labels(gold: Sequence[str], predicted: Sequence[str], *, top: int = 40) -> LabelReport:
    """Compares labels.

    Args:
        gold: What is right.
        predicted: What was predicted, in the same order.
        top: How many confusions to list.
    """
    counts = Counter(gold)
    right = Counter(g for g, p in zip(gold, predicted, strict=True) if g == p)
    wrong = Counter((g, p) for g, p in zip(gold, predicted, strict=True) if g != p)
    by_label = {label: right[label] / count for label, count in sorted(counts.items())}
    confusions = [(g, p, count) for (g, p), count in wrong.most_common(top)]
    macro = float(np.mean(list(by_label.values())))
    return LabelReport(sum(right.values()) / len(gold), macro, by_label, dict(counts), confusions)


def retrieval_accuracy(queries_RD: np.ndarray, targets_RD: np.ndarray) -> float:
    """Share of texts whose translation is the nearest of all targets; row r of both sides belong together.

    The measure of Tatoeba and LASER (Artetxe and Schwenk 2019), with the plain cosine.
    """
    nearest = (queries_RD @ targets_RD.T).argmax(1)
    return float((nearest == np.arange(len(queries_RD))).mean())


def first_words(text: str, words: int) -> str:
    """The beginning of a text; for scripts without spaces four characters stand for a word."""
    parts = text.split()
    if len(text) > 12 * len(parts):
        return text[: 4 * words]
    return " ".join(parts[:words])
