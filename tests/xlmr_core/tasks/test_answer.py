"""Answers against transformers 4.56.2 (golden file), against a plain loop over windows, and in every script."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmr_core.errors import CheckpointError, TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.graph.opened import OpenModels
from xlmr_core.tasks.columns import to_list
from xlmr_core.tokenization import Tokenizer

TESTS = Path(__file__).parents[2]
GOLDEN = json.loads((TESTS / "golden/question_answering.json").read_text(encoding="utf-8"))
# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5
NAMES = {
    "doc_stride": "stride",
    "max_seq_len": "max_length",
    "max_answer_len": "max_answer_length",
    "handle_impossible_answer": "impossible",
}


def resolve(directory, *, pairs=True, opened=None, **options):
    request = Request("q", str(directory), {"task": "question-answering"} | options)
    return GraphPlan.resolve([request], pairs=pairs, opened=opened)


def annotate(directory, contexts, questions=None, **options):
    opened = OpenModels()
    plan = resolve(directory, pairs=questions is not None, opened=opened, **options)
    return ModelGraph(plan, opened=opened)(Preprocessor(plan, opened=opened)(contexts, questions))


def spans(answers):
    return [(answer["start"], answer["end"]) for answer in answers]


def scores(answers):
    return [answer["score"] for answer in answers]


@pytest.fixture(scope="module")
def answerer(make_checkpoint):
    return make_checkpoint("XLMRobertaForQuestionAnswering", seed=5)


@pytest.fixture(scope="module")
def long_contexts(sample_texts):
    texts = [text for text in sample_texts if text.strip()]
    return [" ".join(texts[start : start + 3]) for start in range(0, 170, 17)]


def test_answers_equal_the_pipeline_of_transformers_4(oracles):
    batches = defaultdict(list)
    for case in GOLDEN["question_answering"]:
        # That limit has no effect there.
        options = {NAMES.get(key, key): v for key, v in case["parameters"].items() if key != "max_question_len"}
        batches[case["checkpoint"], json.dumps(options)].append(case)
    opened, graph = OpenModels(), None
    for (checkpoint, options), cases in batches.items():
        plan = resolve(oracles[checkpoint], opened=opened, **json.loads(options))
        graph = ModelGraph(plan, opened=opened, loaded=graph)
        contexts = [GOLDEN["contexts"][case["context"]] for case in cases]
        result = graph(Preprocessor(plan, opened=opened)(contexts, [[case["question"]] for case in cases]))
        assert result.n_windows.tolist() == [case["windows"] for case in cases]
        for case, context, answers in zip(cases, contexts, to_list(result.columns["q_answers"]), strict=True):
            assert spans(answers) == spans(case["answers"]), case
            assert [context[start:end] for start, end in spans(answers)] == [one["answer"] for one in case["answers"]]
            np.testing.assert_allclose(scores(answers), scores(case["answers"]), atol=TOLERANCE, rtol=0)


def test_several_questions_give_one_list_of_answers_each(oracles):
    for case in GOLDEN["lists"]:
        options = {NAMES.get(key, key): value for key, value in case["parameters"].items()}
        questions, names = case["question"], case["context"]
        one_context = isinstance(names, str)
        contexts = [GOLDEN["contexts"][name] for name in ([names] if one_context else names)]
        pairs = [questions] if one_context else [[question] for question in questions]
        result = annotate(oracles[case["checkpoint"]], contexts, pairs, several=True, **options)
        answers = [answers for record in to_list(result.columns["q_answers"]) for answers in record]
        expected = [one if isinstance(one, list) else [one] for one in case["answers"]]
        assert [spans(one) for one in answers] == [spans(one) for one in expected]
        for one, other in zip(answers, expected, strict=True):
            np.testing.assert_allclose(scores(one), scores(other), atol=TOLERANCE, rtol=0)


def brute_force(context, windows, *, top_k, longest, impossible, align):
    """The pipeline's rules, one span after the other; `windows` are pairs of an encoding and its logits (T, 2)."""
    answers, null = [], 1e6
    for encoding, logits in windows:
        text = [place for place, side in enumerate(encoding.sequence_ids) if side == 1]
        allowed = np.zeros(len(logits), bool)
        allowed[[0, *text]] = True
        exponents = np.exp(np.where(allowed[:, None], logits - logits[allowed].max(0), -np.inf)).astype(np.float32)
        chances = exponents / exponents.sum(0)
        null = min(null, chances[0, 0] * chances[0, 1])
        starts, ends = chances.T
        candidates = [
            (starts[first] * ends[last], first, last)
            for first in text
            for last in text
            if first <= last < first + longest
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        for score, first, last in candidates[: 2 * top_k + 10 if align else top_k]:
            start, end = encoding.offsets[first][0], encoding.offsets[last][1]
            if align:
                start = encoding.word_to_chars(encoding.token_to_word(first), 1)[0]
                end = encoding.word_to_chars(encoding.token_to_word(last), 1)[1]
            lower = context[start:end].lower()
            same = [answer for answer in answers if answer["lower"] == lower]
            if same:
                same[0]["score"] += float(score)
            else:
                answers.append({"lower": lower, "start": start, "end": end, "score": float(score)})
    if impossible:
        answers.append({"start": 0, "end": 0, "score": float(null)})
    return sorted(answers, key=lambda answer: -answer["score"])[:top_k], null


@pytest.mark.parametrize(
    ("top_k", "longest", "impossible", "align", "stride"),
    [(1, 15, True, True, 32), (8, 15, False, True, 32), (5, 4, True, False, 10), (30, 100, True, True, 0)],
)
def test_answers_equal_a_plain_loop_over_windows(
    answerer, long_contexts, sample_texts, top_k, longest, impossible, align, stride
):
    questions = [text[:40] for text in sample_texts if text.strip()][: len(long_contexts)]
    plan = resolve(
        answerer,
        top_k=top_k,
        max_answer_length=longest,
        impossible=impossible,
        align_to_words=align,
        stride=stride,
    )
    graph, encoded = ModelGraph(plan), Preprocessor(plan)(long_contexts, [[question] for question in questions])
    outputs = graph.forward(encoded)
    result = graph.decode(encoded, outputs)
    assert result.annotated.all()
    assert result.n_windows.max() > 3
    tokenizer = transformers.AutoTokenizer.from_pretrained(answerer)
    begin = 0
    for record, (question, context) in enumerate(zip(questions, long_contexts, strict=True)):
        read = tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=64,
            stride=stride,
            return_overflowing_tokens=True,
        ).encodings
        assert len(read) == result.n_windows[record]
        bounds = begin + np.cumsum([0, *map(len, read)])
        begin = bounds[-1]
        windows = [
            (one, outputs.raw["q"][start:end]) for one, start, end in zip(read, bounds[:-1], bounds[1:], strict=True)
        ]
        expected, null = brute_force(context, windows, top_k=top_k, longest=longest, impossible=impossible, align=align)
        answers = to_list(result.columns["q_answers"])[record]
        assert spans(answers) == spans(expected)
        np.testing.assert_allclose(scores(answers), scores(expected), rtol=1e-5)
        if impossible:
            np.testing.assert_allclose(result.columns["q_no_answer"][record], null, rtol=1e-5)
    assert begin == len(outputs.raw["q"])


