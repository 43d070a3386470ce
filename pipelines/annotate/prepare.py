"""From a config to a job: which models, which rows, how large a shard, and what makes the job itself."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipelines.annotate.columns import Columns
from pipelines.annotate.inputs import InputFile, expand_inputs, first_inside
from pipelines.annotate.plan import Plan, make_plan
from pipelines.annotate.read import read_shard
from pipelines.annotate.schema import clashes
from pipelines.config import AnnotateConfig
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.encoder import flops_per_token
from xlmr_core.errors import InputError, XLMRError
from xlmr_core.graph import GraphPlan, Request

# What a CPU core, or a GPU, computes in a second, assumed; only the size of shards depends on it.
_CORE_FLOPS = {"float32": 200e9, "bfloat16": 400e9}
_GPU_FLOPS = 300e12
_SHARD_SECONDS = 2.0
_SHARD_ROWS = (64, 65_536)
_BYTES_PER_TOKEN = 4
_PROBED_FILES, _PROBED_ROWS = 3, 256

logger = logging.getLogger(__name__)

T = TypeVar("T")


class UsageError(XLMRError):
    """A job that cannot be as it was asked for: all its problems, one a line."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A job, settled but not begun.

    Attributes:
        config: As asked.
        graph: What to compute.
        plan: The rows, in shards.
        tokens_per_row: Estimated from the first rows of a few files; None for a plan of an earlier run.
        fingerprint: JSON values of everything that decides the results.
    """

    config: AnnotateConfig
    graph: GraphPlan
    plan: Plan
    tokens_per_row: float | None
    fingerprint: dict[str, Any]

    @property
    def fingerprint_sha256(self) -> str:
        """Hash of the fingerprint."""
        return hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()


def prepare(config: AnnotateConfig) -> Job:
    """Resolves the graph and plans the inputs.

    Raises:
        UsageError: All problems of models, options and inputs at once.
        OSError: The system, not a file, failed while inputs were planned.
    """
    problems: list[str] = []
    requests = [_collect(problems, partial(Request.parse, text)) for text in config.model.tasks]
    pairs = bool(config.input.pair_column)
    graph = None
    if not problems:
        named = [request for request in requests if request is not None]
        graph = _collect(problems, lambda: GraphPlan.resolve(named, on_long=config.model.on_long, pairs=pairs))
    if graph is not None:
        problems += [
            f"kept column {name!r} has the name of an output column; rename it in the input, or the task"
            for name in clashes(graph, config.input.keep)
        ]
        if pairs and not any(view.side == "second" for view in graph.views):
            problems.append("a pair column was given, no task reads pairs; leave it out")
        if config.input.language_column and not any(a.task.reading.language for a in graph.annotations):
            problems.append("a language column was given, no task has thresholds by language; leave it out or keep it")
    planned = _collect(problems, lambda: plan_inputs(config, graph))
    if planned is not None:
        problems += _plan_problems(planned[0])
    if problems or graph is None or planned is None:
        raise UsageError("\n".join(problems))
    _warn(graph, config)
    plan, tokens_per_row = planned
    return Job(config, graph, plan, tokens_per_row, _fingerprint(config, graph, plan))


def _warn(graph: GraphPlan, config: AnnotateConfig) -> None:
    """Says what is odd about the checkpoints, before the job starts."""
    for annotation in graph.annotations:
        if annotation.task.reading.language and config.input.language_column is None:
            says = "has thresholds by language, those for all languages are used; name a --language-column for its own"
            logger.warning("task %s=%s: %s", annotation.name, annotation.model, says)
        named = annotation.kind == "embedding" or getattr(annotation.task.options, "labels", None)
        for warning in Checkpoint.open(annotation.model).report.warnings:
            if not (named and "labels=" in warning):
                logger.warning("task %s=%s: %s", annotation.name, annotation.model, warning)


def plan_inputs(config: AnnotateConfig, graph: GraphPlan | None) -> tuple[Plan, float | None]:
    """Finds the files and cuts them into shards; also estimates the tokens of a row.

    Files that an earlier run of the job planned, and that did not change, are not read again.

    Raises:
        InputError: Inputs that give nothing, and options out of range.
    """
    section = config.input
    files = expand_inputs(section.paths, format=section.format)
    inside = first_inside(files, output_path(config))
    if inside is not None:
        raise InputError(f"{inside} lies in the output, a job must not read what it writes", code="bad_input")
    stored = _stored_plan(output_path(config), files)
    if stored is not None:
        return stored, None
    columns = Columns(
        section.text_column, section.pair_column, section.id_column, section.keep, section.language_column
    )
    tokens = tokens_per_row(files, columns)
    shard_rows = config.run.shard_rows
    if shard_rows is None:
        shard_rows = _SHARD_ROWS[1] if graph is None else choose_shard_rows(graph, tokens, config)
    plan = make_plan(
        files,
        columns,
        shard_rows=shard_rows,
        limit=section.limit,
        sample=section.sample,
        seed=section.seed,
    )
    return plan, tokens


def _stored_plan(output: Path, files: list[InputFile]) -> Plan | None:
    """The plan in the output, when it is of exactly these files as they are now and left none of them out."""
    try:
        plan = Plan.from_json((output / "run" / "plan.json").read_bytes())
    except (OSError, InputError):
        return None
    planned = [replace(file, rows=None) for file in plan.files]
    return plan if planned == files and not plan.unreadable else None


def tokens_per_row(files: list[InputFile], columns: Columns) -> float:
    """Tokens of a row, from the bytes of the first rows of the first, middle and last file."""
    rows = size = 0
    for file in {file.path: file for file in (files[0], files[len(files) // 2], files[-1])}.values():
        try:
            probe = make_plan([file], columns, shard_rows=_PROBED_ROWS, limit=_PROBED_ROWS)
            for shard in probe.shards:
                records = read_shard(shard, probe.columns)
                texts = [*records.texts, *chain.from_iterable(pairs or () for pairs in records.pairs or ())]
                rows += len(records)
                size += sum(len(text.encode()) for text in texts if text is not None)
        except InputError:
            # The plan proper finds and reports it.
            continue
    return size / rows / _BYTES_PER_TOKEN + 2 if rows else 2.0


def choose_shard_rows(graph: GraphPlan, tokens: float, config: AnnotateConfig) -> int:
    """Rows that keep one model worker busy for some seconds, so that what a shard costs in itself is little.

    A model worker without GPU has a machine to itself. Planning comes before the cluster is known, so its machines are
    taken to have as many cores as this one.
    """
    flops = 0.0
    for encoder in {a.encoder_sha256: a for a in graph.annotations}.values():
        length = min(tokens, encoder.max_length)
        flops += tokens * flops_per_token(Checkpoint.open(encoder.model).config, length)
    on_gpu = config.model.device == "cuda" or (config.model.device == "auto" and torch.cuda.is_available())
    speed = _GPU_FLOPS if on_gpu else _CORE_FLOPS[config.model.dtype] * (os.cpu_count() or 1)
    least, most = _SHARD_ROWS
    # An encoder without layers costs nothing by this formula.
    return int(min(max(_SHARD_SECONDS * speed / max(flops, 1.0), least), most))


def _collect(problems: list[str], action: Callable[[], T]) -> T | None:
    try:
        return action()
    except XLMRError as error:
        problems += str(error).splitlines()
        return None


def _plan_problems(plan: Plan) -> list[str]:
    """What forbids the plan altogether; files that are merely broken do not, while any other is left."""
    # Where something forbids it anyway, what is merely broken is said along with it.
    everything = [entry.message for entry in sorted(plan.unreadable, key=lambda entry: not entry.usage)]
    if not plan.files:
        return [*everything, "no input can be read"]
    return everything if any(entry.usage for entry in plan.unreadable) else []


def _fingerprint(config: AnnotateConfig, graph: GraphPlan, plan: Plan) -> dict[str, Any]:
    """Results follow from this alone; numbers of workers, devices and shard sizes are not part of it."""
    model = graph.fingerprint()
    annotations = {entry["name"]: entry for entry in model.pop("annotations")}
    section = config.input.model_dump(mode="json", exclude={"paths"})
    # Without one, jobs are those that they were before there was such a column.
    if config.input.language_column is None:
        del section["language_column"]
    # Of all records, a seed chooses nothing.
    section["seed"] = section["seed"] if section["sample"] < 1.0 else None
    return {
        "model": model | {"annotations": annotations, "order": list(annotations), "dtype": config.model.dtype},
        "inputs": {"sha256": plan.inputs_digest(), "files": len(plan.files) + len(plan.unreadable), **section},
    }


def output_path(config: AnnotateConfig) -> Path:
    """The output directory; absolute, since workers have working directories of their own."""
    return Path(config.output.path).absolute()
