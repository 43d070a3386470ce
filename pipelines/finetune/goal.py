"""What a model shall be able to do, settled before anything is read."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from pipelines.finetune.best import settle_metric
from pipelines.finetune.config import DataSection, FinetuneConfig, VectorSection
from pipelines.finetune.sentence_vectors import embedding_settings
from pipelines.finetune.vector_loss import VectorLoss
from xlmr_core.checkpoint import Checkpoint, TaskKind, layout
from xlmr_core.config import ProblemType
from xlmr_core.errors import TaskError, XLMRError
from xlmr_core.tokenization import OnLong

logger = logging.getLogger(__name__)

# The name of what is learnt when it is one thing alone.
ALONE = "task"
LANGUAGE_MODELS = ("fill-mask", "causal-lm")
_LABELLED = ("sequence-classification", "token-classification")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a model shall be able to do.

    Attributes:
        task: One of those that can be trained.
        labels: Names of the head's outputs, in order; none for heads without labels.
        problem_type: What a sequence classification head predicts.
        name: The head's, `ALONE` for a model's only one.
        settings: What the directory says of it besides the task, such as `max_length`.
        pairs: Whether examples have second texts.
        on_long: What to do with texts longer than a window.
        stride: Tokens that neighbouring windows share; default: the task's.
        weights: What a target of each label counts in the loss; none for all alike.
        smoothing: Share of a label that is spread over all of them.
        mask_rate: Share of the tokens that a masked language model finds again.
        vector_loss: Of sentence vectors.
        teacher: Whose vectors are learnt.
        metric: What its validations are judged by.
    """

    task: TaskKind
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    name: str = ALONE
    settings: Mapping[str, Any] = field(default_factory=dict)
    pairs: bool = False
    on_long: OnLong = "window"
    stride: int | None = None
    weights: tuple[float, ...] = ()
    smoothing: float = 0.0
    mask_rate: float = 0.15
    vector_loss: VectorLoss | None = None
    teacher: str | None = None
    metric: str = "loss"


def goal_of(
    config: FinetuneConfig, name: str, labels: tuple[str, ...], base: Checkpoint | None, *, pairs: bool
) -> Goal:
    """Settles one of the goals of a config.

    Args:
        config: What was asked for.
        name: Of the goal.
        labels: Of its training data.
        base: What training starts from; None for chance.
        pairs: Whether its examples have second texts.

    Raises:
        TaskError: All that does not fit its task.
    """
    section, problem_type = config.goals[name], None
    if section.task == "sequence-classification":
        problem_type = section.problem_type
        labels = ("score",) if problem_type == "regression" else labels
    settings: dict[str, Any] = {}
    if (asked := config.model.max_length) is not None:
        limit = asked if base is None else base.max_length
        if asked > limit:
            logger.warning(
                "model.max_length=%d, %s takes %d tokens; windows have so many", asked, config.model.path, limit
            )
        settings["max_length"] = min(asked, limit)
    problems, loss, metric = _problems(section), None, "loss"
    if hasattr(nn.ModuleDict(), name):
        problems.append("a head cannot have this name, torch uses it; choose another")
    try:
        metric = settle_metric(section.metric, section.task, problem_type)
        if section.task == "embedding":
            loss = _vector_loss(section.vectors)
            settings |= _vector_settings(section.vectors, loss, name, base)
    except XLMRError as error:
        problems += str(error).splitlines()
    if problems:
        where = "data" if name == ALONE else f"heads.{name}"
        raise TaskError("\n".join(f"{where}: {problem}" for problem in problems))
    return Goal(
        task=section.task,
        labels=labels,
        problem_type=problem_type,
        name=name,
        settings=settings,
        pairs=pairs,
        on_long=config.model.on_long,
        stride=config.model.stride,
        smoothing=section.label_smoothing,
        mask_rate=section.mask_rate,
        vector_loss=loss,
        teacher=section.vectors.teacher,
        metric=metric,
    )


def _problems(section: DataSection) -> list[str]:
    """Settings that the task has no use for."""
    labelled = section.task in _LABELLED and section.problem_type != "regression"
    single = labelled and section.problem_type == "single_label_classification"
    asked = {
        f"class_weights, {section.task} has no labels to weigh": section.class_weights is not None and not labelled,
        "label_smoothing is for single labels and tags": section.label_smoothing > 0 and not single,
        "parallel is for fill-mask, which learns from translations": section.parallel and section.task != "fill-mask",
        "vectors is for embedding": section.vectors != VectorSection() and section.task != "embedding",
    }
    return [f"{problem}; leave it out" for problem, is_asked in asked.items() if is_asked]


def _vector_loss(section: VectorSection) -> VectorLoss:
    return VectorLoss(section.loss, section.scale, section.symmetric, section.dimensions, section.dimension_weights)


def _vector_settings(section: VectorSection, loss: VectorLoss, name: str, base: Checkpoint | None) -> Mapping[str, Any]:
    own = base
    if base is not None and name != ALONE:
        has_own = (base.directory / layout.HEADS / name).is_dir()
        own = Checkpoint.open(f"{base.resolved}#{name}") if has_own else None
    return embedding_settings(
        own,
        loss,
        pooling=None if section.pooling is None else (section.pooling,),
        normalize=section.normalize,
        query_prompt=section.query_prompt,
        prompt=section.prompt,
    )
