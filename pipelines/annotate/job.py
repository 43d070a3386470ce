"""The job: waves of shards through the stages until all are committed, then the manifest.

The driver reads receipts, never records: it holds the plan and, at the end, the manifest, about a kilobyte a shard and
nothing a row. It may die at any moment: what is committed stays, and the same command goes on from there.
"""

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.data import Dataset
from ray.exceptions import RayError, RayTaskError

from pipelines.annotate.encoded import shard_row
from pipelines.annotate.interrupt import Interrupt
from pipelines.annotate.output import Output, open_output
from pipelines.annotate.plan import Plan, Shard
from pipelines.annotate.pools import Pools, cluster_pools, quiet_context, shard_pipeline
from pipelines.annotate.prepare import Job, UsageError, output_path, prepare
from pipelines.annotate.progress import Display, Summary, Tally
from pipelines.annotate.report import report_path, write_report
from pipelines.annotate.stages import ModelStage, Receipt, StageSettings, TokeniseStage
from pipelines.annotate.watchdog import Watchdog
from pipelines.config import AnnotateConfig, RunSection
from xlmr_core.errors import XLMRError

# One Ray Data execution keeps something of every block; waves keep that bounded. Models load again for each wave,
# which is little beside the work of so many shards.
WAVE_SHARDS = 2_000

_POLL_SECONDS = 0.25
# How long shards at work may take after a signal; who sends SIGTERM soon sends SIGKILL.
_DRAIN_SECONDS = {signal.SIGINT: 60.0, signal.SIGTERM: 8.0}
_CLOSE_SECONDS = 5.0
_OBJECT_STORE_BYTES = 2 << 30

logger = logging.getLogger(__name__)


class JobError(XLMRError):
    """A job that ended before it was done; what it committed stays."""


