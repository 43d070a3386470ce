"""Several models side by side: each counted as if it were alone, the data read once, differences stated."""

import json
import math

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluate import job
from pipelines.evaluate.asking import Candidate
from pipelines.evaluate.job import evaluate
from pipelines.evaluate.tables import cell, tables
from pipelines.labelled import LabelledSection
from xlmr_core.errors import TaskError

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def models(make_checkpoint):
    return [
        str(make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS, seed=seed, hidden_size=size))
        for seed, size in ((0, 32), (1, 16))
    ]


@pytest.fixture
def data(lines, write):
    rows = [{"text": text, "label": LABELS[n % 3], "lang": ("de", "fr", "sw")[n % 3]} for n, text in enumerate(lines)]
    return write("dev.jsonl", rows)


def test_each_model_is_counted_as_alone(models, data, tmp_path):
    done = evaluate([f"one={models[0]}", f"two={models[1]}"], [data], LabelledSection(), output=tmp_path / "out")
    for result, model in zip(done.results, models, strict=True):
        alone = evaluate([model], [data], LabelledSection()).results[0]
        assert alone.scores.measures() == result.scores.measures()
    written = json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))
    assert [found["name"] for found in written["models"]] == ["one", "two"]
    (difference,) = written["differences_to_first"]
    one, two = (found["languages"] for found in written["models"])
    assert difference["languages"]["de"]["accuracy"] == pytest.approx(two["de"]["accuracy"] - one["de"]["accuracy"])
    apart = [two[language]["accuracy"] - one[language]["accuracy"] for language in one]
    assert difference["spread"]["accuracy"]["mean"] == pytest.approx(sum(apart) / 3)
    assert difference["better"]["accuracy"] == sum(value > 0 for value in apart)
    assert difference["worse"]["accuracy"] == sum(value < 0 for value in apart)


def test_examples_are_read_once_to_check_and_once_to_ask(models, data, monkeypatch):
    seen = []
    ours = job.portions
    monkeypatch.setattr(job, "portions", lambda source: seen.append(1) or ours(source))
    evaluate([f"one={models[0]}", f"two={models[1]}"], [data], LabelledSection())
    assert seen == [1]


def test_less_is_better_where_it_is(make_checkpoint, lines, write):
    models = [str(make_checkpoint("XLMRobertaForMaskedLM", seed=seed, hidden_size=16)) for seed in (0, 1)]
    data = write("plain.jsonl", [{"text": text[:20].strip(), "lang": "de"} for text in lines[:3]])
    done = evaluate([f"one={models[0]}", f"two={models[1]}"], [data], LabelledSection())
    (difference,) = done.differences
    less = difference.languages["de"]["perplexity"] < 0
    assert (difference.better["perplexity"], difference.worse["perplexity"]) == ((1, 0) if less else (0, 1))
    assert difference.better["tokens"] == difference.worse["tokens"] == 0


def test_models_are_typed_as_in_annotate(models, tmp_path):
    assert Candidate.parse("mini#topic") == Candidate("mini#topic", "mini#topic", {})
    assert Candidate.parse("big=a/b,max_length=64") == Candidate("big", "a/b", {"max_length": "64"})
    odd = tmp_path / "a,b=c"
    odd.mkdir()
    assert Candidate.parse(str(odd)) == Candidate(str(odd), str(odd), {})
    with pytest.raises(TaskError, match=r"must look like NAME=MODEL\[,key=value"):
        Candidate.parse("a=")


def test_models_that_cannot_be_compared_are_refused(models, make_checkpoint, data):
    tagger = str(make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X"]))
    with pytest.raises(TaskError, match="the models are for different tasks"):
        evaluate([models[0], tagger], [data], LabelledSection())
    with pytest.raises(TaskError, match="given twice, names must differ; write --model NAME=MODEL"):
        evaluate([models[0], models[0]], [data], LabelledSection())


def test_the_command_shows_a_table_a_measure_with_differences(models, data):
    command = ["evaluate", "--model", f"one={models[0]}", "--model", f"two={models[1]}", "--data", data]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for word in ("accuracy", "macro_f1", "two − one", "mean of languages", "better", "all records"):
        assert word in result.output


def test_every_line_of_a_comparison_has_every_column(models, data):
    done = evaluate([f"m{n}={models[n % 2]}" for n in range(3)], [data], LabelledSection())
    for table in tables(done):
        assert len(table.columns) == 2 + 3 + 2
        assert {len(list(column.cells)) for column in table.columns} == {3 + 1 + 1 + 1}
    assert not math.isnan(done.differences[1].spread["accuracy"].mean)
    assert done.differences[1].spread["accuracy"].max == 0


def test_measures_are_written_shortly_however_large():
    values = {"share": 0.6464, "words": 1234.56, "perplexity": 7.6e18, "difference": -2e10}
    assert [cell(values, name) for name in ("share", "words", "perplexity", "other")] == [
        "0.646",
        "1,234.6",
        "7.60e+18",
        "",
    ]
    assert cell(values, "difference", signed=True) == "−2.00e+10"
    assert cell(values, "share", signed=True) == "+0.646"
