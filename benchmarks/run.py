"""Chooses benchmarks, runs them one after the other, shows a table of each and writes JSON lines."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from benchmarks import annotate, classes, engine, heads, pretraining, questions, rows, training, zero_shot
from benchmarks.measure import Row, facts
from pipelines.config import ConfigError

Say = Callable[[str], None]

# By name: in full and quickly.
BENCHMARKS: Mapping[str, tuple[Callable[[Say], list[Row]], Callable[[Say], list[Row]]]] = {
    engine.NAME: (lambda say: engine.run(engine.FULL, say), lambda say: engine.run(engine.QUICK, say)),
    heads.NAME: (lambda say: heads.run(heads.FULL, say), lambda say: heads.run(heads.QUICK, say)),
    annotate.NAME: (lambda say: annotate.run(annotate.FULL, say), lambda say: annotate.run(annotate.QUICK, say)),
    questions.NAME: (lambda say: questions.run(questions.FULL, say), lambda say: questions.run(questions.QUICK, say)),
    classes.NAME: (lambda say: classes.run(classes.FULL, say), lambda say: classes.run(classes.QUICK, say)),
    zero_shot.NAME: (lambda say: zero_shot.run(zero_shot.FULL, say), lambda say: zero_shot.run(zero_shot.QUICK, say)),
    training.NAME: (lambda say: training.run(training.FULL, say), lambda say: training.run(training.QUICK, say)),
    pretraining.NAME: (
        lambda say: pretraining.run(pretraining.FULL, say),
        lambda say: pretraining.run(pretraining.QUICK, say),
    ),
    rows.NAME: (lambda say: rows.run(rows.FULL, say), lambda say: rows.run(rows.QUICK, say)),
}


def bench(names: Sequence[str] = (), *, quick: bool = False, json_file: Path | None = None) -> list[Row]:
    """Runs benchmarks and prints their tables.

    Args:
        names: Which; all of them when none is named.
        quick: A small size of each: does it run, not how fast is it.
        json_file: Where to write one line of JSON a row, with the facts of the machine.

    Returns:
        All rows.

    Raises:
        ConfigError: A name is unknown.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        known = ", ".join(BENCHMARKS)
        raise ConfigError(f"benchmark {', '.join(map(repr, unknown))} is unknown, known are {known}; choose of these")
    console = Console()
    measured: list[Row] = []
    lines: list[str] = []
    for name in names or BENCHMARKS:
        with console.status(name) as status:

            def say(text: str, name: str = name, status: Status = status) -> None:
                status.update(escape(f"{name}: {text}"))

            in_full, quickly = BENCHMARKS[name]
            found = quickly(say) if quick else in_full(say)
        measured += found
        console.print(table(name, found, quick=quick))
        lines += [json.dumps(asdict(row) | {"met": row.met, "quick": quick} | facts()) for row in found]
        if json_file is not None:
            # After each, so that an interrupted run leaves what it measured.
            json_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return measured


def table(name: str, found: Sequence[Row], *, quick: bool) -> Table:
    """The rows of one benchmark for a terminal."""
    shown = Table(title=f"{name} (quick: sizes too small for the goals)" if quick else name, title_justify="left")
    shown.add_column("what")
    for column in ("value", "min to max", "goal", "met"):
        shown.add_column(column, justify="right")
    for row in found:
        spread = f"{number(row.low)} to {number(row.high)}" if row.low is not None and row.high is not None else ""
        goal = "" if row.goal is None else f"{'<=' if row.at_most else '>='} {number(row.goal)}"
        met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[row.met]
        shown.add_row(escape(row.name), f"{number(row.value)} {row.unit}".strip(), spread, goal, met)
    return shown


def number(value: float | None) -> str:
    """Three significant digits, or all digits of the whole part."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m benchmarks`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure the promises about speed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all without")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON line a row")
    chosen = parser.parse_args(arguments)
    try:
        bench(chosen.names, quick=chosen.quick, json_file=chosen.json)
    except ConfigError as error:
        parser.error(str(error))
    return 0
