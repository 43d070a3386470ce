"""Slow proofs: runs are killed at random moments and go on, and end as if nothing had happened.

`make chaos SEED=1 N=30` kills more often than `make test-slow` does. Most kills are of workers without Ray, which start
at once: what decides over going on is the same. Ray's own processes are killed at the end.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from pipelines.config import load_config
from pipelines.finetune import job, training
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.prepare import clear_start, lay_down, settle
from pipelines.finetune.run import Workers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SEED = int(os.environ.get("CHAOS_SEED", "0"))
KILLS = int(os.environ.get("CHAOS_KILLS", "8"))
# Actions on the disk of a whole run, about; and seconds that it takes.
ACTIONS, SECONDS = 150, 4.0
# Another time each time.
TIMES = ("time", "seconds", "tokens_per_second")
STEPS, STOPS_AT, LONG = 24, 16, 400

TOPICS = {
    "weather": ("Regen fällt auf die Stadt", "Schnee liegt auf dem Feld", "Sonne scheint über dem Meer"),
    "sport": ("Tor für die Gäste heute", "Der Läufer gewinnt das Rennen", "Das Spiel endet ohne Sieger"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Labelled sentences in two languages, others to validate on, plain texts and pairs."""
    folder = tmp_path_factory.mktemp("chaos")
    rows = [
        {"text": f"{text} {number}", "label": name, "language": "de" if number % 3 else "en"}
        for number in range(9)
        for name, texts in TOPICS.items()
        for text in texts
    ]
    pairs = [{"text": row["text"], "positive": f"{row['label']} {n}"} for n, row in enumerate(rows)]
    for name, part in (("train", rows[:42]), ("dev", rows[42:]), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in part))
    (folder / "texts.txt").write_text("\n".join(row["text"] for row in rows))
    return folder


@pytest.fixture(scope="module")
def asked(folder, make_checkpoint) -> dict[str, dict[str, Any]]:
    """Runs with dropout and shuffling, as options of a config: the validated one ends early."""
    common = {
        "model.path": str(make_checkpoint("XLMRobertaModel")),
        "training.steps": STEPS,
        "training.learning_rate": 3e-3,
        "training.batch_records": 8,
        "training.max_tokens": 64,
        "training.validation_steps": 4,
        "run.checkpoint_steps": 3,
        "run.log_steps": 2,
        "run.cpus_per_worker": 0.4,
        "run.device": "cpu",
    }
    labelled = {"task": "sequence-classification", "train": [str(folder / "train.jsonl")]}
    validated = {**labelled, "validation": [str(folder / "dev.jsonl")]}
    words = {"task": "fill-mask", "train": [str(folder / "texts.txt")], "sampling": 0.3}
    vectors = {"task": "embedding", "train": [str(folder / "pairs.jsonl")]}
    return {
        "stops": {**common, "data": validated, "training.patience": 3, "training.min_delta": 1.0},
        "heads": {**common, "heads": {"topic": validated, "words": words, "vectors": vectors}},
        "branches": {**common, "data": labelled, "lora.rank": 4, "lora.dropout": 0.1, "lora.save": "adapter"},
    }


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    """Processes that have imported everything before they begin."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.finetune.job"])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield context


def work(options: dict[str, Any], rank: int, workers: int, meeting: str, deadly: int | str) -> None:
    """One worker of a run, and in number 0 what the driver does before and after."""
    torch.set_num_threads(1)
    die_at(deadly)
    config = load_config(FinetuneConfig, options=options)
    goals = [lay_down(settle(config)).goals if rank == 0 else None]
    together = Workers()
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
        dist.broadcast_object_list(goals)
        together = Workers(rank, workers, job._Summed(torch.device("cpu")), job._gather)
    output = Path(config.output.path)
    loop = {"config": config.model_dump(mode="json"), "output": str(output), "device": "cpu", "threads": 1}
    job.train_and_write({**loop, "goals": list(goals[0].values())}, together)
    if workers > 1:
        dist.barrier()
    if rank == 0:
        clear_start(output)


def die_at(deadly: int | str) -> None:
    """Kills this process before so many actions on the disk, or at a named moment; half a file may be written."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    number = count(1)

    def counted(name: str, action: Any) -> Any:
        def act(*arguments: Any, **named: Any) -> Any:
            if next(number) == deadly:
                if name == "save":
                    arguments[1].write(b"PK\3\4 torn")
                    arguments[1].flush()
                die()
            return action(*arguments, **named)

        return act

    match deadly:
        case int():
            for module, name in (
                *((os, name) for name in ("fsync", "rename", "replace")),
                *((torch, "save"), (shutil, "rmtree"), (shutil, "copyfile")),
            ):
                setattr(module, name, counted(name, getattr(module, name)))
        case "model":
            job.write_trained = die
        case "training":
            training._take = die


