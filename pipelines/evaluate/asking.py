"""How a model is asked in an evaluation, and what it answers to a portion of the examples.

It answers as it does in a job: long texts in windows, entities on whole words, a calibration of the directory applied.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.examples import Example
from xlmr_core.graph import Annotations, EncodedRecords, GraphPlan, ModelGraph, Outputs, Preprocessor, Request
from xlmr_core.metrics.answers import Rules
from xlmr_core.tasks.columns import to_list

NAME = "task"
# What is asked where a task of examples has another name, and how: entities that are words.
_ASKED = {"fill-mask": "pseudo-perplexity"}
_OPTIONS: Mapping[str, Mapping[str, object]] = {"token-classification": {"aggregation": "first"}}
# Tasks whose second texts are not read with the text: they are none, or are asked about on their own.
_ALONE = frozenset({"fill-mask", "embedding"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is evaluated.

    Attributes:
        name: What tables call it.
        model: A directory, `mini#head` or Hub id.
        options: Of its task, as typed.
    """

    name: str
    model: str
    options: Mapping[str, object]

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        r"""Reads `[NAME=]MODEL[,key=value...]`, as annotate reads a task; what exists under this very name is a path.

        Raises:
            TaskError: The text has another form.
        """
        if Path(text).exists():
            return cls(text, text, {})
        named = re.match(r"[A-Za-z][A-Za-z0-9_]{0,63}=", text)
        request = Request.parse(text if named else f"{NAME}={text}")
        return cls(request.name if named else request.model, request.model, request.options)


def evaluation_plan(
    model: str,
    task: str,
    *,
    pairs: bool,
    options: Mapping[str, object] | None = None,
    rules: Rules = "squad_v2",
) -> GraphPlan:
    """How a model is asked in an evaluation: one annotation, "task".

    Args:
        model: A checkpoint.
        task: Of the examples.
        pairs: Whether these have second texts.
        options: Of the task, as typed.
        rules: Of answers to questions; only under those of SQuAD 2.0 a model may say that there is none.

    Raises:
        XLMRError: The model cannot be asked that.
    """
    settled = {"task": _ASKED.get(task, task), **_OPTIONS.get(task, {})}
    if task == "question-answering":
        settled["impossible"] = rules == "squad_v2"
    request = Request(NAME, model, settled | dict(options or {}))
    return GraphPlan.resolve([request], pairs=pairs and task not in _ALONE)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said about some texts.

    Attributes:
        plan: How it was asked.
        encoded: The texts' tokens.
        outputs: What encoder and head gave.
        annotations: What that means.
    """

    plan: GraphPlan
    encoded: EncodedRecords
    outputs: Outputs
    annotations: Annotations

    def of(self, column: str, nothing: object) -> list[Any]:
        """Values of `task_COLUMN`, or of `task` for "", one a text; `nothing` for a text without an answer."""
        values = iter(to_list(self.annotations.columns[f"{NAME}_{column}" if column else NAME]))
        return [next(values) if there else nothing for there in self.annotations.annotated.tolist()]


def ask(
    graph: ModelGraph,
    preprocess: Preprocessor,
    texts: Sequence[str],
    pairs: Sequence[Sequence[str]] | None,
    languages: Sequence[str | None],
) -> Answers:
    """Asks about texts, each perhaps with second texts."""
    encoded = preprocess(texts, pairs, languages)
    outputs = graph.forward(encoded)
    return Answers(graph.plan, encoded, outputs, graph.decode(encoded, outputs))


def ask_portion(graph: ModelGraph, preprocess: Preprocessor, task: str, portion: Sequence[Example]) -> Answers:
    """Asks about examples; for vectors about their texts, and then about the first second text of each."""
    texts = [example.text for example in portion]
    languages = [example.language or None for example in portion]
    if task == "embedding":
        return ask(graph, preprocess, texts + [example.second[0] for example in portion], None, languages * 2)
    pairs = [example.second for example in portion] if portion[0].second and task not in _ALONE else None
    return ask(graph, preprocess, texts, pairs, languages)
