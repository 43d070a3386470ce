"""Every benchmark runs at a tiny size; whether it is fast is not asked here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import annotate, classes, engine, heads, pretraining, questions, rows, run, runs, training, zero_shot
from benchmarks.checkpoints import LABELS, classifier, four_heads
from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row, ratios, take_turns
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.tokenization import Tokenizer

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SHORT = Lengths(mean=12.0, sigma=0.5, limit=40)


def quiet(text: str) -> None:
    pass


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def by_name(found: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in found}


def test_texts_have_the_lengths_that_were_asked_for():
    directory = classifier(SHAPE)
    lengths = Lengths(mean=30.0, sigma=1.0, limit=200)
    texts = cut_texts(directory, 400, lengths)
    counted = Tokenizer.load(directory).encode(texts).lengths + 2
    # Cut anywhere, a word may come out as other tokens; the mean must hold.
    assert counted.mean() == pytest.approx(lengths.draw(400).mean(), rel=0.1)
    assert texts == cut_texts(directory, 400, lengths)


def test_checkpoints_are_written_once_and_share_their_encoder():
    directory = classifier(SHAPE)
    assert classifier(SHAPE) == directory
    assert Checkpoint.open(str(directory)).config.id2label == LABELS
    together = four_heads(directory)
    assert Checkpoint.open(f"{together}#tags").encoder_sha256() == Checkpoint.open(str(directory)).encoder_sha256()


def test_every_engine_labels_alike():
    found = by_name(engine.run(engine.Size(SHAPE, texts=24, lengths=SHORT, rounds=2), quiet))
    agreement = [row for row in found.values() if "same labels" in row.name or "difference" in row.name]
    assert len(agreement) == 6
    assert all(row.met for row in agreement)
    assert found["distinct labels among the texts"].value > 1
    assert all(row.value > 0 for row in found.values() if row.unit in ("tokens/s", "x", "GFLOP/s", "%"))


def test_one_head_and_four_are_timed():
    found = heads.run(heads.Size(SHAPE, texts=16, lengths=SHORT, rounds=2), quiet)
    assert [row.unit for row in found] == ["s", "s", "x"]
    assert all(row.value > 0 for row in found)


def test_the_job_is_compared_with_the_engine():
    found = by_name(annotate.run(annotate.Size(SHAPE, seconds=0.01, lengths=SHORT, shard_rows=64), quiet))
    assert found["annotate / engine"].value > 0
    assert found["annotate / engine"].goal == 0.85


def test_short_rows_go_through_a_stub_and_the_driver_is_weighed():
    found = rows.run(rows.Size(500), quiet)
    assert [row.unit for row in found] == ["s", "rows/s", "MB"]
    assert found[2].value > 10


def test_turns_rotate_and_ratios_pair_rounds():
    order: list[str] = []
    seconds = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, quiet)
    assert order == ["a", "b", "b", "a"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


def test_goals_are_floors_or_ceilings():
    floor = Row.of("b", "n", [1.0, 3.0, 2.0], "x", goal=2.0)
    assert (floor.value, floor.low, floor.high, floor.met) == (2.0, 1.0, 3.0, True)
    assert replace(floor, goal=1.5, at_most=True).met is False
    assert replace(floor, goal=None).met is None


def test_tables_and_json_lines_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    row = Row("some", "speed", 1234.5, "tokens/s", goal=1000.0)
    monkeypatch.setattr(run, "BENCHMARKS", {"some": (lambda say: [], lambda say: [row])})
    file = tmp_path / "rows.jsonl"
    assert run.main(["some", "--quick", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "speed" in shown
    assert "yes" in shown
    [line] = [json.loads(line) for line in file.read_text().splitlines()]
    assert (line["value"], line["met"], line["quick"]) == (1234.5, True, True)
    assert {"date", "cpu", "cores", "threads", "python", "torch", "ray", "transformers"} <= line.keys()
    assert str(Path.home()) not in file.read_text()


def test_an_unknown_benchmark_is_refused_by_name(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        run.main(["speed"])
    assert stopped.value.code == 2
    assert "engine" in capsys.readouterr().err


def test_questions_are_answered_alike():
    found = by_name(questions.run(replace(questions.QUICK, shape=SHAPE, contexts=4), quiet))
    assert found["same answer (4 contexts)"].met
    assert found["transformers / ours"].value > 0


def test_zero_shot_scores_agree_with_the_pipeline():
    size = zero_shot.Size("tiny", SHAPE, texts=2, batches=(1, 20), rounds=1)
    found = zero_shot.run([size], quiet)
    assert [row.unit for row in found] == ["s", "s", "s", "x", "x", ""]
    assert found[-1].met
    assert [row.goal for row in found[3:5]] == [3.0, None]


def test_hidden_states_of_padded_batches_agree():
    *_, ratio, apart = classes.run(replace(classes.QUICK, shape=SHAPE, rounds=1), quiet)
    assert apart.met
    assert ratio.goal == 1.8


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch):
    """Saves the seconds that a process needs to import transformers."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(runs, "measure", runs.main)
    yield
    torch.set_num_threads(threads)


def test_a_contestant_runs_in_a_process_of_its_own():
    with runs.workload("fill-mask", classifier(SHAPE), batch=2, steps=1, lengths=SHORT) as work:
        figures = runs.measure("ours", work)
    assert figures.rate > 0
    assert figures.peak_bytes > 50e6


@pytest.mark.usefixtures("in_this_process")
def test_training_is_timed_and_weighed_beside_the_trainer():
    found = training.run([training.Size("tiny", SHAPE, steps=2, rounds=1, batch=4, lengths=SHORT)], quiet)
    assert [row.unit for row in found] == ["tokens/s"] * 3 + ["x"] * 2 + ["MB"] * 3
    assert [row.goal for row in found[3:5]] == [2.0, 1.3]
    assert all(row.value > 0 for row in found)


@pytest.mark.usefixtures("in_this_process")
def test_pretraining_is_timed_and_weighed_beside_the_trainer():
    size = pretraining.Size(SHAPE, steps=2, rounds=1, vocabulary=40_000, batch=4, lengths=SHORT)
    found = pretraining.run(size, quiet)
    assert [row.unit for row in found] == ["tokens/s"] * 2 + ["x"] + ["MB"] * 2 + ["x"]
    assert [row.goal for row in found[2:]] == [2.0, None, None, 0.5]
    assert all(row.value > 0 for row in found)