def run(processes: Any, options: dict[str, Any], *, workers: int = 1, deadly: int | str = 0, after: float = 0) -> bool:
    """Whether a run came to its end; one of the workers is killed at an action, or after so many seconds."""
    meeting = f"{options['output.path']}.{time.monotonic_ns()}"
    victim = random.randrange(workers) if deadly != "model" else 0
    started = [
        processes.Process(target=work, args=(options, rank, workers, meeting, deadly if rank == victim else 0))
        for rank in range(workers)
    ]
    for process in started:
        process.start()
    began = time.monotonic()
    while any(process.is_alive() for process in started):
        late = after and time.monotonic() - began > after
        if late or any(process.exitcode for process in started):
            for process in started:
                process.kill()
        time.sleep(0.01)
    codes = [process.exitcode for process in started]
    # Whoever is left alone may find that out by itself, as an error.
    assert not any(codes) or -signal.SIGKILL in codes, codes
    return not any(codes)


def files(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes() for path in (output / "model").rglob("*") if path.is_file()
    }


def lines(output: Path) -> list[dict[str, Any]]:
    found = (output / "run/checkpoints/metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in found]


def assert_same(output: Path, reference: SimpleNamespace) -> None:
    assert files(output) == reference.files
    assert lines(output) == reference.lines
    left = [path for path in [*output.iterdir(), *(output / "run/checkpoints").iterdir()] if path.name.startswith(".")]
    assert left == []


def uninterrupted(processes: Any, options: dict[str, Any], output: Path, *, workers: int = 1) -> SimpleNamespace:
    assert run(processes, {**options, "output.path": str(output)}, workers=workers)
    return SimpleNamespace(files=files(output), lines=lines(output))


@pytest.mark.parametrize(("name", "workers"), [("stops", 1), ("stops", 2), ("heads", 1), ("heads", 2), ("branches", 1)])
def test_killed_runs_end_as_one_that_was_not(name, workers, asked, processes, tmp_path):
    """At random moments and before random actions on the disk; every file of the model is the same to the last bit."""
    random.seed(f"{SEED} {name} {workers}")
    reference = uninterrupted(processes, asked[name], tmp_path / "reference", workers=workers)
    assert reference.lines[-1]["step"] == (STOPS_AT if name == "stops" else STEPS)
    killed, number, output = 0, 0, tmp_path / "out-0"
    while killed < max(KILLS // 5, 1):
        by_action = random.random() < 0.7
        options = {**asked[name], "output.path": str(output)}
        deadly, after = random.randint(1, ACTIONS), random.uniform(0.1, SECONDS)
        ended = run(processes, options, workers=workers, **({"deadly": deadly} if by_action else {"after": after}))
        killed += not ended
        if ended or (output / "model").exists():
            assert_same(output, reference)
            number += 1
            output = tmp_path / f"out-{number}"
    options = {**asked[name], "output.path": str(output)}
    assert run(processes, options, workers=workers)
    assert_same(output, reference)


def test_a_run_that_was_stopped_early_does_not_train_on(asked, processes, tmp_path):
    """It was killed when it wanted to write its model; the one after it would die if it took a step."""
    reference = uninterrupted(processes, asked["stops"], tmp_path / "reference")
    options = {**asked["stops"], "output.path": str(tmp_path / "out")}
    assert not run(processes, options, deadly="model")
    assert run(processes, options, deadly="training")
    assert_same(tmp_path / "out", reference)


def test_another_number_of_workers_goes_on_with_the_same_records(asked, processes, tmp_path):
    """The loss differs by no more than rounding; tokens of each language in each epoch are the very same."""
    # With Adam's usual epsilon, gradients that are nothing but rounding become steps of full size.
    options = {**asked["heads"], "training.epsilon": 1e-4, "training.learning_rate": 1e-4}
    reference = uninterrupted(processes, options, tmp_path / "reference")
    options |= {"output.path": str(tmp_path / "out")}
    assert not run(processes, options, deadly=ACTIONS // 2)
    assert run(processes, options, workers=2)
    found = lines(tmp_path / "out")
    assert [line["step"] for line in found] == [line["step"] for line in reference.lines]
    for ours, theirs in zip(map(numbers, found), map(numbers, reference.lines), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if name.endswith("tokens"):
                assert ours[name] == value
            # Of all heads; the small ones among them have its rounding.
            elif name == "loss":
                assert ours[name] == pytest.approx(value, rel=1e-6)


def numbers(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in values.items():
        flat |= numbers(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def test_commands_workers_and_interrupts_under_ray(asked, folder, processes, tmp_path):
    """A worker is killed, then the command, then it is interrupted; nothing stays behind, and the end is the same."""
    random.seed(f"{SEED} ray")
    # Long enough to be hit.
    options = {**asked["stops"], "training.patience": 99, "training.steps": LONG, "training.validation_steps": 60}
    options |= {"run.workers": 2, "run.checkpoint_steps": 10}
    reference = uninterrupted(processes, options, tmp_path / "reference", workers=2)
    output = tmp_path / "out"

    # A worker alone: the command starts them again by itself.
    command = start(folder, options, output)
    wait_for_step(command, output, random.randint(12, 40))
    random.choice(workers_of(command)).kill()
    before = step_of(output)
    # Another command on this output is refused meanwhile.
    other = start(folder, options, output)
    _, said = other.communicate(timeout=120)
    assert other.returncode == 1
    assert b"is in use by process" in said
    # The whole command.
    wait_for_step(command, output, before + 20)
    family = psutil.Process(command.pid).children(recursive=True)
    os.killpg(command.pid, signal.SIGKILL)
    command.communicate()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert [process.name() for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    # Ctrl-C, as a terminal sends it.
    command = start(folder, options, output)
    wait_for_step(command, output, step_of(output) + 20)
    os.killpg(command.pid, signal.SIGINT)
    began = time.monotonic()
    _, said = command.communicate(timeout=90)
    assert time.monotonic() - began < 30
    assert command.returncode == 130, said
    assert b"interrupted; run the same command again to go on from step" in said
    assert b"Traceback" not in said
    # To the end.
    command = start(folder, options, output)
    _, said = command.communicate(timeout=300)
    assert command.returncode == 0, said
    assert_same(output, reference)


def start(folder: Path, options: dict[str, Any], output: Path) -> "subprocess.Popen[bytes]":
    """The command, in the folder of the data: its files are named as one does there."""
    typed = {**options, **{f"data.{name}": value for name, value in options["data"].items()}}
    del typed["data"]
    code = "import sys; from pipelines.cli import app; app(sys.argv[1:])"
    settings = [f"{name}={word(value)}" for name, value in typed.items()]
    arguments = [sys.executable, "-c", code, "finetune", "--output", str(output), *settings]
    return subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def word(value: object) -> str:
    return Path(value[0]).name if isinstance(value, list) else str(value)


def workers_of(command: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    children = psutil.Process(command.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def step_of(output: Path) -> int:
    try:
        return int(json.loads((output / "run/checkpoints/metrics.jsonl").read_text().splitlines()[-1])["step"])
    except (FileNotFoundError, IndexError, ValueError):
        return 0


def wait_for_step(command: "subprocess.Popen[bytes]", output: Path, step: int) -> None:
    end = time.monotonic() + 240
    while step_of(output) < step:
        assert command.poll() is None, command.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
