"""`xlmr calibrate` on a tiny checkpoint: what it writes changes answers as arithmetic on its logits predicts."""

import json
import os
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.annotate.rows import parse_tasks
from pipelines.cli import app
from pipelines.evaluate.calibrate import calibrate
from pipelines.labelled import LabelledSection
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor
from xlmr_core.tasks.columns import to_list

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def phrases(sample_texts):
    words = [word for text in sample_texts for word in text.split()]
    return [" ".join(words[3 * n : 3 * n + 3]) for n in range(240)]


def answers(model, texts, languages=None, options=""):
    plan = GraphPlan.resolve(parse_tasks([f"t={model},scores=true{options}"]))
    columns = ModelGraph(plan)(Preprocessor(plan)(texts, None, languages)).columns
    return {name: to_list(column) for name, column in columns.items()}


def write(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def several(make_checkpoint, phrases, tmp_path_factory):
    """A model that is too sure and whose first label is right only from another score on in each language."""
    folder = tmp_path_factory.mktemp("several")
    made = make_checkpoint(
        "XLMRobertaForSequenceClassification", labels=LABELS, problem_type="multi_label_classification"
    )
    model = shutil.copytree(made, folder / "model")
    logits = np.array(answers(model, phrases, options=",activation=none")["t_scores"])
    middle, rng = np.median(logits, axis=0), np.random.default_rng(0)
    rows = []
    for n, (text, row) in enumerate(zip(phrases, logits, strict=True)):
        language = ("de", "fr")[n % 2]
        limit = middle + np.array([{"de": -2, "fr": 2}[language], 0, 0])
        holds = rng.random(3) < 1 / (1 + np.exp((limit - row) / 2.5))
        rows.append({"text": text, "label": [LABELS[k] for k in np.flatnonzero(holds)], "lang": language})
    return model, write(folder / "dev.jsonl", rows), logits


def test_answers_change_exactly_as_predicted(several, phrases, tmp_path):
    source, data, logits = several
    model = shutil.copytree(source, tmp_path / "model")
    weights = (model / "model.safetensors").read_bytes()
    before = answers(model, phrases)
    done = calibrate(str(model), [data], LabelledSection(), per_language=True)
    assert [step.kept for step in done.fitted.steps] == [True] * 4
    said = json.loads((model / "xlmr.json").read_text())["calibration"]
    assert said["records"] == 240
    assert (model / "model.safetensors").read_bytes() == weights

    scores = 1 / (1 + np.exp(-logits / said["temperature"]))
    languages = [("de", "fr", None, "sw")[n % 4] for n in range(len(phrases))]
    expected = [
        [
            label
            for label, score in zip(LABELS, row, strict=True)
            if score >= said["language_thresholds"].get(language, {}).get(label, said["thresholds"][label])
        ]
        for row, language in zip(scores, languages, strict=True)
    ]
    after = answers(model, phrases, languages)
    np.testing.assert_allclose(after["t_scores"], scores, atol=1e-6)
    assert after["t_labels"] == expected
    assert after["t_labels"] != before["t_labels"]
    assert answers(model, phrases)["t_labels"] != expected
    assert answers(model, phrases, languages, options=",temperature=1") == before
    # Calibrated again it is fitted to the logits, not to the scores of the last time.
    again = calibrate(str(model), [data], LabelledSection(), per_language=True)
    assert again.calibration == done.calibration


def test_evaluation_sees_what_was_fitted(several, tmp_path):
    source, data, _ = several
    model = shutil.copytree(source, tmp_path / "model")

    def macro_f1():
        result = CliRunner().invoke(app, ["evaluate", "--model", str(model), "--data", data, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.output)["models"][0]["all"]["macro_f1"]

    before = macro_f1()
    arguments = ["calibrate", "--model", str(model), "--data", data, "--per-language"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for part in ("temperature", "thresholds by language", "macro_f1", "own ones for de, fr: written to", "xlmr.json"):
        assert part in result.output.replace("\n", " ")
    assert macro_f1() > before + 0.1
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(result.output)["calibration"] == json.loads((model / "xlmr.json").read_text())["calibration"]
    told = CliRunner().invoke(app, ["doctor", str(model)])
    assert told.exit_code == 0
    assert "calibration" in told.output


def test_one_label_gets_a_temperature_and_keeps_its_answers(make_checkpoint, phrases, tmp_path):
    made = make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS, seed=3)
    model = shutil.copytree(made, tmp_path / "model")
    before, rng = answers(model, phrases), np.random.default_rng(0)
    logits = np.array(answers(model, phrases, options=",activation=none")["t_scores"])
    powers = np.exp(logits / 4)
    gold = [LABELS[rng.choice(3, p=row / row.sum())] for row in powers]
    rows = [{"text": text, "label": label} for text, label in zip(phrases, gold, strict=True)]
    rows.append({"text": "    ", "label": "a"})
    reading = LabelledSection(on_error="quarantine")
    done = calibrate(str(model), [write(tmp_path / "dev.jsonl", rows)], reading)
    assert done.records == 240
    assert done.calibration is not None
    # Its standard error over 240 records is about 15 %.
    assert done.calibration.temperature == pytest.approx(4, rel=0.4)
    assert done.calibration.activation == "softmax"
    after = answers(model, phrases)
    assert after["t_label"] == before["t_label"]
    assert np.mean(after["t_score"]) < np.mean(before["t_score"])


def test_where_nothing_helps_an_older_calibration_goes(make_checkpoint, phrases, tmp_path):
    made = make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS, seed=3)
    model = shutil.copytree(made, tmp_path / "model")
    (model / "xlmr.json").write_text('{"calibration": {"activation": "softmax", "temperature": 5}, "max_length": 32}')
    rows = [
        {"text": text, "label": label} for text, label in zip(phrases, answers(model, phrases)["t_label"], strict=True)
    ]
    done = calibrate(str(model), [write(tmp_path / "dev.jsonl", rows)], LabelledSection())
    assert done.calibration is None
    assert "nothing helped" in done.verdict()
    assert json.loads((model / "xlmr.json").read_text()) == {"max_length": 32}
    assert Checkpoint.open(str(model)).calibration is None


def test_what_cannot_be_calibrated_is_said_before_anything_is_computed(
    make_checkpoint, phrases, tmp_path, several, monkeypatch
):
    single = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS))
    number = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=["x"], problem_type="regression"))
    tagger = str(make_checkpoint("XLMRobertaForTokenClassification", labels=LABELS))
    few = write(tmp_path / "few.jsonl", [{"text": text, "label": "a"} for text in phrases[:50]])
    strange = write(tmp_path / "strange.jsonl", [{"text": text, "label": "sport"} for text in phrases])
    for model, data, said in (
        ("mini#language", few, "part of this package, .* copy it to a directory"),
        (tagger, few, "is for token-classification, calibrated are models for sequence-classification; choose one"),
        (number, few, "is for regression, its scores are by none; calibrated are those by softmax"),
        (single, few, "got 50 labelled records that the model can read, a temperature needs at least 100"),
        (single, strange, "labels sport in the data, the model knows a, b, c"),
    ):
        with pytest.raises(TaskError, match=said):
            calibrate(model, [data], LabelledSection())
    one = write(tmp_path / "one.jsonl", [{"text": "x", "label": "sport"}])
    with pytest.raises(TaskError, match=r"got 1 labelled(.|\n)*--per-language is for thresholds(.|\n)*labels sport"):
        calibrate(single, [one], LabelledSection(), per_language=True)
    rows = [{"text": text, "label": ["a"]} for text in phrases]
    with pytest.raises(TaskError, match="--per-language needs languages, no record has one"):
        calibrate(str(several[0]), [write(tmp_path / "none.jsonl", rows)], LabelledSection(), per_language=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(TaskError, match="model cannot be written to, a calibration is written into it"):
            calibrate(str(several[0]), [several[1]], LabelledSection())
    assert not (several[0] / "xlmr.json").exists()
    result = CliRunner().invoke(app, ["calibrate", "--model", single, "--data", few])
    assert result.exit_code == 2
    assert "at least 100" in result.output


def test_more_records_than_memory_holds_are_refused(several, monkeypatch):
    model, data, _ = several
    monkeypatch.setattr("pipelines.evaluate.calibrate.MAX_LOGITS", 300)
    with pytest.raises(TaskError, match="got 240 records, at most 100 of 3 labels are held; take a sample"):
        calibrate(str(model), [data], LabelledSection())
