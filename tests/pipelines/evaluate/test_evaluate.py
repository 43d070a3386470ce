"""`xlmr evaluate`: what is counted equals scikit-learn, seqeval and plain loops over the model's own answers."""

import json

import numpy as np
import pytest
from seqeval.metrics import f1_score as entity_f1
from sklearn.metrics import accuracy_score, f1_score
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluate.job import evaluate
from pipelines.finetune.config import LabelledSection
from xlmr_core import pipeline
from xlmr_core.errors import InputError, TaskError

LABELS = ["a", "b", "c"]
TAGS = ["O", "B-X", "I-X", "B-Y"]


@pytest.fixture(scope="module")
def lines(sample_texts):
    return [" ".join(text.split()[:10]) for text in sample_texts if len(text.split()) > 8][:60]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return str(path)


def test_classes_are_counted_for_each_language_as_scikit_learn_does(make_checkpoint, lines, tmp_path):
    model = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS))
    rows = [{"text": text, "label": LABELS[n % 3], "lang": ("de", "fr")[n % 2]} for n, text in enumerate(lines)]
    done = evaluate(model, [write(tmp_path / "dev.jsonl", rows)], LabelledSection(), output=tmp_path / "out")
    said = [answer["label"] for answer in pipeline("text-classification", model)(lines)]
    for language in ("de", "fr"):
        gold, guess = zip(
            *((row["label"], label) for row, label in zip(rows, said, strict=True) if row["lang"] == language),
            strict=True,
        )
        measures = done.scores.measures()[language]
        assert measures["accuracy"] == pytest.approx(accuracy_score(gold, guess))
        assert measures["macro_f1"] == pytest.approx(f1_score(gold, guess, average="macro"))
    gold = [row["label"] for row in rows]
    assert done.scores.together()["accuracy"] == pytest.approx(accuracy_score(gold, said))
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert written["languages"]["de"]["accuracy"] == done.scores.measures()["de"]["accuracy"]
    assert written["over_languages"]["accuracy"]["languages"] == 2


def test_entities_are_counted_as_seqeval_does(make_checkpoint, lines, tmp_path):
    model = str(make_checkpoint("XLMRobertaForTokenClassification", labels=TAGS))
    sentences = [text.split() for text in lines if text.isascii()]
    rng = np.random.default_rng(0)
    tags = [[TAGS[k] for k in rng.choice(4, len(words), p=[0.7, 0.1, 0.1, 0.1])] for words in sentences]
    rows = [{"tokens": words, "ner_tags": of} for words, of in zip(sentences, tags, strict=True)]
    done = evaluate(model, [write(tmp_path / "dev.jsonl", rows)], LabelledSection())
    tagger = pipeline("token-classification", model, aggregation_strategy="first")
    found = [word_tags(words, tagger(" ".join(words))) for words in sentences]
    assert any(tag != "O" for row in found for tag in row)
    assert done.scores.together()["micro_f1"] == pytest.approx(entity_f1(tags, found))


def word_tags(words, entities):
    """Tags of words from entities that begin and end with words."""
    tags, at = [], 0
    for word in words:
        inside = next((e for e in entities if e["start"] <= at < e["end"]), None)
        tags.append("O" if inside is None else f"{'B' if inside['start'] == at else 'I'}-{inside['entity_group']}")
        at += len(word) + 1
    return tags


def test_answers_and_choices_are_counted(make_checkpoint, lines, tmp_path):
    reader = str(make_checkpoint("XLMRobertaForQuestionAnswering"))
    rows = []
    for n, text in enumerate(lines[:20]):
        word = text.split()[1]
        answers = {"text": [word], "answer_start": [text.index(word)]} if n % 3 else {"text": [], "answer_start": []}
        rows.append({"context": text, "question": "Was?", "answers": answers})
    done = evaluate(reader, [write(tmp_path / "qa.jsonl", rows)], LabelledSection())
    ask = pipeline("question-answering", reader, handle_impossible_answer=True)
    said = [ask(question="Was?", context=row["context"])["answer"] for row in rows]
    right = [
        answer in row["answers"]["text"] or (not answer and not row["answers"]["text"])
        for row, answer in zip(rows, said, strict=True)
    ]
    assert done.scores.together()["exact_match"] >= np.mean(right)
    assert done.scores.together()["total"] == 20

    chooser = str(make_checkpoint("XLMRobertaForMultipleChoice"))
    rows = [
        {"premise": text, "choice1": "ja", "choice2": lines[n - 1][:20], "label": n % 2} for n, text in enumerate(lines)
    ]
    done = evaluate(chooser, [write(tmp_path / "copa.jsonl", rows)], LabelledSection())
    choose = pipeline("multiple-choice", chooser)
    said = [choose(row["premise"], choices=[row["choice1"], row["choice2"]]) for row in rows]
    right = [answer["choice"] == row[f"choice{row['label'] + 1}"] for answer, row in zip(said, rows, strict=True)]
    assert done.scores.together()["accuracy"] == pytest.approx(np.mean(right))


def test_a_record_that_cannot_be_read_counts_as_wrong(make_checkpoint, lines, tmp_path):
    model = str(make_checkpoint("XLMRobertaForMultipleChoice"))
    rows = [{"premise": text, "choice1": "ja", "choice2": "wort " * 80, "label": 0} for text in lines[:5]]
    done = evaluate(model, [write(tmp_path / "copa.jsonl", rows)], LabelledSection())
    assert done.scores.unread == {"pair_too_long": 5}
    assert done.scores.together() == {"accuracy": 0.0, "total": 5.0}


def test_what_cannot_be_evaluated_is_said(make_checkpoint, lines, tmp_path):
    bare, pos = (
        str(make_checkpoint("XLMRobertaModel")),
        str(make_checkpoint("XLMRobertaForTokenClassification", labels=TAGS)),
    )
    data = write(tmp_path / "dev.jsonl", [{"tokens": ["a", "b"], "tags": ["NOUN", "VERB"]}])
    with pytest.raises(TaskError, match="does not say what it is for, these can be evaluated"):
        evaluate(bare, [data], LabelledSection())
    with pytest.raises(TaskError, match="labels NOUN, VERB are no tags of entities"):
        evaluate(pos, [data], LabelledSection())
    with pytest.raises(InputError, match="no column found"):
        evaluate(bare, [data], LabelledSection(), task="sequence-classification")
    result = CliRunner().invoke(app, ["evaluate", "--model", bare, "--data", data, "dev.jsonl"])
    assert result.exit_code == 2
    assert "dev.jsonl: these must look like data.field=value" in result.output


def test_the_command_shows_a_table(make_checkpoint, lines, tmp_path):
    model = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS))
    rows = [{"text": text, "label": LABELS[n % 3], "lang": ("de", "fr")[n % 2]} for n, text in enumerate(lines)]
    data = write(tmp_path / "dev.jsonl", rows)
    result = CliRunner().invoke(app, ["evaluate", "--model", model, "--data", data])
    assert result.exit_code == 0
    for word in ("de", "fr", "mean of languages", "all records", "macro_f1"):
        assert word in result.output
    result = CliRunner().invoke(app, ["evaluate", "--model", model, "--data", data, "--json"])
    assert json.loads(result.output)["examples"] == len(rows)
