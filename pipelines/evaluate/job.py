"""`xlmr evaluate`: checked examples, asked of one model or several."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import torch

from pipelines.evaluate.asking import Candidate, evaluation_plan
from pipelines.evaluate.results import Evaluation, Result
from pipelines.evaluate.scores import Examination, Scores, portions
from pipelines.evaluate.vectors import MOST_PAIRS
from pipelines.examples import ExampleSource, ExampleSummary, check_examples, open_examples
from pipelines.examples.asked import read_settings
from pipelines.examples.example import Task
from pipelines.labelled import LabelledSection
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import ArgumentError, InputError, TaskError
from xlmr_core.graph import GraphPlan, ModelGraph
from xlmr_core.graph.model import Dtype
from xlmr_core.metrics.answers import Rules, normalize_mlqa
from xlmr_core.tasks.classify import Classify
from xlmr_core.tasks.entities import TagScheme
from xlmr_core.tasks.tag import Tag

JSON_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"
TASKS = tuple(task for task in get_args(Task) if task != "causal-lm")
_LABELS_SHOWN, _LOG_SECONDS = 5, 10.0

logger = logging.getLogger(__name__)


def evaluate(
    models: Sequence[str],
    data: Sequence[str],
    reading: LabelledSection,
    *,
    task: str | None = None,
    rules: Rules = "squad_v2",
    device: str = "auto",
    dtype: Dtype = "float32",
    output: Path | None = None,
) -> Evaluation:
    """Asks models about labelled files, which are read once for all of them.

    Args:
        models: `[NAME=]MODEL[,KEY=VALUE...]`, MODEL a directory, `mini#head` or Hub id.
        data: Files, folders and globs.
        reading: How they are read.
        task: What is asked; default: what the models were made for.
        rules: By which answers to questions are compared.
        device: Where the models run; "auto" for CUDA where there is some.
        dtype: Of their matrix products.
        output: Directory that gets `evaluation.json` and `evaluation.html`.

    Raises:
        InputError: What is wrong with the files; all of it.
        XLMRError: A model cannot be asked that.
    """
    candidates = _candidates(models)
    checkpoints = [Checkpoint.open(candidate.model) for candidate in candidates]
    kind = _task(candidates, checkpoints, task)
    given = checkpoints[0].config.problem_type
    if kind == "sequence-classification" and given and "problem_type" not in reading.model_fields_set:
        reading = reading.model_copy(update={"problem_type": given})
    source = open_examples(data, read_settings(reading, kind))
    summary = check_examples({"data": source})["data"]
    _check_languages(summary, kind, rules)
    pairs = bool(next(iter(source)).second)
    plans = [
        evaluation_plan(candidate.model, kind, pairs=pairs, options=candidate.options, rules=rules)
        for candidate in candidates
    ]
    unknown = [_unknown_labels(plan, summary) for plan in plans]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    graphs = [ModelGraph(plan, device=device, dtype=dtype) for plan in plans]
    scores = _score(graphs, kind, rules, source, summary.examples)
    results = [
        Result(candidate.name, candidate.model, found, foreign)
        for candidate, found, foreign in zip(candidates, scores, unknown, strict=True)
    ]
    done = Evaluation(kind, summary, tuple(results))
    if output is not None:
        from pipelines.evaluate.page import render

        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(done.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (output / JSON_FILE).write_text(text, encoding="utf-8", errors="replace")
        (output / PAGE_FILE).write_text(render(done), encoding="utf-8", errors="replace")
    return done


def _candidates(models: Sequence[str]) -> list[Candidate]:
    """What was typed, under names that differ."""
    candidates = [Candidate.parse(text) for text in models]
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TaskError(f"models {', '.join(twice)} were given twice, names must differ; write --model NAME=MODEL")
    return candidates


def _task(candidates: Sequence[Candidate], checkpoints: Sequence[Checkpoint], task: str | None) -> Task:
    """What all models are asked for."""
    asked = {
        candidate.model: task or checkpoint.task for candidate, checkpoint in zip(candidates, checkpoints, strict=True)
    }
    for model, kind in asked.items():
        if kind not in TASKS:
            said = f"task {kind!r}" if kind else f"{model} does not say what it is for"
            raise TaskError(f"{said}, these can be evaluated: {', '.join(TASKS)}; choose with --task")
    if len(set(asked.values())) > 1:
        said = ", ".join(f"{model} {kind}" for model, kind in asked.items())
        raise TaskError(f"the models are for different tasks ({said}), they must answer the same; choose with --task")
    return cast(Task, next(iter(asked.values())))


def _check_languages(summary: ExampleSummary, task: Task, rules: Rules) -> None:
    """Raises for what the counts of languages tell before anything is computed."""
    if task == "question-answering" and rules == "mlqa":
        for language in summary.languages:
            try:
                normalize_mlqa("", language)
            except ArgumentError as error:
                raise TaskError(f"answers=mlqa: {error}") from None
    large = [language for language, count in summary.languages.items() if count > MOST_PAIRS]
    if task == "embedding" and large:
        rule = f"retrieval compares each with all of at most {MOST_PAIRS:,}; take fewer"
        raise InputError(f"{', '.join(large)}: more pairs, {rule}", code="too_many_pairs")


def _unknown_labels(plan: GraphPlan, summary: ExampleSummary) -> dict[str, int]:
    """Labels of the data that a model does not have, and how often they occur.

    Raises:
        TaskError: It has none of them.
    """
    task = plan.annotations[0].task
    if not isinstance(task, Classify | Tag) or not summary.labels:
        return {}
    known, named = set(task.labels), {label: label for label in summary.labels}
    if isinstance(task, Tag):
        # One scheme of tags stands for another.
        known |= set(task.scheme.names) | {"O"}
        named |= {
            label: TagScheme.of_labels((label,), ()).names[0] for label in summary.labels if label not in task.labels
        }
    unknown = {label: count for label, count in summary.labels.items() if named[label] not in known}
    if not summary.labels.keys() - unknown.keys() - {"O"} and unknown:
        theirs, ours = (", ".join(list(labels)[:_LABELS_SHOWN]) for labels in (unknown, task.labels))
        rule = "choose other data, or name the outputs as the data does: --model MODEL,labels=a|b|..."
        raise TaskError(f"the data has labels {theirs}, {plan.annotations[0].model} has {ours}, none is shared; {rule}")
    return unknown


def _score(graphs: Sequence[ModelGraph], task: Task, rules: Rules, source: ExampleSource, count: int) -> list[Scores]:
    """Asks all models about each portion of the examples."""
    examinations = [Examination(graph, task, rules=rules) for graph in graphs]
    done, said = 0, time.monotonic()
    for portion in portions(source):
        for examination in examinations:
            examination.add(portion)
        done += len(portion)
        if time.monotonic() - said > _LOG_SECONDS:
            said = time.monotonic()
            logger.info("evaluated examples=%d of=%d", done, count)
    return [examination.finish() for examination in examinations]
