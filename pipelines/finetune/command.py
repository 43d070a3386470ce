"""`xlmr finetune` as it is typed."""

from typing import Annotated

import typer

from pipelines import labelled
from pipelines.finetune import command_line
from pipelines.finetune.recipe import recipe_file, recipes
from pipelines.outcome import run_command

_LIST = "list"


def finetune(
    context: typer.Context,
    settings: command_line.Settings = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Settings that the field trains with, unless given otherwise: "
            f"{', '.join(recipes())}. {_LIST!r} says what each is for.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="sequence-classification, token-classification, question-answering, multiple-choice, embedding, "
            "fill-mask or causal-lm. Default: the recipe's.",
            show_default=False,
        ),
    ] = None,
    model: command_line.Model = None,
    train: Annotated[
        list[str] | None,
        typer.Option(help="Labelled files, folders or globs; give it again for more.", show_default=False),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="The same, for checking; labels must be known.", show_default=False)
    ] = None,
    output: command_line.Output = None,
    text_column: labelled.TextColumn = None,
    label_column: labelled.LabelColumn = None,
    language: labelled.Language = None,
    on_error: labelled.OnError = None,
    max_length: command_line.MaxLength = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the data. Default: the recipe's, else 3.", show_default=False)
    ] = None,
    steps: command_line.Steps = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: the recipe's, else 5e-5.", show_default=False)
    ] = None,
    batch_records: Annotated[
        int | None,
        typer.Option(help="Records of an optimiser step. Default: the recipe's, else 32.", show_default=False),
    ] = None,
    seed: command_line.Seed = None,
    workers: command_line.Workers = None,
    device: labelled.Device = None,
    ray_address: command_line.RayAddress = None,
    config: command_line.ConfigFile = None,
    debug: labelled.Debug = False,
) -> None:
    """Train a head, and the encoder below it, on labelled data.

    The same command again continues a run that was interrupted. OUTPUT/model is a model directory that annotate, run
    and transformers open.
    """

    def work() -> None:
        if recipe == _LIST:
            width = max(map(len, recipes()))
            typer.echo("\n".join(f"{name:{width}}  {purpose}" for name, purpose in recipes().items()))
            return
        base = None if recipe is None else recipe_file(recipe)
        command_line.train(command_line.config_of(context.params, recipe=base))

    run_command(work, debug=debug)
