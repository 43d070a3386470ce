"""The forms of all tasks: parameters, inputs and answers as transformers' pipelines have them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from xlmr_core.errors import InputError, TaskError
from xlmr_core.interface.form import Answer, Form, Inputs, Read
from xlmr_core.tasks.fill_mask import filled_texts


def _texts(*keys: str, pair: str | None = None, pairs: str | None = None, needed: bool = True) -> Read:
    """Reads a text, a dict with a text under one of the keys, or a list of either.

    Args:
        keys: Names of the text, the first one to be used in messages; also a parameter of the call.
        pair: Name of a second text that comes with it.
        pairs: Name of a list of second texts.
        needed: Whether it must come; else all inputs of a call have one or none has.
    """
    second = pair or pairs

    names = [*keys, second] if second else list(keys)

    def one(number: int, item: Any) -> tuple[str, Any]:
        if isinstance(item, str):
            return item, None
        if not isinstance(item, Mapping):
            rule = f"an input is a text or a dict with {keys[0]}"
            raise InputError(f"input {number}: got a {type(item).__name__}, {rule}", code="bad_input")
        text = next((item[key] for key in keys if key in item), None)
        beside = item.get(second) if second else None
        if not isinstance(text, str):
            found = ", ".join(map(str, item))
            raise InputError(f"input {number} has no text {keys[0]!r}, it has {found}", code="bad_input")
        if unknown := ", ".join(repr(key) for key in item if key not in names):
            rule = f"known are {', '.join(names)}; parameters stand beside the inputs"
            raise InputError(f"input {number} has the unknown {unknown}, {rule}", code="bad_input")
        return text, beside

    def read(inputs: tuple[Any, ...], settings: dict[str, Any]) -> Inputs:
        named = {key: settings.pop(key) for key in names if key in settings}
        given = list(inputs)
        if second and len(given) > 1:
            named[second] = given.pop()
        if len(given) + any(key in named for key in keys) != 1:
            raise TaskError(f"one input is read, a text or a list of them as {keys[0]}; got {len(given)}")
        item = given[0] if given else next(named[key] for key in keys if key in named)
        single: Literal["text", "dict"] | None = None
        if not isinstance(item, list | tuple | Iterator):
            single = "text" if isinstance(item, str) else "dict"
        rows = [one(number, row) for number, row in enumerate([item] if single else item)]
        if second in named:
            rows = _with_seconds(rows, named[second], several=pairs is not None, name=second)
        missing = [str(number) for number, (_, beside) in enumerate(rows) if beside is None]
        if second is None or (len(missing) == len(rows) and not needed):
            return Inputs([text for text, _ in rows], None, single)
        if missing:
            raise InputError(f"input {', '.join(missing)}: {second} is missing; give each input one", code="bad_input")
        return Inputs([text for text, _ in rows], [_listed(beside, second) for _, beside in rows], single)

    return read


def _listed(beside: Any, name: str) -> list[str]:
    """The second texts of one input, called `name`, as a list."""
    listed = [beside] if isinstance(beside, str) else beside
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise InputError(
            f"{name} holds something else than text, it must be a text or a list of them", code="bad_input"
        )
    return list(listed)


def _with_seconds(rows: list[tuple[str, Any]], given: Any, *, several: bool, name: str | None) -> list[tuple[str, Any]]:
    """Second texts that came as a parameter: for all texts alike, or one entry for each."""
    for_each = isinstance(given, list) and (not several or (bool(given) and isinstance(given[0], list)))
    if not for_each:
        if isinstance(given, str):
            given = given.split("|") if several else [given]
        return [(text, given) for text, _ in rows]
    if len(given) != len(rows):
        raise InputError(f"{name} has {len(given)} entries, there are {len(rows)} texts", code="bad_input")
    return [(text, beside) for (text, _), beside in zip(rows, given, strict=True)]


def _questions(inputs: tuple[Any, ...], settings: dict[str, Any]) -> Inputs:
    """Reads `question=, context=` (one of them or both lists), dicts of both, or a list of dicts."""
    if len(inputs) == 2:
        # As the pipeline had it: the question stands first.
        inputs, settings["question"] = inputs[1:], inputs[0]
    if inputs:
        return _texts("context", pair="question")(inputs, settings)
    question, context = settings.pop("question", None), settings.pop("context", None)
    empty = [name for name, value in (("question", question), ("context", context)) if not value]
    if empty:
        raise InputError(f"{' and '.join(empty)} cannot be empty, both are needed", code="bad_input")
    questions = question if isinstance(question, list) else [question]
    contexts = context if isinstance(context, list) else [context] * len(questions)
    if len(questions) != len(contexts):
        raise InputError(
            f"{len(questions)} questions and {len(contexts)} contexts, there must be as many of each or one context",
            code="bad_input",
        )
    seconds = [_listed([one], "question") for one in questions]
    return Inputs(contexts, seconds, None if isinstance(question, list) else "dict")


def _premises(inputs: tuple[Any, ...], settings: dict[str, Any]) -> Inputs:
    """Reads sequences; labels may stand behind them, and may be one text with commas, or with | as lists are typed."""
    given = list(inputs)
    if len(given) == 2 and "candidate_labels" not in settings:
        settings["candidate_labels"] = given.pop()
    labels = settings.get("candidate_labels")
    if isinstance(labels, str) and "," in labels and "|" not in labels:
        settings["candidate_labels"] = [label.strip() for label in labels.split(",") if label.strip()]
    return _texts("sequences", "text")(tuple(given), settings)


def _classes(answer: Answer, settings: Mapping[str, Any]) -> Any:
    columns, labels = answer.columns, answer.task.labels
    scores = columns["scores"] if "scores" in columns else [columns["score"]]
    found = [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
    if "top_k" not in settings:
        return max(found, key=lambda one: one["score"])
    return sorted(found, key=lambda one: -one["score"])[: settings["top_k"]]


def _entities(answer: Answer, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    encoding = answer.tokenizer.encode([answer.text], offsets=True)
    assert encoding.offsets is not None
    starts, ends = encoding.offsets.T
    unknown = answer.tokenizer.special.unk

    def piece(token: int, spelled: str, place: int) -> str:
        # A piece that the vocabulary does not have is written as it stands in the text.
        return answer.text[starts[place] : ends[place]] if token == unknown else spelled

    written = []
    for entity in answer.columns["entities"]:
        # By overlap: what a token spans may begin with blanks, an entity never does.
        tokens = ((starts < entity["end"]) & (ends > entity["start"])).nonzero()[0]
        ids = encoding.ids[tokens].tolist()
        pieces = list(map(piece, ids, answer.tokenizer.tokens(ids), tokens.tolist()))
        place = {"start": entity["start"], "end": entity["end"]}
        if settings.get("aggregation_strategy", "none") == "none":
            # Tokens of nothing may share a place with the one that is meant; it comes last.
            found = {"entity": entity["label"], "score": entity["score"], "index": int(tokens[-1]) + 1}
            written.append(found | {"word": pieces[-1]} | place)
        else:
            found = {"entity_group": entity["label"], "score": entity["score"]}
            written.append(found | {"word": answer.tokenizer.join(pieces)} | place)
    return written


def _masks(answer: Answer, settings: Mapping[str, Any]) -> Any:
    return filled_texts(answer.columns["masks"], answer.text, answer.tokenizer)


def _candidates(answer: Answer, settings: Mapping[str, Any]) -> dict[str, Any]:
    pairs = zip(answer.task.labels, answer.columns["scores"], strict=True)
    ranked = sorted(pairs, key=lambda pair: -pair[1])
    return {
        "sequence": answer.text,
        "labels": [label for label, _ in ranked],
        "scores": [score for _, score in ranked],
    }


def _answers(answer: Answer, settings: Mapping[str, Any]) -> Any:
    found = [
        {
            "score": one["score"],
            "start": one["start"],
            "end": one["end"],
            "answer": answer.text[one["start"] : one["end"]],
        }
        for one in answer.columns["answers"]
    ]
    return found[0] if len(found) == 1 else found


def _ranking(answer: Answer, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    scores = answer.columns["scores"]
    return [
        {"corpus_id": place, "score": scores[place], "text": answer.pairs[place]} for place in answer.columns["order"]
    ]


def _choice(answer: Answer, settings: Mapping[str, Any]) -> dict[str, Any]:
    columns = answer.columns
    return {
        "choice": answer.pairs[columns["choice"]],
        "index": columns["choice"],
        "score": columns["score"],
        "scores": columns["scores"],
    }


def _count(value: object) -> int:
    """A number of answers, as typed or as a number; raises ValueError."""
    number = int(value) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError
    return number


def _column(name: str) -> Callable[[Answer, Mapping[str, Any]], Any]:
    return lambda answer, settings: answer.columns[name]


_WINDOWS = {"max_length": "max_length", "stride": "stride"}

FORMS: Mapping[str, Form] = {
    "text-classification": Form(
        "sequence-classification",
        _texts("text", pair="text_pair", needed=False),
        _classes,
        options=_WINDOWS | {"function_to_apply": "activation", "labels": "labels", "merge": "merge"},
        taken={"top_k": _count},
        defaults={"scores": True},
        inputs=("text_pair",),
        lists_text=True,
    ),
    "token-classification": Form(
        "token-classification",
        _texts("text"),
        _entities,
        options=_WINDOWS | {"aggregation_strategy": "aggregation", "ignore_labels": "ignore", "labels": "labels"},
        defaults={"aggregation": "none"},
    ),
    "fill-mask": Form(
        "fill-mask",
        _texts("text"),
        _masks,
        options=_WINDOWS | {"top_k": "top_k", "targets": "targets"},
        bares_one=True,
    ),
    "zero-shot-classification": Form(
        "zero-shot-classification",
        _premises,
        _candidates,
        options=_WINDOWS
        | {
            "candidate_labels": "candidate_labels",
            "hypothesis_template": "template",
            "multi_label": "multi_label",
            "entailment": "entailment",
        },
        defaults={"scores": True},
    ),
    "question-answering": Form(
        "question-answering",
        _questions,
        _answers,
        options={
            "top_k": "top_k",
            "doc_stride": "stride",
            "max_answer_len": "max_answer_length",
            "max_seq_len": "max_length",
            "max_question_len": "max_question_length",
            "handle_impossible_answer": "impossible",
            "align_to_words": "align_to_words",
        },
        inputs=("question", "context"),
        certain={},
        bares_one=True,
        subject="the context",
    ),
    "multiple-choice": Form(
        "multiple-choice",
        _texts("text", "context", "prompt", pairs="choices"),
        _choice,
        options=_WINDOWS,
        inputs=("choices",),
        certain={},
    ),
    "text-ranking": Form(
        "rerank",
        _texts("query", "text", pairs="documents"),
        _ranking,
        options=_WINDOWS | {"top_k": "top_k", "function_to_apply": "activation"},
        inputs=("documents",),
        # The activation of the checkpoint may be one that only a call can replace.
        certain={"activation": "none"},
        subject="the query",
    ),
    "sentence-similarity": Form(
        "similarity",
        _texts("source_sentence", "text", pairs="sentences"),
        _column("scores"),
        options=_WINDOWS
        | {
            "pooling": "pooling",
            "prompt": "prompt",
            "prompt_name": "prompt_name",
            "query_prompt": "query_prompt",
            "query_prompt_name": "query_prompt_name",
        },
        inputs=("sentences",),
        subject="the source sentence",
    ),
    "sentence-embedding": Form(
        "embedding",
        _texts("text"),
        _column(""),
        options=_WINDOWS
        | {
            "pooling": "pooling",
            "normalize": "normalize",
            "prompt": "prompt",
            "prompt_name": "prompt_name",
            "dimensions": "dimensions",
        },
    ),
    "sparse-embedding": Form("sparse-embedding", _texts("text"), _column(""), options=_WINDOWS, certain={}),
    "multi-vector-embedding": Form("multi-vector-embedding", _texts("text"), _column(""), options=_WINDOWS),
    "pseudo-perplexity": Form(
        "pseudo-perplexity",
        _texts("text"),
        lambda answer, settings: dict(answer.columns),
        options=_WINDOWS,
    ),
}

ALIASES: Mapping[str, str] = {
    "sequence-classification": "text-classification",
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "embedding": "sentence-embedding",
    "rerank": "text-ranking",
    "similarity": "sentence-similarity",
}


def form_of(task: str) -> Form | None:
    """The form of a task by any of its names; None for an unknown one."""
    return FORMS.get(ALIASES.get(task, task))


def parameter_names(task: str) -> set[str]:
    """Parameters that a call of the task takes, those that are inputs by name included; empty for an unknown task."""
    form = form_of(task)
    return set() if form is None else {*form.options, *form.taken, *form.inputs}
