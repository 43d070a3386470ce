"""How a run is measured on its validation data: which examples, when, and by whom."""

from collections.abc import Mapping
from pathlib import Path

from pipelines.evaluate.asking import evaluation_plan
from pipelines.evaluate.scores import Scores
from pipelines.examples import Example, open_examples
from pipelines.examples.asked import read_settings
from pipelines.finetune.best import Aim, deciding, greater_is_better
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.goal import Goal
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
# Retrieval compares every text with every other.
_MOST_PAIRS = 10_000


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
        look=_Look(config, measured, start, data),
    )


class _Look:
    """Measures each goal; every worker takes its share, and all know the whole.

    Args:
        config: What was asked for.
        goals: Those that are measured.
        start: The directory that the run starts from.
        data: Folder with the validation texts of language models.
    """

    def __init__(self, config: FinetuneConfig, goals: Mapping[str, Goal], start: Path, data: Path) -> None:
        self._config, self._goals, self._start, self._data = config, goals, start, data
        # Read once: a file that changes in the middle of a run must not change what is compared.
        self._asked: dict[str, tuple[GraphPlan, list[Example]]] = {}

    def __call__(self, learner: Learner, workers: Workers) -> Mapping[str, Scores | LanguageLoss]:
        """What was found of each goal."""
        # So none waits for another, however many texts each of them has.
        whole = whole_learner(learner)
        return {
            name: self._loss(whole, goal, objective, workers)
            if isinstance(objective := whole.objectives[name], LanguageModel)
            else self._scores(whole, goal, workers)
            for name, goal in self._goals.items()
        }

    def _loss(self, learner: Learner, goal: Goal, objective: LanguageModel, workers: Workers) -> LanguageLoss:
        training = self._config.training
        cut = StreamSettings(max_tokens=training.max_tokens, seed=training.seed, shuffle=False)
        position = learner.encoder.config.first_position
        texts = TrainingSet.open(self._data / goal.name)
        stream = Stream(texts, cut, first_position=position, goal=goal.name, hide=objective.hiding)
        found = validation_loss(learner, stream, rank=workers.rank, workers=workers.count)
        if workers.reduce is not None:
            workers.reduce(found.sums)
        return found

    def _scores(self, learner: Learner, goal: Goal, workers: Workers) -> Scores:
        if goal.name not in self._asked:
            self._asked[goal.name] = self._ask(goal)
        plan, examples = self._asked[goal.name]
        # Retrieval needs all texts at once.
        alone = goal.task == "embedding"
        own = examples if alone else examples[workers.rank :: workers.count]
        tokens = self._config.training.max_tokens
        scores = validate(learner.encoder, learner.heads[goal.name], plan, own, max_tokens=tokens)
        parts = workers.gather(scores)
        # What all decide by must be the same to the last bit.
        return parts[0] if alone else merged(parts)

    def _ask(self, goal: Goal) -> tuple[GraphPlan, list[Example]]:
        section, training = self._config.goals[goal.name], self._config.training
        source = open_examples(section.validation, read_settings(section, section.task))
        most = training.validation_records or (_MOST_PAIRS if goal.task == "embedding" else None)
        examples = chosen_examples(source, most, seed=training.seed)
        return evaluation_plan(spec_of(self._start, goal), section.task, pairs=goal.pairs), examples
