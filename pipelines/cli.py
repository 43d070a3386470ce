"""The `xlmr` command. Whatever is heavy is imported by the command that needs it, so that --help is quick."""

import importlib
import json
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from pipelines.config import AnnotateConfig, ConfigError, is_override, load_config
from pipelines.evaluate.calibrate_command import calibrate
from pipelines.evaluate.command import evaluate
from pipelines.finetune.command import finetune
from pipelines.finetune.pretrain_command import pretrain
from pipelines.outcome import fail, run_command

app = typer.Typer(
    help="XLM-R-family models over the world's text, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

# Which option belongs to which section of the config, and where its name differs from the field's.
_OPTIONS = {
    "input": (
        "text_column",
        "pair_column",
        "id_column",
        "language_column",
        "format",
        "keep",
        "limit",
        "sample",
        "seed",
    ),
    "model": ("task", "on_long", "dtype", "device", "max_tokens"),
    "output": ("output", "on_error", "report_samples"),
    "run": ("shard_rows", "model_workers", "tokenise_workers", "ray_address"),
}
_FIELDS = {"task": "tasks", "output": "path"}
_NO_OUTPUT: dict[str, object] = {"output.path": "not-written"}

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT... [SECTION.FIELD=VALUE...]",
        help="Files, folders or globs (text, JSONL, CSV, TSV, Parquet, saved datasets), and settings as in --config.",
        show_default=False,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="NAME=MODEL[,KEY=VALUE...]",
        help="An annotation; give it again for more. MODEL is a directory, a Hub id or mini#HEAD. "
        "Default: language=mini#language.",
        show_default=False,
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="Column with the text. Default: text.", show_default=False)]
PairColumn = Annotated[str | None, typer.Option(help="Column with the second text of a pair.", show_default=False)]
IdColumn = Annotated[
    str | None,
    typer.Option(help="Column with record ids. Default: made from file and row.", show_default=False),
]
LanguageColumn = Annotated[
    str | None,
    typer.Option(help="Column with the language, for models with thresholds by language.", show_default=False),
]
Format = Annotated[
    str | None,
    typer.Option(help="text, jsonl, csv, tsv, parquet or arrow, whatever the suffix.", show_default=False),
]
Keep = Annotated[str | None, typer.Option(help="Input columns to copy, such as url,title.", show_default=False)]
Limit = Annotated[int | None, typer.Option(help="Take only the first so many records.", show_default=False)]
Sample = Annotated[float | None, typer.Option(help="Take this fraction of the records.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="Chooses the sample.", show_default=False)]
OnLong = Annotated[
    str | None,
    typer.Option(help="Longer texts: window (default), truncate or error.", show_default=False),
]
ReportSamples = Annotated[
    int | None,
    typer.Option(help="Show so many rows, with their texts, in report.html (at most 200).", show_default=False),
]
ShardRows = Annotated[int | None, typer.Option(help="Records of a shard.", show_default=False)]
Dtype = Annotated[str | None, typer.Option(help="float32 (default) or bfloat16.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.", show_default=False)]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML with sections input, model, output, run.", show_default=False),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.command(
    epilog="Example: xlmr annotate corpus/*.jsonl.gz --output labelled --task language=mini#language --keep url"
)
def annotate(
    context: typer.Context,
    inputs: Inputs = None,
    output: Annotated[
        str | None, typer.Option(help="Directory for the results; an unfinished job in it is continued.")
    ] = None,
    task: Tasks = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    id_column: IdColumn = None,
    language_column: LanguageColumn = None,
    format: Format = None,
    keep: Keep = None,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = None,
    on_long: OnLong = None,
    on_error: Annotated[
        str | None,
        typer.Option(help="Records that cannot be processed: quarantine (default) or fail.", show_default=False),
    ] = None,
    report_samples: ReportSamples = None,
    shard_rows: ShardRows = None,
    dtype: Dtype = None,
    device: Device = None,
    model_workers: Annotated[int | None, typer.Option(help="Model workers.", show_default=False)] = None,
    tokenise_workers: Annotated[int | None, typer.Option(help="Tokenise workers.", show_default=False)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of a packed batch.", show_default=False)] = None,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster.", show_default=False)] = None,
    config: ConfigFile = None,
    debug: Debug = False,
) -> None:
    """Annotate every record of a corpus, exactly once, into Parquet.

    The same command again continues a job that was interrupted.
    """

    def work() -> None:
        from rich.console import Console

        settings = _load(context)
        from pipelines.annotate.job import annotate as run_job

        Console().print(run_job(settings).table())

    run_command(work, debug=debug)


