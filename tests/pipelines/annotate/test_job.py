import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.exceptions import RayError
from rich.console import Console

from pipelines.annotate.job import Interrupted, JobError, _cause, annotate
from pipelines.annotate.prepare import UsageError
from pipelines.annotate.progress import Summary
from pipelines.annotate.verify import verify
from pipelines.config import AnnotateConfig
from xlmr_core.errors import InputError

WORDS = ["the", "quick", "Fuchs", "springt", "über", "den", "lazy", "dog", "η", "αλεπού", "прыгает", "через", "собаку"]


def sentence(number: int) -> str:
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 3 + number % 40))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three formats, a broken file and every kind of bad row."""
    folder = tmp_path_factory.mktemp("corpus")
    good = [json.dumps({"text": sentence(i), "url": f"u{i}"}) for i in range(40)]
    bad = ['{"text": null}', '{"text": 5}', "{not json", '{"text": "\\ud800"}', '{"text": ""}', '{"text": " \\n"}']
    (folder / "a.jsonl").write_text("\n".join([*good[:20], *bad, *good[20:]]))
    urls = [f"v{i}" for i in range(30)]
    pq.write_table(pa.table({"text": [sentence(i + 7) for i in range(30)], "url": urls}), folder / "b.parquet")
    (folder / "c.csv").write_text("text,url\n" + "\n".join(f'"{sentence(i)}",w{i}' for i in range(10)))
    (folder / "d.parquet").write_bytes(b"PAR1 half written")
    return folder


def rows_of(output: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in pq.read_table(output / "data").to_pylist()}


def assert_same_rows(left: Path, right: Path) -> None:
    one, two = rows_of(left), rows_of(right)
    assert one.keys() == two.keys()
    for key, row in one.items():
        for name, value in row.items():
            if isinstance(value, float) or name == "vector":
                assert two[key][name] == pytest.approx(value, abs=1e-5)
            elif name == "names_entities" and value is not None:
                spans = [[(e["label"], e["start"], e["end"]) for e in row[name]] for row in (row, two[key])]
                assert spans[0] == spans[1]
            else:
                assert two[key][name] == value
    codes = [pq.read_table(path / "quarantine").sort_by("id").to_pylist() for path in (left, right)]
    assert codes[0] == codes[1]


@pytest.fixture(scope="module")
def done(
    corpus: Path, tasks: list[str], tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> tuple[Path, Summary]:
    """The reference: the whole corpus in one go."""
    output = tmp_path_factory.mktemp("jobs") / "done"
    return output, annotate(job_of(corpus, output, tasks))


def job_of(corpus: Path, output: Path, tasks: list[str], **options: object) -> AnnotateConfig:
    from pipelines.config import load_config

    given = {"input.paths": [str(corpus)], "output.path": str(output), "model.tasks": tasks, "input.keep": "url"}
    return load_config(AnnotateConfig, options=given | options)


def test_every_record_comes_out_exactly_once(done: tuple[Path, Summary]):
    output, summary = done
    assert summary.rows == 86
    assert summary.statuses == {"ok": 80, "empty": 2}
    assert summary.codes == {"null": 1, "not_a_string": 1, "bad_json": 1, "lone_surrogate": 1}
    assert verify(output).problems == []


def test_a_broken_file_is_left_out_and_named(done: tuple[Path, Summary]):
    output, summary = done
    assert len(summary.unreadable) == 1
    assert "d.parquet" in summary.unreadable[0]
    assert "d.parquet" in (output / "manifest.json").read_text()
    screen = Console(file=io.StringIO(), force_terminal=True, width=300)
    screen.print(summary.table())
    (line,) = [line for line in screen.file.getvalue().splitlines() if "d.parquet" in line]
    assert "\x1b[1;31m" in line


def test_rows_keep_their_order_and_their_columns(done: tuple[Path, Summary]):
    output, _ = done
    parts = [pq.read_table(path) for path in sorted((output / "data").iterdir())]
    assert len({str(part.schema) for part in parts}) == 1
    names = parts[0].schema.names
    assert names[:5] == ["id", "status", "n_tokens", "n_tokens_used", "n_windows"]
    assert names[5:] == ["topic_label", "topic_score", "names_entities", "vector", "url"]
    numbers = [int(key.split(":")[1]) for key in parts[0].column("id").to_pylist()]
    assert numbers == sorted(numbers)
    assert parts[1].column("url").to_pylist() == [f"v{i}" for i in range(30)]
    assert parts[0].schema.metadata[b"xlmr.offsets"] == b'{"names": "codepoint"}'


def test_quarantine_says_where_and_why_but_not_what(done: tuple[Path, Summary]):
    rows = pq.read_table(done[0] / "quarantine").to_pylist()
    assert [(row["file"], row["row"], row["code"]) for row in rows] == [
        ("a.jsonl", 20, "null"),
        ("a.jsonl", 21, "not_a_string"),
        ("a.jsonl", 22, "bad_json"),
        ("a.jsonl", 23, "lone_surrogate"),
    ]


def test_long_texts_have_windows(done: tuple[Path, Summary]):
    rows = rows_of(done[0]).values()
    assert max(row["n_windows"] for row in rows) > 1
    assert all(row["n_tokens_used"] == row["n_tokens"] for row in rows)


def test_workers_and_shard_sizes_change_nothing(
    done: tuple[Path, Summary], corpus: Path, tasks: list[str], tmp_path: Path
):
    options = {"run.model_workers": 3, "run.tokenise_workers": 2, "run.shard_rows": 7}
    summary = annotate(job_of(corpus, tmp_path / "out", tasks, **options))
    assert summary.shards > 10
    assert_same_rows(done[0], tmp_path / "out")


def test_an_interrupted_job_goes_on_with_the_same_command(
    done: tuple[Path, Summary],
    corpus: Path,
    tasks: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    output = tmp_path / "out"

    def interrupt_after_the_first_commit() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(output.glob("run/commits/*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_after_the_first_commit, daemon=True).start()
    with pytest.raises(Interrupted, match="run the same command again") as caught:
        annotate(job_of(corpus, output, tasks, **{"run.shard_rows": 1}))
    assert caught.value.exit_code == 130
    committed = len(list(output.glob("run/commits/*")))
    assert 0 < committed < 86
    # Another shard size is no other job: the stored plan counts.
    summary = annotate(job_of(corpus, output, tasks, **{"run.shard_rows": 50}))
    assert "shard_rows=50 is ignored: this job was begun with 1" in caplog.text
    assert "left out: " in caplog.text
    assert not list(output.glob("run/tmp/*"))
    assert (summary.shards, summary.run_rows) == (86, 86 - committed)
    assert_same_rows(done[0], output)
    assert verify(output).passed


def test_a_finished_job_is_not_done_again(done: tuple[Path, Summary], corpus: Path, tasks: list[str]):
    output, summary = done
    before = sorted((path, path.stat().st_mtime_ns) for path in output.rglob("*"))
    again = annotate(job_of(corpus, output, tasks))
    assert (again.finished_before, again.rows, again.codes) == (True, summary.rows, summary.codes)
    assert sorted((path, path.stat().st_mtime_ns) for path in output.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [({"model.dtype": "bfloat16"}, "dtype"), ({"input.limit": 5}, "limit"), ({"model.on_long": "truncate"}, "on_long")],
)
def test_another_job_is_refused(
    done: tuple[Path, Summary], corpus: Path, tasks: list[str], options: dict[str, object], difference: str
):
    with pytest.raises(UsageError, match=difference):
        annotate(job_of(corpus, done[0], tasks, **options))


def test_the_first_bad_row_can_end_the_job(corpus: Path, tasks: list[str], tmp_path: Path):
    options = {"output.on_error": "fail"}
    with pytest.raises(JobError, match=r"d\.parquet"):
        annotate(job_of(corpus, tmp_path / "one", tasks, **options))
    with pytest.raises(JobError, match=r"a\.jsonl row 20 .*null"):
        annotate(job_of(corpus / "a.jsonl", tmp_path / "two", tasks, **options))


def test_no_rows_are_a_finished_job(tasks: list[str], tmp_path: Path):
    (tmp_path / "empty.txt").write_text("")
    summary = annotate(job_of(tmp_path / "empty.txt", tmp_path / "out", tasks, **{"input.keep": None}))
    assert (summary.rows, summary.shards) == (0, 0)
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_all_usage_problems_come_at_once(corpus: Path, tasks: list[str], tmp_path: Path):
    wrong = [tasks[0], "topic2=/nowhere", "vector=" + tasks[0].split("=")[1] + ",task=embedding"]
    options = {"model.tasks": wrong, "input.text_column": "body"}
    with pytest.raises(UsageError) as caught:
        annotate(job_of(corpus, tmp_path / "out", tasks, **options))
    text = str(caught.value)
    assert "/nowhere" in text
    assert "pooling" in text
    assert text.count("has no column 'body'") == 3
    assert not (tmp_path / "out").exists()


def test_kept_columns_must_not_clash_with_ours(corpus: Path, tasks: list[str], tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "status": "y"}\n')
    with pytest.raises(UsageError, match="kept column 'status'"):
        annotate(job_of(tmp_path / "a.jsonl", tmp_path / "out", tasks, **{"input.keep": "status"}))


def test_a_job_does_not_read_its_own_output(done: tuple[Path, Summary], tasks: list[str]):
    with pytest.raises(UsageError, match="lies in the output"):
        annotate(job_of(done[0] / "data", done[0], tasks, **{"input.text_column": "id", "input.keep": None}))


def test_no_input_that_can_be_read_is_wrong_usage(corpus: Path, tasks: list[str], tmp_path: Path):
    with pytest.raises(UsageError, match="no input can be read"):
        annotate(job_of(corpus / "d.parquet", tmp_path / "out", tasks))


@pytest.mark.usefixtures("local_ray")
def test_a_job_without_progress_is_given_up(corpus: Path, tasks: list[str], tmp_path: Path):
    options = {"run.stall_minutes": 0.001}
    with pytest.raises(
        JobError, match=r"no shard was finished and no batch computed for .* run the same command again"
    ):
        annotate(job_of(corpus / "c.csv", tmp_path / "out", tasks, **options))
    # On a Ray that goes on, its workers must be told, or they would go on too.
    deadline = time.monotonic() + 60
    while any(thread.name == "receipts" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not list((tmp_path / "out").glob("run/commits/*"))


def test_a_broken_pipeline_is_named_without_what_a_foreign_exception_says():
    assert _cause(InputError("ours", code="x")) == "workers could not be used: ours"
    assert "the actor died" in _cause(RayError("ray\nthe actor died"))
    assert "words" not in _cause(ValueError("words of a user"))
