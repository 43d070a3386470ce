"""All that happens before the first step: examples are checked to their end, cut, and laid down beside the start model.

OUT/run/request.json   what was asked for; another request on the same output is refused
OUT/run/lease/         which driver is at work
OUT/run/start/         the base model with the heads that are trained
OUT/run/data/          the training set of each
OUT/run/checkpoints/   checkpoints and metrics
OUT/model/             the trained model, last
"""

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipelines.config import ConfigError
from pipelines.examples import Example, ExampleSource, ExampleSummary, check_examples, open_examples
from pipelines.examples.asked import read_settings
from pipelines.finetune.checkpoints import clear_checkpoints
from pipelines.finetune.config import DataSection, FinetuneConfig, LoraSection
from pipelines.finetune.goal import Goal, goal_of
from pipelines.finetune.label_weights import label_weights
from pipelines.finetune.language_model import LanguageModel
from pipelines.finetune.plan import trainable_settings
from pipelines.finetune.start import objective_of, write_start
from pipelines.finetune.trainable import trainable_problems
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import InputError, TaskError

logger = logging.getLogger(__name__)

REQUEST, START, CHECKPOINTS, MODEL = "run/request.json", "run/start", "run/checkpoints", "model"
LEASE = "run/lease"
DATA, VALIDATION = "run/data/training", "run/data/validation"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that only needs to be computed.

    Attributes:
        output: Its directory.
        goals: What is learnt, by name.
        summaries: What was read, such as "training" and "validation"; of several heads "NAME training" and so on.
        left_out: Examples that the model cannot read, by reason.
    """

    output: Path
    goals: dict[str, Goal]
    summaries: dict[str, ExampleSummary]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class Settled:
    """A run of which nothing is known to be wrong, and nothing written yet.

    Attributes:
        config: What was asked for.
        output: Its directory.
        goals: See `Prepared`.
        summaries: See `Prepared`.
        opened: The files of each goal.
    """

    config: FinetuneConfig
    output: Path
    goals: dict[str, Goal]
    summaries: dict[str, ExampleSummary]
    opened: "dict[str, _Opened]"


@dataclass(frozen=True, slots=True)
class _Opened:
    """The files of one goal."""

    section: DataSection
    training: tuple[ExampleSource, ...]
    validation: ExampleSource | None

    def examples(self) -> Iterator[Example]:
        return chain.from_iterable(self.training)


def prepare(config: FinetuneConfig) -> Prepared:
    """Checks and lays down everything; raises what `settle` and `lay_down` do."""
    return lay_down(settle(config))


def settle(config: FinetuneConfig) -> Settled:
    """Reads and checks everything, and writes nothing.

    Raises:
        ConfigError: The output holds another run, or something else.
        InputError: What is wrong with the examples; all of it.
        XLMRError: The model cannot be used for this.
    """
    output = Path(config.output.path)
    _check_output(output, _asked(config))
    base = None if config.model.fresh else Checkpoint.open(config.model.path)
    opened = {name: _open(section) for name, section in config.goals.items()}
    summaries = _check(opened)
    return Settled(config, output, _goals(config, opened, summaries, base), summaries, opened)


def lay_down(settled: Settled) -> Prepared:
    """Writes all that the workers need; what is there already is written anew, except for the start.

    Raises:
        ConfigError: Another driver has begun or finished something else in the output meanwhile.
        XLMRError: The model cannot be used for this.
    """
    config, output, goals, opened = settled.config, settled.output, dict(settled.goals), settled.opened
    asked = _asked(config) | {"files": _identities(opened)}
    _check_output(output, asked)
    _clear_drafts(output)
    if not (output / REQUEST).is_file():
        # Of a start that was killed or refused; what is asked for may be something else now.
        shutil.rmtree(output / START, ignore_errors=True)
    if not (output / START).exists():
        seed, fresh = config.training.seed, config.model.fresh
        write_start(output / START, config.model.path, list(goals.values()), seed=seed, fresh=fresh)
    left_out: Counter[str] = Counter()
    for name, files in opened.items():
        objective = objective_of(output / START, goals[name])
        data, refused = objective.training_set(files.examples())
        left_out.update(error.code for error in refused.values())
        data.save(output / DATA / name)
        if isinstance(objective, LanguageModel) and files.validation is not None:
            objective.training_set(files.validation)[0].save(output / VALIDATION / name)
        weights = files.section.class_weights
        if weights is not None:
            of_labels = label_weights(weights, goals[name].labels, data.targets)
            goals[name] = replace(goals[name], weights=tuple(of_labels.tolist()))
    # Last: what is refused above can be asked for otherwise.
    _write_request(output / REQUEST, asked)
    return Prepared(output, goals, settled.summaries, dict(left_out))


def _asked(config: FinetuneConfig) -> dict[str, Any]:
    """What another start must ask for too; how the work is spread may change from one to the next."""
    asked: dict[str, Any] = json.loads(config.model_dump_json(exclude={"run", "output"}))
    return asked


def _identities(opened: "dict[str, _Opened]") -> dict[str, Any]:
    """What the files are, by path: a run goes on with the very records that it has begun with."""
    sources = [source for files in opened.values() for source in (*files.training, files.validation) if source]
    return {
        one.path: [one.size, one.etag]
        for source in sources
        for file in source.files
        for one in (file.file, file.aligned)
        if one is not None
    }


def _write_request(path: Path, asked: dict[str, Any]) -> None:
    """Whole or not at all, so that a kill does not leave a run that nobody can go on with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    draft.write_text(json.dumps(asked, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(path)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _clear_drafts(output: Path) -> None:
    """Removes what a killed run was writing: directories that did not get their names."""
    for finished in (output / START, output / MODEL):
        for draft in finished.parent.glob(f".{finished.name}.*"):
            shutil.rmtree(draft, ignore_errors=True)


def _open(section: DataSection) -> _Opened:
    settings = read_settings(section, section.task)
    training = [open_examples(section.train, settings)]
    if section.parallel:
        training.append(open_examples(section.parallel, replace(settings, format="parallel")))
    return _Opened(
        section, tuple(training), open_examples(section.validation, settings) if section.validation else None
    )


def _check(opened: dict[str, _Opened]) -> dict[str, ExampleSummary]:
    """Reads all files to their ends.

    Raises:
        InputError: Everything that is wrong with any of them.
    """
    summaries: dict[str, ExampleSummary] = {}
    problems = []
    for name, files in opened.items():
        sources = dict(zip(("training", "parallel"), files.training, strict=False))
        if files.validation is not None:
            sources["validation"] = files.validation
        prefix = "" if len(opened) == 1 else f"{name} "
        try:
            found = check_examples(sources)
        except InputError as error:
            problems.append("\n".join(prefix + line for line in str(error).splitlines()))
            continue
        summaries |= {prefix + part: summary for part, summary in found.items()}
    if problems:
        raise InputError("\n".join(problems), code="bad_examples")
    return summaries


def _goals(
    config: FinetuneConfig, opened: dict[str, _Opened], summaries: dict[str, ExampleSummary], base: Checkpoint | None
) -> dict[str, Goal]:
    """What is learnt.

    Raises:
        TaskError: All that does not fit the model or the tasks.
    """
    problems = []
    if config.lora.rank is None and config.lora != LoraSection():
        problems.append("lora.rank is not given, the other settings of lora say nothing without it; give it, such as 8")
    if base is not None:
        tasks = [section.task for section in config.goals.values()]
        problems += trainable_problems(trainable_settings(config), base, tasks)
    elif config.lora.rank is not None or config.training.freeze is not None:
        problems.append("the encoder starts from chance, nothing of it can stay frozen; leave freeze and lora out")
    if config.training.patience is not None and not any(files.validation for files in opened.values()):
        rule = "nothing is measured without validation data; give some, or leave it out"
        problems.append(f"training.patience={config.training.patience}, {rule}")
    goals = {}
    for name, files in opened.items():
        labels = summaries["training" if len(opened) == 1 else f"{name} training"].label_set
        pairs = bool(next(iter(files.training[0])).second)
        try:
            goals[name] = goal_of(config, name, labels, base, pairs=pairs)
        except TaskError as error:
            problems.append(str(error))
        problems += _label_problems("data" if len(opened) == 1 else f"heads.{name}", files.section, labels)
    if problems:
        raise TaskError("\n".join(problems))
    return goals


def _label_problems(where: str, section: DataSection, labels: tuple[str, ...]) -> list[str]:
    """Why nothing can be learnt of labels as they are, or not with these weights."""
    problems = []
    chosen = section.task in ("sequence-classification", "token-classification")
    if chosen and section.problem_type == "single_label_classification" and len(labels) == 1:
        rule = "one label alone cannot be told from others; add examples of another"
        problems.append(f"{where}: all training examples are labelled {labels[0]}, {rule}")
    if isinstance(section.class_weights, dict) and labels:
        try:
            label_weights(section.class_weights, labels, np.zeros(0, dtype=np.int64))
        except TaskError as error:
            problems += [f"{where}: {line}" for line in str(error).splitlines()]
    return problems


def _check_output(output: Path, asked: dict[str, Any]) -> None:
    """Raises ConfigError for an output that is not this run's to write to, or nobody's."""
    there = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not output.is_file() and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ConfigError(f"{output} cannot be written, {there} does not allow it; choose another output")
    if (output / MODEL).exists():
        raise ConfigError(f"{output} holds a finished run; choose another output or delete it")
    if (output / REQUEST).is_file():
        before = json.loads((output / REQUEST).read_text(encoding="utf-8"))
        # Files are looked at later than settings.
        before = _as_asked_now({key: value for key, value in before.items() if key in asked})
        changed = list(_changes(before, asked))
        if changed:
            rule = "choose another output, delete it, or ask for the same again"
            raise ConfigError(f"{output} holds a run with other settings ({', '.join(changed)}); {rule}")
    elif output.is_file() or (output.exists() and any(_strange(output))):
        raise ConfigError(f"{output} is not empty and holds no run of ours; choose another output")


def _as_asked_now(before: dict[str, Any]) -> dict[str, Any]:
    """An older request with what settings are that it did not know yet."""
    settings = {key: value for key, value in before.items() if key != "files"}
    try:
        config = FinetuneConfig.model_validate({**settings, "output": {"path": "."}})
    except ValidationError:
        return before
    return before | _asked(config)


def _strange(output: Path) -> Iterator[Path]:
    """What lies in an output without a request, besides what a run leaves that was killed before it had one."""
    ours = {Path(name).name for name in (START, "run/data", LEASE)}
    for path in output.iterdir():
        if path.name != "run" or not path.is_dir():
            yield path
        else:
            yield from (inner for inner in path.iterdir() if inner.name not in ours and not inner.name.startswith("."))


def _changes(before: object, now: object, name: str = "") -> Iterator[str]:
    """Dotted names of settings that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            yield from _changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name


def clear_start(output: Path) -> None:
    """Removes what only the run itself needed; metrics and the request stay."""
    for name in (START, Path(DATA).parent):
        shutil.rmtree(output / name, ignore_errors=True)
    clear_checkpoints(output / CHECKPOINTS)
