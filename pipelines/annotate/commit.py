"""The commit of one shard: exactly one of any number of attempts counts, whole, for ever.

    run/tmp/<token>/<shard>.<attempt>.data.parquet         written, fsync
    run/tmp/<token>/<shard>.<attempt>.quarantine.parquet   written, fsync
    run/tmp/<token>/<shard>.<attempt>.json                 written, fsync; names, sizes and hashes of the two
    run/commits/<shard>.json                               os.link of the record: first wins, THE commit
    data/part-<shard>.parquet, quarantine/part-...         renamed; done again by whoever resumes

After the link the shard is committed: the renames only follow from the record and can be repeated. An attempt
that comes second deletes its files and returns the winner's record. `<token>` is the lease's: a driver that
takes over moves the folder away, after which an attempt of the old driver finds nothing to link.
"""

import hashlib
import json
import os
import socket
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.annotate import durable
from pipelines.annotate.lease import OutputError, newest_token


@dataclass(frozen=True, slots=True)
class CommittedFile:
    """One file of a commit: its final path below the output, its name before that, its content's identity."""

    path: str
    temporary: str
    sha256: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class Commit:
    """What one shard came to.

    Attributes:
        shard: Index in the plan.
        planned: Its records; planned == ok + quarantined.
        ok, quarantined: Rows of the data and of the quarantine file.
        statuses: Rows by value of column `status`.
        tokens: Sum of column `n_tokens`.
        ids_ok, ids_quarantined: `multiset_hash` of the ids.
        files: The data file, and the quarantine file when it has rows.
        attempt: Tells the attempts at one shard apart.
        stats: What else the caller wanted to keep, JSON values.
    """

    shard: int
    planned: int
    ok: int
    quarantined: int
    statuses: dict[str, int]
    tokens: int
    ids_ok: str
    ids_quarantined: str
    files: tuple[CommittedFile, ...]
    attempt: str
    stats: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Commit":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "files": tuple(CommittedFile(**file) for file in values["files"])})


def multiset_hash(ids: pa.Array | pa.ChunkedArray) -> str:
    """Hash of a multiset of ids that order does not change: the sum, modulo 2**128, of blake2b of each.

    An integer id hashes as its decimal digits, so it does not matter whether a file stores it as a number.

    Returns:
        32 hexadecimal digits.
    """
    total = 0
    for value in ids.to_pylist():
        total += int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=16).digest(), "little")
    return f"{total % 2**128:032x}"


def part_name(shard: int) -> str:
    """File name of a shard's part, in `data` and in `quarantine`."""
    return f"part-{shard:06d}.parquet"


