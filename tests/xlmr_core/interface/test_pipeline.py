"""`pipeline(task, model)` against transformers' pipelines on the same random checkpoints, call by call."""

import pytest
import torch
import transformers

from xlmr_core import pipeline
from xlmr_core.errors import CheckpointError, InputError, TaskError

# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5
BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def theirs(task, directory, **options):
    return transformers.pipeline(task, str(directory), dtype=torch.float32, device="cpu", **options)


@pytest.fixture(scope="module")
def classifier(make_checkpoint):
    return make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"], seed=1)


@pytest.fixture(scope="module")
def tagger(make_checkpoint):
    return make_checkpoint("XLMRobertaForTokenClassification", labels=BIO, seed=2)


TEXTS = ["Guten Morgen, Welt!", "早上好，世界", "صباح الخير"]


@pytest.mark.parametrize("parameters", [{}, {"top_k": 2}, {"top_k": None}, {"function_to_apply": "sigmoid"}])
def test_text_classification_answers_as_transformers_does(classifier, parameters, assert_same):
    ours, expected = pipeline("text-classification", classifier), theirs("text-classification", classifier)
    for inputs in (TEXTS, TEXTS[0], {"text": TEXTS[0], "text_pair": TEXTS[1]}):
        assert_same(ours(inputs, **parameters), expected(inputs, **parameters))


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_token_classification_answers_as_transformers_does(tagger, strategy, assert_same):
    texts = ["Guten Morgen, Welt!", "Good morning to you all", "صباح الخير"]
    ours = pipeline("ner", tagger, aggregation_strategy=strategy)
    expected = theirs("token-classification", tagger, aggregation_strategy=strategy)(texts)
    # A marker of a blank that stands alone is an entity there, an empty one; here it is none.
    expected = [[entity for entity in found if entity["word"].strip("▁ ")] for found in expected]
    assert any(expected)
    for found in expected:
        for entity in found:
            entity["score"] = float(entity["score"])
    assert_same(ours(texts), expected)


def test_the_task_is_found_in_the_checkpoint(tagger):
    assert pipeline(model=tagger).task == "token-classification"


def test_the_embedded_model_needs_no_name():
    (answer,) = pipeline()("Buongiorno a tutti, come state oggi?")
    assert answer["label"] == "ita_Latn"


def test_other_options_do_not_load_the_weights_again(classifier):
    ours = pipeline("text-classification", classifier)
    ours("one")
    ours("one", function_to_apply="none")
    (_, first), (_, second) = ours._graphs.values()
    assert next(iter(first._encoders.values())) is next(iter(second._encoders.values()))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda model: pipeline("no-such-task", model), TaskError, "known are .*fill-mask"),
        (lambda model: pipeline("fill-mask", model), CheckpointError, "lm_head"),
        (lambda model: pipeline(model=model, dtype="int7"), TaskError, "dtype 'int7'"),
        (lambda model: pipeline(model=model, dtype=torch.float16), TaskError, "use dtype=bfloat16"),
        (lambda model: pipeline(model=model, device="tpu"), TaskError, "device 'tpu'"),
        (lambda model: pipeline(model=model, on_long="cut"), TaskError, "on_long 'cut', it must be window, truncate"),
        (lambda model: pipeline(model=model)("a", top=3), TaskError, "unknown parameter top"),
        (lambda model: pipeline(model=model)(["a", " ", None]), InputError, "got a NoneType"),
        (lambda model: pipeline(model=model)(["a", " "]), InputError, "input 1: the text is empty"),
        (
            lambda model: pipeline(model=model)(["a", "\ud800"]),
            InputError,
            "input 1: the text cannot be read .lone_surrogate",
        ),
        (lambda model: pipeline(model=model)(3), InputError, "got a int"),
        (lambda model: pipeline(model=model)({"body": "a"}), InputError, "no text 'text', it has body"),
        (
            lambda model: pipeline(model=model)(["a", {"text": "a", "txt_pair": "b"}]),
            InputError,
            "input 1 has the unknown 'txt_pair', known are text, text_pair",
        ),
        (
            lambda model: pipeline("zero-shot-classification", model)({"text": "a", "candidate_labels": "b"}),
            InputError,
            "unknown 'candidate_labels', known are sequences, text; parameters stand beside",
        ),
        (lambda model: pipeline(model=model)(), TaskError, "one input is read"),
        (lambda model: pipeline(model=model)("a", labels=[]), TaskError, "got 0 labels, the head has 3 outputs"),
        (lambda model: pipeline("zero-shot-classification", model)("a", ["b"], labels=[]), TaskError, "parameter lab"),
        (lambda model: pipeline(model=model, topk=3), TaskError, "unknown parameter topk; known are .*top_k"),
        (lambda model: pipeline("text-ranking", model), TaskError, "head has 3 outputs, a reranker has one"),
        (lambda model: pipeline("ner", model), CheckpointError, "token-classification"),
        (lambda model: pipeline(model=model)({"text": "a", "text_pair": 5}), InputError, "text_pair holds"),
        (lambda model: pipeline(model=model)("a", text_pair=5), InputError, "text_pair holds"),
        (lambda model: pipeline(model=model)("a", top_k=0), TaskError, "top_k=0, it must be a whole number from 1"),
        (lambda model: pipeline(model=model)("a", top_k=1.5), TaskError, "top_k=1.5"),
        (lambda model: pipeline(model=model)("a", function_to_apply="so"), TaskError, "must be one of softmax"),
        (lambda model: pipeline(model=model)("a", function_to_apply=3), TaskError, r"^/\S*: option function_to_apply="),
    ],
)
def test_wrong_use_is_named(classifier, call, error, match):
    with pytest.raises(error, match=match):
        call(classifier)


