"""The two stages of a job and their pools: tokenise on CPUs, then compute and commit where the models are.

One Ray row is one shard. A stage never raises for what a user can cause: its row says so instead, and the driver,
which alone may end the job, reads it in the receipt.
"""

import json
import logging
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import ray

from pipelines.annotate.columns import Columns
from pipelines.annotate.commit import ShardWriter
from pipelines.annotate.encoded import EncodedShard, from_row, read_shard_row, to_row
from pipelines.annotate.lines import Problem
from pipelines.annotate.model_thread import ModelThread
from pipelines.annotate.plan import Shard
from pipelines.annotate.read import Records, ShardReader
from pipelines.annotate.schema import annotation_arrays, data_schema
from pipelines.annotate.statistics import count_shard
from pipelines.annotate.tokenise import tokenise_usable
from pipelines.annotate.watchdog import Heartbeat
from xlmr_core.errors import XLMRError
from xlmr_core.graph import Annotations, GraphPlan, Preprocessor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageSettings:
    """What every worker of a job is told.

    Attributes:
        plan: What to compute.
        columns: What to read.
        writer: Where to commit.
        stop: A file that appears when no further shard shall be begun.
        fingerprint: Hash of the job's identity, for the files' metadata.
        fail_on_error: Whether a record with a problem ends the job.
        device: "cpu" or "cuda".
        dtype: Compute type.
        max_tokens: Budget of a packed batch; None for a measured one.
        threads: torch threads of a model worker.
    """

    plan: GraphPlan
    columns: Columns
    writer: ShardWriter
    stop: Path
    fingerprint: str
    fail_on_error: bool
    device: str
    dtype: Literal["float32", "bfloat16"]
    max_tokens: int | None
    threads: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one shard; the driver sees nothing else of it.

    Attributes:
        shard: Index in the plan.
        state: "committed" means durable; "skipped" that the job is being stopped; "failed" that it must end.
        worker: Who says so.
        error: Why it failed, without any text of the records.
        details: Traceback of an unforeseen failure, which may quote records; for --debug only.
        rows: Its records.
        quarantined: Those of them that could not be processed.
        tokens: Tokens that went through encoders.
        windows: Windows that went through encoders.
        busy_s: Seconds of the model.
        size: Bytes written.
    """

    shard: int
    state: Literal["committed", "skipped", "failed"]
    worker: str
    error: str = ""
    details: str = ""
    rows: int = 0
    quarantined: int = 0
    tokens: int = 0
    windows: int = 0
    busy_s: float = 0.0
    size: int = 0

    def to_table(self) -> pa.Table:
        """The receipt as one row."""
        return pa.Table.from_pylist([asdict(self)])

    @classmethod
    def from_table(cls, table: pa.Table) -> list[Self]:
        """All receipts of a block."""
        return [cls(**row) for row in table.to_pylist()]


class TokeniseStage:
    """Reads a shard and tokenises it."""

    def __init__(self, settings: StageSettings) -> None:
        self._settings = settings
        self._reader = ShardReader(settings.columns)
        self._preprocess = Preprocessor(settings.plan)

    def __call__(self, table: pa.Table) -> pa.Table:
        """A row that asks for a shard to a row that holds its tokens."""
        shard = read_shard_row(table)
        if self._settings.stop.exists():
            return _refusal(shard, "skipped")
        try:
            records = self._reader.read(shard)
            encoded = self._encode(records)
            if self._settings.fail_on_error and records.problems:
                return _refusal(shard, "failed", describe_problem(records, records.problems))
            return to_row(encoded)
        except Exception as error:
            return _refusal(shard, "failed", _message(shard, error), _details(error))

    def _encode(self, records: Records) -> EncodedShard:
        chosen = np.array([row for row in range(len(records)) if row not in records.problems], dtype=np.int64)
        texts = [records.texts[row] or "" for row in chosen.tolist()]
        pairs = None if records.pairs is None else [records.pairs[row] or [] for row in chosen.tolist()]
        languages = None if records.languages is None else [records.languages[row] for row in chosen.tolist()]
        usable, encoded, problems = tokenise_usable(self._preprocess, texts, pairs, languages)
        records.problems.update({int(chosen[position]): problem for position, problem in problems.items()})
        return EncodedShard(records, chosen[usable], encoded)


class _AtWork:
    """Counts a worker's calls that may still commit something."""

    def __init__(self) -> None:
        self._calls = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._calls += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    def wait_until_none(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._calls)


