"""Answers to questions: exact match and F1 of words, by the official rules of three data sets.

Sources: the evaluation scripts `evaluate-v1.1.py` and `evaluate-v2.0.py` of SQuAD (Rajpurkar et al. 2016 and 2018) and
`mlqa_evaluation_v1.py` of MLQA (Lewis et al. 2020). They agree but for this:
- MLQA drops the articles of the answer's language, all punctuation of Unicode, and makes each Chinese character a word.
- SQuAD 2.0 ignores gold answers that are nothing but articles and punctuation, and where nothing is left, or the
  question has no answer, nothing is the right answer. In SQuAD 1.1 and MLQA F1 is 0 where no word is shared.

The best threshold differs from the 2.0 script where that one names what no threshold reaches: questions with equal
scores are answered together or not at all (there their order decides), what an unanswerable question adds is its score
(there a predicted "the" loses it), and what is below all scores is so where they are negative too (there 0).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import inf, nextafter
from typing import Literal

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics.means import Mean

Rules = Literal["squad", "squad_v2", "mlqa"]

_ARTICLES = {
    "ar": "ال",  # wherever it stands, also inside of a word
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "hi": None,
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "zh": None,
}
_CHINESE = re.compile("([\u4e00-\u9fa5])")


def normalize_squad(answer: str) -> str:
    """Lower case, without ASCII punctuation and English articles, words joined by single spaces."""
    kept = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def normalize_mlqa(answer: str, language: str) -> str:
    """As for SQuAD, with the articles of the language, any punctuation, and spaces around Chinese characters in "zh".

    Args:
        answer: Any text.
        language: One of MLQA's.

    Raises:
        ArgumentError: Another language.
    """
    if language not in _ARTICLES:
        known = ", ".join(_ARTICLES)
        raise ArgumentError(f"language {language!r:.100}, MLQA has rules for {known}; take rules='squad' for others")
    kept = "".join(character for character in answer.lower() if not _is_punctuation(character))
    articles = _ARTICLES[language]
    if articles is not None:
        kept = re.sub(articles, " ", kept)
    if language == "zh":
        kept = _CHINESE.sub(r" \1 ", kept)
    return " ".join(kept.split())


@lru_cache(maxsize=1 << 16)
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def word_f1(gold: str, predicted: str) -> float:
    """F1 of the words of two normalised answers, each word as often as it occurs; 0 where none is shared."""
    gold_words, predicted_words = gold.split(), predicted.split()
    shared = (Counter(gold_words) & Counter(predicted_words)).total()
    return 2 * shared / (len(gold_words) + len(predicted_words)) if shared else 0.0


@dataclass(slots=True)
class QuestionAnswering:
    """Answers to questions.

    Only where the model's scores for "no answer" are given, something is kept for each question: about 300 bytes for
    each distinct score, for the best threshold.

    Attributes:
        rules: Whose normalisation and F1.
        language: Of the answers; only with the rules "mlqa".
        exact: Exact matches of questions with an answer, and of those without.
        f1: F1 of the same.
        scored: Questions with a score for "no answer".
        gains: By the score for "no answer": exact match and F1 that are won by answering instead of saying nothing.
    """

    rules: Rules = "squad"
    language: str | None = None
    exact: tuple[Mean, Mean] = field(default_factory=lambda: (Mean(), Mean()))
    f1: tuple[Mean, Mean] = field(default_factory=lambda: (Mean(), Mean()))
    scored: int = 0
    gains: dict[float, tuple[int, Fraction]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.language is not None) != (self.rules == "mlqa"):
            raise ArgumentError(f"rules {self.rules!r} and language {self.language!r:.100}, a language is for 'mlqa'")
        self._normalize("")

    def add(
        self,
        gold: Sequence[Sequence[str]],
        predicted: Sequence[str],
        no_answer_scores: Sequence[float] | None = None,
    ) -> None:
        """Counts answers; row r of all belongs to one question.

        Args:
            gold: Texts of the right answers; none where a question has no answer.
            predicted: The one answer; "" for none.
            no_answer_scores: How certain the model is that there is none, on any scale. With it, `predicted` must be
                the best answer whatever this score is.

        Raises:
            ArgumentError: A question without an answer, which only SQuAD 2.0 has; or a score that is nan.
        """
        if self.rules != "squad_v2" and not all(map(len, gold)):
            raise ArgumentError(f"a question without an answer, rules {self.rules!r} have none; take 'squad_v2'")
        if no_answer_scores is not None and any(score != score for score in no_answer_scores):
            raise ArgumentError("a score for 'no answer' is nan, must be a number")
        scores = [self.scores(answers, guess) for answers, guess in zip(gold, predicted, strict=True)]
        for group, has_answer in enumerate((True, False)):
            rows = [score for score, answers in zip(scores, gold, strict=True) if bool(answers) == has_answer]
            self.exact[group].add([exact for exact, _ in rows])
            self.f1[group].add([f1 for _, f1 in rows])
        if no_answer_scores is None:
            return
        self.scored += len(scores)
        for (exact, f1), answers, key in zip(scores, gold, no_answer_scores, strict=True):
            of_silence = 0 if answers else 1
            before = self.gains.get(key, (0, Fraction(0)))
            self.gains[key] = before[0] + exact - of_silence, before[1] + Fraction(f1) - of_silence

    def scores(self, gold: Sequence[str], predicted: str) -> tuple[int, float]:
        """Exact match and F1 of one answer: those of the most similar of the right ones."""
        right, guess = [self._normalize(answer) for answer in gold], self._normalize(predicted)
        if self.rules == "squad_v2":
            right = [answer for answer in right if answer] or [""]
        exact = int(guess in right)
        # Nothing equals nothing in 2.0 only; a shared word makes the F1 of equals 1 everywhere.
        f1 = max(word_f1(answer, guess) for answer in right)
        return exact, 1.0 if self.rules == "squad_v2" and exact else f1

    def merge(self, other: "QuestionAnswering") -> "QuestionAnswering":
        """Both together.

        Raises:
            ArgumentError: They follow different rules.
        """
        if (self.rules, self.language) != (other.rules, other.language):
            raise ArgumentError(
                f"rules {self.rules}, {self.language} and {other.rules}, {other.language}, both must be the same"
            )
        gains = dict(self.gains)
        for key, (exact, f1) in other.gains.items():
            before = gains.get(key, (0, Fraction(0)))
            gains[key] = before[0] + exact, before[1] + f1
        return QuestionAnswering(
            self.rules,
            self.language,
            (self.exact[0].merge(other.exact[0]), self.exact[1].merge(other.exact[1])),
            (self.f1[0].merge(other.f1[0]), self.f1[1].merge(other.f1[1])),
            self.scored + other.scored,
            gains,
        )

    def result(self) -> dict[str, float]:
        """`exact_match`, `f1` and `total`.

        SQuAD 2.0 also has these three with `HasAns_` and `NoAns_`, of questions with and without an answer, and, where
        scores for "no answer" were given for all questions, `best_exact_match`, `best_f1` and with `_threshold` the
        score above which no answer is to be given for that.
        """
        exact, f1 = self.exact[0].merge(self.exact[1]), self.f1[0].merge(self.f1[1])
        result = {"exact_match": exact.value, "f1": f1.value, "total": float(exact.count)}
        if self.rules != "squad_v2":
            return result
        for name, exact_of, f1_of in zip(("HasAns", "NoAns"), self.exact, self.f1, strict=True):
            result[f"{name}_exact_match"] = exact_of.value
            result[f"{name}_f1"] = f1_of.value
            result[f"{name}_total"] = float(exact_of.count)
        if self.scored == exact.count > 0:
            for place, name in enumerate(("exact_match", "f1")):
                best, threshold = self._best(place)
                result[f"best_{name}"] = float(best / exact.count)
                result[f"best_{name}_threshold"] = threshold
        return result

    def _best(self, place: int) -> tuple[Fraction, float]:
        """The largest sum of scores, and the smallest threshold that reaches it."""
        keys = sorted(self.gains)
        best = reached = Fraction(self.exact[1].count)
        threshold = min(0.0, nextafter(keys[0], -inf))
        for key in keys:
            reached += self.gains[key][place]
            if reached > best:
                best, threshold = reached, key
        return best, threshold

    def _normalize(self, answer: str) -> str:
        return normalize_squad(answer) if self.language is None else normalize_mlqa(answer, self.language)
