"""A record to an `Example`, by task; or the reason why not."""

from collections.abc import Sequence
from itertools import pairwise

from pipelines.annotate.lines import Problem
from pipelines.examples.answers import place_answer
from pipelines.examples.example import Entity, Example, Gold, Notices, Rejected, Row, Span, WordLabels
from pipelines.examples.files import ExampleFile, ReadSettings
from pipelines.examples.values import (
    digits,
    label_of,
    labels_of_list,
    list_of,
    number_of,
    numbers_of,
    text_of,
    texts_of,
    words_of,
)
from pipelines.examples.words import find_words, join_words
from xlmr_core.errors import InputError

# What COPA's `question` column asks of a premise.
_COPA = {"cause": "What was the cause?", "effect": "What was the effect?"}
_TYPE_KEYS = ("label", "type", "tag", "entity_group", "entity")
_ENDS = ("end", "stop")

# Text, second texts, gold.
_Made = tuple[str, tuple[str, ...], Gold]


class ExampleMaker:
    """Makes the examples of one file.

    Args:
        file: Where the records are from.
        settings: How they are read.
        notices: Gets what was repaired or dropped inside of examples.
    """

    def __init__(self, file: ExampleFile, settings: ReadSettings, notices: Notices) -> None:
        self._file, self._settings, self._notices = file, settings, notices
        self._make = {
            "sequence-classification": self._classification,
            "token-classification": self._tagging,
            "question-answering": self._answers,
            "multiple-choice": self._choice,
            "rerank": self._relevance,
            "similarity": self._relevance,
            "embedding": self._relevance,
            "fill-mask": self._alone,
            "causal-lm": self._alone,
        }[settings.task]

    def __call__(self, row: Row) -> Example | Rejected:
        """The example of a row, or why there is none."""
        source = f"{self._file.file.path}:{row.place}"
        id = self._given_id(row) or f"{self._file.name}:{row.place}"
        if row.problem is not None:
            return Rejected(id, source, row.problem)
        try:
            language = self._language(row, source)
            text, second, gold = self._make(row, source)
        except InputError as error:
            return Rejected(id, source, Problem(error.code, str(error)))
        return Example(text, second, gold, language, id, source)

    def _value(self, row: Row, role: str) -> tuple[object, str]:
        """The value of a role that has a column, and the column's name."""
        name = self._file.columns.get(role)
        assert name is not None
        return row.values.get(name), name

    def _has(self, role: str) -> bool:
        return self._file.columns.get(role) is not None

    def _names(self, column: str) -> Sequence[str]:
        return self._settings.label_names or self._file.class_names.get(column, ())

    def _given_id(self, row: Row) -> str:
        name = self._file.columns.get("id")
        value = row.values.get(name) if name is not None else None
        if type(value) is int:
            return str(value)
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""

    def _language(self, row: Row, source: str) -> str:
        if self._settings.language is not None:
            return self._settings.language
        if not self._has("language"):
            return self._file.language
        value, name = self._value(row, "language")
        names = self._file.class_names.get(name, ())
        if type(value) is int and 0 <= value < len(names):
            value = names[value]
        if isinstance(value, str) and value.strip():
            return text_of(value, name)
        if "language" in self._file.columns.chosen or not (value is None or value == ""):
            raise InputError(f"{name!r} is no language, it must be a string that is not empty", code="no_language")
        self._notices.add("no_language", source)
        return self._file.language

    def _text(self, row: Row) -> str:
        return text_of(*self._value(row, "text"))

    def _alone(self, row: Row, source: str) -> _Made:
        # A translation, for masked language models.
        second = (text_of(*self._value(row, "pair")),) if self._has("pair") else ()
        return self._text(row), second, None

    def _classification(self, row: Row, source: str) -> _Made:
        second = (text_of(*self._value(row, "pair")),) if self._has("pair") else ()
        value, name = self._value(row, "label")
        gold: Gold
        match self._settings.problem_type:
            case "single_label_classification":
                gold = label_of(value, name, self._names(name))
            case "multi_label_classification":
                gold = labels_of_list(value, name, self._names(name))
            case "regression":
                gold = numbers_of(value, name) if isinstance(value, list) else number_of(value, name)
        return self._text(row), second, gold

    def _tagging(self, row: Row, source: str) -> _Made:
        if self._has("entities"):
            text = self._text(row)
            return text, (), _entities(*self._value(row, "entities"), text)
        words = words_of(*self._value(row, "words"))
        value, name = self._value(row, "tags")
        tags = list_of(value, name)
        if len(tags) != len(words):
            what = f"{len(words)} words and {len(tags)} tags, each word needs one"
            raise InputError(what, code="length_mismatch")
        names = self._names(name)
        labels = tuple(None if tag is None else label_of(tag, name, names) for tag in tags)
        if all(label is None for label in labels):
            raise InputError(f"{name!r} has no tag, a text needs one", code="missing_label")
        text, spans = self._place(row, words, source)
        return text, (), WordLabels(labels, spans)

    def _place(self, row: Row, words: list[str], source: str) -> tuple[str, tuple[Span, ...]]:
        """The text of some words: that of the record where they stand in it, else the words joined."""
        if row.notice is not None:
            self._notices.add(row.notice, source)
        if row.spans is not None:
            return text_of(row.values["text"], "text"), row.spans
        if self._has("text"):
            value, name = self._value(row, "text")
            spans = find_words(words, value) if isinstance(value, str) else None
            if spans is not None:
                return text_of(value, name), spans
            self._notices.add("words_not_in_text", source)
        return join_words(words, [self._settings.word_gap] * len(words))

    def _answers(self, row: Row, source: str) -> _Made:
        # White space at its ends counts for the answers' places.
        context = self._text(row)
        question = text_of(*self._value(row, "question"))
        spans: list[Span] = []
        given = _given_answers(*self._value(row, "answers"))
        for answer, start in given:
            span, repaired = place_answer(context, answer, start)
            if span is not None:
                spans.append(span)
            if repaired:
                self._notices.add("answer_repaired", source)
        if given and not spans:
            what = "no answer is in the context at or near its answer_start"
            raise InputError(f"{what}, each must be; correct it, or pass on_error=quarantine", code="answer_not_found")
        if len(spans) < len(given):
            self._notices.add("answer_dropped", source, len(given) - len(spans))
        return context, (question,), tuple(dict.fromkeys(spans))

    def _choice(self, row: Row, source: str) -> _Made:
        parts = [text_of(*self._value(row, "text"))] if self._has("text") else []
        if self._has("question"):
            question = text_of(*self._value(row, "question"))
            parts.append(_COPA.get(question, question) if parts else question)
        names = self._file.columns.roles["choices"]
        value = row.values.get(names[0])
        letters: object = None
        if len(names) > 1:
            choices = tuple(text_of(row.values.get(name), name) for name in names)
        else:
            # {"label": ["A", "B"], "text": [...]}, as CommonsenseQA and ARC have it.
            if isinstance(value, dict):
                letters, value = value.get("label"), value.get("text")
            choices = texts_of(list_of(value, names[0]), names[0])
        right = _right_choice(*self._value(row, "label"), choices, letters, self._settings.first_choice)
        return " ".join(parts), choices, right

    def _relevance(self, row: Row, source: str) -> _Made:
        text = self._text(row)
        if self._has("positives"):
            fitting = texts_of(*self._value(row, "positives"))
            others = texts_of(*self._value(row, "negatives")) if self._has("negatives") else ()
            if not fitting:
                raise InputError("no positive text, one at least is wanted", code="missing_label")
            return text, fitting + others, (1.0,) * len(fitting) + (0.0,) * len(others)
        second = texts_of(*self._value(row, "pair"))
        if not second:
            raise InputError(f"{self._file.columns.get('pair')!r} has no text, one at least is wanted", code="null")
        if not self._has("label"):
            return text, second, (1.0,) * len(second)
        numbers = numbers_of(*self._value(row, "label"))
        if len(numbers) != len(second):
            what = f"{len(second)} second texts and {len(numbers)} numbers, each text needs one"
            raise InputError(what, code="length_mismatch")
        return text, second, numbers


