"""Slow proofs: drivers and workers are killed at random moments, and nothing is lost or done twice."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from pipelines.annotate.verify import verify

pytestmark = pytest.mark.slow

DRIVER_KILLS = 20
WORKER_KILLS = 10
ROWS = 4_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sample_texts: list[str]) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    lines = [json.dumps({"id": i, "text": sample_texts[i % len(sample_texts)]}) for i in range(ROWS)]
    path.write_text("\n".join([*lines, '{"id": -1, "text": null}']))
    return path


def start(corpus: Path, output: Path, tasks: list[str], *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines", "annotate", str(corpus), "--output", str(output)]
    command += [word for task in tasks for word in ("--task", task)]
    command += ["--id-column", "id", "--shard-rows", "20", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def finish(corpus: Path, output: Path, tasks: list[str]) -> None:
    job = start(corpus, output, tasks)
    _, errors = job.communicate(timeout=600)
    assert job.returncode == 0, errors.decode()


@pytest.fixture(scope="module")
def reference(corpus: Path, tasks: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, object]]:
    output = tmp_path_factory.mktemp("reference") / "out"
    finish(corpus, output, tasks[:1])
    return rows_of(output)


def rows_of(output: Path) -> dict[int, dict[str, object]]:
    rows = pq.read_table(output / "data").to_pylist()
    assert len(rows) == ROWS
    return {row["id"]: row for row in rows}


def assert_sound(output: Path, reference: dict[int, dict[str, object]]) -> None:
    assert verify(output).problems == []
    rows = rows_of(output)
    assert rows.keys() == reference.keys()
    for key, row in rows.items():
        assert row["topic_label"] == reference[key]["topic_label"]
        assert row["topic_score"] == pytest.approx(reference[key]["topic_score"], abs=1e-5)


def test_killed_drivers_lose_nothing(
    corpus: Path, tasks: list[str], tmp_path: Path, reference: dict[int, dict[str, object]]
):
    rng = random.Random(0)
    number, gained = 0, 0
    output = tmp_path / "out-0"
    for _ in range(DRIVER_KILLS):
        before = commits(output)
        job = start(corpus, output, tasks[:1])
        wait_a_while(job, output, rng)
        job.send_signal(signal.SIGKILL)
        job.communicate()
        gained += commits(output) > before
        if (output / "_SUCCESS").exists():
            assert_sound(output, reference)
            number += 1
            output = tmp_path / f"out-{number}"
    assert gained, "no driver lived long enough to commit anything"
    finish(corpus, output, tasks[:1])
    assert_sound(output, reference)


def commits(output: Path) -> int:
    return len(list(output.glob("run/commits/*")))


def wait_a_while(job: subprocess.Popen[bytes], output: Path, rng: random.Random) -> None:
    """Until some moment of the start, or, however slow the machine is, until some more shards are done."""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0.5, 20.0))
        return
    wanted = commits(output) + rng.randint(1, 60)
    while job.poll() is None and commits(output) < wanted:
        time.sleep(0.05)


def test_killed_workers_lose_nothing(
    corpus: Path, tasks: list[str], tmp_path: Path, reference: dict[int, dict[str, object]]
):
    rng = random.Random(1)
    output = tmp_path / "out"
    killed = 0
    job = start(corpus, output, tasks[:1], "--model-workers", "2")
    driver = psutil.Process(job.pid)
    while job.poll() is None:
        time.sleep(rng.uniform(0.2, 2.0))
        if killed < WORKER_KILLS and (workers := stage_workers(driver)):
            rng.choice(workers).kill()
            killed += 1
    _, errors = job.communicate()
    assert job.returncode == 0, errors.decode()
    assert killed > 0
    assert_sound(output, reference)


def stage_workers(driver: psutil.Process) -> list[psutil.Process]:
    try:
        children = driver.children(recursive=True)
        return [child for child in children if "MapWorker" in " ".join(child.cmdline())]
    except psutil.Error:
        return []
