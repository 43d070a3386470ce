"""`xlmr finetune` from labelled files to a model directory."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.config import ConfigError, load_config
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import finetune
from pipelines.finetune.prepare import prepare
from xlmr_core import pipeline
from xlmr_core.errors import InputError, TaskError

WEATHER = ("Regen fällt auf die Stadt", "Schnee liegt auf dem Feld", "Sonne scheint über dem Meer")
SPORT = ("Tor für die Gäste heute", "Der Läufer gewinnt das Rennen", "Das Spiel endet ohne Sieger")


@pytest.fixture
def labelled(tmp_path):
    """Forty sentences about weather and sport, and eight more."""
    rows = [
        {"text": f"{text} {n}", "label": name}
        for n in range(8)
        for name, texts in (("weather", WEATHER), ("sport", SPORT))
        for text in texts
    ]
    for name, part in (("train", rows[:40]), ("dev", rows[40:])):
        lines = [json.dumps(row, ensure_ascii=False) for row in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def asked(folder: Path, model: Path, **settings: object) -> FinetuneConfig:
    options = {
        "data.train": [str(folder / "train.jsonl")],
        "data.validation": [str(folder / "dev.jsonl")],
        "data.task": "sequence-classification",
        "model.path": str(model),
        "output.path": str(folder / "out"),
        "training.epochs": 6,
        "training.learning_rate": 5e-3,
        "training.batch_records": 8,
        "training.max_tokens": 64,
    }
    return load_config(FinetuneConfig, options=options | {name.replace("__", "."): v for name, v in settings.items()})


@pytest.mark.usefixtures("local_ray")
def test_two_workers_train_a_model_that_knows_its_labels(labelled, make_checkpoint):
    config = asked(labelled, make_checkpoint("XLMRobertaModel"), run__workers=2, run__cpus_per_worker=0.4)
    trained = finetune(config)
    assert trained.prepared.goal.labels == ("sport", "weather")
    classify = pipeline("text-classification", str(trained.model))
    for text, label in ((WEATHER[0], "weather"), (SPORT[1], "sport")):
        assert classify(text)[0]["label"] == label
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained.model)
    assert model.config.id2label == {0: "sport", 1: "weather"}
    lines = (labelled / "out/run/checkpoints/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 30
    assert json.loads(lines[-1])["loss"] < json.loads(lines[0])["loss"] / 2
    with pytest.raises(ConfigError, match="holds a finished run"):
        finetune(config)


def test_an_output_belongs_to_what_was_asked_for_first(labelled, make_checkpoint):
    model = make_checkpoint("XLMRobertaModel")
    prepare(asked(labelled, model))
    again = prepare(asked(labelled, model, run__workers=4))
    assert again.summaries["training"].examples == 40
    with pytest.raises(ConfigError, match=r"other settings \(model.max_length, training.seed\)"):
        prepare(asked(labelled, model, training__seed=1, model__max_length=32))
    (labelled / "mine").mkdir()
    (labelled / "mine/thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="is not empty and holds no run of ours"):
        prepare(asked(labelled, model, output__path=str(labelled / "mine")))


def test_what_is_wrong_with_the_data_is_said_before_anything_is_trained(labelled, make_checkpoint):
    (labelled / "train.jsonl").write_text('{"text": "gut", "label": "a"}\n{"text": "", "label": "b"}\n{"text": "x"}\n')
    (labelled / "dev.jsonl").write_text('{"text": "gut", "label": "z"}\n')
    with pytest.raises(InputError) as error:
        prepare(asked(labelled, make_checkpoint("XLMRobertaModel")))
    for part in ("train.jsonl:2", "train.jsonl:3", "labels z 1, training has a 1"):
        assert part in str(error.value)
    assert not (labelled / "out").exists()


def test_a_head_that_fits_goes_on_and_another_one_is_fresh(labelled, make_checkpoint):
    names = {"weather": ["sport", "weather"], "other": ["yes", "no"]}
    for number, labels in enumerate(names.values()):
        model = make_checkpoint("XLMRobertaForSequenceClassification", labels=labels)
        out = labelled / f"out{number}"
        prepare(asked(labelled, model, output__path=str(out)))
        before, start = (
            transformers.AutoModelForSequenceClassification.from_pretrained(path).classifier.out_proj.weight
            for path in (model, out / "run/start")
        )
        assert torch.equal(before, start) == (number == 0)


def test_a_task_without_training_is_refused_by_name(tmp_path, make_checkpoint):
    from pipelines.finetune.start import Goal, write_start

    with pytest.raises(TaskError, match="task 'embedding' cannot be trained yet"):
        write_start(tmp_path / "start", str(make_checkpoint("XLMRobertaModel")), Goal("embedding"), seed=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train", "x.jsonl"], ["data.task is missing; give it as --task TASK", "--model MODEL", "--output"]),
        (["x.jsonl"], ["x.jsonl: these must look like section.field=value"]),
        (
            ["--task", "poetry", "--train", "x", "--model", "m", "--output", "o", "training.epochs=0"],
            ["data.task='poetry'", "training.epochs='0', it must be greater than 0"],
        ),
        (["data.epochs=3"], ["data.epochs is unknown"]),
    ],
)
def test_a_wrong_command_line_is_answered_with_all_that_is_wrong(arguments, words):
    result = CliRunner().invoke(app, ["finetune", *arguments])
    assert result.exit_code == 2
    for word in words:
        assert word in result.output
