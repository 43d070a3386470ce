"""Every task in one corpus job: the same answers as at once, and what cannot be read goes to quarantine."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from pipelines.annotate.job import annotate
from pipelines.annotate.verify import verify
from pipelines.config import AnnotateConfig, load_config
from xlmr_core import pipeline

TEXTS = [
    "Anna reads a <mask> in the garden.",
    "Im Garten liest Anna ein <mask>, und die Katze schläft.",
    "安娜在花园里读一本 <mask> 。",
]


@pytest.fixture(scope="module")
def models(make_checkpoint: Callable[..., Path]) -> dict[str, Path]:
    nli = ["contradiction", "neutral", "entailment"]
    made = {
        "masked": make_checkpoint("XLMRobertaForMaskedLM", seed=1),
        "nli": make_checkpoint("XLMRobertaForSequenceClassification", labels=nli, seed=2),
        "reader": make_checkpoint("XLMRobertaForQuestionAnswering", seed=3),
        "chooser": make_checkpoint("XLMRobertaForMultipleChoice", seed=4),
        "ranker": make_checkpoint("XLMRobertaForSequenceClassification", labels=["relevant"], seed=5),
        "encoder": make_checkpoint("XLMRobertaModel", seed=6),
    }
    # As bge-m3 keeps its two heads.
    torch.save({"weight": torch.randn(1, 32), "bias": torch.randn(1)}, made["encoder"] / "sparse_linear.pt")
    torch.save({"weight": torch.randn(16, 32), "bias": torch.randn(16)}, made["encoder"] / "colbert_linear.pt")
    return made


def job(tmp_path: Path, rows: list[dict[str, object]], tasks: list[str], **options: object) -> AnnotateConfig:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = {"input.paths": [str(source)], "output.path": str(tmp_path / "out"), "model.tasks": tasks}
    return load_config(AnnotateConfig, options=given | {"input.id_column": "id"} | options)


@pytest.fixture(scope="module")
def done(
    models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> tuple[list[dict[str, object]], Path]:
    rows: list[dict[str, object]] = [
        {"id": number, "text": text, "ask": ["Who reads?"], "more": "Wer liest?"} for number, text in enumerate(TEXTS)
    ]
    rows += [
        {"id": 3, "text": "No gap in here.", "ask": ["a"], "more": "b"},
        {"id": 4, "text": "A <mask> here.", "ask": [], "more": None},
        {"id": 5, "text": "A <mask> here.", "ask": ["c", ""], "more": "d"},
        {"id": 6, "text": "A <mask> here.", "ask": [5], "more": "d"},
        {"id": 7, "text": "", "ask": ["a"], "more": "b"},
        {"id": 8, "text": "A <mask> here.", "ask": ["long " * 70], "more": "b"},
    ]
    tasks = [
        f"gap={models['masked']},top_k=2",
        f"fluent={models['masked']},task=pseudo-perplexity",
        f"about={models['nli']},task=zero-shot-classification,candidate_labels=sport|garden,scores=true",
        f"answer={models['reader']},several=true",
        f"choice={models['chooser']}",
        f"rank={models['ranker']},task=rerank",
        f"like={models['encoder']},task=similarity,pooling=mean",
        f"sparse={models['encoder']},task=sparse-embedding",
        f"tokens={models['encoder']},task=multi-vector-embedding",
    ]
    folder = tmp_path_factory.mktemp("every-task")
    annotate(job(folder, rows, tasks, **{"input.pair_column": "ask,more"}))
    return rows, folder / "out"


def rows_of(output: Path) -> dict[int, dict[str, object]]:
    return {row["id"]: row for row in pq.read_table(output / "data").to_pylist()}


def test_every_task_runs_in_one_job_and_the_output_is_sound(done: tuple[list[dict[str, object]], Path]):
    _, output = done
    assert verify(output).problems == []
    rows = rows_of(output)
    assert {key: row["status"] for key, row in rows.items()} == {0: "ok", 1: "ok", 2: "ok", 7: "empty"}
    assert all(value is None for name, value in rows[7].items() if name not in ("id", "status") and name[:2] != "n_")
    codes = {int(row["id"]): row["code"] for row in pq.read_table(output / "quarantine").to_pylist()}
    assert codes.keys() == {3, 4, 5, 6, 8}
    assert (codes[3], codes[4], codes[5], codes[6]) == ("no_mask", "null", "empty_pair", "not_a_string")
    assert codes[8] in ("question_too_long", "pair_too_long")


def test_answers_of_a_job_are_those_of_a_call(done: tuple[list[dict[str, object]], Path], models: dict[str, Path]):
    _, output = done
    rows = rows_of(output)
    fill = pipeline("fill-mask", models["masked"], top_k=2)
    sparse = pipeline("sparse-embedding", models["encoder"])
    about = pipeline("zero-shot-classification", models["nli"], candidate_labels=["sport", "garden"])
    read = pipeline("question-answering", models["reader"])
    rank = pipeline("text-ranking", models["ranker"])
    for number, text in enumerate(TEXTS):
        row, second = rows[number], ["Who reads?", "Wer liest?"]
        (mask,) = row["gap_masks"]
        assert text[mask["start"] : mask["end"]].strip() == "<mask>"
        assert [one["token"] for one in mask["predictions"]] == [one["token"] for one in fill(text)]
        assert row["about_label"] == about(text)["labels"][0]
        for question, answers in zip(second, row["answer_answers"], strict=True):
            expected = read(question=question, context=text)
            assert [(one["start"], one["end"]) for one in answers] == [(expected["start"], expected["end"])]
        assert row["rank_order"] == [one["corpus_id"] for one in rank(text, second)]
        assert [one["token"] for one in row["sparse"]] == [one["token"] for one in sparse(text)]
        assert len(row["choice_scores"]) == len(row["like_scores"]) == 2
        assert len(row["tokens"][0]) == 16
        assert row["fluent_perplexity"] > 1