class ModelStage:
    """Computes tokenised shards and commits them.

    Ray calls it from two threads: while one shard is decoded, written and made durable, the next one computes. The
    model itself has one thread of its own, so that torch keeps one set of workers. A receipt is returned after its
    commit, never before; and "skipped" not before this worker's other shard is through, because the driver takes it
    for the worker's last word and may end the process.
    """

    def __init__(self, settings: StageSettings) -> None:
        self._settings = settings
        self._worker = str(ray.get_runtime_context().get_actor_id())
        self._model = ModelThread(
            settings.plan,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
            max_tokens=settings.max_tokens,
        )
        # Held while a shard computes, so that the next one looks for the stop file when its turn comes.
        self._turn = threading.Lock()
        self._at_work = _AtWork()
        self._heartbeat = Heartbeat(settings.writer.folder, self._worker)

    def __call__(self, table: pa.Table) -> pa.Table:
        """A row that holds a shard's tokens to its receipt."""
        with self._at_work:
            receipt = self._receipt(table)
        if receipt.state == "skipped":
            self._at_work.wait_until_none()
        return receipt.to_table()

    def _receipt(self, table: pa.Table) -> Receipt:
        if "refusal" in table.column_names:
            refusal = json.loads(table.column("refusal")[0].as_py())
            return Receipt(read_shard_row(table).index, worker=self._worker, **refusal)
        try:
            return self._compute(from_row(table))
        except Exception as error:
            shard = read_shard_row(table)
            return Receipt(shard.index, "failed", self._worker, _message(shard, error), _details(error))

    def _compute(self, shard: EncodedShard) -> Receipt:
        index = shard.records.shard.index
        with self._turn:
            if self._settings.stop.exists():
                return Receipt(index, "skipped", self._worker)
            outputs, busy_s = self._model.forward(shard.encoded, self._heartbeat)
            ended = time.time()
        annotations = self._model.graph.decode(shard.encoded, outputs)
        problems = {
            int(shard.usable[row]): Problem(error.code, str(error)) for row, error in annotations.failed.items()
        }
        if self._settings.fail_on_error and problems:
            return Receipt(index, "failed", self._worker, describe_problem(shard.records, problems))
        windows = [len(part.windows) for part in outputs.windows]
        tokens = [int(part.windows.length.sum()) for part in outputs.windows]
        stats = {"windows": sum(windows), "encoder_tokens": sum(tokens), "busy_s": round(busy_s, 3), "ended": ended}
        return self._commit(shard, annotations, problems, stats)

    def _commit(
        self,
        shard: EncodedShard,
        annotations: Annotations,
        problems: dict[int, Problem],
        stats: dict[str, Any],
    ) -> Receipt:
        records = shard.records
        quarantine = pa.concat_tables(
            [records.quarantine(records.problems, "read"), records.quarantine(problems, "model")]
        )
        stats["codes"] = dict(Counter(quarantine.column("code").to_pylist()))
        data = self._data(shard, annotations)
        positions = pa.array(sorted({*records.problems, *problems}), pa.int64())
        set_aside = quarantine if records.keep is None else records.keep.take(positions)
        stats["counts"] = count_shard(self._settings.plan, data, set_aside)
        stats["lease"] = self._settings.writer.token
        commit = self._settings.writer.commit(
            records.shard.index,
            records.shard.rows,
            data,
            quarantine,
            stats,
        )
        return Receipt(
            shard=commit.shard,
            state="committed",
            worker=self._worker,
            rows=commit.planned,
            quarantined=commit.quarantined,
            tokens=stats["encoder_tokens"],
            windows=stats["windows"],
            busy_s=stats["busy_s"],
            size=sum(file.size for file in commit.files),
        )

    def _data(self, shard: EncodedShard, annotations: Annotations) -> pa.Table:
        """Output rows of a shard, in the order of its input."""
        rows = np.setdiff1d(np.arange(len(shard.usable)), list(annotations.failed))
        positions = pa.array(shard.usable[rows])
        arrays = [shard.records.ids.take(positions)]
        arrays += annotation_arrays(self._settings.plan, annotations, rows)
        if shard.records.keep is not None:
            arrays += shard.records.keep.take(positions).columns
        keep = self._settings.columns.keep_schema()
        schema = data_schema(self._settings.plan, shard.records.ids.type, keep, self._settings.fingerprint)
        return pa.table(arrays, schema=schema)


def describe_problem(records: Records, problems: dict[int, Problem]) -> str:
    """The first problem of a shard, with its place."""
    position = min(problems)
    row, problem = int(records.rows[position]), problems[position]
    return (
        f"{records.shard.file.path} row {row} (counted from 0): {problem.message} ({problem.code}); repair it, or let "
        "such rows be set aside with --on-error quarantine"
    )


def _message(shard: Shard, error: Exception) -> str:
    """Why a shard could not be done; the text of an unforeseen exception may quote records and stays out."""
    if isinstance(error, XLMRError):
        return str(error)
    logger.error("shard failed shard=%d error=%s", shard.index, type(error).__name__)
    reason = f"{type(error).__name__}{f' ({error.strerror})' if isinstance(error, OSError) else ''}"
    return f"{shard.file.path} rows {shard.row_start} to {shard.row_stop}: {reason}; --debug shows where and why"


def _details(error: Exception) -> str:
    return "" if isinstance(error, XLMRError) else "".join(traceback.format_exception(error))


def _refusal(shard: Shard, state: str, error: str = "", details: str = "") -> pa.Table:
    """A row that a shard leaves behind when it has no tokens to show."""
    refusal = json.dumps({"state": state, "error": error, "details": details})
    return pa.table({"shard": [json.dumps(shard.to_dict())], "refusal": [refusal]})
