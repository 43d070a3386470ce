"""The README's commands run, its file map is complete, its Makefile targets exist."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pipelines.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    joined = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line.split("#  ")[0].split(" # ")[0].strip() for line in joined.splitlines() if line.strip()]


def is_slow(command: str) -> bool:
    return "bench" in command or "train" in command or "recipe" in command


IN_PROCESS = {"run", "doctor", "plan"}
XLMR = [command for command in commands() if command.startswith("xlmr ")]
MAKE = [command.split()[1] for command in commands() if command.startswith("make ")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A folder that looks like the checkout to a command, with small checkpoints as `models/`; keeps what it writes."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "pipelines").symlink_to(ROOT / "pipelines")
    models = {
        "nli": ("ForSequenceClassification", ["contradiction", "neutral", "entailment"]),
        "ner": ("ForTokenClassification", ["O", "B-PER", "I-PER"]),
        "mlm": ("ForMaskedLM", None),
        "qa": ("ForQuestionAnswering", None),
        "choice": ("ForMultipleChoice", None),
        "reranker": ("ForSequenceClassification", ["relevant"]),
        "bge-m3": ("Model", None),
    }
    (folder / "models").mkdir()
    for name, (architecture, labels) in models.items():
        (folder / "models" / name).symlink_to(make_checkpoint(f"XLMRoberta{architecture}", labels=labels, seed=9))
    for name, outputs in (("sparse", 1), ("colbert", 16)):
        weights = {"weight": torch.randn(outputs, 32), "bias": torch.randn(outputs)}
        torch.save(weights, folder / "models/bge-m3" / f"{name}_linear.pt")
    return folder


def test_the_readme_shows_commands_of_known_kinds_only():
    assert XLMR
    assert MAKE
    assert all(command.split()[0] in {"xlmr", "make"} for command in commands())


@pytest.mark.parametrize("target", MAKE)
def test_make_targets_of_the_readme_exist(target: str):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("command", [command for command in XLMR if not is_slow(command)])
def test_commands_of_the_readme_run(command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch):
    _, *arguments = shlex.split(command)
    if arguments[0] in IN_PROCESS:
        # A process of its own for each would spend its time on imports.
        monkeypatch.chdir(workplace)
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout
        return
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_of_the_readme_run(block: str, workplace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(workplace)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in XLMR if is_slow(command) and "bench" not in command])
def test_training_commands_of_the_readme_run(command: str, workplace: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    _, *arguments = shlex.split(command)
    subprocess.run([sys.executable, "-m", "pipelines", *arguments], cwd=workplace, env=environment, check=True)


def test_the_file_map_names_every_folder_and_module_of_the_packages():
    section = README.split("## File map", 1)[1].split("\n## ", 1)[0]
    for package in ("xlmr_core", "pipelines"):
        for path in sorted((ROOT / package).iterdir()):
            if path.name.startswith(("_", ".")) or not (path.is_dir() or path.suffix == ".py"):
                continue
            name = path.stem if path.suffix == ".py" else path.name
            assert re.search(rf"\b{re.escape(name)}\b", section), f"the file map lacks {package}/{path.name}"
