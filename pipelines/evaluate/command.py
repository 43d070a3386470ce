"""`xlmr evaluate` as it is typed."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.config import ConfigError, Section, is_override, load_config
from pipelines.labelled import Debug, Device, LabelColumn, LabelledSection, Language, OnError, TextColumn
from pipelines.outcome import run_command


class ScoringSection(Section):
    """How models are asked and their answers compared.

    Attributes:
        answers: Rules for answers to questions: SQuAD 2.0, where a question may have no answer; SQuAD 1.1; MLQA, with
            the articles and words of each language.
        device: "cpu", "cuda", or "auto" for CUDA where there is some.
        dtype: Of the matrix products.
    """

    answers: Literal["squad_v2", "squad", "mlqa"] = "squad_v2"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"


class EvaluateConfig(Section):
    """Settings of `xlmr evaluate` besides its options."""

    data: LabelledSection = LabelledSection()
    scoring: ScoringSection = ScoringSection()


def evaluate(
    model: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]MODEL[,KEY=VALUE...]",
            help="A directory, a Hub id or mini#HEAD; give it again to compare models.",
        ),
    ],
    data: Annotated[list[str], typer.Option(help="Labelled files, folders or globs; give it again for more.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SECTION.FIELD=VALUE]...",
            help="How files are read (data.), as for finetune; how answers are compared (scoring.).",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What is asked. Default: what the model is for.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Directory for evaluation.json, with all measures, and evaluation.html.", show_default=False),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    language: Language = None,
    on_error: OnError = None,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float32 (default) or bfloat16.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Say how good models are on labelled data, language by language."""

    def work() -> None:
        words = settings or []
        strange = [word for word in words if not is_override(EvaluateConfig, word)]
        if strange:
            raise ConfigError(f"{', '.join(strange)}: these must look like section.field=value; files go to --data")
        options: dict[str, object] = {
            "data.text_column": text_column,
            "data.label_column": label_column,
            "data.language": language,
            "data.on_error": on_error,
            "scoring.device": device,
            "scoring.dtype": dtype,
        }
        asked = load_config(EvaluateConfig, options=options, overrides=words)
        from pipelines.evaluate.job import evaluate as run
        from pipelines.evaluate.tables import notes, tables

        scoring = asked.scoring
        done = run(
            model,
            data,
            asked.data,
            task=task,
            rules=scoring.answers,
            device=scoring.device,
            dtype=scoring.dtype,
            output=output,
        )
        if as_json:
            typer.echo(json.dumps(done.as_dict(), ensure_ascii=False))
            return
        from rich.console import Console

        console = Console()
        for table in tables(done):
            console.print(table)
        for note in notes(done):
            typer.echo(note)

    run_command(work, debug=debug)
