"""Golden values of extractive question answering, computed by transformers 4.56.2.

Random weights answer at random, so a case is kept only when rounding cannot change it: neighbouring scores in the list
lie apart by more than MARGIN, the first answer left out included, and no span decides by a hair whether it counts.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from texts import TEXTS
from transformers.pipelines.question_answering import select_starts_ends

LOG = logging.getLogger(__name__)
MARGIN = 1e-4
# Two candidates of one window must differ by this part of their score where their order or the cut decides something.
RELATIVE_MARGIN = 1e-3
NEGLIGIBLE = 1e-7
CASES_PER_SETTING = 4
SCORE_DIGITS = 8
# Parameters of the two halves of the pipeline.
BEFORE = ("doc_stride", "max_seq_len", "max_question_len")
AFTER = ("top_k", "handle_impossible_answer", "max_answer_len", "align_to_words")

Json = dict[str, Any]

# For models of 64 tokens and, where no length is given, of 512.
SETTINGS: tuple[Json, ...] = (
    {},
    {"top_k": 3},
    {"top_k": 5},
    {"top_k": 10, "doc_stride": 16},
    {"top_k": 20},
    {"top_k": 3, "max_answer_len": 1},
    {"top_k": 2, "max_answer_len": 1, "align_to_words": False},
    {"top_k": 5, "max_answer_len": 5},
    {"top_k": 4, "max_answer_len": 50},
    {"top_k": 4, "max_seq_len": 40, "doc_stride": 8},
    {"top_k": 2, "max_seq_len": 48, "doc_stride": 0},
    {"top_k": 2, "max_seq_len": 36},
    {"top_k": 2, "max_seq_len": 64, "doc_stride": 31},
    {"top_k": 2, "max_question_len": 4},
    {"handle_impossible_answer": True},
    {"top_k": 2, "handle_impossible_answer": True, "max_answer_len": 5},
    {"top_k": 5, "handle_impossible_answer": True},
    {"top_k": 5, "handle_impossible_answer": True, "align_to_words": False},
    {"top_k": 12, "handle_impossible_answer": True, "max_answer_len": 50, "max_seq_len": 50, "doc_stride": 20},
    {"align_to_words": False},
    {"top_k": 7, "align_to_words": False},
    {"top_k": 20, "align_to_words": False},
    {"top_k": 3, "align_to_words": False, "max_answer_len": 5, "doc_stride": 20},
    {"top_k": 15, "align_to_words": False, "max_answer_len": 50, "handle_impossible_answer": False},
    {"top_k": 6, "max_answer_len": 15, "max_question_len": 64, "align_to_words": True},
)
LONG_SETTINGS: tuple[Json, ...] = (
    {},
    {"top_k": 3, "max_seq_len": 512},
    {"top_k": 5, "max_seq_len": 256, "doc_stride": 64},
    {"top_k": 2, "max_seq_len": 128, "doc_stride": 90, "align_to_words": False, "handle_impossible_answer": True},
)


def contexts() -> dict[str, str]:
    """Every context by name: a language's first characters, first sentence, all sentences; all languages together."""
    named = {}
    for language, _, sentences in TEXTS:
        named[f"{language}, short"] = sentences[0][:12].strip()
        named[language] = sentences[0]
        named[f"{language}, all"] = " ".join(sentences)
    named["world"] = "\n\n".join(" ".join(sentences) for _, _, sentences in TEXTS)
    return named