@pytest.fixture(scope="module")
def masked(make_checkpoint):
    return make_checkpoint("XLMRobertaForMaskedLM", seed=3)


@pytest.mark.parametrize("parameters", [{}, {"top_k": 2}])
def test_fill_mask_answers_as_transformers_does(masked, parameters, assert_same):
    ours, expected = pipeline("fill-mask", masked), theirs("fill-mask", masked)
    for inputs in ("Guten <mask>, Welt!", ["Guten <mask>, Welt!", "<mask> morning <mask>"]):
        assert_same(ours(inputs, **parameters), expected(inputs, **parameters))


def test_fill_mask_ranks_the_targets_alone(masked, assert_same):
    vocabulary = transformers.AutoTokenizer.from_pretrained(masked).get_vocab()
    targets = [piece for piece in sorted(vocabulary) if piece.startswith("▁") and piece[1:].isalpha()][:3]
    text = "Guten <mask>, Welt!"
    ours, expected = pipeline("fill-mask", masked), theirs("fill-mask", masked)
    assert_same(ours(text, targets=targets), expected(text, targets=targets))


@pytest.fixture(scope="module")
def nli(make_checkpoint):
    labels = ["contradiction", "neutral", "entailment"]
    return make_checkpoint("XLMRobertaForSequenceClassification", labels=labels, seed=4)


@pytest.mark.parametrize("parameters", [{}, {"multi_label": True}, {"hypothesis_template": "Es geht um {}!"}])
def test_zero_shot_classification_answers_as_transformers_does(nli, parameters, assert_same):
    ours, expected = pipeline("zero-shot-classification", nli), theirs("zero-shot-classification", nli)
    for labels in (["Sport", "Politik", "旅行"], "Sport, Politik"):
        assert_same(ours(TEXTS, labels, **parameters), expected(TEXTS, labels, **parameters))
        assert_same(
            ours(TEXTS[0], candidate_labels=labels, **parameters),
            expected(TEXTS[0], candidate_labels=labels, **parameters),
        )


@pytest.fixture(scope="module")
def reader(make_checkpoint):
    return make_checkpoint("XLMRobertaForQuestionAnswering", seed=5)


def test_question_answering_takes_every_form_of_the_old_pipeline(reader, assert_same):
    ours = pipeline("question-answering", reader)
    question, context = "Wer liest?", "Anna liest ein Buch im Garten."
    answer = ours(question=question, context=context)
    assert list(answer) == ["score", "start", "end", "answer"]
    assert context[answer["start"] : answer["end"]] == answer["answer"]
    assert_same(ours({"question": question, "context": context}), answer)
    assert_same(ours(question=[question], context=[context]), answer)
    assert_same(ours([{"question": question, "context": context}] * 2), [answer, answer])
    assert_same(ours(question=[question, question], context=context), [answer, answer])
    several = ours(question=question, context=context, top_k=3)
    assert several[0]["answer"] == answer["answer"]
    assert len(several) == 3