def _given_answers(value: object, column: str) -> list[tuple[str, int]]:
    """Texts and places of answers, from an object of lists or a list of objects; none where there is no answer."""
    if value is None:
        raise InputError(f"{column!r} is null, it must be an object of lists, which may be empty", code="missing_label")
    pairs: list[tuple[object, object]] = [(None, None)]
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            pairs = list(zip(texts, starts, strict=True))
        else:
            pairs = [(texts, starts)]
    elif isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in value]
    good = [(text, start) for text, start in pairs if isinstance(text, str) and type(start) is int]
    if len(good) < len(pairs):
        what = f"{column!r} is not as SQuAD has it, an object with `text` and `answer_start`, lists of equal length"
        raise InputError(what, code="bad_answers")
    return [(text_of(text, column, blank=True), start) for text, start in good]


def _right_choice(value: object, column: str, choices: Sequence[str], letters: object, first: int) -> int:
    """Number of the right choice from a number, a letter or the choice itself."""
    number: int | None = None
    if value is None or value == "":
        raise InputError(f"{column!r} is null, it must tell the right choice", code="missing_label")
    if isinstance(letters, list) and value in letters:
        number = letters.index(value)
    elif type(value) is int:
        number = value - first
    elif isinstance(value, str) and value in choices:
        number = choices.index(value)
    elif isinstance(value, str) and (counted := digits(value)) is not None:
        number = counted - first
    elif isinstance(value, str) and len(value) == 1 and value.isascii() and value.isalpha():
        number = ord(value.upper()) - ord("A")
    if number is None or not 0 <= number < len(choices):
        rule = f"the choices are {first} to {first + len(choices) - 1}"
        raise InputError(f"{column!r} tells no choice, {rule}; see first_choice=", code="bad_choice")
    return number


def _entities(value: object, column: str, text: str) -> tuple[Entity, ...]:
    found = []
    for item in list_of(value, column):
        if isinstance(item, dict):
            end = next((item[key] for key in _ENDS if key in item), None)
            name = next((item[key] for key in _TYPE_KEYS if key in item), None)
            item = [item.get("start"), end, name]
        if not isinstance(item, list | tuple) or len(item) != 3:
            raise InputError(f"{column!r} must be a list of start, end and label", code="bad_entities")
        start, end, name = item
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            what = f"{column!r} has an entity outside of its text of {len(text)} characters"
            raise InputError(f"{what}; count code points, the end is one past the last", code="bad_entities")
        found.append((start, end, label_of(name, column, ())))
    found.sort()
    if any(later[0] < earlier[1] for earlier, later in pairwise(found)):
        raise InputError(f"{column!r} has entities that overlap, they must be apart", code="bad_entities")
    return tuple(found)
