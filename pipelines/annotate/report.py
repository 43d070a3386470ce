"""`report.html`: what a job came to, from its output directory alone, finished or not.

It is a view of the commit records, outside of what the manifest seals: it can be written again, changed or deleted.
It reads the records one at a time, and shows no text of the user unless rows are asked for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.annotate.commit import part_name
from pipelines.annotate.lease import OutputError
from pipelines.annotate.output import Output, install
from pipelines.annotate.page import AnnotationFacts, Facts, render
from pipelines.annotate.samples import sample_rows
from pipelines.annotate.statistics import Totals
from xlmr_core.errors import InputError

MOST_SAMPLES = 200


def report_path(root: Path) -> Path:
    """Where the report of an output lies."""
    return root / "report.html"


def write_report(root: Path, *, samples: int = 0) -> Path:
    """Writes the report of an output directory, at once and in place of an earlier one.

    Args:
        root: The directory that annotate wrote.
        samples: Rows to show with the beginning of their text, at most `MOST_SAMPLES`.

    Returns:
        Its path.

    Raises:
        OutputError: The directory holds no job, or is damaged.
        OSError: It cannot be written.
    """
    path = report_path(root)
    install(path, render(gather(root, samples=samples)).encode("utf-8", errors="replace"))
    return path


def gather(root: Path, *, samples: int = 0) -> Facts:
    """Reads what the page shows.

    Raises:
        OutputError: The directory holds no job, or is damaged.
    """
    output = Output(root, "finished", None)
    finished = (root / "_SUCCESS").exists()
    try:
        fingerprint = json.loads((root / "run" / "fingerprint.json").read_bytes())
        plan = output.load_plan()
    except FileNotFoundError as error:
        raise OutputError(
            f"{root} is no output of xlmr annotate, or of a job that has not planned its inputs yet "
            f"({Path(error.filename).name} is missing); name the directory that was its --output"
        ) from error
    except InputError as error:
        raise OutputError(f"{root / 'run' / 'plan.json'}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{root / 'run'} is damaged ({type(error).__name__}); xlmr verify says more") from error
    committed = output.committed() & {shard.index for shard in plan.shards}
    totals = Totals()
    for commit in output.commits():
        totals.add(commit)
    return Facts(
        name=root.absolute().name,
        finished=finished,
        planned_rows=plan.rows,
        planned_shards=len(plan.shards),
        files=len(plan.files),
        left_out=tuple((entry.path, entry.code) for entry in plan.unreadable),
        annotations=_annotations(_schema(root, committed), fingerprint, plan.columns.keep),
        settings=_settings(fingerprint),
        totals=totals,
        samples=tuple(sample_rows(root, plan, committed, min(samples, MOST_SAMPLES))),
        written=datetime.now(UTC),
    )


@dataclass(frozen=True, slots=True)
class _Schema:
    """What the data files say about themselves."""

    types: tuple[tuple[str, str], ...] = ()
    about: Mapping[str, Any] | None = None


def _schema(root: Path, committed: set[int]) -> _Schema:
    """Of the first data file that is in place; all are alike."""
    for shard in sorted(committed):
        try:
            schema = pq.read_schema(root / "data" / part_name(shard))
        except FileNotFoundError:
            continue
        except (OSError, pa.ArrowException):
            break
        about = json.loads((schema.metadata or {}).get(b"xlmr.annotations", b"{}"))
        return _Schema(tuple((field.name, _type_name(field.type)) for field in schema), about)
    return _Schema()


def _type_name(type_: pa.DataType) -> str:
    """An Arrow type in short."""
    kinds = pa.types
    if kinds.is_fixed_size_list(type_):
        return f"{_type_name(type_.value_type)}[{type_.list_size}]"
    if kinds.is_list(type_):
        return f"list of {_type_name(type_.value_type)}"
    if kinds.is_struct(type_):
        return f"({', '.join(field.name for field in type_)})"
    names = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64", pa.string(): "text"}
    return names.get(type_, str(type_))


def _annotations(schema: _Schema, fingerprint: Any, keep: Sequence[str]) -> tuple[AnnotationFacts, ...]:
    model = fingerprint.get("model", {})
    settled = model.get("annotations", {}) if isinstance(model, dict) else {}
    about = schema.about or {}
    names = list(model.get("order", settled)) if settled else list(about)
    columns: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for column, type_ in schema.types:
        # The longest name, since "a" and "a_b" may both be annotations.
        owners = [name for name in names if column == name or column.startswith(f"{name}_")]
        if owners and column not in keep:
            columns[max(owners, key=len)].append((column, type_))
    return tuple(
        AnnotationFacts(
            name=name,
            task=settled.get(name, {}).get("task") or about.get(name, {}).get("task", ""),
            model=about.get(name, {}).get("model", ""),
            window=settled.get(name, {}).get("max_length", 0),
            labels=len(about.get(name, {}).get("labels") or settled.get(name, {}).get("labels") or ()),
            columns=tuple(columns[name]),
        )
        for name in names
    )


def _settings(fingerprint: Any) -> tuple[tuple[str, str], ...]:
    """What else decided the results, in words."""
    model = fingerprint.get("model", {})
    values = {key: model.get(key) for key in ("dtype", "on_long", "results_version")} if isinstance(model, dict) else {}
    inputs = fingerprint.get("inputs", {})
    chosen = {
        key: inputs.get(key) for key in ("text_column", "pair_column", "language_column", "id_column", "limit", "seed")
    }
    chosen |= {"sample": inputs["sample"]} if inputs.get("sample", 1.0) != 1.0 else {}
    return tuple(
        (key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for key, value in (values | chosen).items()
        if value not in (None, [])
    )