def commit_path(root: Path, shard: int) -> Path:
    """Where the record of a shard's commit lies."""
    return root / "run" / "commits" / f"{shard:06d}.json"


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """What a worker needs to commit shards of one job; cheap to send to another process.

    Attributes:
        root: The output directory.
        token: Of the lease under which the job runs.
    """

    root: Path
    token: str

    def commit(
        self,
        shard: int,
        planned: int,
        data: pa.Table,
        quarantine: pa.Table | None = None,
        stats: Mapping[str, Any] | None = None,
    ) -> Commit:
        """Commits a shard, unless another attempt has; publishes its files.

        Args:
            shard: Index in the plan.
            planned: Records the plan promised.
            data: Rows to write, with column `id`; equal tables make equal bytes.
            quarantine: Rows that could not be processed, with column `id`; no file when it is None or empty.
            stats: JSON values to keep in the record.

        Returns:
            The commit that counts; `attempt` tells whether this call made it.

        Raises:
            OutputError: When the disk is full or not writable, or this job's lease was lost.
        """
        quarantined = quarantine.num_rows if quarantine is not None else 0
        assert data.num_rows + quarantined == planned, (shard, planned, data.num_rows, quarantined)
        won = self.committed(shard)
        if won is not None:
            return won
        attempt = uuid.uuid4().hex
        try:
            commit = self._write(shard, attempt, data, quarantine, dict(stats or {}))
            return self._link(commit)
        except FileNotFoundError as error:
            # The folder is gone: another driver took over, or this one is through and a slow twin comes late.
            won = self.committed(shard)
            if won is not None:
                return won
            raise self._out_of_reach(shard) from error
        except OSError as error:
            raise OutputError(
                f"{self.root} cannot be written ({error.strerror}); make room or repair it and run the "
                "same command again, committed shards are kept"
            ) from error
        finally:
            self._discard(shard, attempt)

    def _out_of_reach(self, shard: int) -> OutputError:
        """Why the folder of the attempts is not there."""
        newest = newest_token(self.root / "run" / "lease")
        if newest not in (None, self.token):
            return OutputError(
                f"{self.root}: shard {shard} cannot be committed, its lease was lost to another "
                "driver; let that one finish"
            )
        return OutputError(
            f"{self.folder} is not visible on this worker ({socket.gethostname()}), the output must be on a file "
            "system all workers share; choose such an --output, or run on one machine"
        )

    def committed(self, shard: int) -> Commit | None:
        """The commit of a shard, if there is one."""
        try:
            return read_commit(commit_path(self.root, shard))
        except FileNotFoundError:
            return None

    def _discard(self, shard: int, attempt: str) -> None:
        """Deletes what an attempt leaves: all it wrote, but only the record when it is the commit."""
        won = self.committed(shard)
        kinds = ["json"] if won and won.attempt == attempt else ["json", "data.parquet", "quarantine.parquet"]
        for kind in kinds:
            (self.folder / f"{shard:06d}.{attempt}.{kind}").unlink(missing_ok=True)

    @property
    def folder(self) -> Path:
        """Where attempts are written until they are committed; also for signs of life and the stop file."""
        return self.root / "run" / "tmp" / self.token

    def _write(
        self, shard: int, attempt: str, data: pa.Table, quarantine: pa.Table | None, stats: dict[str, Any]
    ) -> Commit:
        tables = {"data": data}
        if quarantine is not None and quarantine.num_rows:
            tables["quarantine"] = quarantine
        files = []
        for kind, table in tables.items():
            durable.step(f"commit:{kind}")
            content = _parquet(table)
            temporary = f"{shard:06d}.{attempt}.{kind}.parquet"
            durable.write(self.folder / temporary, memoryview(content))
            path, sha256 = f"{kind}/{part_name(shard)}", hashlib.sha256(content).hexdigest()
            files.append(CommittedFile(path, temporary, sha256, content.size, table.num_rows))
        quarantined = quarantine if quarantine is not None else data.slice(0, 0)
        statuses = Counter(data["status"].to_pylist()) if "status" in data.column_names else Counter()
        tokens = sum(data["n_tokens"].drop_null().to_pylist()) if "n_tokens" in data.column_names else 0
        return Commit(
            shard,
            data.num_rows + quarantined.num_rows,
            data.num_rows,
            quarantined.num_rows,
            dict(statuses),
            tokens,
            multiset_hash(data["id"]),
            multiset_hash(quarantined["id"]),
            tuple(files),
            attempt,
            stats,
        )

    def _link(self, commit: Commit) -> Commit:
        record = self.folder / f"{commit.shard:06d}.{commit.attempt}.json"
        durable.step("commit:record")
        durable.write_json(record, asdict(commit))
        durable.step("commit:sync")
        durable.sync_folder(self.folder)
        durable.step("commit:link")
        final = commit_path(self.root, commit.shard)
        try:
            os.link(record, final)
        except FileExistsError:
            # Network file systems may repeat a link that succeeded: the record, not the error, says who won.
            winner = read_commit(final)
            if winner.attempt != commit.attempt:
                return winner
        durable.step("commit:linked")
        durable.sync_folder(final.parent)
        publish(self.root, self.folder, commit)
        return commit


def publish(root: Path, folder: Path, commit: Commit) -> None:
    """Gives a commit's files their final names; harmless when it was done before, by anybody.

    Raises:
        OutputError: When a file is neither in `folder` nor at its final name.
    """
    for file in commit.files:
        durable.step(f"publish:{file.path.split('/')[0]}")
        try:
            os.replace(folder / file.temporary, root / file.path)
        except FileNotFoundError as error:
            if not (root / file.path).exists():
                raise OutputError(
                    f"{root / file.path} is committed but missing; delete {root} and start again, or "
                    f"only {commit_path(root, commit.shard)} to compute that shard again"
                ) from error
        durable.step(f"publish:{file.path.split('/')[0]}-sync")
        durable.sync_folder((root / file.path).parent)


def read_commit(path: Path) -> Commit:
    """Reads a commit record.

    Raises:
        FileNotFoundError: When there is none.
        OutputError: When it is damaged.
    """
    try:
        return Commit.from_dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{path} is damaged ({type(error).__name__}); delete it to compute that shard again"
        ) from error


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
