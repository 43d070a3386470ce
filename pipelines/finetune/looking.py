"""How a run is measured on its validation data: which examples, when, and by whom."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pipelines.evaluate.scores import Scores, evaluation_plan
from pipelines.finetune.best import Aim, deciding, greater_is_better
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.examples import Example, open_examples
from pipelines.finetune.goal import Goal
from pipelines.finetune.labelled import read_settings
from pipelines.finetune.language_model import LanguageModel
from pipelines.finetune.learner import Learner
from pipelines.finetune.run import TrainingSettings, Validation, Workers
from pipelines.finetune.sharding import whole_learner
from pipelines.finetune.start import spec_of
from pipelines.finetune.steps import Stream, StreamSettings
from pipelines.finetune.training_set import TrainingSet
from pipelines.finetune.validation import LanguageLoss, chosen_examples, merged, validate, validation_loss
from xlmr_core.graph import GraphPlan

_VALIDATIONS = 10


def plan_validation(
    config: FinetuneConfig, goals: Mapping[str, Goal], settings: TrainingSettings, start: Path, data: Path
) -> Validation | None:
    """When and how a run is measured; None where there is nothing to measure it on.

    Args:
        config: What was asked for.
        goals: By name.
        settings: Of the run.
        start: The directory that it starts from.
        data: Folder with the validation texts of language models.
    """
    measured = {name: goals[name] for name, section in config.goals.items() if section.validation}
    if not measured:
        return None
    training = config.training
    metrics = {name: goal.metric for name, goal in measured.items()}
    greater = any(greater_is_better(metric) for metric in deciding(metrics).values())
    return Validation(
        every=training.validation_steps or max(settings.steps // _VALIDATIONS, 1),
        aim=Aim(greater, training.patience, training.min_delta),
        metrics=metrics,
        look=partial(_look, config, measured, start, data),
    )


def _look(
    config: FinetuneConfig, goals: Mapping[str, Goal], start: Path, data: Path, learner: Learner, workers: Workers
) -> Mapping[str, Scores | LanguageLoss]:
    """Measures each goal; every worker takes its share, and all know the whole."""
    # So none waits for another, however many texts each of them has.
    whole = whole_learner(learner)
    return {name: _measure(config, goal, start, data, whole, workers) for name, goal in goals.items()}


def _measure(
    config: FinetuneConfig, goal: Goal, start: Path, data: Path, learner: Learner, workers: Workers
) -> Scores | LanguageLoss:
    objective = learner.objectives[goal.name]
    if isinstance(objective, LanguageModel):
        cut = StreamSettings(max_tokens=config.training.max_tokens, seed=config.training.seed, shuffle=False)
        position = learner.encoder.config.first_position
        texts = TrainingSet.open(data / goal.name)
        stream = Stream(texts, cut, first_position=position, goal=goal.name, hide=objective.hiding)
        found = validation_loss(learner, stream, rank=workers.rank, workers=workers.count)
        if workers.reduce is not None:
            workers.reduce(found.sums)
        return found
    plan, examples = _asked(config, goal, start)
    # Retrieval needs all texts at once.
    alone = goal.task == "embedding"
    own = examples if alone else examples[workers.rank :: workers.count]
    scores = validate(learner.encoder, learner.heads[goal.name], plan, own, max_tokens=config.training.max_tokens)
    parts = workers.gather(scores)
    # What all decide by must be the same to the last bit.
    return parts[0] if alone else merged(parts)


def _asked(config: FinetuneConfig, goal: Goal, start: Path) -> tuple[GraphPlan, list[Example]]:
    section = config.goals[goal.name]
    source = open_examples(section.validation, read_settings(section, section.task))
    examples = chosen_examples(source, config.training.validation_records, seed=config.training.seed)
    return evaluation_plan(spec_of(start, goal), section.task, pairs=goal.pairs), examples