@app.command(epilog="Example: xlmr verify labelled")
def verify(
    output: Annotated[Path, typer.Argument(help="What xlmr annotate wrote.")],
    inputs: Annotated[bool, typer.Option(help="Also read the inputs again and compare the ids.")] = True,
    debug: Debug = False,
) -> None:
    """Check that an output is complete, undamaged and holds every record exactly once."""

    def work() -> None:
        from pipelines.annotate.verify import verify as check

        report = check(output, recheck_inputs=inputs)
        for path in report.uncovered:
            typer.echo(f"not covered, it could not be read: {path}", err=True)
        if not report.passed:
            fail("\n".join([f"{output} is not sound:", *report.problems]), 1)
        again = "inputs read again" if report.inputs_rechecked else "inputs not read again"
        typer.echo(
            f"{output} is sound: {report.rows:,} records in {report.shards:,} shards, {report.ok:,} annotated, "
            f"{report.quarantined:,} quarantined, {report.files:,} files, {again}"
        )

    run_command(work, debug=debug)


@app.command(epilog="Example: xlmr report labelled --report-samples 20")
def report(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="What xlmr annotate wrote, or is writing.")],
    report_samples: ReportSamples = None,
    debug: Debug = False,
) -> None:
    """Write report.html of an output again, or of one that is not finished yet."""

    def work() -> None:
        samples = _load(context, **{"input.paths": "-", "output.path": str(output)}).output.report_samples
        from pipelines.annotate.report import write_report

        typer.echo(write_report(output, samples=samples))

    run_command(work, debug=debug)


@app.command(epilog="Example: xlmr plan corpus/ --task topic=my-model --text-column body")
def plan(
    context: typer.Context,
    inputs: Inputs = None,
    task: Tasks = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    id_column: IdColumn = None,
    language_column: LanguageColumn = None,
    format: Format = None,
    keep: Keep = None,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = None,
    on_long: OnLong = None,
    shard_rows: ShardRows = None,
    dtype: Dtype = None,
    device: Device = None,
    config: ConfigFile = None,
    debug: Debug = False,
) -> None:
    """Say what annotate would do: files, records, shards and tokens. Writes nothing and starts no Ray."""

    def work() -> None:
        settings = _load(context, **_NO_OUTPUT)
        from pipelines.annotate.prepare import prepare

        job = prepare(settings)
        for file, name in zip(job.plan.files, job.plan.names, strict=True):
            rows = "not counted" if file.rows is None else f"{file.rows:,} rows"
            typer.echo(f"{name}: {file.format}{f' in {file.compression}' if file.compression else ''}, {rows}")
        for entry in job.plan.unreadable:
            typer.echo(f"left out: {entry.message}")
        # There is no output whose plan could stand in for this one.
        assert job.tokens_per_row is not None
        typer.echo(
            f"{len(job.plan.files):,} files, {job.plan.rows:,} records in {len(job.plan.shards):,} shards of at most "
            f"{job.plan.shard_rows:,}, about {job.plan.rows * job.tokens_per_row:,.0f} tokens"
        )

    run_command(work, debug=debug)


app.command(
    epilog="Example: xlmr finetune --task sequence-classification --model my-model --train train.jsonl --output out"
)(finetune)


app.command(epilog="Example: xlmr pretrain --model my-model --train 'texts/*.txt' --steps 10000 --output out")(pretrain)


app.command(epilog="Example: xlmr evaluate --model out/model --data dev.*.jsonl --output scores")(evaluate)


app.command(epilog="Example: xlmr calibrate --model out/model --data dev.*.jsonl")(calibrate)