@pytest.mark.parametrize(
    ("named", "match"),
    [
        ({"question": "", "context": "b"}, "question cannot be empty"),
        ({"question": "a", "context": ""}, "context cannot be empty"),
        ({"question": "a"}, "context cannot be empty"),
        ({"question": "a", "context": " "}, "the context is empty"),
        ({"question": ["a", "b"], "context": ["c"]}, "2 questions and 1 contexts"),
        ({"question": "w " * 80, "context": "b " * 80}, "question"),
    ],
)
def test_questions_that_cannot_be_answered_are_named(reader, named, match):
    with pytest.raises(InputError, match=match):
        pipeline("question-answering", reader)(**named)


@pytest.mark.parametrize("named", [{"contxt": "Anna."}, {"context": "Anna.", "top_k": 2}])
def test_a_dict_with_a_key_that_nothing_reads_is_refused(reader, named):
    with pytest.raises(InputError, match=f"input 0 has .*{list(named)[-1]}"):
        pipeline("question-answering", reader)({"question": "Who?"} | named)


def test_every_window_that_is_allowed_has_an_overlap_of_its_own(reader, assert_same):
    ask, named = pipeline("question-answering", reader), {"question": "?", "context": "Ada wrote the first program."}
    for size, stride in ((8, 3), (9, 4), (10, 5), (64, 32)):
        assert_same(ask(**named, max_seq_len=size), ask(**named, max_seq_len=size, doc_stride=stride))


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        (
            {"max_seq_len": 16, "doc_stride": 40},
            r"^/\S*: doc_stride=40, it must be between 0 and max_seq_len without the frame",
        ),
        ({"max_seq_len": "x"}, r"^/\S*: option max_seq_len='x', it must be a whole number"),
        ({"max_seq_len": 7}, r"^/\S*: max_seq_len=7, the checkpoint takes"),
        ({"max_answer_len": 0, "max_question_len": 0}, r"^/\S*: max_answer_len=0, .*; max_question_len=0"),
    ],
)
def test_what_is_wrong_with_a_parameter_is_said_of_it_as_it_was_typed(reader, parameters, match):
    with pytest.raises(TaskError, match=match):
        pipeline("question-answering", reader)(question="Who?", context="Ada.", **parameters)


def test_a_limit_of_questions_is_called_as_it_was_typed(reader):
    with pytest.raises(InputError, match="max_question_len is 2;"):
        pipeline("question-answering", reader)(question="Who? " * 5, context="Ada.", max_question_len=2)


@pytest.mark.parametrize(
    ("task", "architecture"), [("text-ranking", "Sequence"), ("question-answering", "Token"), ("ner", "Sequence")]
)
def test_a_head_that_a_task_cannot_read_is_refused_before_the_first_call(make_checkpoint, task, architecture):
    model = make_checkpoint(f"XLMRobertaFor{architecture}Classification", labels=["a", "b", "c"], seed=1)
    with pytest.raises((TaskError, CheckpointError)):
        pipeline(task, model)


@pytest.mark.parametrize("inputs", ["Anna reads.", ["Anna reads.", {"question": "Who?", "context": "Anna."}]])
def test_an_input_without_its_second_text_is_named(reader, inputs):
    with pytest.raises(InputError, match="input 0: question is missing"):
        pipeline("question-answering", reader)(inputs)


def test_a_choice_is_made_among_texts(make_checkpoint, assert_same):
    choose = pipeline("multiple-choice", make_checkpoint("XLMRobertaForMultipleChoice", seed=6))
    choices = ["It rained.", "The sun came out.", "Nobody was there."]
    answer = choose("The grass was wet.", choices)
    assert answer["choice"] == choices[answer["index"]]
    assert answer["scores"][answer["index"]] == answer["score"] == max(answer["scores"])
    assert sum(answer["scores"]) == pytest.approx(1, abs=TOLERANCE)
    assert_same(choose([{"context": "The grass was wet.", "choices": choices}]), [answer])


