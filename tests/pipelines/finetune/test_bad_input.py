"""What is wrong with a run is said before it begins: all of it at once, where it is, and without the texts of users."""

import json
import resource
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.config import load_config
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.job import TrainingError, train_and_write
from pipelines.finetune.prepare import prepare
from pipelines.finetune.run import Workers
from pipelines.finetune.training_set import TrainingSet
from xlmr_core.errors import CheckpointError

# A word that is in every text and must be in no message.
SECRET = "Geheimnis"
CLASSES = ["--task", "sequence-classification"]
TAGS = ["--task", "token-classification"]
QUESTIONS = ["--task", "question-answering"]
VECTORS = ["--task", "embedding"]


def rows(*records: object) -> str:
    return "\n".join(json.dumps(record) for record in records)


def labelled(*labels: object) -> str:
    return rows(*({"text": f"{SECRET} {number}", "label": label} for number, label in enumerate(labels)))


def question(number: int, answer: str) -> dict[str, object]:
    answers = {"text": [answer], "answer_start": [0]}
    return {"id": str(number), "question": "wo?", "context": f"Berlin {SECRET}", "answers": answers}


FILES = {
    "good.jsonl": labelled(*"abababab"),
    "other.jsonl": labelled("z", "a"),
    "types.jsonl": labelled(["a"], {"b": 1}, 0.5, None, "b"),
    "numbers.jsonl": labelled(0, 1),
    "one.jsonl": labelled("a", "a"),
    "empty.jsonl": "",
    "torn.jsonl": labelled("a") + '\n{"text": "' + SECRET + '", "la\n[1]',
    "columns.jsonl": rows({"satz": SECRET, "klasse": "a"}),
    "half.jsonl": '{"text": "\\ud800", "label": "a"}',
    "answers.jsonl": rows(*(question(number, "Paris" if number == 3 else "Berlin") for number in range(10))),
    "pairs.jsonl": rows({"text": SECRET, "positive": "b"}, {"text": "c", "positive": SECRET}),
    "lengths.jsonl": rows({"words": [SECRET, "b"], "tags": ["O"]}, {"words": ["a"], "tags": ["B-X"]}),
    "tags.bio": f"{SECRET} B-PER\nhier\n\nBob O\n",
    "blank.txt": "\n \n",
}