@app.command(epilog='Example: xlmr run --task fill-mask --model my-model "Paris is the <mask> of France." top_k=3')
def run(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT] [KEY=VALUE]...",
            help="The text, lines of standard input without it; and parameters of the task, such as top_k=3.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME=MODEL[,KEY=VALUE...] | TASK",
            help="An annotation as for annotate, repeatable; or a task such as fill-mask, with --model.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The checkpoint, for a task by name.", show_default=False)] = None,
    on_long: OnLong = None,
    dtype: Dtype = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lines of JSON on a terminal too.")] = False,
    debug: Debug = False,
) -> None:
    """Answer one text, or lines of standard input, in this process.

    Annotations give one line of JSON each; a task by name a table, or lines of JSON where the output is no terminal.
    The exit code is 1 when TEXT itself cannot be answered; of lines, each says whether it failed.
    """

    def work() -> None:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        if model is not None or (task and "=" not in task[0]):
            from pipelines.ask import run_task

            fine = run_task(
                task or [], model, words or [], dtype=dtype, device=device, on_long=on_long, as_json=as_json
            )
            if not fine:
                raise typer.Exit(1)
            return
        settings = _load(context, **_NO_OUTPUT, **{"input.paths": "-"})
        from pipelines.annotate.quick import annotate_lines

        if len(words or []) > 1:
            raise ConfigError(f"got {len(words or [])} texts, one is read; several come as lines of standard input")
        texts: Iterator[str] = iter(words) if words else (line.rstrip("\n") for line in sys.stdin)
        for line in annotate_lines(texts, settings.model):
            typer.echo(line)
            if words and json.loads(line)["status"] == "failed":
                raise typer.Exit(1)

    run_command(work, debug=debug)


@app.command(epilog="Example: xlmr doctor intfloat/multilingual-e5-small")
def doctor(
    model: Annotated[str, typer.Argument(help="A directory, a Hub id, mini or mini#HEAD.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Say what a checkpoint is, what was decided about it and from which file, and all that is wrong with it.

    Exit code 0 when it is sound, 1 when something is wrong, 2 when there is no model to look at.
    """

    def work() -> None:
        from pipelines.doctor import examine

        code = examine(model, as_json=as_json)
        if code:
            raise typer.Exit(code)

    run_command(work, debug=debug)


@app.command(epilog="Example: xlmr bench engine heads --json bench.jsonl")
def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; default: all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: do they run, not how fast.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write one JSON line a row.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure the promises about speed; needs a checkout and its extra `bench`."""

    def work() -> None:
        checkout = Path(__file__).parents[1]
        if not (checkout / "benchmarks").is_dir():
            raise ConfigError("benchmarks are not here, an installed package has none; run this from a checkout")
        # An editable install puts the packages on the path, not the folder that they stand in.
        sys.path.insert(0, str(checkout))
        try:
            benchmarks = importlib.import_module("benchmarks.run")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"module {error.name} is missing, install the extra: pip install -e '.[bench]'"
            ) from error
        benchmarks.bench(names or [], quick=quick, json_file=json_file)

    run_command(work, debug=debug)


def main() -> None:
    """Entry point of the command."""
    app()


def _load(context: typer.Context, **fixed: object) -> AnnotateConfig:
    """Reads the config that a command line describes; `fixed` holds settings the command does not have.

    A word of the form SECTION.FIELD=VALUE is a setting, unless a file has that name.
    """
    words = context.params.get("inputs") or []
    overrides = [word for word in words if is_override(AnnotateConfig, word) and not Path(word).exists()]
    options: dict[str, object] = {
        f"{section}.{_FIELDS.get(name, name)}": _given(context.params.get(name))
        for section, names in _OPTIONS.items()
        for name in names
    }
    options["input.paths"] = [word for word in words if word not in overrides] or None
    file = context.params.get("config")
    return load_config(AnnotateConfig, file=file, options=options | fixed, overrides=overrides)


def _given(value: object) -> object:
    """An option that was not used is None, or an empty list."""
    return None if value in ([], ()) else value
