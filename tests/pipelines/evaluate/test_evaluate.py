"""`xlmr evaluate`: what is counted equals scikit-learn, seqeval and plain loops over the model's own answers."""

import json

import numpy as np
import pytest
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import accuracy_score, classification_report, f1_score
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluate.job import evaluate
from pipelines.evaluate.tables import notes
from pipelines.labelled import LabelledSection
from xlmr_core import pipeline
from xlmr_core.errors import InputError, TaskError

LABELS = ["a", "b", "c"]
TAGS = ["O", "B-X", "I-X", "B-Y"]


def test_classes_are_counted_for_each_language_as_scikit_learn_does(make_checkpoint, lines, write, tmp_path):
    model = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS))
    rows = [{"text": text, "label": LABELS[n % 3], "lang": ("de", "fr")[n % 2]} for n, text in enumerate(lines)]
    done = evaluate([model], [write("dev.jsonl", rows)], LabelledSection(), output=tmp_path / "out")
    said = [answer["label"] for answer in pipeline("text-classification", model)(lines)]
    for language in ("de", "fr"):
        gold, guess = zip(
            *((row["label"], label) for row, label in zip(rows, said, strict=True) if row["lang"] == language),
            strict=True,
        )
        measures = done.results[0].scores.measures()[language]
        assert measures["accuracy"] == pytest.approx(accuracy_score(gold, guess))
        assert measures["macro_f1"] == pytest.approx(f1_score(gold, guess, average="macro"))
    gold = [row["label"] for row in rows]
    assert done.results[0].scores.together()["accuracy"] == pytest.approx(accuracy_score(gold, said))
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    (written,) = written["models"]
    assert written["languages"]["de"]["accuracy"] == done.results[0].scores.measures()["de"]["accuracy"]
    assert written["over_languages"]["accuracy"]["languages"] == 2
    report = classification_report(gold, said, output_dict=True, zero_division=0)
    for label in LABELS:
        theirs = {name.removesuffix("-score"): value for name, value in report[label].items()}
        assert written["per_label"][label] == pytest.approx(theirs)
    assert set(written["per_label_by_language"]) == {"de", "fr"}


def test_entities_are_counted_as_seqeval_does(make_checkpoint, lines, write, tmp_path):
    model = str(make_checkpoint("XLMRobertaForTokenClassification", labels=TAGS))
    sentences = [text.split() for text in lines if text.isascii()]
    rng = np.random.default_rng(0)
    tags = [[TAGS[k] for k in rng.choice(4, len(words), p=[0.7, 0.1, 0.1, 0.1])] for words in sentences]
    rows = [{"tokens": words, "ner_tags": of} for words, of in zip(sentences, tags, strict=True)]
    done = evaluate([model], [write("dev.jsonl", rows)], LabelledSection())
    tagger = pipeline("token-classification", model, aggregation_strategy="first")
    found = [word_tags(words, tagger(" ".join(words))) for words in sentences]
    assert any(tag != "O" for row in found for tag in row)
    assert done.results[0].scores.together()["micro_f1"] == pytest.approx(entity_f1(tags, found))


def word_tags(words, entities):
    """Tags of words from entities that begin and end with words."""
    tags, at = [], 0
    for word in words:
        inside = next((e for e in entities if e["start"] <= at < e["end"]), None)
        tags.append("O" if inside is None else f"{'B' if inside['start'] == at else 'I'}-{inside['entity_group']}")
        at += len(word) + 1
    return tags


def test_answers_and_choices_are_counted(make_checkpoint, lines, write, tmp_path):
    reader = str(make_checkpoint("XLMRobertaForQuestionAnswering"))
    rows = []
    for n, text in enumerate(lines[:20]):
        word = text.split()[1]
        answers = {"text": [word], "answer_start": [text.index(word)]} if n % 3 else {"text": [], "answer_start": []}
        rows.append({"context": text, "question": "Was?", "answers": answers})
    done = evaluate([reader], [write("qa.jsonl", rows)], LabelledSection())
    ask = pipeline("question-answering", reader, handle_impossible_answer=True)
    said = [ask(question="Was?", context=row["context"])["answer"] for row in rows]
    right = [
        answer in row["answers"]["text"] or (not answer and not row["answers"]["text"])
        for row, answer in zip(rows, said, strict=True)
    ]
    assert done.results[0].scores.together()["exact_match"] >= np.mean(right)
    assert done.results[0].scores.together()["total"] == 20

    chooser = str(make_checkpoint("XLMRobertaForMultipleChoice"))
    rows = [
        {"premise": text, "choice1": "ja", "choice2": lines[n - 1][:20], "label": n % 2} for n, text in enumerate(lines)
    ]
    done = evaluate([chooser], [write("copa.jsonl", rows)], LabelledSection())
    choose = pipeline("multiple-choice", chooser)
    said = [choose(row["premise"], choices=[row["choice1"], row["choice2"]]) for row in rows]
    right = [answer["choice"] == row[f"choice{row['label'] + 1}"] for answer, row in zip(said, rows, strict=True)]
    assert done.results[0].scores.together()["accuracy"] == pytest.approx(np.mean(right))


