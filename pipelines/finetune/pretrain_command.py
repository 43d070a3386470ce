"""`xlmr pretrain` as it is typed: a run of `xlmr finetune` that learns from texts alone."""

from enum import StrEnum
from typing import Annotated

import typer

from pipelines import labelled
from pipelines.finetune import command_line
from pipelines.finetune.recipe import recipe_file
from pipelines.outcome import run_command

# What is not said is as there.
_RECIPE = "mlm-continuation"


class Objective(StrEnum):
    """What is learnt from a text."""

    MASKED_LM = "masked-lm"
    CAUSAL_LM = "causal-lm"


_TASKS = {Objective.MASKED_LM: "fill-mask", Objective.CAUSAL_LM: "causal-lm"}


def pretrain(
    context: typer.Context,
    settings: command_line.Settings = None,
    model: command_line.Model = None,
    train: Annotated[
        list[str] | None,
        typer.Option(help="Texts: files, folders or globs; give it again for more.", show_default=False),
    ] = None,
    parallel: Annotated[
        list[str] | None,
        typer.Option(
            help="Also learn from pairs of translations (TLM): text files that say the same line by line, two by two; "
            "--parallel news.en.txt --parallel news.sw.txt.",
            show_default=False,
        ),
    ] = None,
    validation: Annotated[list[str] | None, typer.Option(help="Texts for measuring.", show_default=False)] = None,
    output: command_line.Output = None,
    objective: Annotated[
        Objective | None,
        typer.Option(help="Find hidden tokens again (default), or the next one.", show_default=False),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start from chance: of MODEL only config and tokenizer are used.")
    ] = False,
    sampling: Annotated[
        float | None,
        typer.Option(
            help="Languages are drawn by their number of texts to this power: 1 as often as they are there, 0 all "
            "equally often. Default: 0.3.",
            show_default=False,
        ),
    ] = None,
    mask_rate: Annotated[
        float | None, typer.Option(help="Share of the tokens that is found again. Default: 0.15.", show_default=False)
    ] = None,
    text_column: labelled.TextColumn = None,
    language: labelled.Language = None,
    on_error: labelled.OnError = None,
    max_length: command_line.MaxLength = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the texts. Default: 100, which is for the texts of one task.", show_default=False
        ),
    ] = None,
    steps: command_line.Steps = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: 1e-4.", show_default=False)] = None,
    batch_records: Annotated[
        int | None, typer.Option(help="Windows of an optimiser step. Default: 256.", show_default=False)
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(help="About so many tokens a step instead.", show_default=False)
    ] = None,
    seed: command_line.Seed = None,
    workers: command_line.Workers = None,
    device: labelled.Device = None,
    ray_address: command_line.RayAddress = None,
    config: command_line.ConfigFile = None,
    debug: labelled.Debug = False,
) -> None:
    """Train a language model on texts, and on pairs of translations: go on with one, or start from chance.

    The same command again continues a run that was interrupted. What is not given is as in the recipe mlm-continuation.
    """

    def work() -> None:
        asked = command_line.config_of(
            context.params,
            recipe=recipe_file(_RECIPE),
            task=None if objective is None else _TASKS[objective],
        )
        command_line.train(asked)

    run_command(work, debug=debug)