def margin_of(pipe: Any, outputs: list[Json], settings: Mapping[str, Any], answers: list[Json]) -> float:
    """How far the list of answers is from another one; 0 when rounding may change it.

    Args:
        pipe: The pipeline.
        outputs: What the model returned for every window.
        settings: The caller's parameters.
        answers: What the pipeline makes of the outputs.
    """
    top_k, align = settings.get("top_k", 1), settings.get("align_to_words", True)
    impossible, longest = settings.get("handle_impossible_answer", False), settings.get("max_answer_len", 15)
    wanted = top_k * 2 + 10 if align else top_k
    found: dict[str, float] = {}
    null = 1e6
    for output in outputs:
        start, end, mask = output["start"].numpy(), output["end"].numpy(), output["p_mask"]
        attention = output["attention_mask"].numpy()
        # One more than the pipeline takes: the first span left out.
        starts, ends, scores, null = select_starts_ends(
            start, end, mask, attention, null, wanted + 1, impossible, longest
        )
        if len(scores) > wanted and scores[wanted] > NEGLIGIBLE and not _apart(scores[wanted - 1], scores[wanted]):
            return 0.0
        places: dict[str, list[tuple[tuple[int, int], float]]] = {}
        for first, last, score in zip(starts[:wanted], ends[:wanted], scores[:wanted], strict=True):
            if not score:
                break  # spans that are not allowed fill up the list, in no particular order
            place = pipe.get_indices(output["encoding"], first, last, 1, align)
            text = output["example"].context_text[place[0] : place[1]].lower()
            places.setdefault(text, []).append((place, score))
            found[text] = found.get(text, 0.0) + score.item()
        for spans in places.values():
            # The best place of a text is the one reported, so it must not be a draw with another place.
            rivals = [score for place, score in spans[1:] if place != spans[0][0]]
            if rivals and not _apart(spans[0][1], rivals[0]):
                return 0.0
    ranked = sorted([*found.values(), *([null] if impossible else [])], reverse=True)
    scores = [answer["score"] for answer in answers]
    if scores[-1] < MARGIN:
        return 0.0  # perhaps such a filler
    np.testing.assert_allclose(scores, ranked[:top_k], rtol=0, atol=10**-SCORE_DIGITS)
    return float(min(high - low for high, low in itertools.pairwise([*ranked, 0.0][: top_k + 1])))


def _apart(high: float, low: float) -> bool:
    return bool(high - low > RELATIVE_MARGIN * high)