def test_a_record_that_cannot_be_read_counts_as_wrong(make_checkpoint, lines, write, tmp_path):
    model = str(make_checkpoint("XLMRobertaForMultipleChoice"))
    rows = [{"premise": text, "choice1": "ja", "choice2": "wort " * 80, "label": 0} for text in lines[:5]]
    done = evaluate([model], [write("copa.jsonl", rows)], LabelledSection())
    assert done.results[0].scores.unread == {"pair_too_long": 5}
    assert done.results[0].scores.together() == {"accuracy": 0.0, "total": 5.0}


def test_what_cannot_be_evaluated_is_said(make_checkpoint, lines, write):
    bare = str(make_checkpoint("XLMRobertaModel"))
    tagger = str(make_checkpoint("XLMRobertaForTokenClassification", labels=TAGS))
    data = write("dev.jsonl", [{"tokens": ["a", "b"], "tags": ["NOUN", "VERB"]}])
    with pytest.raises(TaskError, match="does not say what it is for, these can be evaluated"):
        evaluate([bare], [data], LabelledSection())
    with pytest.raises(TaskError, match=r"the data has labels NOUN, VERB, .* has O, B-X, I-X, B-Y, none is shared"):
        evaluate([tagger], [data], LabelledSection())
    with pytest.raises(InputError, match="no column found"):
        evaluate([bare], [data], LabelledSection(), task="sequence-classification")
    with pytest.raises(TaskError, match="'causal-lm', these can be evaluated"):
        evaluate([bare], [data], LabelledSection(), task="causal-lm")
    result = CliRunner().invoke(app, ["evaluate", "--model", bare, "--data", data, "dev.jsonl"])
    assert result.exit_code == 2
    assert "dev.jsonl: these must look like section.field=value" in result.output


def test_labels_that_the_model_does_not_have_count_as_wrong_and_are_said(make_checkpoint, lines, write):
    model = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS))
    rows = [{"text": text, "label": ("a", "elsewhere")[n % 2]} for n, text in enumerate(lines)]
    done = evaluate([model], [write("dev.jsonl", rows)], LabelledSection())
    assert done.results[0].unknown == {"elsewhere": len(lines) // 2}
    assert done.results[0].scores.together()["accuracy"] <= 0.5
    assert list(notes(done)) == ["labels that the model does not have count as wrong: elsewhere 30"]


def test_other_rules_for_answers_can_be_chosen(make_checkpoint, write):
    reader = str(make_checkpoint("XLMRobertaForQuestionAnswering"))
    rows = [
        {
            "context": "Der Hund schläft.",
            "question": "Wer?",
            "answers": {"text": ["Hund"], "answer_start": [4]},
            "lang": of,
        }
        for of in ("de", "en")
    ]
    data = write("qa.jsonl", rows)
    done = evaluate([reader], [data], LabelledSection(), rules="mlqa")
    assert done.results[0].scores.by_language["de"].language == "de"
    assert done.results[0].scores.together()["total"] == 2
    assert "NoAns_f1" not in done.results[0].scores.together()
    with pytest.raises(TaskError, match="answers=mlqa: language 'sw', MLQA has rules for ar, de"):
        evaluate([reader], [data], LabelledSection(language="sw"), rules="mlqa")


def test_the_command_shows_a_table(make_checkpoint, lines, write, tmp_path):
    model = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS))
    rows = [{"text": text, "label": LABELS[n % 3], "lang": ("de", "fr")[n % 2]} for n, text in enumerate(lines)]
    data = write("dev.jsonl", rows)
    result = CliRunner().invoke(app, ["evaluate", "--model", model, "--data", data])
    assert result.exit_code == 0
    for word in ("de", "fr", "mean of languages", "all records", "macro_f1"):
        assert word in result.output
    result = CliRunner().invoke(app, ["evaluate", "--model", model, "--data", data, "--json"])
    assert json.loads(result.output)["examples"] == len(rows)
