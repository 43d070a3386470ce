"""All that happens before the first step: examples are checked to their end, cut, and laid down beside the start model.

OUT/run/request.json   what was asked for; another request on the same output is refused
OUT/run/start/         the base model with the head that is trained
OUT/run/data/          the training set
OUT/run/checkpoints/   checkpoints and metrics
OUT/model/             the trained model, last
"""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import ConfigError
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.examples import ExampleSummary, check_examples, open_examples
from pipelines.finetune.labelled import read_settings
from pipelines.finetune.start import Goal, open_start, write_start
from pipelines.finetune.steps import Steps, StepSettings
from pipelines.finetune.training import TrainingSettings
from pipelines.finetune.training_set import TrainingSet, make_training_set

logger = logging.getLogger(__name__)

REQUEST, START, DATA, CHECKPOINTS, MODEL = "run/request.json", "run/start", "run/data", "run/checkpoints", "model"
_CHECKPOINTS, _LOG_LINES = 10, 50


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that only needs to be computed.

    Attributes:
        output: Its directory.
        goal: What is learnt.
        pairs: Whether examples have second texts.
        summaries: What was read, by name: "training" and, if there is any, "validation".
        left_out: Examples that the model cannot read, by reason.
        steps: Optimiser steps of the whole run.
    """

    output: Path
    goal: Goal
    pairs: bool
    summaries: dict[str, ExampleSummary]
    left_out: dict[str, int]
    steps: int


def prepare(config: FinetuneConfig) -> Prepared:
    """Checks and lays down everything.

    Raises:
        ConfigError: The output holds another run, or something else.
        InputError: What is wrong with the examples; all of it.
        XLMRError: The model cannot be used for this.
    """
    output = Path(config.output.path)
    # How the work is spread may change from one start to the next.
    asked = json.loads(config.model_dump_json(exclude={"run", "output"}))
    _check_output(output, asked)
    settings = read_settings(config.data, config.data.task)
    sources = {"training": open_examples(config.data.train, settings)}
    if config.data.validation:
        sources["validation"] = open_examples(config.data.validation, settings)
    summaries = check_examples(sources)
    labels = summaries["training"].label_set
    if config.data.problem_type == "regression" and config.data.task == "sequence-classification":
        labels = ("score",)
    problem_type = config.data.problem_type if config.data.task == "sequence-classification" else None
    goal = Goal(config.data.task, labels, problem_type, config.model.max_length)
    first = next(iter(sources["training"]))
    pairs = bool(first.second)
    (output / REQUEST).parent.mkdir(parents=True, exist_ok=True)
    (output / REQUEST).write_text(json.dumps(asked, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if not (output / START).exists():
        write_start(output / START, config.model.path, goal, seed=config.training.seed)
    _, plan = open_start(output / START, pairs=pairs, on_long=config.model.on_long)
    left_out: dict[str, int] = {}
    data, refused = make_training_set(plan, sources["training"])
    for error in refused.values():
        left_out[error.code] = left_out.get(error.code, 0) + 1
    data.save(output / DATA)
    _, training = plan_steps(config, data, first_position=0)
    return Prepared(output, goal, pairs, summaries, left_out, training.steps)


def plan_steps(config: FinetuneConfig, data: TrainingSet, *, first_position: int) -> tuple[Steps, TrainingSettings]:
    """The steps of a run and how each is taken."""
    training = config.training
    cut = StepSettings(training.batch_records, training.max_tokens, training.seed)
    steps = Steps(data, cut, first_position=first_position)
    count = max(round(training.epochs * steps.per_epoch), 1)
    settings = TrainingSettings(
        steps=count,
        learning_rate=training.learning_rate,
        warmup_steps=round(training.warmup * count),
        schedule=training.schedule,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        dtype=training.dtype,
        seed=training.seed,
        checkpoint_steps=config.run.checkpoint_steps or max(count // _CHECKPOINTS, 1),
        log_steps=config.run.log_steps or max(count // _LOG_LINES, 1),
    )
    return steps, settings


def _check_output(output: Path, asked: dict[str, dict[str, object]]) -> None:
    """Raises ConfigError for an output that is not this run's to write to."""
    if (output / MODEL).exists():
        raise ConfigError(f"{output} holds a finished run; choose another output or delete it")
    if (output / REQUEST).is_file():
        before = json.loads((output / REQUEST).read_text(encoding="utf-8"))
        changed = [
            f"{section}.{name}"
            for section in asked
            for name in asked[section]
            if before.get(section, {}).get(name) != asked[section][name]
        ]
        if changed:
            rule = "choose another output, delete it, or ask for the same again"
            raise ConfigError(f"{output} holds a run with other settings ({', '.join(changed)}); {rule}")
    elif output.is_file() or (output.exists() and any(output.iterdir())):
        raise ConfigError(f"{output} is not empty and holds no run of ours; choose another output")


def clear_start(output: Path) -> None:
    """Removes what only the run itself needed; metrics and the request stay."""
    for name in (START, DATA):
        shutil.rmtree(output / name, ignore_errors=True)