def test_logits_equal_the_model_of_transformers(answerer, long_contexts):
    plan = resolve(answerer, pairs=False, question="Where is the river?")
    encoded = Preprocessor(plan)(long_contexts[:5])
    raw = ModelGraph(plan).forward(encoded).raw["q"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(answerer)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(answerer).eval()
    read = tokenizer(
        ["Where is the river?"] * 5,
        long_contexts[:5],
        truncation="only_second",
        max_length=64,
        stride=32,
        return_overflowing_tokens=True,
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        found = model(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
    real = read["attention_mask"].bool()
    expected = torch.stack([found.start_logits[real], found.end_logits[real]], dim=1)
    np.testing.assert_allclose(raw, expected, atol=1e-4)


SCRIPTS = st.sampled_from(
    [
        "abz AZ.,!?'\"-() 019",
        "éüßñøçİıŁſ",
        "абвЖЯ ёі",
        "αβγΣςσ άώ",
        "אבגשׁ ״",
        "ابتثج ٠١٢ ﷺ ﻻ",
        "می‌شود",
        "कखगघ ािी् १२",
        "กขคง ้์ำ",
        "漢字東京 、。「」",
        "ひらがなカタカナｶﾞー",
        "한국어 조선말",
        "አማርኛ ፡።",
        "ქართული",
        "🐙👩‍👩‍👧‍👦🎉🏆🗓️",
        "\t\n\u00a0\u200b\u200d\u3000\u2581\u00ad½ﬁ…",
        "\U0001d400\U0001f600\U00020000",
    ]
)
WORDS = SCRIPTS.flatmap(lambda letters: st.text(letters, min_size=1, max_size=12))
TEXTS = st.lists(st.one_of(WORDS, st.sampled_from(["<mask>", "<s>", "</s>", "<unk>"])), max_size=60).map(" ".join)
VARIANTS = [
    {"top_k": 4},
    {"top_k": 3, "impossible": True, "max_answer_length": 3},
    {"top_k": 6, "align_to_words": False, "max_answer_length": 200},
]


@pytest.fixture(scope="module")
def variants(answerer):
    plans = [resolve(answerer, several=True, **options) for options in VARIANTS]
    return [(options, Preprocessor(plan), ModelGraph(plan)) for options, plan in zip(VARIANTS, plans, strict=True)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    records=st.lists(st.tuples(TEXTS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=3),
    variant=st.integers(0, len(VARIANTS) - 1),
)
def test_every_answer_is_a_text_of_the_context(variants, records, variant):
    options, preprocess, graph = variants[variant]
    contexts, questions = zip(*records, strict=True)
    result = graph(preprocess(contexts, questions))
    answered = to_list(result.columns["q_answers"])
    assert len(answered) == result.annotated.sum()
    for row, answers_of in zip(np.flatnonzero(result.annotated), answered, strict=True):
        context, windows = contexts[row], result.n_windows[row]
        assert len(answers_of) == len(questions[row])
        for answers in answers_of:
            assert 0 < len(answers) <= options["top_k"]
            assert scores(answers) == sorted(scores(answers), reverse=True)
            assert 0 <= sum(scores(answers)) <= windows * (1 + 1e-5)
            found = [context[start:end].lower() for start, end in spans(answers)]
            assert len(set(found)) == len(found)
            for start, end in spans(answers):
                nothing = options.get("impossible", False) and (start, end) == (0, 0)
                assert nothing or 0 <= start < end <= len(context)


def test_a_word_is_what_the_tokenizer_cuts(oracles):
    # The embedded tokenizer reads a zero-width non-joiner as a blank; an unknown character cuts no word.
    for context, words in {"می‌شود": ["می", "شود"], "x foo☃bar y": ["foo☃bar"], "a東京b c": ["a東京b"]}.items():
        result = annotate(oracles["answers"], [context], [["?"]], top_k=50, max_answer_length=1)
        (answers,) = to_list(result.columns["q_answers"])
        assert set(words) <= {context[start:end] for start, end in spans(answers)}
        assert all(
            (a == 0 or context[a - 1] in " ‌") and (b == len(context) or context[b] in " ‌") for a, b in spans(answers)
        )


@settings(max_examples=100, deadline=None)
@given(text=TEXTS.filter(lambda text: "<unk>" not in text))
def test_words_are_those_of_the_tokenizers_library(embedded_tokenizer, text):
    ours, library = embedded_tokenizer
    ids = ours.encode([text]).ids
    words = np.array(library.encode(text, add_special_tokens=False).word_ids)
    assert len(ids) == len(words)
    np.testing.assert_array_equal(ours.begins_word[ids][1:], words[1:] != words[:-1])


@pytest.fixture(scope="module")
def embedded_tokenizer(oracles):
    directory = oracles["answers"]
    return Tokenizer.load(directory), tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))


def test_equal_answers_are_one_with_the_sum_of_their_scores(answerer):
    context = "The cat saw THE dog"
    (answers,) = to_list(annotate(answerer, [context], [["?"]], top_k=50, max_answer_length=1).columns["q_answers"])
    assert len([span for span in spans(answers) if context[slice(*span)].lower() == "the"]) == 1


def test_a_fixed_question_needs_no_pairs_and_equals_the_same_question_of_every_record(answerer, long_contexts):
    fixed = annotate(answerer, long_contexts, question="Where is the river?", impossible=True, top_k=3)
    own = annotate(answerer, long_contexts, [["Where is the river?"]] * len(long_contexts), impossible=True, top_k=3)
    assert to_list(fixed.columns["q_answers"]) == to_list(own.columns["q_answers"])
    np.testing.assert_array_equal(fixed.columns["q_no_answer"], own.columns["q_no_answer"])


def test_company_does_not_change_answers(answerer, long_contexts):
    questions = [["Who?"], ["Where was it?"], ["When?"]]
    together = to_list(annotate(answerer, long_contexts[:3], questions, top_k=3).columns["q_answers"])
    for context, question, expected in zip(long_contexts, questions, together, strict=False):
        (alone,) = to_list(annotate(answerer, [context], [question], top_k=3).columns["q_answers"])
        assert spans(alone) == spans(expected)
        np.testing.assert_allclose(scores(alone), scores(expected), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 1001}, "top_k=1001"),
        ({"max_answer_length": 0}, "max_answer_length=0"),
        ({"max_answer_length": -3}, "max_answer_length=-3"),
        ({"max_question_length": 0}, "max_question_length=0"),
        ({"question": " \n"}, "question="),
        ({"question": "Who?", "several": True}, "question= and several=true"),
        ({"question": "why " * 70}, "tokens, it may have at most 59"),
        ({"question": "why " * 10, "max_question_length": 9}, "it may have at most 9"),
        ({"stride": 60}, "stride=60"),
        ({"stride": -1}, "stride=-1"),
        ({"max_length": 65}, "max_length=65"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(answerer, options, named):
    with pytest.raises(TaskError) as error:
        resolve(answerer, **options)
    assert named in str(error.value)


def test_all_bad_options_are_named_at_once(answerer):
    with pytest.raises(TaskError, match=r"top_k=0.*max_answer_length=0"):
        resolve(answerer, top_k=0, max_answer_length=0)


def test_records_without_questions_are_refused_at_once(answerer):
    with pytest.raises(TaskError, match="second text"):
        resolve(answerer, pairs=False)


def test_a_head_of_another_task_is_refused(make_checkpoint):
    tagger = make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "X"])
    with pytest.raises((CheckpointError, TaskError), match="question-answering"):
        resolve(tagger)


