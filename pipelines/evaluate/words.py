"""Labels of single words, such as parts of speech: one answer for each gold word, where a model was taught to give it.

Letters: N tokens of all records, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pipelines.evaluate.asking import NAME, Answers
from pipelines.examples import WordLabels
from xlmr_core.graph.windows import windowed_records
from xlmr_core.metrics import Classification
from xlmr_core.tasks.tag import Tag
from xlmr_core.tasks.tag_targets import word_targets

# Of a word, the label; None where no token stands for it or anything before it.
WordAnswers = list[str | None]


def word_answers(answers: Answers, gold: Sequence[WordLabels]) -> list[tuple[WordAnswers, int]]:
    """The label of each gold word: what the model says at the token that carries the word's label in training.

    In a longer text a token is read in the window where it has most context. Words without such a token have the
    answer of the word before: the second one of "de le" where the text has "du", and a word whose token began in the
    word before.

    Args:
        answers: Of a model that labels tokens.
        gold: Of each record.

    Returns:
        For each record the labels, and how many words have no token of their own.
    """
    (annotation,) = answers.plan.annotations
    task = annotation.task
    assert isinstance(task, Tag)
    annotated = answers.annotations.annotated
    (windows,) = answers.outputs.windows
    records, rows = windowed_records(answers.encoded, windows, annotation, annotated)
    said_N = records.stitch_tokens(answers.outputs.raw[NAME][rows]).argmax(axis=1).tolist()
    read = [value for value, there in zip(gold, annotated.tolist(), strict=True) if there]
    # Where each word would be taught its own number.
    most = max((len(value.spans) for value in read), default=0)
    numbers = tuple(map(str, range(most)))
    word_N = word_targets(
        [numbers[: len(value.spans)] for value in read], [value.spans for value in read], records, numbers
    ).tolist()
    bounds, at = records.splits.tolist(), 0
    found: list[tuple[WordAnswers, int]] = []
    for value, there in zip(gold, annotated.tolist(), strict=True):
        own: WordAnswers = [None] * len(value.spans)
        if there:
            for token in range(bounds[at], bounds[at + 1]):
                if word_N[token] >= 0:
                    own[word_N[token]] = task.labels[said_N[token]]
            at += 1
        found.append((list(accumulate(own, _latest)), own.count(None)))
    return found


def _latest(before: str | None, here: str | None) -> str | None:
    return before if here is None else here


@dataclass(slots=True)
class WordScores:
    """Labels of words; words without a gold label do not count.

    Attributes:
        labels: Counts of all words.
        without_token: Words whose answer is that of the word before.
    """

    labels: Classification = field(default_factory=Classification)
    without_token: int = 0

    def add(self, gold: Sequence[WordLabels], predicted: Sequence[tuple[WordAnswers, int]]) -> None:
        """Counts the words of records."""
        for value, (labels, without) in zip(gold, predicted, strict=True):
            pairs = [(g, p or "") for g, p in zip(value.labels, labels, strict=True) if g is not None]
            self.labels.add([g for g, _ in pairs], [p for _, p in pairs])
            self.without_token += without

    def merge(self, other: "WordScores") -> "WordScores":
        """Both together."""
        return WordScores(self.labels.merge(other.labels), self.without_token + other.without_token)

    def by_label(self) -> dict[str, dict[str, float]]:
        """`precision`, `recall`, `f1` and `support` of each label."""
        return self.labels.by_label()

    def result(self) -> dict[str, float]:
        """As `Classification`, and `without_token`."""
        return self.labels.result() | {"without_token": float(self.without_token)}
