"""`xlmr calibrate` as it is typed."""

import json
from typing import Annotated, Literal

import typer

from pipelines.config import ConfigError, Section, is_override, load_config
from pipelines.labelled import Debug, Device, LabelColumn, LabelledSection, Language, OnError, TextColumn
from pipelines.outcome import run_command


class FittingSection(Section):
    """What is fitted, and where.

    Attributes:
        per_language: Whether languages with enough records have thresholds of their own.
        device: "cpu", "cuda", or "auto" for CUDA where there is some.
    """

    per_language: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"


class CalibrateConfig(Section):
    """Settings of `xlmr calibrate` besides its options."""

    data: LabelledSection = LabelledSection()
    fitting: FittingSection = FittingSection()


def calibrate(
    model: Annotated[str, typer.Option(help="A model directory of your own; DIR#HEAD for one of its heads.")],
    data: Annotated[list[str], typer.Option(help="Labelled files it was not trained on; give it again for more.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATA.FIELD=VALUE]...", help="How files are read, as for finetune.", show_default=False
        ),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    language: Language = None,
    per_language: Annotated[
        bool, typer.Option("--per-language", help="Also thresholds of their own for languages with enough records.")
    ] = False,
    on_error: OnError = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Make scores say how often they are right.

    Fits a temperature and, where a record may have several labels, thresholds; what helps is written to xlmr.json of
    the model directory, and whatever runs the model uses it from then on.
    """

    def work() -> None:
        words = settings or []
        strange = [word for word in words if not is_override(CalibrateConfig, word)]
        if strange:
            raise ConfigError(f"{', '.join(strange)}: these must look like data.field=value; files go to --data")
        options: dict[str, object] = {
            "data.text_column": text_column,
            "data.label_column": label_column,
            "data.language": language,
            "data.on_error": on_error,
            "fitting.per_language": per_language or None,
            "fitting.device": device,
        }
        asked = load_config(CalibrateConfig, options=options, overrides=words)
        from pipelines.evaluate.calibrate import calibrate as run

        done = run(model, data, asked.data, per_language=asked.fitting.per_language, device=asked.fitting.device)
        if as_json:
            typer.echo(json.dumps(done.as_dict(), ensure_ascii=False))
            return
        from rich.console import Console

        Console().print(done.table())
        for code, count in done.unread.items():
            typer.echo(f"{count:,} records the model cannot read were left out: {code}")
        typer.echo(done.verdict())

    run_command(work, debug=debug)
