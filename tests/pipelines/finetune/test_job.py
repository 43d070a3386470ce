"""`xlmr finetune` from labelled files to a model directory."""

import json
from pathlib import Path

import numpy as np
import peft
import pytest
import sentence_transformers
import torch
import transformers
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.config import ConfigError, load_config
from pipelines.evaluate.job import evaluate
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.goal import Goal
from pipelines.finetune.job import finetune
from pipelines.finetune.prepare import prepare
from pipelines.finetune.start import write_start
from pipelines.labelled import LabelledSection
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
    assert trained.prepared.goals["task"].labels == ("sport", "weather")
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


@pytest.mark.usefixtures("local_ray")
def test_the_best_weights_by_validation_are_kept_and_a_run_ends_when_nothing_gets_better(labelled, make_checkpoint):
    """What `xlmr evaluate` says of the model is the best that any validation said."""
    config = asked(
        labelled,
        make_checkpoint("XLMRobertaModel"),
        data__validation=[str(labelled / "dev.jsonl")],
        training__validation_steps=2,
        training__patience=3,
        training__epochs=40,
        run__workers=2,
        run__shard=True,
        run__cpus_per_worker=0.4,
    )
    trained = finetune(config)
    lines = [json.loads(line) for line in (labelled / "out/run/checkpoints/metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line.get("event") == "validation"]
    best = max(line["mean"]["macro_f1"] for line in found)
    evaluation = evaluate([str(trained.model)], [str(labelled / "dev.jsonl")], LabelledSection())
    assert evaluation.results[0].scores.together()["macro_f1"] == pytest.approx(best)
    first = next(place for place, line in enumerate(found) if line["mean"]["macro_f1"] == best)
    assert [line["best"] for line in found[first:]] == [True, False, False, False]
    assert lines[-1]["step"] == found[-1]["step"] < 200


@pytest.mark.usefixtures("local_ray")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_branches_alone_are_trained_and_written_as_an_adapter_that_peft_opens(labelled, make_checkpoint):
    model = make_checkpoint("XLMRobertaModel")
    settings = {"lora__rank": 4, "lora__targets": "all-linear", "lora__save": "adapter"}
    trained = finetune(asked(labelled, model, training__gradient_checkpointing=True, **settings))
    classify = pipeline("text-classification", str(trained.model))
    assert classify(WEATHER[0])[0]["label"] == "weather"
    theirs = peft.AutoPeftModelForSequenceClassification.from_pretrained(trained.model, num_labels=2)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(trained.model)
    with torch.no_grad():
        scores = theirs(**tokenizer(WEATHER[0], return_tensors="pt")).logits.softmax(-1)[0]
    assert classify(WEATHER[0])[0]["score"] == pytest.approx(scores.max().item(), abs=1e-5)


@pytest.mark.usefixtures("local_ray")
def test_sentence_vectors_are_learnt_and_sentence_transformers_opens_them(labelled, make_checkpoint):
    pairs = [{"text": WEATHER[n % 3], "positive": f"{name} {n}"} for n in range(8) for name in "ab"]
    (labelled / "pairs.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs), encoding="utf-8")
    options = {
        "data__task": "embedding",
        "data__train": [str(labelled / "pairs.jsonl")],
        "data__vectors": {"scale": 10},
    }
    trained = finetune(asked(labelled, make_checkpoint("XLMRobertaModel"), training__epochs=2, **options))
    ours = pipeline("sentence-similarity", str(trained.model))(WEATHER[0], [WEATHER[1], SPORT[0]])
    model = sentence_transformers.SentenceTransformer(str(trained.model), device="cpu")
    theirs = model.similarity(model.encode([WEATHER[0]]), model.encode([WEATHER[1], SPORT[0]]))[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


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
    validation = [str(labelled / "dev.jsonl")]
    (labelled / "train.jsonl").write_text('{"text": "gut", "label": "a"}\n{"text": "", "label": "b"}\n{"text": "x"}\n')
    (labelled / "dev.jsonl").write_text('{"text": "gut", "label": "z"}\n')
    with pytest.raises(InputError) as error:
        prepare(asked(labelled, make_checkpoint("XLMRobertaModel"), data__validation=validation))
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
    with pytest.raises(TaskError, match="task 'sparse-embedding' cannot be trained yet"):
        write_start(tmp_path / "start", str(make_checkpoint("XLMRobertaModel")), [Goal("sparse-embedding")], seed=0)


@pytest.mark.usefixtures("local_ray")
def test_several_heads_train_on_one_encoder(labelled, make_checkpoint):
    """A classifier, tags and hidden words in one run; each is opened by its name."""
    (labelled / "tags.bio").write_text("Anna B-PER\nschläft O\n\nBob B-PER\nliest O\nviel O\n\n" * 8)
    (labelled / "texts.txt").write_text("\n".join([*WEATHER, *SPORT]))
    (labelled / "config.yaml").write_text(
        f"""
data: {{language: de}}
heads:
  topic: {{task: sequence-classification, train: {labelled}/train.jsonl, weight: 2.0}}
  names: {{task: token-classification, train: {labelled}/tags.bio, batch_records: 4}}
  words: {{task: fill-mask, train: {labelled}/texts.txt, sampling: 0.3, batch_tokens: 40}}
model: {{path: {make_checkpoint("XLMRobertaModel")}}}
training: {{epochs: 8, learning_rate: 5.0e-3, batch_records: 8}}
output: {{path: {labelled}/out}}
"""
    )
    trained = finetune(load_config(FinetuneConfig, file=labelled / "config.yaml"))
    classify = pipeline("text-classification", f"{trained.model}#topic")
    assert classify(WEATHER[0])[0]["label"] == "weather"
    assert pipeline("token-classification", f"{trained.model}#names")("Anna schläft")[0]["entity"] == "B-PER"
    assert pipeline("fill-mask", f"{trained.model}#words")(f"{WEATHER[0]} <mask>", top_k=2)
    assert set(trained.prepared.summaries) == {"topic training", "names training", "words training"}
    assert trained.prepared.summaries["topic training"].languages == {"de": 40}


@pytest.mark.usefixtures("local_ray")
def test_a_language_model_starts_from_chance_and_transformers_opens_it(labelled, make_checkpoint):
    for name, texts in (("de", WEATHER), ("en", SPORT)):
        (labelled / f"{name}.txt").write_text("\n".join(texts * 4), encoding="utf-8")
    train = [str(labelled / f"{name}.txt") for name in ("de", "en")]
    base = make_checkpoint("XLMRobertaModel")
    (base / "model.safetensors").unlink()
    settings = {"data.task": "fill-mask", "data.train": train, "data.parallel": train, "data.sampling": 0.3}
    config = load_config(
        FinetuneConfig,
        options=settings
        | {"model.path": str(base), "model.fresh": True, "output.path": str(labelled / "lm"), "training.steps": 12},
    )
    trained = finetune(config)
    assert trained.prepared.summaries["parallel"].languages == {"de-en": 12}
    model = transformers.AutoModelForMaskedLM.from_pretrained(trained.model)
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    lines = (labelled / "lm/run/checkpoints/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 12


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


def test_a_run_does_not_go_on_with_other_data(labelled, make_checkpoint):
    model = make_checkpoint("XLMRobertaModel")
    prepare(asked(labelled, model))
    with (labelled / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"text": "neu", "label": "sport"}')
    with pytest.raises(ConfigError, match=r"other settings \(files\..*train\.jsonl"):
        prepare(asked(labelled, model))


def test_a_head_is_not_called_what_torch_calls_something_else(labelled, make_checkpoint):
    head = {"task": "sequence-classification", "train": [str(labelled / "train.jsonl")]}
    options = {"model.path": str(make_checkpoint("XLMRobertaModel")), "output.path": str(labelled / "out")}
    config = load_config(FinetuneConfig, options=options | {"heads.values": head})
    with pytest.raises(TaskError, match=r"heads\.values: a head cannot have this name"):
        prepare(config)
