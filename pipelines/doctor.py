"""`xlmr doctor MODEL`: what a checkpoint is, what was decided from which file, and what is wrong with it."""

import json

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xlmr_core.checkpoint.diagnosis import Diagnosis, Finding, Level, diagnose

_STYLES: dict[Level, str] = {"fact": "", "ignored": "dim", "warning": "yellow", "error": "bold red"}


def examine(model: str, *, as_json: bool) -> int:
    """Prints what was found.

    Args:
        model: A directory, `mini` or a Hub id.
        as_json: JSON instead of a table.

    Returns:
        Exit code: 0 sound, 1 something is wrong, 2 there is no model to look at.
    """
    diagnosis = diagnose(model)
    if as_json:
        typer.echo(json.dumps(diagnosis.to_dict(), ensure_ascii=False, indent=2))
    else:
        console = Console()
        console.print(table(diagnosis))
        console.print(_verdict(diagnosis))
    if not diagnosis.is_model:
        return 2
    return 1 if diagnosis.errors else 0


def table(diagnosis: Diagnosis) -> Table:
    """All findings, errors and warnings marked, each with its source and what settles it."""
    shown = Table(title=_printable(diagnosis.spec), title_justify="left", box=SIMPLE)
    shown.add_column("", no_wrap=True)
    shown.add_column("what", max_width=14)
    shown.add_column("found", ratio=2, overflow="fold")
    shown.add_column("from", ratio=1, overflow="fold")
    for finding in diagnosis.findings:
        mark = "" if finding.level == "fact" else finding.level
        cells = (mark, finding.topic, _says(finding), finding.source or "")
        shown.add_row(*map(_printable, cells), style=_STYLES[finding.level])
    return shown


def _says(finding: Finding) -> str:
    return f"{finding.says}; {finding.settle}" if finding.settle else finding.says


def _verdict(diagnosis: Diagnosis) -> str:
    warnings = sum(finding.level == "warning" for finding in diagnosis.findings)
    state = f"errors: {len(diagnosis.errors)}" if diagnosis.errors else "sound"
    return f"{state}; warnings: {warnings}" if warnings else state


def _printable(text: str) -> Text:
    """Names come from files of strangers: neither markup nor control characters of theirs reach the terminal."""
    return Text("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))
