"""`xlmr finetune` as it is typed."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.config import ConfigError, is_override, load_config
from pipelines.finetune.config import FinetuneConfig
from pipelines.outcome import run_command

# Which option belongs to which section of the config, and where its name differs from the field's.
_OPTIONS = {
    "data": ("train", "validation", "task", "text_column", "label_column", "language", "on_error"),
    "model": ("model", "max_length"),
    "training": ("epochs", "learning_rate", "batch_records", "seed"),
    "output": ("output",),
    "run": ("workers", "device", "ray_address"),
}
_FIELDS = {"model": "path", "output": "path"}


def finetune(
    context: typer.Context,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION.FIELD=VALUE]...", help="Settings as in --config.", show_default=False),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="sequence-classification, token-classification, question-answering or multiple-choice.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to start from: a directory, a Hub id or mini.", show_default=False)
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(help="Labelled files, folders or globs; give it again for more.", show_default=False),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="The same, for checking; labels must be known.", show_default=False)
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Directory for the result; an unfinished run in it is continued.")
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
    max_length: Annotated[int | None, typer.Option(help="Tokens of a window.", show_default=False)] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data. Default: 3.", show_default=False)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: 5e-5.", show_default=False)] = None,
    batch_records: Annotated[
        int | None, typer.Option(help="Records of an optimiser step. Default: 32.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of head, order and dropout.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that train together.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.", show_default=False)] = None,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster.", show_default=False)] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML with sections data, model, training, output, run.", show_default=False),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train a head, and the encoder below it, on labelled data.

    The same command again continues a run that was interrupted. OUTPUT/model is a model directory that annotate, run
    and transformers open.
    """

    def work() -> None:
        words = settings or []
        strange = [word for word in words if not is_override(FinetuneConfig, word)]
        if strange:
            raise ConfigError(f"{', '.join(strange)}: these must look like section.field=value; files go to --train")
        options = {
            f"{section}.{_FIELDS.get(name, name)}": context.params[name] or None
            for section, names in _OPTIONS.items()
            for name in names
        }
        options["training.seed"] = seed
        asked = load_config(FinetuneConfig, file=config, options=options, overrides=words)
        from pipelines.finetune.job import finetune as run

        trained = run(asked)
        for name, summary in trained.prepared.summaries.items():
            typer.echo("\n".join([f"{name}:", *summary.lines()]))
        for code, count in trained.prepared.left_out.items():
            typer.echo(f"{count:,} training records were left out, the model cannot read them: {code}")
        typer.echo(f"{trained.model} is trained")

    run_command(work, debug=debug)
