"""From what a config says of training to the numbered steps of a run and how each is taken."""

from pathlib import Path

import numpy as np

from pipelines.finetune import chance
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.label_weights import count_labels
from pipelines.finetune.language_model import LanguageModel
from pipelines.finetune.learner import Learner, Objective
from pipelines.finetune.run import TrainingSettings
from pipelines.finetune.sentence_vectors import SentenceVectors
from pipelines.finetune.steps import Steps, Stream, StreamSettings
from pipelines.finetune.supervised import Supervised
from pipelines.finetune.trainable import TrainableSettings
from pipelines.finetune.training_set import TrainingSet
from xlmr_core.lora import LowRank

_CHECKPOINTS, _LOG_LINES = 10, 50


def trainable_settings(config: FinetuneConfig) -> TrainableSettings:
    """What of the model is trained."""
    lora = config.lora
    branches = None
    if lora.rank is not None:
        branches = LowRank(lora.rank, lora.alpha, lora.dropout, lora.rank_stabilised, lora.targets, lora.layers)
    return TrainableSettings(config.training.freeze, branches, lora.save)


def plan_steps(config: FinetuneConfig, learner: Learner, data: Path) -> tuple[Steps, TrainingSettings]:
    """The steps of a run and how each is taken.

    Args:
        config: What was asked for.
        learner: What is trained.
        data: Folder with the training set of each goal.
    """
    training, sets = config.training, {name: TrainingSet.open(data / name) for name in config.goals}
    steps = Steps([_stream(config, name, sets[name], learner) for name in config.goals])
    count = training.steps or max(round(training.epochs * steps.per_epoch), 1)
    known = {name: _chance(learner.objectives[name], sets[name]) for name in config.goals}
    settings = TrainingSettings(
        steps=count,
        learning_rate=training.learning_rate,
        warmup_steps=round(training.warmup if training.warmup >= 1 else training.warmup * count),
        schedule=training.schedule,
        weight_decay=training.weight_decay,
        betas=(training.beta1, training.beta2),
        epsilon=training.epsilon,
        max_grad_norm=training.max_grad_norm,
        dtype=training.dtype,
        seed=training.seed,
        checkpoint_steps=config.run.checkpoint_steps or max(count // _CHECKPOINTS, 1),
        log_steps=config.run.log_steps or max(count // _LOG_LINES, 1),
        chance={name: loss for name, loss in known.items() if loss is not None},
    )
    return steps, settings


def _stream(config: FinetuneConfig, name: str, data: TrainingSet, learner: Learner) -> Stream:
    section, objective = config.goals[name], learner.objectives[name]
    settings = StreamSettings(
        records=section.batch_records or config.training.batch_records,
        tokens=section.batch_tokens,
        max_tokens=config.training.max_tokens,
        seed=config.training.seed,
        sampling=section.sampling,
        weight=section.weight,
    )
    return Stream(
        data,
        settings,
        first_position=learner.encoder.config.first_position,
        goal=name,
        hide=objective.hiding if isinstance(objective, LanguageModel) else None,
        together=isinstance(objective, SentenceVectors),
        count=objective.count if isinstance(objective, Supervised) else None,
    )


def _chance(objective: Objective, data: TrainingSet) -> float | None:
    """The loss of a model that has learnt nothing but how often each answer occurs; None where it is not known."""
    if isinstance(objective, SentenceVectors):
        return None
    if isinstance(objective, LanguageModel):
        special = objective.tokenizer.special
        ids = (special.bos, special.eos, special.pad, special.unk)
        return chance.chance_of_labels(chance.count_tokens(data.ids, objective.tokenizer.vocab_size, ids))
    weights = np.array(objective.weights, dtype=np.float32) if objective.weights else None
    match objective.annotation.kind, data.targets.dtype.kind:
        case "multiple-choice", _:
            return chance.chance_of_places(np.diff(data.records))
        case "question-answering", _:
            return chance.chance_of_places(data.lengths)
        case _, "i":
            counts = count_labels(data.targets, objective.outputs)
            return chance.chance_of_labels(counts, weights, smoothing=objective.smoothing)
        case _ if objective.is_regression:
            return chance.chance_of_numbers(data.targets)
    return chance.chance_of_several(count_labels(data.targets, objective.outputs), len(data.targets), weights)
