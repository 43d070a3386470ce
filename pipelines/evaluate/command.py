"""`xlmr evaluate` as it is typed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.config import ConfigError, Section, is_override, load_config
from pipelines.finetune.config import LabelledSection
from pipelines.outcome import run_command


class EvaluateConfig(Section):
    """Settings of `xlmr evaluate` besides its options."""

    data: LabelledSection = LabelledSection()


def evaluate(
    model: Annotated[str, typer.Option(help="A directory, a Hub id or mini#HEAD.")],
    data: Annotated[list[str], typer.Option(help="Labelled files, folders or globs; give it again for more.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATA.FIELD=VALUE]...", help="How files are read, as for finetune.", show_default=False
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What is asked. Default: what the model is for.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory for evaluation.json, with all measures.", show_default=False)
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column with the text. Default: by its usual names.", show_default=False)
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column with the label. Default: by its usual names.", show_default=False)
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of all records.", show_default=False)] = None,
    on_error: Annotated[
        str | None,
        typer.Option(help="Records that cannot be used: fail (default) or quarantine.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Say how good a model is on labelled data, language by language."""

    def work() -> None:
        words = settings or []
        strange = [word for word in words if not is_override(EvaluateConfig, word)]
        if strange:
            raise ConfigError(f"{', '.join(strange)}: these must look like data.field=value; files go to --data")
        options = {"text_column": text_column, "label_column": label_column, "language": language, "on_error": on_error}
        reading = load_config(
            EvaluateConfig, options={f"data.{name}": value for name, value in options.items()}, overrides=words
        ).data
        from pipelines.evaluate.job import evaluate as run

        done = run(model, data, reading, task=task, output=output)
        if as_json:
            typer.echo(json.dumps(done.as_dict(), ensure_ascii=False))
            return
        from rich.console import Console

        Console().print(done.table())
        for code, count in done.scores.unread.items():
            typer.echo(f"{count:,} records the model cannot read count as wrong: {code}")

    run_command(work, debug=debug)