def fits(pipe: Any, question: str, context: str, settings: Mapping[str, Any]) -> bool:
    """Whether the windows advance; the tokenizer panics otherwise."""
    length = settings.get("max_seq_len", min(pipe.tokenizer.model_max_length, 384))
    stride = settings.get("doc_stride", min(length // 2, 128))
    count = {text: len(pipe.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (question, context)}
    room = length - 4 - count[question]
    return count[context] <= room or room > stride


def candidates(pipes: Mapping[str, Any], settings: Json, named: Mapping[str, str]) -> Iterator[Json]:
    """Cases with these settings that are worth keeping."""
    if settings in LONG_SETTINGS:
        tries = [("long answers", language, question, "world") for language, question, _ in TEXTS]
    else:
        tries = []
    if settings in SETTINGS:
        for name, (language, question, _) in itertools.product(pipes, TEXTS):
            tries += [
                (name, language, question, context) for context in (f"{language}, all", language, f"{language}, short")
            ]
    for name, language, question, context in tries:
        pipe, text = pipes[name], named[context]
        if not fits(pipe, question, text, settings):
            continue
        outputs = run_windows(pipe, question, text, settings)
        answers = from_windows(pipe, outputs, settings)
        margin = margin_of(pipe, outputs, settings, answers)
        if margin > MARGIN:
            yield {
                "checkpoint": name,
                "language": language,
                "question": question,
                "context": context,
                "parameters": settings,
                "windows": len(outputs),
                "margin": round(margin, 6),
                "answers": answers,
            }


def answer_cases(pipes: Mapping[str, Any], named: Mapping[str, str]) -> list[Json]:
    """For each setting a few cases with clear margins, of the languages and checkpoints used least so far."""
    cases: list[Json] = []
    used: Counter[str] = Counter()
    for settings in [*SETTINGS, *LONG_SETTINGS[1:]]:
        clear = list(candidates(pipes, settings, named))
        LOG.info("%d clear cases with %s", len(clear), settings)
        for _ in range(min(CASES_PER_SETTING, len(clear))):
            best = min(clear, key=lambda case: [used[feature] for feature in features(case)])
            clear.remove(best)
            used.update(features(best))
            answers = pipes[best["checkpoint"]](question=best["question"], context=named[best["context"]], **settings)
            assert as_list(answers) == best["answers"]
            cases.append(best)
    LOG.info("%s", used)
    return cases


def features(case: Json) -> tuple[str, ...]:
    """What the kept cases shall show equally often, most important first."""
    unanswered = "null answer" if case["answers"][0]["answer"] == "" else "answer"
    null = any(answer["answer"] == "" for answer in case["answers"])
    impossible = case["parameters"].get("handle_impossible_answer", False)
    return (
        f"{impossible}, {unanswered}",
        f"{impossible}, null among the answers: {null}",
        case["language"],
        case["checkpoint"],
        f"{min(case['windows'], 3)} windows",
    )


def run_windows(pipe: Any, question: str, context: str, settings: Mapping[str, Any]) -> list[Json]:
    """The model's output for each window, as the pipeline's own steps make it."""
    before = {key: settings[key] for key in BEFORE if key in settings}
    return [pipe.forward(inputs) for inputs in pipe.preprocess({"question": question, "context": context}, **before)]


def from_windows(pipe: Any, outputs: list[Json], settings: Mapping[str, Any]) -> list[Json]:
    """The pipeline's last step on these outputs."""
    return as_list(pipe.postprocess(outputs, **{key: settings[key] for key in AFTER if key in settings}))


def window_records(pipes: Mapping[str, Any], named: Mapping[str, str], cases: list[Json]) -> list[Json]:
    """Token ids and logits of every window of the first cases with several windows, one a language."""
    records: list[Json] = []
    seen: set[str] = set()
    for index, case in enumerate(cases):
        if case["windows"] not in (2, 3) or case["language"] in seen or len(seen) == 6 or case["context"] == "world":
            continue
        seen.add(case["language"])
        outputs = run_windows(pipes[case["checkpoint"]], case["question"], named[case["context"]], case["parameters"])
        for output in outputs:
            ids = output["input_ids"][0].tolist()
            logits = {key: [round(value, 6) for value in output[key][0].tolist()] for key in ("start", "end")}
            records.append({"case": index, "ids": ids} | logits)
    return records


def list_cases(pipes: Mapping[str, Any], named: Mapping[str, str], cases: list[Json]) -> list[Json]:
    """Lists in one call: pairs of kept cases, and several questions about one context."""
    records = []
    for name in list(pipes)[:2]:
        for settings in ({"top_k": 3}, {"top_k": 5, "max_answer_len": 5}):
            chosen = [case for case in cases if case["checkpoint"] == name and case["parameters"] == settings]
            if len(chosen) < 2:
                continue
            questions = [case["question"] for case in chosen]
            found = pipes[name](question=questions, context=[named[case["context"]] for case in chosen], **settings)
            answers = [as_list(answer) for answer in found]
            assert answers == [case["answers"] for case in chosen]
            texts = [case["context"] for case in chosen]
            records.append(
                {
                    "checkpoint": name,
                    "question": questions,
                    "context": texts,
                    "parameters": settings,
                    "answers": answers,
                }
            )
    name = "answers"
    for settings, (language, _, _) in itertools.product(({}, {"top_k": 2, "max_answer_len": 5}), TEXTS):
        context = named[f"{language}, all"]
        asked = [question for _, question, _ in TEXTS if fits(pipes[name], question, context, settings)]
        clear = []
        for question in asked:
            outputs = run_windows(pipes[name], question, context, settings)
            answers = from_windows(pipes[name], outputs, settings)
            if margin_of(pipes[name], outputs, settings, answers) > MARGIN:
                clear.append(question)
        if len(clear) >= 3:
            found = pipes[name](question=clear[:3], context=context, **settings)
            records.append(
                {
                    "checkpoint": name,
                    "question": clear[:3],
                    "context": f"{language}, all",
                    "parameters": settings,
                    "answers": [as_list(answer) for answer in found],
                }
            )
            if len(records) >= 8:
                break
    return records


def quirks(pipe: Any) -> list[Json]:
    """What 4.56.2 does at the edges, kept to be known, not to be copied: answers, or the error's type and text."""
    question, context = "Who looked after the library?", "Clara looked after it."
    long = " ".join(["why"] * 80)
    calls: list[Json] = [
        {"question": question, "context": ""},
        {"question": "", "context": context},
        {"question": question, "context": "  \n "},
        {"question": question, "context": "  \n ", "handle_impossible_answer": True},
        {"question": long, "context": context},
        {"question": long, "context": context, "max_question_len": 5},
        {"question": question, "context": context, "top_k": 0},
        {"question": question, "context": context, "max_answer_len": 0},
        {"question": question, "context": context, "max_seq_len": 60, "doc_stride": 70},
        {"question": question, "context": context, "max_seq_len": 60, "doc_stride": 60},
        {"question": [question, question], "context": [context]},
        {"question": question, "context": [context]},
        {"question": [question], "context": [context]},
        {"question": [], "context": []},
    ]
    records = []
    for call in calls:
        try:
            records.append(call | {"returns": rounded(pipe(**call))})
        except Exception as error:
            records.append(call | {"raises": type(error).__name__, "text": str(error)})
    return records


def as_list(answers: Json | list[Json]) -> list[Json]:
    """A single answer comes bare."""
    return rounded(answers if isinstance(answers, list) else [answers])


def rounded(value: Any) -> Any:
    """The same structure with scores of SCORE_DIGITS decimals."""
    if isinstance(value, float):
        return round(value, SCORE_DIGITS)
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value