def test_records_that_cannot_be_answered_are_told_apart(answerer):
    long = "word " * 200
    records = {
        "answered": ("A text.", ["Who?"]),
        "empty": ("  \n", ["Who?"]),
        "no_pair": ("A text.", []),
        "empty_pair": ("A text.", [""]),
        "too_many_pairs": ("A text.", ["Who?", "Where?"]),
        "question_too_long": ("A text.", ["<mask>" * 31]),
        "pair_too_long": (long, ["<mask>" * 50]),
        "far_too_long": (long, ["<mask>" * 500]),
    }
    contexts, questions = zip(*records.values(), strict=True)
    result = annotate(answerer, contexts, questions, max_question_length=60)
    assert result.status[:2].tolist() == ["ok", "empty"]
    codes = {name: result.failed[row].code for row, name in enumerate(records) if row in result.failed}
    refused = ("no_pair", "empty_pair", "too_many_pairs", "pair_too_long")
    assert codes == {name: name for name in refused} | {"far_too_long": "question_too_long"}
    result = annotate(answerer, contexts, questions, max_question_length=30)
    error = result.failed[5]
    assert error.code == "question_too_long"
    assert "31 tokens" in str(error)
    assert "max_question_length is 30" in str(error)


def test_without_a_readable_record_there_are_no_answers(answerer):
    result = annotate(answerer, ["", " "], [["Who?"], ["Who?"]], impossible=True)
    assert result.status.tolist() == ["empty", "empty"]
    assert to_list(result.columns["q_answers"]) == []
    assert len(result.columns["q_no_answer"]) == 0
