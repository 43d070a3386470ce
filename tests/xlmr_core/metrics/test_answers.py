"""Answers against the rules of the official scripts, written here once more, the long way round."""

import re
import string
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics import QuestionAnswering
from xlmr_core.metrics.answers import normalize_mlqa, normalize_squad

QUICK = settings(max_examples=25, deadline=None)
EXACT = {"rel": 1e-12, "abs": 1e-12}
PUNCTUATION = {chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code))[0] == "P"}
PUNCTUATION |= set(string.punctuation)
ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "hi": "",
    "zh": "",
}
PIECES = st.sampled_from(
    [
        *" ,.—。«$\n\u00a0",
        "the",
        "The",
        "an",
        "cat",
        "Cat",
        "los",
        "gato",
        "die",
        "Katze",
        "của",
        "ال",
        "القط",
        "北京",
        "猫",
        "í",
    ]
)
# Pieces that rules are about, and anything else.
ANSWERS = st.one_of(st.lists(PIECES, max_size=6).map("".join), st.lists(PIECES, max_size=5).map(" ".join), st.text())


def squad_words(text):
    text = text.lower().translate(dict.fromkeys(map(ord, string.punctuation)))
    return re.sub(r"\b(?:a|an|the)\b", " ", text).split()


def mlqa_words(text, language):
    kept = "".join(character for character in text.lower() if character not in PUNCTUATION)
    if language == "ar":
        kept = " ".join(kept.split("ال"))
    elif ARTICLES[language]:
        kept = re.sub(rf"\b({'|'.join(ARTICLES[language].split())})\b", " ", kept)
    if language != "zh":
        return kept.split()
    words, word = [], ""
    for character in kept:
        if "\u4e00" <= character <= "\u9fa5":
            words += [*word.split(), character]
            word = ""
        else:
            word += character
    return words + word.split()


def f1_of_words(gold, predicted, *, nothing):
    if not gold or not predicted:
        return float(gold == predicted) if nothing else 0.0
    same = sum((Counter(gold) & Counter(predicted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def counted(rules, rows, language=None):
    scores = QuestionAnswering(rules, language)
    scores.add(*zip(*rows, strict=True))
    return scores.result()


def mean(values):
    return sum(values) / len(values)


@QUICK
@given(ANSWERS)
def test_normalised_answers_are_their_words(text):
    assert normalize_squad(text) == " ".join(squad_words(text))
    for language in ("ar", *ARTICLES):
        assert normalize_mlqa(text, language) == " ".join(mlqa_words(text, language))


@QUICK
@given(st.lists(st.tuples(st.lists(ANSWERS, min_size=1, max_size=3), ANSWERS), min_size=1, max_size=4))
def test_squad_1_1_takes_the_most_similar_gold_answer(rows):
    result = counted("squad", rows)
    exact = [any(squad_words(one) == squad_words(guess) for one in gold) for gold, guess in rows]
    f1 = [max(f1_of_words(squad_words(one), squad_words(guess), nothing=False) for one in gold) for gold, guess in rows]
    assert result == pytest.approx({"exact_match": mean(exact), "f1": mean(f1), "total": len(rows)}, **EXACT)


@QUICK
@given(
    st.sampled_from(["ar", *ARTICLES]),
    st.lists(st.tuples(st.lists(ANSWERS, min_size=1, max_size=3), ANSWERS), min_size=1, max_size=3),
)
def test_mlqa_counts_words_of_its_language(language, rows):
    words = [([mlqa_words(one, language) for one in gold], mlqa_words(guess, language)) for gold, guess in rows]
    exact = [guess in gold for gold, guess in words]
    f1 = [max(f1_of_words(one, guess, nothing=False) for one in gold) for gold, guess in words]
    expected = {"exact_match": mean(exact), "f1": mean(f1), "total": len(rows)}
    assert counted("mlqa", rows, language) == pytest.approx(expected, **EXACT)


def official_v2(rows):
    """The scores of each question by the script of SQuAD 2.0."""
    for gold, guess, _ in rows:
        right = [words for words in map(squad_words, gold) if words] or [[]]
        guess_words = squad_words(guess)
        yield float(guess_words in right), max(f1_of_words(one, guess_words, nothing=True) for one in right)


QUESTIONS = st.tuples(st.lists(ANSWERS, max_size=2), ANSWERS, st.floats(-3, 3))


@QUICK
@given(st.lists(QUESTIONS, min_size=1, max_size=6))
def test_squad_2_0_tells_questions_with_and_without_an_answer_apart(rows):
    result = counted("squad_v2", rows)
    scores = list(official_v2(rows))
    parts = {"": rows, "HasAns_": [row for row in rows if row[0]], "NoAns_": [row for row in rows if not row[0]]}
    for name, part in parts.items():
        assert result[f"{name}total"] == len(part)
        of_part = [score for score, row in zip(scores, rows, strict=True) if row in part]
        if part:
            assert result[f"{name}exact_match"] == pytest.approx(mean([exact for exact, _ in of_part]), **EXACT)
            assert result[f"{name}f1"] == pytest.approx(mean([f1 for _, f1 in of_part]), **EXACT)


def at_threshold(rows, threshold, place):
    return mean(
        [
            float(not gold) if score > threshold else of_question[place]
            for of_question, (gold, _, score) in zip(official_v2(rows), rows, strict=True)
        ]
    )


@QUICK
@given(st.lists(QUESTIONS, min_size=1, max_size=6))
def test_the_best_threshold_is_one_and_there_is_no_better_one(rows):
    result = counted("squad_v2", rows)
    for place, name in enumerate(("exact_match", "f1")):
        assert result[f"best_{name}"] == pytest.approx(
            at_threshold(rows, result[f"best_{name}_threshold"], place), **EXACT
        )
        every = [at_threshold(rows, threshold, place) for threshold in (-4.0, *(row[2] for row in rows))]
        assert result[f"best_{name}"] == pytest.approx(max(every), **EXACT)


@QUICK
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["cat", "dog", ""])), min_size=1, max_size=8),
    st.permutations([0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95]),
)
def test_the_best_threshold_equals_the_script_where_scores_differ(kinds, certainties):
    rows = [
        (["cat"] if answerable else [], guess, score)
        for (answerable, guess), score in zip(kinds, certainties, strict=False)
    ]
    # The script: start with no answer at all, then answer one question after the other.
    reached = best = sum(not gold for gold, _, _ in rows)
    threshold = 0.0
    for gold, guess, score in sorted(rows, key=lambda row: row[2]):
        reached += (guess == "cat") if gold else (-1 if guess else 0)
        if reached > best:
            best, threshold = reached, score
    result = counted("squad_v2", rows)
    assert result["best_exact_match"] == pytest.approx(best / len(rows), **EXACT)
    assert result["best_exact_match_threshold"] == threshold


