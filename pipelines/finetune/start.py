"""Where training begins and what it ends as: a model directory, complete from the first moment.

Fresh heads are written beside the base model's encoder before anything is trained. So texts are read, cut and labelled
by the plan of an ordinary checkpoint, and what a run is about can be looked at with `xlmr doctor`.

A model for one task has its head beside the encoder, as transformers has it; one for several has them in `heads/NAME`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from pipelines.finetune.goal import ALONE, LANGUAGE_MODELS, Goal
from pipelines.finetune.language_model import Hiding, LanguageModel
from pipelines.finetune.learner import Learner, Objective
from pipelines.finetune.sentence_vectors import SentenceVectors
from pipelines.finetune.supervised import Supervised
from xlmr_core.checkpoint import Checkpoint, TrainedHead, layout, write_model_directory
from xlmr_core.checkpoint.location import locate
from xlmr_core.checkpoint.purpose import HEAD_OF_TASK
from xlmr_core.checkpoint.task_heads import LABELLED, new_head, tie
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder, initialise
from xlmr_core.errors import CheckpointError, TaskError
from xlmr_core.graph import GraphPlan, Request
from xlmr_core.graph.opened import OpenModels
from xlmr_core.heads import Head
from xlmr_core.tokenization import Tokenizer

# Outputs of heads that have no labels.
_OUTPUTS = {"question-answering": 2, "multiple-choice": 1}


def write_start(directory: Path, base: str, goals: Sequence[Goal], *, seed: int, fresh: bool = False) -> None:
    """Writes the base model with the heads that are to be trained: its own where it has such ones, else fresh ones.

    Args:
        directory: Must not exist yet or be empty.
        base: The model to start from.
        goals: What it shall be able to do.
        seed: Of fresh weights.
        fresh: Whether the encoder too starts from chance; then only config and tokenizer are read.

    Raises:
        CheckpointError: The base model cannot be used, or the directory cannot be written.
        TaskError: A task cannot be trained.
    """
    if fresh:
        encoder, tokenizer = _fresh_encoder(base, seed)
        heads = {goal.name: _fresh_head(goal, encoder, seed) for goal in goals}
    else:
        checkpoint = Checkpoint.open(base)
        encoder, tokenizer = checkpoint.load_encoder(), checkpoint.tokenizer_directory
        heads = {goal.name: _head(base, checkpoint, encoder, goal, seed) for goal in goals}
    _write(directory, encoder, heads, goals, tokenizer)


def write_trained(
    directory: Path, learner: Learner, goals: Sequence[Goal], tokenizer: Path, *, base: str | None = None
) -> None:
    """Writes what was trained as a model directory that `annotate`, `serve` and `transformers` open.

    Args:
        directory: Where to.
        learner: On the CPU.
        goals: Of its heads.
        tokenizer: A directory with the tokenizer's files.
        base: Write an adapter of this model, see `adapter_base`.
    """
    heads = {goal.name: cast(Head, learner.heads[goal.name]) for goal in goals}
    _write(directory, learner.encoder, heads, goals, tokenizer, base=base)


def open_start(directory: Path, goals: Sequence[Goal]) -> Learner:
    """Opens what `write_start` wrote, ready to be trained."""
    opened = OpenModels()
    encoder = opened.checkpoint(str(directory)).load_encoder()
    heads: dict[str, nn.Module] = {}
    objectives: dict[str, Objective] = {}
    for goal in goals:
        checkpoint, kind = opened.checkpoint(spec_of(directory, goal)), HEAD_OF_TASK[goal.task]
        heads[goal.name] = checkpoint.load_head(kind, encoder) if kind else checkpoint.load_embedding_modules()
        objectives[goal.name] = objective_of(directory, goal, opened)
    return Learner(encoder, heads, objectives)


def objective_of(directory: Path, goal: Goal, opened: OpenModels | None = None) -> Objective:
    """How a goal of a start directory is learnt."""
    opened, spec = opened or OpenModels(), spec_of(directory, goal)
    if goal.vector_loss is not None:
        return SentenceVectors.of(spec, goal.vector_loss, pairs=goal.pairs, teacher=goal.teacher, opened=opened)
    if goal.task in LANGUAGE_MODELS:
        checkpoint = opened.checkpoint(spec)
        tokenizer = opened.tokenizer(checkpoint)
        hiding = Hiding.of(tokenizer, goal.mask_rate) if goal.task == "fill-mask" else None
        return LanguageModel(tokenizer, checkpoint.max_length, hiding)
    options = {} if goal.stride is None else {"stride": goal.stride}
    request = Request(goal.name, spec, options)
    plan = GraphPlan.resolve([request], on_long=goal.on_long, pairs=goal.pairs, opened=opened)
    return Supervised(plan, goal.weights, goal.smoothing)


def spec_of(directory: Path, goal: Goal) -> str:
    """The head of a goal in a directory, as `Checkpoint.open` takes it."""
    return str(directory) if goal.name == ALONE else f"{directory}#{goal.name}"


def _write(
    directory: Path,
    encoder: Encoder,
    heads: Mapping[str, Head | None],
    goals: Sequence[Goal],
    tokenizer: Path,
    *,
    base: str | None = None,
) -> None:
    trained = {
        goal.name: TrainedHead(
            # Sentence vectors are pooling alone.
            None if goal.task == "embedding" else heads[goal.name],
            goal.labels,
            goal.problem_type,
            goal.settings,
            goal.task,
        )
        for goal in goals
    }
    alone = trained.pop(ALONE, None)
    write_model_directory(directory, encoder, tokenizer=tokenizer, head=alone, heads=trained, base=base)


def _fresh_encoder(base: str, seed: int) -> tuple[Encoder, Path]:
    """An encoder of a directory's shape, and where its tokenizer is."""
    directory = locate(base, weights=False).directory
    config = EncoderConfig.from_file(directory / layout.CONFIG)
    size = Tokenizer.load(directory).vocab_size
    if size > config.vocab_size:
        rule = f"its config has a vocab_size of {config.vocab_size}; correct one of them"
        raise CheckpointError(f"the tokenizer of {base} knows {size} tokens, {rule}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(config)
        initialise(encoder, config.initializer_range)
    return encoder, directory


def _head(base: str, checkpoint: Checkpoint, encoder: Encoder, goal: Goal, seed: int) -> Head | None:
    """The base model's head of this name and kind if it has these labels, else a fresh one."""
    kind = HEAD_OF_TASK[goal.task]
    own = checkpoint
    if goal.name != ALONE:
        if not (checkpoint.directory / layout.HEADS / goal.name).is_dir():
            return _fresh_head(goal, encoder, seed)
        own = Checkpoint.open(f"{base}#{goal.name}")
    if kind is None or (kind in LABELLED and own.config.id2label != goal.labels) or own.heads.missing(kind):
        return _fresh_head(goal, encoder, seed)
    return own.load_head(kind, encoder)


def _fresh_head(goal: Goal, encoder: Encoder, seed: int) -> Head | None:
    kind, config = HEAD_OF_TASK[goal.task], encoder.config
    if goal.task == "embedding":
        return None
    if kind in LABELLED:
        count = len(goal.labels)
    elif kind == "masked-lm":
        count = config.vocab_size
    elif kind in _OUTPUTS:
        count = _OUTPUTS[kind]
    else:
        known = ", ".join((*LABELLED, *_OUTPUTS, *LANGUAGE_MODELS, "embedding"))
        raise TaskError(f"task {goal.task!r} cannot be trained yet, these can: {known}")
    assert kind is not None
    head = new_head(kind, config, count)
    # Chance of its own, so that what ran before does not matter.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(head, config.initializer_range)
    # As in the models of the family: what reads a token also names it.
    tie(head, encoder)
    return head
