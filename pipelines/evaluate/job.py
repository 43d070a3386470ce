"""`xlmr evaluate`: checked examples, a model, and one table a language."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, get_args

from rich.table import Table

from pipelines.evaluate.scores import Scores, score
from pipelines.finetune.config import LabelledSection, Task
from pipelines.finetune.examples import ExampleSummary, check_examples, open_examples
from pipelines.finetune.labelled import read_settings
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import TaskError
from xlmr_core.metrics import over_languages

FILE = "evaluation.json"
# What the table shows, where a model has it; everything is in the file.
_SHOWN = ("accuracy", "macro_f1", "subset_accuracy", "micro_f1", "exact_match", "f1", "mse", "pearson")
_NO_LANGUAGE = "(none)"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is.

    Attributes:
        model: The checkpoint.
        task: What it was asked for.
        summary: What it was asked about.
        scores: What was counted.
    """

    model: str
    task: Task
    summary: ExampleSummary
    scores: Scores

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; a measure over nothing is null."""
        measures = self.scores.measures()
        spread = {name: asdict(of_name) for name, of_name in over_languages(measures).items()}
        return {
            "model": self.model,
            "task": self.task,
            "examples": self.summary.examples,
            "rejected": self.summary.rejected,
            "unread": self.scores.unread,
            "all": _finite(self.scores.together()),
            "languages": {language: _finite(of_language) for language, of_language in measures.items()},
            "over_languages": {name: _finite(of_name) for name, of_name in spread.items()},
        }

    def table(self) -> Table:
        """A line a language, their mean, and all records together."""
        measures, whole = self.scores.measures(), self.scores.together()
        shown = [name for name in _SHOWN if name in whole]
        table = Table("language", "records", *shown, title=f"{self.task} of {self.model}")
        for column in table.columns[1:]:
            column.justify = "right"
        for language, of_language in measures.items():
            count = self.summary.languages.get(language, 0)
            table.add_row(language or _NO_LANGUAGE, f"{count:,}", *_cells(of_language, shown))
        if len(measures) > 1:
            spread = over_languages(measures)
            table.add_section()
            cells = [f"{spread[name].mean:.3f} ± {spread[name].std:.3f}" if name in spread else "" for name in shown]
            table.add_row("mean of languages", "", *cells)
        table.add_row("all records", f"{self.summary.examples:,}", *_cells(whole, shown))
        return table


def evaluate(
    model: str, data: list[str], reading: LabelledSection, *, task: str | None = None, output: Path | None = None
) -> Evaluation:
    """Asks a model about labelled files.

    Args:
        model: A checkpoint, `mini#head` or Hub id.
        data: Files, folders and globs.
        reading: How they are read.
        task: What it is asked for; default: what the checkpoint was made for.
        output: Directory that gets `evaluation.json`.

    Raises:
        InputError: What is wrong with the files; all of it.
        XLMRError: The model cannot be asked that.
    """
    checkpoint = Checkpoint.open(model)
    asked = task or checkpoint.task
    if asked not in get_args(Task):
        said = f"task {asked!r}" if asked else f"{model} does not say what it is for"
        raise TaskError(f"{said}, these can be evaluated: {', '.join(get_args(Task))}; choose with --task")
    kind = cast(Task, asked)
    given = checkpoint.config.problem_type
    if kind == "sequence-classification" and given and "problem_type" not in reading.model_fields_set:
        reading = reading.model_copy(update={"problem_type": given})
    source = open_examples(data, read_settings(reading, kind))
    summary = check_examples({"data": source})["data"]
    done = Evaluation(model, kind, summary, score(model, kind, source))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(done.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (output / FILE).write_text(text, encoding="utf-8")
    return done


def _cells(measures: Mapping[str, float], shown: list[str]) -> list[str]:
    return [f"{measures[name]:.3f}" if name in measures else "" for name in shown]


def _finite(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