def test_known_answers():
    rows = [(["Denver Broncos", "The Denver Broncos"], "the denver broncos!"), (["1889"], "in 1889"), (["a"], "b")]
    assert counted("squad", rows) == pytest.approx({"exact_match": 1 / 3, "f1": (1 + 2 / 3 + 0) / 3, "total": 3})
    assert counted("mlqa", [(["北京市"], "北京")], "zh")["f1"] == pytest.approx(0.8)
    assert counted("mlqa", [(["der Hund"], "ein Hund")], "de")["exact_match"] == 1
    assert counted("squad", [(["der Hund"], "ein Hund")])["exact_match"] == 0


def test_what_normalises_to_nothing_is_as_in_each_script():
    assert counted("squad", [(["The"], "a")]) == {"exact_match": 1, "f1": 0, "total": 1}
    assert counted("squad_v2", [(["The"], "a")])["HasAns_f1"] == 1
    assert counted("squad_v2", [(["The", "cat"], "a")])["HasAns_exact_match"] == 0


def test_scores_for_some_questions_only_give_no_threshold():
    scores = QuestionAnswering("squad_v2")
    scores.add([["cat"]], ["cat"], [0.1])
    assert "best_f1" in scores.result()
    scores.add([["cat"]], ["cat"])
    assert "best_f1" not in scores.result()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError, match="language 'th', MLQA has rules for ar, de, en"):
        QuestionAnswering("mlqa", "th")
    with pytest.raises(ArgumentError, match="a language is for 'mlqa'"):
        QuestionAnswering("squad", "de")
    with pytest.raises(ArgumentError, match="take 'squad_v2'"):
        QuestionAnswering().add([[]], ["cat"])
    with pytest.raises(ArgumentError, match="is nan"):
        QuestionAnswering("squad_v2").add([[]], ["cat"], [float("nan")])
    with pytest.raises(ArgumentError, match="both must be the same"):
        QuestionAnswering().merge(QuestionAnswering("squad_v2"))


def test_gold_answers_are_right_in_every_language_of_xquad(shared_data):
    import json

    seen = 0
    for path in sorted((shared_data / "qa/xquad").glob("*.json")):
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        questions = [qa for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]][:200]
        answers = [[answer["text"] for answer in qa["answers"]] for qa in questions]
        result = counted("squad_v2", [(of_question, of_question[0], 0.0) for of_question in answers])
        assert result["exact_match"] == result["f1"] == result["best_f1"] == 1
        seen += len(questions)
    assert seen