# Arguments; the exit code; what is said.
CASES = {
    "a label that training does not have": (
        [*CLASSES, "--train", "good.jsonl", "--validation", "other.jsonl"],
        1,
        ["validation: labels z 1, training has a 4, b 4; correct them"],
    ),
    "labels of wrong types": (
        [*CLASSES, "--train", "types.jsonl", "--validation", "torn.jsonl"],
        1,
        [
            "4 records cannot be used (missing_label 1, wrong_label_type 3)",
            *(f"types.jsonl:{line} wrong_label_type" for line in (1, 2, 3)),
            "types.jsonl:4 missing_label",
            "validation: 2 records cannot be used",
            "torn.jsonl:2 bad_json",
            "torn.jsonl:3 bad_json",
        ],
    ),
    "names here and numbers there": (
        [*CLASSES, "--train", "good.jsonl", "--train", "numbers.jsonl"],
        1,
        ["numbers.jsonl:1 wrong_label_type", "numbers.jsonl:2 wrong_label_type", "label_names="],
    ),
    "names where numbers are wanted": (
        [*CLASSES, "--train", "good.jsonl", "data.problem_type=regression"],
        1,
        ["8 records cannot be used (wrong_label_type 8)", "good.jsonl:1"],
    ),
    "one label": (
        [*CLASSES, "--train", "one.jsonl"],
        2,
        ["data: all training examples are labelled a, one label alone cannot be told"],
    ),
    "an empty file": ([*CLASSES, "--train", "empty.jsonl"], 1, ["empty.jsonl holds no record; leave it out"]),
    "an empty file among others": ([*CLASSES, "--train", "good.jsonl", "--train", "empty.jsonl"], 1, ["empty.jsonl"]),
    "blank lines": (["--task", "fill-mask", "--train", "blank.txt"], 1, ["training: holds no example"]),
    "no such file": ([*CLASSES, "--train", "nowhere.jsonl"], 1, ["nowhere.jsonl: no such file"]),
    "other columns": (
        [*CLASSES, "--train", "columns.jsonl"],
        1,
        ["no column found for text_column; its columns are: satz, klasse", "no column found for label_column"],
    ),
    "half a character": ([*CLASSES, "--train", "half.jsonl"], 1, ["half.jsonl:1 lone_surrogate"]),
    "a line without a tag": ([*TAGS, "--train", "tags.bio"], 1, ["tags.bio:2 bad_conll: a line has 1 columns"]),
    "fewer tags than words": ([*TAGS, "--train", "lengths.jsonl"], 1, ["lengths.jsonl:1 length_mismatch: 2 words"]),
    "records of another task": ([*TAGS, "--train", "good.jsonl"], 1, ["no column found for words_column"]),
    "an answer that is not in its context": (
        [*QUESTIONS, "--train", "answers.jsonl"],
        1,
        ["1 records cannot be used (answer_not_found 1)", "answers.jsonl:4", "on_error=quarantine"],
    ),
    "a model without a tokenizer": ([*CLASSES, "--train", "good.jsonl", "--model", "bare"], 2, ["no tokenizer files"]),
    "no such model": ([*CLASSES, "--train", "good.jsonl", "--model", "./nowhere"], 2, ["'./nowhere' is no directory"]),
    "an output below a file": ([*CLASSES, "--train", "good.jsonl", "--output", "good.jsonl/x"], 2, ["cannot be writ"]),
    "an output that is a file": ([*CLASSES, "--train", "good.jsonl", "--output", "good.jsonl"], 2, ["no run of ours"]),
    "what does not fit the model": (
        [
            *(*CLASSES, "--train", "good.jsonl"),
            *("training.freeze=9", "lora.save=adapter", "data.metric=bleu", "training.patience=2"),
        ],
        2,
        [
            "training.freeze=9, the model has 2 layers",
            "lora.save adapter, there are no low-rank branches",
            "metric=bleu, sequence-classification is measured by accuracy",
            "training.patience=2, nothing is measured without validation data",
        ],
    ),
    "branches on what is not there": (
        [*CLASSES, "--train", "good.jsonl", "lora.rank=2", "lora.targets=nothing"],
        2,
        ["lora.targets", "there are attention.self.query"],
    ),
    "weights of a task without labels": (
        [*QUESTIONS, "--train", "answers.jsonl", "data.on_error=quarantine", "data.class_weights=balanced"],
        2,
        ["class_weights, question-answering has no labels to weigh"],
    ),
    "a loss without its teacher": (
        [*VECTORS, "--train", "pairs.jsonl", "data.vectors.loss=teacher_mse"],
        2,
        ["loss=teacher_mse, it needs a teacher"],
    ),
    "a teacher that nobody listens to": (
        [*VECTORS, "--train", "pairs.jsonl", "data.vectors.teacher=mini#embedding"],
        2,
        ["a teacher was named, loss=info_nce has no use for it"],
    ),
}


@pytest.fixture
def folder(tmp_path, make_checkpoint, monkeypatch) -> Path:
    """Files that are wrong in one way each, a model, and the same without its tokenizer."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    model = make_checkpoint("XLMRobertaModel")
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "code", "words"), CASES.values(), ids=CASES)
@pytest.mark.usefixtures("folder")
def test_what_is_wrong_is_said_before_the_run(arguments, code, words):
    usual = {"--model": "model", "--output": "out"}
    more = [word for name, value in usual.items() if name not in arguments for word in (name, value)]
    result = CliRunner().invoke(app, ["finetune", *arguments, *more])
    assert result.exit_code == code, result.output
    for word in words:
        assert word in result.output
    assert SECRET not in result.output
    assert "Traceback" not in result.output
    # Asked for otherwise, the same output is taken.
    config = {"data.task": "sequence-classification", "data.train": ["good.jsonl"], "model.path": "model"}
    if "--output" not in arguments:
        prepare(load_config(FinetuneConfig, options=config | {"output.path": "out"}))


HEADS = """
heads:
  first: {task: sequence-classification, train: good.jsonl, metric: bleu, class_weights: {a: 2.0, q: -1.0}}
  second: {task: sequence-classification, train: one.jsonl, label_smoothing: 0.1, vectors: {scale: 3}}
