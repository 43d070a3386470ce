"""What `xlmr finetune` and `xlmr pretrain` share: options, how a command line becomes a config, and what is said."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.config import ConfigError, is_override, load_config
from pipelines.finetune.config import FinetuneConfig

if TYPE_CHECKING:
    from pipelines.finetune.prepare import Prepared

Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.FIELD=VALUE]...", help="Settings as in --config.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="The model to start from: a directory, a Hub id or mini. Default: the recipe's.", show_default=False
    ),
]
Output = Annotated[
    str | None,
    typer.Option(help="Directory for the result; an unfinished run in it is continued.", show_default=False),
]
MaxLength = Annotated[int | None, typer.Option(help="Tokens of a window.", show_default=False)]
Steps = Annotated[int | None, typer.Option(help="So many optimiser steps instead.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="Of fresh weights, order and dropout.", show_default=False)]
Workers = Annotated[int | None, typer.Option(help="Processes that train together.", show_default=False)]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster.", show_default=False)]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML with sections data, model, training, output, run.", show_default=False),
]

# Which option belongs to which section of the config, and where its name differs from the field's.
_OPTIONS = {
    "data": (
        "train",
        "parallel",
        "validation",
        "task",
        "text_column",
        "label_column",
        "language",
        "on_error",
        "sampling",
        "mask_rate",
        "batch_tokens",
    ),
    "model": ("model", "fresh", "max_length"),
    "training": ("epochs", "steps", "learning_rate", "batch_records", "seed"),
    "output": ("output",),
    "run": ("workers", "device", "ray_address"),
}
_FIELDS = {"model": "path", "output": "path"}


def config_of(typed: Mapping[str, object], *, recipe: Path | None = None, **known: object) -> FinetuneConfig:
    """The config that a command line describes.

    Args:
        typed: Its parameters by name; of those that were not used the values are None, False or empty.
        recipe: Says what neither the command line nor its --config does.
        known: Of `typed`, what the command itself knows better.

    Raises:
        ConfigError: All that is wrong.
    """
    given = {name: value for name, value in {**typed, **known}.items() if _is_given(value)}
    words: Sequence[str] = given.get("settings", ())  # type: ignore[assignment]
    strange = [word for word in words if not is_override(FinetuneConfig, word)]
    if strange:
        raise ConfigError(f"{', '.join(strange)}: these must look like section.field=value; files go to --train")
    options = {
        f"{section}.{_FIELDS.get(name, name)}": given[name]
        for section, names in _OPTIONS.items()
        for name in names
        if name in given
    }
    # Steps count for more than epochs; those of a file must not count for more than an option.
    instead = ["training.steps=null"] if "training.epochs" in options and "training.steps" not in options else []
    file = given.get("config")
    assert file is None or isinstance(file, Path)
    return load_config(FinetuneConfig, base=recipe, file=file, options=options, overrides=[*instead, *words])


def _is_given(value: object) -> bool:
    """An option that was not used is None, a flag False, a list empty; 0 is a value."""
    return value is not None and value is not False and value not in ([], ())


def train(config: FinetuneConfig) -> None:
    """Trains, and says what was learnt from."""
    # Slow to import: a wrong command line is answered before.
    from pipelines.finetune.job import finetune

    trained = finetune(config, say=_say)
    typer.echo(f"{trained.model} is trained")


def _say(prepared: "Prepared") -> None:
    """What was read, while there is still time to stop."""
    for name, summary in prepared.summaries.items():
        typer.echo("\n".join([f"{name}:", *summary.lines()]))
    for code, count in prepared.left_out.items():
        typer.echo(f"{count:,} training records are left out, the model cannot read them: {code}")
