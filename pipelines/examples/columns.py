"""Which column is what: as the user says, else by the usual names; what was found is reported."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.annotate.inputs import InputFile
from pipelines.examples.example import ProblemType, Task

_COLUMNS_SHOWN = 30
_IDS = ("id", "guid", "uid", "idx", "index_id", "sent_id", "q_id", "qid", "sentence_id", "sentence_pair_id")
_LANGUAGES = ("language", "lang", "language_code", "locale")
_TEXTS = ("text", "sentence", "content", "document", "review", "review_body", "tweet", "comment")
_LABELS = ("label", "labels", "category", "topic", "class", "gold_label", "intent", "sentiment", "emotion")
_SCORES = ("score", "scores", "similarity", "similarity_score", "relevance", "rating", "stars")
_FIRST = ("anchor", "query", "question", "premise", "sentence1", "text1", "text")
_SECOND = ("hypothesis", "hypo", "sentence2", "question2", "text2", "text_pair", "pair", "second")
# Columns that hold one choice each: a stem and a number or letter.
_NUMBERED = re.compile(r"(choice|option|ending|answer|solution|sol|alternative)[_ ]?(\d{1,2}|[A-Ea-e])")
# The usual names of each role, by task; the first role that a record cannot do without is checked in `_missing`.
_NAMES: dict[Task, dict[str, tuple[str, ...]]] = {
    "sequence-classification": {
        "text": (*_TEXTS, "premise", "sentence1", "question1", "text1"),
        "pair": _SECOND,
        "label": _LABELS,
    },
    "token-classification": {
        "words": ("words", "tokens"),
        "tags": ("tags", "ner_tags", "pos_tags", "upos", "labels", "ner", "pos"),
        "text": ("text", "sentence"),
        "entities": ("entities", "spans"),
    },
    "question-answering": {
        "text": ("context", "passage", "paragraph", "text"),
        "question": ("question", "query"),
        "answers": ("answers", "answer"),
    },
    "multiple-choice": {
        "text": ("premise", "context", "passage", "article", "sent1", "startphrase", "text"),
        "question": ("question", "query", "sent2"),
        "choices": ("choices", "options", "endings"),
        "label": ("label", "answer", "answerKey", "answer_key", "gold"),
    },
    **{
        task: {
            "text": (*_FIRST, "sentence"),
            "pair": (*_SECOND, "passage", "passages", "document", "documents", "translation"),
            "positives": ("positive", "positives", "pos", "positive_passages"),
            "negatives": ("negative", "negatives", "neg", "hard_negatives", "negative_passages"),
            "label": (*_SCORES, "label", "labels"),
        }
        for task in ("rerank", "similarity", "embedding")
    },
    "fill-mask": {"text": _TEXTS, "pair": ("translation",)},
    "causal-lm": {"text": _TEXTS},
}


@dataclass(frozen=True, slots=True)
class ExampleColumns:
    """The columns of labelled data.

    None stands for the usual names of the task, "" for no such column. `a.b` is field b of struct (or JSON object) a.

    Attributes:
        text_column: Text; the context of question answering, the premise of multiple choice.
        pair_column: Second text, or a list of them.
        label_column: Label name, names, numbers, or the right choice.
        words_column: Words of a text, a list.
        tags_column: A tag for each word.
        entities_column: Entities of a text: objects with `start`, `end` and `label` (or `type`), or lists of these.
        question_column: Question.
        answers_column: Answers as SQuAD has them: `text` and `answer_start`.
        choices_columns: One column with a list, or one a choice.
        positives_column: Texts that fit, one or a list.
        negatives_column: Texts that do not fit, one or a list.
        language_column: Language of each record.
        id_column: Id of each record, a string or integer.
    """

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    words_column: str | None = None
    tags_column: str | None = None
    entities_column: str | None = None
    question_column: str | None = None
    answers_column: str | None = None
    choices_columns: tuple[str, ...] | None = None
    positives_column: str | None = None
    negatives_column: str | None = None
    language_column: str | None = None
    id_column: str | None = None

    def given(self, role: str) -> tuple[str, ...] | None:
        """What the user said of a role."""
        if role == "choices":
            return self.choices_columns
        name = getattr(self, f"{role}_column")
        return None if name is None else (name,) if name else ()


@dataclass(frozen=True, slots=True)
class FoundColumns:
    """The columns of one file by role.

    Attributes:
        roles: Column names of each role that the file has; several only for "choices".
        chosen: Roles whose column the user named.
    """

    roles: dict[str, tuple[str, ...]]
    chosen: frozenset[str] = frozenset()

    def get(self, role: str) -> str | None:
        """The column of a role; None where there is none."""
        names = self.roles.get(role)
        return names[0] if names else None

    def asked(self) -> tuple[str, ...]:
        """Every column to read, each once."""
        return tuple(dict.fromkeys(name for names in self.roles.values() for name in names))


def find_columns(
    columns: ExampleColumns, task: Task, problem_type: ProblemType, existing: Sequence[str], file: InputFile
) -> tuple[FoundColumns, list[str]]:
    """Finds the column of each role.

    Args:
        columns: What the user said.
        task: Decides which roles there are.
        problem_type: Of classification.
        existing: Columns of the file.
        file: For messages.

    Returns:
        What was found, and problems in words: columns named but absent, roles with several candidates or none.
    """
    usual = dict(_NAMES[task])
    if task == "sequence-classification" and problem_type == "regression":
        usual["label"] = (*_LABELS, *_SCORES)
    usual |= {"language": _LANGUAGES, "id": _IDS}
    chosen = {role: names for role in usual if (names := columns.given(role)) is not None}
    taken = {name for names in chosen.values() for name in names}
    roles: dict[str, tuple[str, ...]] = {}
    problems = []
    for role, names in usual.items():
        if role in chosen:
            absent = [name for name in chosen[role] if name not in existing and name.split(".")[0] not in existing]
            if absent:
                problems.append(f"no column {', '.join(map(repr, absent))} for {_option(role)}")
            roles[role] = chosen[role]
            continue
        candidates = [name for name in names if name in existing and name not in taken]
        if role == "choices" and not candidates:
            roles[role] = _numbered(existing)
            continue
        if len(candidates) > 1 and role != "id":
            problems.append(
                f"several columns may be the {role}: {', '.join(candidates)}; name one with {_option(role)}"
            )
        roles[role] = tuple(candidates[:1])
    found = FoundColumns({role: names for role, names in roles.items() if names}, frozenset(chosen))
    problems += [f"no column found for {what}" for what in _missing(found, task)]
    return found, [_with_columns(file, problem, existing) for problem in problems]


def _missing(found: FoundColumns, task: Task) -> list[str]:
    """Options whose column a task cannot do without."""
    has = found.roles.__contains__
    wanted: list[tuple[bool, str]] = []
    match task:
        case "token-classification":
            if has("entities") and has("words"):
                return [f"either words or entities ({_option('words')} or {_option('entities')}), both were found"]
            wanted = [(has("text"), "text")] if has("entities") else [(has("words"), "words"), (has("tags"), "tags")]
        case "question-answering":
            wanted = [(has(role), role) for role in ("text", "question", "answers")]
        case "multiple-choice":
            wanted = [(has("text") or has("question"), "text"), (has("choices"), "choices"), (has("label"), "label")]
        case "rerank" | "similarity" | "embedding":
            wanted = [(has("text"), "text"), (has("pair") or has("positives"), "pair")]
            wanted += [(has("label") or has("positives") or task == "embedding", "label")]
        case "sequence-classification":
            wanted = [(has("text"), "text"), (has("label"), "label")]
        case "fill-mask" | "causal-lm":
            wanted = [(has("text"), "text")]
    return [_option(role) for there, role in wanted if not there]


def _option(role: str) -> str:
    return "choices_columns" if role == "choices" else f"{role}_column"


def _with_columns(file: InputFile, problem: str, existing: Sequence[str]) -> str:
    shown = ", ".join(existing[:_COLUMNS_SHOWN]) or "none"
    more = f" and {len(existing) - _COLUMNS_SHOWN} more" if len(existing) > _COLUMNS_SHOWN else ""
    return f"{file.path}: {problem}; its columns are: {shown}{more}"


def _numbered(existing: Sequence[str]) -> tuple[str, ...]:
    """Columns that hold one choice each, in order; empty unless there are at least two of one stem."""
    stems: dict[str, list[tuple[int, str, str]]] = {}
    for name in existing:
        match = _NUMBERED.fullmatch(name)
        if match:
            number = int(match[2]) if match[2].isdigit() else -1
            stems.setdefault(match[1], []).append((number, match[2], name))
    several = [tuple(name for *_, name in sorted(names)) for names in stems.values() if len(names) > 1]
    return several[0] if len(several) == 1 else ()