"""


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        (
            HEADS,
            [
                "heads.first: metric=bleu",
                "heads.first: class_weights.q=-1.0, it must be a positive number",
                "heads.first: class_weights names q, labels are a, b",
                "heads.second: vectors is for embedding",
                "heads.second: all training examples are labelled a",
            ],
        ),
        (HEADS.replace("first", "a b").replace("second", "2nd"), ["a b, 2nd"]),
        (HEADS.replace("metric:", "metrik:"), ["metrik"]),
    ],
)
def test_problems_of_all_heads_are_said_at_once(folder, heads, words):
    (folder / "config.yaml").write_text(heads + "model: {path: model}\noutput: {path: out}\n")
    result = CliRunner().invoke(app, ["finetune", "--config", "config.yaml"])
    assert result.exit_code == 2
    for word in words:
        assert word in result.output


def prepared(**options: object):
    config = {"data.task": "sequence-classification", "data.train": ["good.jsonl"], "model.path": "model"}
    options = {name.replace("__", "."): value for name, value in options.items()}
    return prepare(load_config(FinetuneConfig, options=config | {"output.path": "out"} | options))


def test_odd_but_usable_examples_are_taken(folder):
    """Broken tag sequences and empty languages are counted; answers that are nowhere are left out if one wants so."""
    (folder / "broken.bio").write_text("Anna B-PER\nruht O\n\nBob B-LOC\nruht I-PER\n\n")
    tags = prepared(data__task="token-classification", data__train=["broken.bio"], output__path="tags")
    assert tags.summaries["training"].notices == {"broken_tags": 1}
    (folder / "none.jsonl").write_text(rows({"text": "a", "label": "a", "language": ""}, {"text": "b", "label": "b"}))
    assert prepared(data__train=["none.jsonl"], output__path="none").summaries["training"].languages == {"": 2}
    answers = {"data__task": "question-answering", "data__train": ["answers.jsonl"], "data__on_error": "quarantine"}
    summary = prepared(**answers, output__path="answers").summaries["training"]
    assert (summary.examples, summary.rejected) == (9, {"answer_not_found": 1})


def test_a_long_text_is_cut_into_windows_that_all_have_its_label(folder):
    (folder / "long.jsonl").write_text(rows(*({"text": "Regen fällt " * 200, "label": name} for name in "ab")))
    assert prepared(data__train=["long.jsonl"], training__batch_records=500).left_out == {}
    found = TrainingSet.open(folder / "out/run/data/training/task")
    assert len(found) == 2
    assert found.lengths.max() <= 64 < found.tokens.min()


def test_a_start_that_was_killed_before_it_had_a_request_is_begun_anew(folder):
    (folder / "out/run/start").mkdir(parents=True)
    (folder / "out/run/.request.json").write_text('{"half')
    (folder / "out/run/start/config.json").write_text("another")
    prepared()
    assert "another" not in (folder / "out/run/start/config.json").read_text()


def loop() -> dict[str, object]:
    """What a worker is told of a prepared run."""
    goals = list(prepared(training__steps=4).goals.values())
    config = {"data.task": "sequence-classification", "data.train": ["good.jsonl"], "model.path": "model"}
    asked = load_config(FinetuneConfig, options=config | {"output.path": "out", "training.steps": 4})
    return {"config": asked.model_dump(mode="json"), "output": "out", "device": "cpu", "threads": 1, "goals": goals}


def test_workers_that_see_other_checkpoints_do_not_train(folder):
    """As where the output is not on storage that they share."""
    with pytest.raises(CheckpointError, match="found checkpoints of steps 0, 20, all must go on from one"):
        train_and_write(loop(), Workers(gather=lambda own: [own, own + 20]))
    assert not (folder / "out/model").exists()


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(folder):
    """The limit has room for metrics, but not for a checkpoint, half of which does not stay."""
    told, (soft, hard) = loop(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(TrainingError, match=r"takes no more: File too large, .*make room and run the same command"):
            train_and_write(told, Workers())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((folder / "out/run/checkpoints").rglob("state.pt"))
    train_and_write(told, Workers())
    assert (folder / "out/model").is_dir()