def test_documents_are_ranked_as_a_cross_encoder_does(make_checkpoint):
    import sentence_transformers

    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["relevant"], seed=7)
    documents = ["Berlin is a city.", "Cats sleep a lot.", "北京是一座城市。"]
    ours = pipeline("text-ranking", directory)("Which city?", documents)
    model = sentence_transformers.CrossEncoder(str(directory), device="cpu")
    expected = model.rank("Which city?", documents, return_documents=True)
    assert [one["corpus_id"] for one in ours] == [one["corpus_id"] for one in expected]
    assert [one["text"] for one in ours] == [one["text"] for one in expected]
    for one, other in zip(ours, expected, strict=True):
        assert one["score"] == pytest.approx(float(other["score"]), abs=TOLERANCE)


def test_sentences_are_compared(classifier):
    scores = pipeline("sentence-similarity", classifier, pooling="mean")("ein Satz", ["ein Satz", "etwas anderes"])
    assert scores[0] == pytest.approx(1, abs=TOLERANCE)
    assert scores[1] < 1


def test_a_piece_that_the_vocabulary_lacks_is_a_word_as_the_text_writes_it(tagger):
    text = "ok \U0001f1e9\U0001f1ea"
    for strategy in ("none", "simple"):
        expected = theirs("token-classification", tagger, aggregation_strategy=strategy, ignore_labels=[])(text)
        ours = pipeline("ner", tagger, aggregation_strategy=strategy, ignore_labels=[])(text)
        words = [entity["word"].strip() for entity in expected if entity["word"].strip("▁ ")]
        assert [entity["word"] for entity in ours] == words
        assert "\U0001f1e9" in "".join(words)


def test_a_question_stands_before_its_context(make_checkpoint):
    ask = pipeline("question-answering", make_checkpoint("XLMRobertaForQuestionAnswering", seed=5))
    question, context = "Who wrote it?", "Ada wrote the first program."
    assert ask(question, context) == ask(question=question, context=context) == ask([context], question=question)


def test_labels_typed_with_bars_may_hold_commas(make_checkpoint):
    names = ["contradiction", "neutral", "entailment"]
    model = make_checkpoint("XLMRobertaForSequenceClassification", labels=names, seed=6)
    ask = pipeline("zero-shot-classification", model)
    assert set(ask("a", candidate_labels="Sport|Verkehr, Bahn")["labels"]) == {"Sport", "Verkehr, Bahn"}
    assert set(ask("a", candidate_labels="Sport, Bahn")["labels"]) == {"Sport", "Bahn"}


def test_a_long_text_is_read_whole_or_cut_as_transformers_does(classifier, assert_same):
    text = " ".join(TEXTS) * 20
    expected = theirs("text-classification", classifier)(text, truncation=True, top_k=None)
    assert_same(pipeline(model=classifier, on_long="truncate")(text, top_k=None), expected)
    whole = pipeline(model=classifier)(text, top_k=None)
    assert sum(abs(one["score"] - other["score"]) for one, other in zip(whole, expected, strict=True)) > 1e-3
    with pytest.raises(InputError, match=r"input 0: record of .* tokens"):
        pipeline(model=classifier, on_long="error")(text)


def test_tuples_and_generators_are_lists_of_inputs(classifier, assert_same):
    ask = pipeline(model=classifier)
    assert_same(ask(tuple(TEXTS)), ask(TEXTS))
    assert_same(ask(text for text in TEXTS), ask(TEXTS))


def test_what_is_wrong_with_a_second_text_is_said_of_it_by_name(reader, make_checkpoint):
    with pytest.raises(InputError, match=r"input 0: question: a question of the record has \d+ tokens"):
        pipeline("question-answering", reader)(question="w" * 300, context="a b")
    choose = pipeline("multiple-choice", make_checkpoint("XLMRobertaForMultipleChoice", seed=6))
    with pytest.raises(InputError, match="input 0: choices: "):
        choose("a", ["only one"])
    with pytest.raises(InputError, match=r"input 0: choices cannot be read .lone_surrogate"):
        choose("a", ["b", "\ud800"])
