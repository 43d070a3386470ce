"""Labels of single words: one answer for each gold word, at the token where training would have taught it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

from pipelines.evaluate.asking import Answers, evaluation_plan
from pipelines.evaluate.job import evaluate
from pipelines.evaluate.words import WordScores, word_answers
from pipelines.examples import WordLabels
from pipelines.labelled import LabelledSection
from xlmr_core.graph import ModelGraph, Preprocessor
from xlmr_core.graph.windows import windowed_records
from xlmr_core.tasks.tag_targets import join_words

UPOS = ["ADP", "DET", "NOUN", "PUNCT", "VERB"]

CONLLU = """\
# text = Il vient du port .
1	Il	il	PRON	_	_	2	nsubj	_	_
2	vient	venir	VERB	_	_	0	root	_	_
3-4	du	_	_	_	_	_	_	_	_
3	de	de	ADP	_	_	5	case	_	_
4	le	le	DET	_	_	5	det	_	_
5	port	port	NOUN	_	_	2	obl	_	_
6	.	.	PUNCT	_	_	2	punct	_	_

"""


@pytest.fixture(scope="module")
def tagger(make_checkpoint):
    return str(make_checkpoint("XLMRobertaForTokenClassification", labels=UPOS))


@pytest.fixture(scope="module")
def asked(tagger):
    plan = evaluation_plan(tagger, "token-classification", pairs=False)
    return Preprocessor(plan), ModelGraph(plan)


def answers_of(asked, texts):
    preprocess, graph = asked
    encoded = preprocess(texts)
    outputs = graph.forward(encoded)
    return Answers(graph.plan, encoded, outputs, graph.decode(encoded, outputs))


def test_words_are_counted_as_scikit_learn_counts_what_transformers_says_at_their_first_tokens(tagger, lines, write):
    sentences = [text.split() for text in lines if len(text) < 60]
    rng = np.random.default_rng(0)
    gold = [[UPOS[k] for k in rng.integers(0, len(UPOS), len(words))] for words in sentences]
    rows = [
        {"tokens": words, "upos": tags, "lang": ("de", "fr")[n % 2]}
        for n, (words, tags) in enumerate(zip(sentences, gold, strict=True))
    ]
    done = evaluate([tagger], [write("pos.jsonl", rows)], LabelledSection())
    tokenizer, model = (
        kind.from_pretrained(tagger) for kind in (PreTrainedTokenizerFast, AutoModelForTokenClassification)
    )
    said = []
    for words in sentences:
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            best = model(**encoded).logits[0].argmax(dim=1).tolist()
        words_of = encoded.word_ids()
        said.append([UPOS[best[words_of.index(word)]] for word in range(len(words))])
    for language, first in (("de", 0), ("fr", 1)):
        right, guess = ([label for row in side[first::2] for label in row] for side in (gold, said))
        measures = done.results[0].scores.measures()[language]
        assert measures["accuracy"] == pytest.approx(accuracy_score(right, guess))
        assert measures["macro_f1"] == pytest.approx(f1_score(right, guess, average="macro"))
        assert measures["total"] == len(right)


def test_words_of_one_surface_token_have_one_answer(tagger, tmp_path, asked):
    (tmp_path / "fr_x-ud-dev.conllu").write_text(CONLLU, encoding="utf-8")
    reading = LabelledSection(tags_column="upos", language="fr")
    done = evaluate([tagger], [str(tmp_path / "fr_x-ud-dev.conllu")], reading)
    whole = done.results[0].scores.together()
    assert (whole["total"], whole["without_token"]) == (6, 1)
    text, spans = "Il vient du port .", ((0, 2), (3, 8), (9, 11), (9, 11), (12, 16), (17, 18))
    ((labels, without),) = word_answers(answers_of(asked, [text]), [WordLabels((None,) * 6, spans)])
    assert labels[2] == labels[3]
    assert without == 1


def test_a_model_that_says_what_it_was_taught_is_right_about_every_word_with_a_token(asked, lines):
    """Outputs are set to the very targets of training, so whatever is counted as wrong was read at another token."""
    texts, words = zip(*(join_words(text.split() * 9) for text in lines[:12]), strict=True)
    rng = np.random.default_rng(1)
    gold = [WordLabels(tuple(UPOS[k] for k in rng.integers(0, 5, len(spans))), tuple(spans)) for spans in words]
    answers = answers_of(asked, texts)
    (annotation,) = answers.plan.annotations
    (windows,) = answers.outputs.windows
    assert max(windows.counts("task")) > 1
    records, rows = windowed_records(answers.encoded, windows, annotation, answers.annotations.annotated)
    targets_T = annotation.task.targets(
        [value.labels for value in gold], records, words=[value.spans for value in gold]
    )
    raw_TC = np.zeros_like(answers.outputs.raw["task"])
    taught = np.flatnonzero(targets_T >= 0)
    raw_TC[rows[taught], targets_T[taught]] = 1.0
    answers.outputs.raw["task"] = raw_TC
    scores = WordScores()
    scores.add(gold, word_answers(answers, gold))
    assert scores.result()["accuracy"] == 1.0
    assert scores.without_token == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.text("aÖ語न -\u200d.", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=30),
        min_size=1,
        max_size=3,
    )
)
def test_every_word_of_any_text_has_an_answer_once_one_before_it_has(asked, sentences):
    texts, words = zip(*(join_words(sentence) for sentence in sentences), strict=True)
    gold = [WordLabels(("NOUN",) * len(spans), tuple(spans)) for spans in words]
    found = word_answers(answers_of(asked, texts), gold)
    for (labels, without), value in zip(found, gold, strict=True):
        assert len(labels) == len(value.labels)
        known = [label is not None for label in labels]
        assert known == sorted(known)
        assert set(labels) <= {*UPOS, None}
        assert 0 <= without <= len(labels)
        # Without a token and without a word before, there is none.
        assert labels.count(None) <= without


def test_words_without_gold_labels_do_not_count():
    scores = WordScores()
    scores.add([WordLabels((None, "NOUN"), ((0, 1), (2, 3)))], [(["VERB", "NOUN"], 0)])
    scores.add([WordLabels(("VERB",), ((0, 1),))], [([None], 1)])
    assert scores.result()["total"] == 2
    assert scores.result()["accuracy"] == 0.5
    assert scores.by_label()["VERB"]["recall"] == 0


def test_labels_that_look_like_tags_are_labels_of_words_where_others_do_not(make_checkpoint, write):
    labels = ["NOUN", "S-V", "B-N"]
    model = str(make_checkpoint("XLMRobertaForTokenClassification", labels=labels))
    rows = [{"tokens": ["ein", "Hund"], "tags": ["S-V", "B-N"]}]
    done = evaluate([model], [write("pos.jsonl", rows)], LabelledSection())
    assert "accuracy" in done.results[0].scores.together()


def test_a_treebank_is_read_and_counted(tagger, shared_data, tmp_path):
    source = shared_data / "pos/ud/fr_pud-ud-test.conllu"
    sentences = source.read_text(encoding="utf-8").split("\n\n")[:30]
    (tmp_path / "fr_pud-ud-test.conllu").write_text("\n\n".join(sentences) + "\n\n", encoding="utf-8")
    done = evaluate([tagger], [str(tmp_path / "fr_pud-ud-test.conllu")], LabelledSection(tags_column="upos"))
    words = [line.split("\t") for text in sentences for line in text.split("\n") if line and line[0] != "#"]
    whole = done.results[0].scores.together()
    assert whole["total"] == sum(fields[0].isdigit() and fields[3] != "_" for fields in words)
    # The tests' tokenizer has pieces of a letter and a full stop, so that more than the words of "du" lack a token.
    assert sum("-" in fields[0] for fields in words) <= whole["without_token"] < 0.2 * whole["total"]