class Interrupted(JobError):
    """A job that a signal ended.

    Attributes:
        exit_code: 128 plus the signal's number.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def annotate(config: AnnotateConfig) -> Summary:
    """Runs a job to its end, or goes on with one that was interrupted.

    Raises:
        UsageError: It cannot be as it was asked for; nothing was written.
        Interrupted: SIGINT or SIGTERM came.
        JobError: It had to end early.
        OSError: The system, not a file, failed while inputs were planned.
    """
    began = time.monotonic()
    job = prepare(config)
    if config.output.on_error == "fail" and job.plan.unreadable:
        raise JobError("\n".join(entry.message for entry in job.plan.unreadable))
    try:
        opened = open_output(output_path(config), job.fingerprint)
    except XLMRError as error:
        raise UsageError(str(error)) from error
    tally = None
    with opened as output:
        finished_before = output.state == "finished"
        plan = job.plan if output.state == "new" else output.load_plan()
        _say_what_differs(config, plan)
        if not finished_before:
            if output.state == "new":
                output.save_plan(plan)
            tally = _compute(job, plan, output)
            output.finalise(plan)
        if not finished_before or not report_path(output.root).exists():
            _report(output.root, config.output.report_samples)
        return Summary.of_commits(
            output.commits(),
            output=output.root,
            finished_before=finished_before,
            tally=tally,
            seconds=time.monotonic() - began,
            unreadable=tuple(entry.message for entry in plan.unreadable),
        )


def _report(root: Path, samples: int) -> None:
    """Writes the report; the job is done without it."""
    try:
        write_report(root, samples=samples)
    except (OSError, XLMRError) as error:
        logger.warning("report.html was not written, `xlmr report %s` writes it again: %s", root, error)


def _say_what_differs(config: AnnotateConfig, plan: Plan) -> None:
    """Warns of what the user may not expect of this job, before it starts."""
    for entry in plan.unreadable:
        logger.warning("left out: %s", entry.message)
    asked = config.run.shard_rows
    if asked is not None and asked != plan.shard_rows:
        logger.warning("shard_rows=%d is ignored: this job was begun with %d, its borders stay", asked, plan.shard_rows)


def _compute(job: Job, plan: Plan, output: Output) -> Tally:
    """Commits every shard of the plan that is not committed yet."""
    assert output.lease is not None
    done = output.committed()
    pending = [shard for shard in plan.shards if shard.index not in done]
    tally = Tally(plan.rows, len(plan.shards), plan.rows - sum(shard.rows for shard in pending), len(done))
    if not pending:
        return tally
    run, stop = job.config.run, output.writer().folder / ".stop"
    with connected(run.ray_address), Interrupt(stop) as interrupt, Display(tally) as display:
        display.note("starting workers")
        pools = cluster_pools(
            device=job.config.model.device,
            model_workers=run.model_workers,
            tokenise_workers=run.tokenise_workers,
            units=len(pending),
        )
        logger.info(
            "workers model=%d tokenise=%d device=%s",
            pools.model_workers,
            pools.tokenise_workers,
            pools.device,
        )
        settings = StageSettings(
            plan=job.graph,
            columns=plan.columns,
            writer=output.writer(),
            stop=stop,
            fingerprint=job.fingerprint_sha256,
            fail_on_error=job.config.output.on_error == "fail",
            device=pools.device,
            dtype=job.config.model.dtype,
            max_tokens=job.config.model.max_tokens,
            threads=pools.threads,
        )
        wave = _Wave(pools, settings, output, interrupt, tally, display, run)
        for first in range(0, len(pending), WAVE_SHARDS):
            wave.run(pending[first : first + WAVE_SHARDS])
    return tally


@dataclass(frozen=True, slots=True)
class _Wave:
    """Runs some shards through the stages; what it needs for any of them."""

    pools: Pools
    settings: StageSettings
    output: Output
    interrupt: Interrupt
    tally: Tally
    display: Display
    limits: RunSection

    def run(self, shards: Sequence[Shard]) -> None:
        """Returns when every shard is committed.

        Raises:
            Interrupted: A signal came, and what was being computed is committed.
            JobError: A worker says the job must end, or nothing was heard for too long.
        """
        rows = [shard_row(shard) for shard in shards]
        pump = _Pump(shard_pipeline(rows, self.pools, (TokeniseStage, ModelStage), self.settings))
        try:
            self._follow(pump)
        except BaseException:
            # On a Ray that outlives the job its workers would go on.
            self.interrupt.stop_workers()
            raise
        finally:
            pump.close()

    def _follow(self, pump: "_Pump") -> None:
        watchdog = Watchdog(self.settings.writer.folder)
        stopping_since: float | None = None
        idle_workers: set[str] = set()
        while (receipts := pump.take()) is not None:
            for receipt in receipts:
                watchdog.heard()
                if receipt.state == "failed":
                    raise JobError(receipt.error) from (RuntimeError(receipt.details) if receipt.details else None)
                if receipt.state == "skipped":
                    idle_workers.add(receipt.worker)
                else:
                    self._count(receipt)
            self.display.refresh()
            if self.interrupt.signal is None:
                self._check(watchdog)
                continue
            if stopping_since is None:
                stopping_since = time.monotonic()
                self.display.note("stopping: finishing shards at work; Ctrl-C again stops at once")
            drained = len(idle_workers) >= self.pools.model_workers
            if drained or time.monotonic() - stopping_since > _DRAIN_SECONDS[self.interrupt.signal]:
                break
        if self.interrupt.signal is not None:
            raise self._interrupted(self.interrupt.signal)

    def _count(self, receipt: Receipt) -> None:
        if not self.tally.run_rows:
            self.display.note("")
        self.tally.add(
            rows=receipt.rows,
            quarantined=receipt.quarantined,
            tokens=receipt.tokens,
            windows=receipt.windows,
            busy_s=receipt.busy_s,
        )

    def _check(self, watchdog: Watchdog) -> None:
        assert self.output.lease is not None
        self.output.lease.check()
        silence = watchdog.silence()
        if silence > self.limits.stall_minutes * 60:
            free = ray.available_resources()
            raise JobError(
                f"no shard was finished and no batch computed for {silence / 60:.1f} minutes, "
                f"the limit is {self.limits.stall_minutes:g}; "
                f"{self.tally.shards_done} of {self.tally.shards} shards are done, the cluster has "
                f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free. Workers may be dying again and "
                "again (Ray's logs say more), the cluster may be too small, or "
                "a shard too large: run the same command again, with a larger run.stall_minutes if it is only slow"
            )

    def _interrupted(self, number: signal.Signals) -> Interrupted:
        return Interrupted(
            f"stopped after {self.tally.shards_done:,} of {self.tally.shards:,} shards "
            f"({self.tally.rows_done:,} of {self.tally.rows:,} rows), all of them committed; "
            "run the same command again to go on from there",
            128 + number,
        )


class _Pump:
    """Reads receipts in a thread of its own, so that signals and the watchdog never wait for Ray."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._queue: queue.Queue[list[Receipt] | BaseException | None] = queue.Queue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="receipts", daemon=True)
        self._thread.start()

    def take(self) -> list[Receipt] | None:
        """Receipts that came since; maybe none yet; None at the end.

        Raises:
            JobError: The pipeline broke.
        """
        try:
            item = self._queue.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return []
        if isinstance(item, BaseException):
            raise JobError(_cause(item)) from item
        return item

    def close(self) -> None:
        """Ends the pipeline's workers, if they can be reached."""
        self._closed.set()
        self._thread.join(_CLOSE_SECONDS)

    def _read(self) -> None:
        batches = self._dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        try:
            for batch in batches:
                self._queue.put(Receipt.from_table(batch))
                if self._closed.is_set():
                    break
        except BaseException as error:
            self._queue.put(error)
        else:
            self._queue.put(None)


def _cause(error: BaseException) -> str:
    """What broke a pipeline, without Ray's wrapping: workers report their own errors in receipts.

    The text of a foreign exception may quote records, so only its type is told; Ray's own speak of workers.
    """
    inner = getattr(error, "cause", None) or error
    text = f"{type(inner).__name__}; --debug shows where and why"
    if isinstance(inner, XLMRError):
        text = str(inner)
    elif isinstance(inner, RayError) and not isinstance(inner, RayTaskError):
        text = f"{type(inner).__name__}: {(['', *str(inner).strip().splitlines()])[-1].strip()}"
    return f"workers could not be used: {text}"


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray to work on: this process's own, the one at `address`, else a local one that ends with the block."""
    quiet_context()
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {"include_dashboard": False, "object_store_memory": _object_store_bytes()}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(local if address == "local" else {}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise JobError(f"Ray at {address} cannot be used ({error}); check the address and that it runs") from error
    # What goes wrong reaches the user as the job's own message.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def _object_store_bytes() -> int:
    """A quarter of the memory, at most 2 GiB, and what /dev/shm holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = min(_OBJECT_STORE_BYTES, memory // 4)
    shm = Path("/dev/shm")
    if shm.is_dir():
        stat = os.statvfs(shm)
        limit = min(limit, int(stat.f_bavail * stat.f_frsize * 0.8))
    return max(limit, 100 << 20)
