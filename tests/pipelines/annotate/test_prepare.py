import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.annotate import prepare as prepare_module
from pipelines.annotate.plan import make_plan
from pipelines.annotate.prepare import UsageError, output_path, prepare
from pipelines.config import AnnotateConfig, load_config


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(50)))
    return tmp_path / "in"


def config_of(corpus: Path, output: Path | str, tasks: list[str], **options: object) -> AnnotateConfig:
    given = {"input.paths": [str(corpus)], "output.path": str(output), "model.tasks": tasks}
    return load_config(AnnotateConfig, options=given | options)


def test_workers_elsewhere_get_an_absolute_output(corpus: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(corpus.parent)
    assert output_path(config_of(corpus, "out", tasks)) == corpus.parent / "out"


def test_shards_grow_with_the_cores_of_a_machine(corpus: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch):
    config = config_of(corpus, "out", tasks)
    monkeypatch.setattr(prepare_module, "flops_per_token", lambda *_: 1e8)

    def rows(cores: int) -> int:
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        return prepare(config).plan.shard_rows

    assert rows(64) == pytest.approx(32 * rows(2), rel=0.01)


def test_a_seed_without_a_sample_is_no_other_job(corpus: Path, tasks: list[str]):
    def fingerprint(**options: object) -> dict[str, object]:
        return prepare(config_of(corpus, "out", tasks, **options)).fingerprint

    assert fingerprint(**{"input.seed": 5}) == fingerprint()
    sampled = {"input.sample": 0.5}
    assert fingerprint(**sampled) != fingerprint(**sampled, **{"input.seed": 5})


def test_an_option_is_one_difference_between_jobs(corpus: Path, tasks: list[str]):
    one, two = (
        prepare(config_of(corpus, "out", tasks, **{"input.limit": limit})).fingerprint["inputs"] for limit in (3, 4)
    )
    assert [key for key in one if one[key] != two[key]] == ["limit"]


def test_what_is_odd_about_a_checkpoint_is_said_before_the_job(
    corpus: Path, make_checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    task = f"topic={make_checkpoint('XLMRobertaForSequenceClassification', seed=9)}"
    with caplog.at_level(logging.WARNING):
        prepare(config_of(corpus, "out", [task]))
    assert f"task {task}: the 2 outputs have no real names" in caplog.text
    caplog.clear()
    prepare(config_of(corpus, "out", [f"{task},labels=no|yes"]))
    assert not caplog.text


def test_inputs_that_did_not_change_are_planned_once(corpus: Path, tasks: list[str], tmp_path: Path):
    config = config_of(corpus, tmp_path / "out", tasks, **{"run.shard_rows": 10})
    job = prepare(config)
    (tmp_path / "out/run").mkdir(parents=True)
    (tmp_path / "out/run/plan.json").write_text(job.plan.to_json())

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("inputs are read")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_module, "make_plan", fail)
        again = prepare(config)
        assert (again.plan, again.fingerprint) == (job.plan, job.fingerprint)
        other = prepare(config_of(corpus, tmp_path / "out", tasks, **{"input.limit": 5}))
        assert other.fingerprint != job.fingerprint
    (corpus / "b.jsonl").write_text('{"text": "new"}\n')
    assert prepare(config).plan.rows == 51


def test_wrong_usage_and_broken_files_are_named_together(tmp_path: Path, tasks: list[str]):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    (tmp_path / "b.parquet").write_bytes(b"PAR1 half written")
    with pytest.raises(UsageError) as error:
        prepare(config_of(tmp_path, tmp_path / "out", tasks))
    lines = str(error.value).splitlines()
    assert "a.jsonl" in lines[0]
    assert "'text'" in lines[0]
    assert any("b.parquet" in line for line in lines[1:])


def test_a_failing_file_system_is_no_wrong_usage(corpus: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch):
    def planned_late(files: list[object], *arguments: object, **options: object) -> object:
        (corpus / "a.jsonl").unlink(missing_ok=True)
        return make_plan(files, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_module, "make_plan", planned_late)
    with pytest.raises(OSError, match="No such file") as caught:
        prepare(config_of(corpus, "out", tasks))
    assert not isinstance(caught.value, UsageError)
