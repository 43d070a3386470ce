"""`xlmr run --task T --model M`: one answer, or one a line of standard input, as a table or as lines of JSON."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.config import ConfigError
from xlmr_core.errors import InputError
from xlmr_core.interface import Pipeline, pipeline
from xlmr_core.interface.forms import parameter_names

# Longer inputs come as files, to a job.
MAX_LINE_CHARACTERS = 1 << 24
_CELL_CHARACTERS = 400
# What a terminal takes for orders; tabs and line breaks do no harm.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def run_task(
    tasks: Sequence[str],
    model: str | None,
    words: Sequence[str],
    *,
    dtype: str | None,
    device: str | None,
    on_long: str | None = None,
    as_json: bool = False,
) -> bool:
    """Answers the text among the words, or every line of standard input.

    Args:
        tasks: At most one name of a task, such as "fill-mask"; default: what the checkpoint is for.
        model: The checkpoint.
        words: At most one text, and `KEY=VALUE` parameters.
        dtype: Compute type.
        device: Where to compute.
        on_long: What to do with texts longer than a window.
        as_json: Whether a terminal too gets lines of JSON.

    Returns:
        Whether everything was answered.

    Raises:
        ConfigError: More than one task or text.
        XLMRError: Nothing can be answered as asked.
    """
    if len(tasks) > 1:
        raise ConfigError(f"got {len(tasks)} tasks, one by name is run; several as --task NAME=MODEL")
    ask = pipeline(
        tasks[0] if tasks else None,
        model,
        dtype=dtype,
        device=None if device in (None, "auto") else device,
        on_long=on_long or "window",
    )
    texts, parameters = split_words(ask.task, words)
    console = Console()
    if texts or "context" in parameters:
        answer = ask(*texts, **parameters)
        if as_json or not console.is_terminal:
            typer.echo(json.dumps(answer, ensure_ascii=False))
        else:
            show(answer, console)
        return True
    fine = True
    for line in ask_lines(ask, sys.stdin, parameters):
        fine &= "error" not in line
        typer.echo(json.dumps(line, ensure_ascii=False))
    return fine


def split_words(task: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Tells texts from `KEY=VALUE` words; what stands before `=` must be a parameter of the task.

    Raises:
        ConfigError: There is more than one text, or what looks like a parameter is none.
    """
    known = parameter_names(task)
    settings = [word for word in words if word.partition("=")[0] in known and "=" in word]
    texts = [word for word in words if word not in settings]
    parameters = dict(word.split("=", 1) for word in settings)
    unknown = [word.partition("=")[0] for word in texts if re.match(r"[A-Za-z_]\w*=", word)]
    if unknown and len(texts) > ("context" not in parameters):
        rule = f"known are {', '.join(sorted(known))}; correct it, or give a text like this on standard input"
        raise ConfigError(f"{', '.join(unknown)} is no option of {task}, {rule}")
    if len(texts) > 1:
        raise ConfigError(f"got {len(texts)} texts, one is read; several come as lines of standard input")
    return texts, parameters


def ask_lines(ask: Pipeline, lines: Iterable[str], parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Answers lines: a JSON object is an input with named parts, every other line is a text.

    Yields:
        For each line an object with `answer`, or with `error` where it cannot be answered.
    """
    for line in lines:
        text = line.rstrip("\n")
        try:
            if len(text) > MAX_LINE_CHARACTERS:
                raise InputError(f"line of {len(text)} characters, at most {MAX_LINE_CHARACTERS}", code="too_long")
            yield {"answer": ask(_parsed(text), **parameters)}
        except InputError as error:
            yield {"error": str(error)}


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            # Text may begin like this too.
            return text
    return text


def show(answer: Any, console: Console) -> None:
    """Prints an answer as a table: one line an entry, one column a key."""
    rows = answer if isinstance(answer, list) else [answer]
    if rows and isinstance(rows[0], list):
        for row in rows:
            show(row, console)
        return
    if not rows or not isinstance(rows[0], dict):
        console.print_json(json.dumps(answer, ensure_ascii=False))
        return
    table = Table(*rows[0])
    for row in rows:
        # Texts are shown as they are: "[/b]" in one is no markup, and an escape sequence moves no cursor.
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    text = _CONTROL.sub(lambda control: f"\\x{ord(control[0]):02x}", text)
    return text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 1] + "…"
