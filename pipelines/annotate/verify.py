"""Checks an output without a line of the code that wrote it: a proof must not share its subject's bugs.

What it proves: every file is, byte for byte, what was committed; every shard was committed once; and the ids
of the data plus the ids of the quarantine are, as a multiset, the ids of the inputs, which `recount` reads
again. Ids are compared through a sum of hashes that does not depend on their order, so memory does not grow with the
rows: it holds the manifest and the plan, about a kilobyte a shard, and ranges of unreadable rows.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.annotate.recount import Rows, selected_ids

STATUSES = frozenset({"ok", "truncated", "empty"})
_READ_BYTES = 1 << 20
_ERRORS = (OSError, pa.ArrowException, ValueError, KeyError, TypeError, EOFError, RecursionError)


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Attributes:
        problems: One message each, naming the file; empty when everything holds.
        shards, rows, ok, quarantined, files: Counted, not copied from the manifest.
        inputs_rechecked: Whether the inputs were read again.
        uncovered: Input files the job could not read and left out.
    """

    problems: list[str] = field(default_factory=list)
    shards: int = 0
    rows: int = 0
    ok: int = 0
    quarantined: int = 0
    files: int = 0
    inputs_rechecked: bool = False
    uncovered: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def verify(out: Path, *, recheck_inputs: bool = True) -> Report:
    """Checks an output directory.

    Args:
        out: The directory that annotate wrote.
        recheck_inputs: Also read the inputs again and compare their ids with those of the output.

    Returns:
        All problems; never raises for anything that is wrong with the directory.
    """
    check = _Check(out)
    try:
        manifest = check.manifest()
        if manifest is not None:
            check.shards(manifest)
            check.strays(manifest)
            check.totals(manifest)
            if recheck_inputs and not check.report.problems:
                check.inputs(manifest)
    except _ERRORS as error:
        check.report.problems.append(f"{out / 'manifest.json'} does not have the expected form: {error!r}")
    return check.report


class _Check:
    def __init__(self, out: Path) -> None:
        self.out = out
        self.report = Report()
        self._ids = {"data": 0, "quarantine": 0}
        self._statuses: Counter[str] = Counter()
        self._tokens = 0
        self._schema: pa.Schema | None = None
        self._unreadable: dict[str, Rows] = {}

    def _problem(self, path: str | Path, text: str) -> None:
        self.report.problems.append(f"{self.out / path}: {text}")

    def _sha256(self, path: str, expected: str) -> bool:
        """Whether a file has the expected content; a problem otherwise."""
        digest = hashlib.sha256()
        try:
            with open(self.out / path, "rb") as file:
                while chunk := file.read(_READ_BYTES):
                    digest.update(chunk)
        except OSError as error:
            self._problem(path, f"cannot be read ({error.strerror})")
            return False
        self.report.files += 1
        if digest.hexdigest() != expected:
            self._problem(path, "content changed since it was committed (sha256 differs)")
        return digest.hexdigest() == expected

    def manifest(self) -> dict[str, Any] | None:
        try:
            seal = (self.out / "_SUCCESS").read_text(encoding="ascii", errors="replace")
            content = (self.out / "manifest.json").read_bytes()
        except OSError as error:
            self._problem(
                Path(error.filename).name,
                f"cannot be read ({error.strerror}), the job is not finished; run the same xlmr annotate again",
            )
            return None
        if seal != f"{hashlib.sha256(content).hexdigest()}  manifest.json\n":
            self._problem("manifest.json", "does not match the sha256 in _SUCCESS, one of the two was changed")
            return None
        values: dict[str, Any] = json.loads(content)
        for name, expected in values["run_sha256"].items():
            self._sha256(f"run/{name}", expected)
        self.report.uncovered = [entry["path"] for entry in values["unreadable"]]
        return values

    def shards(self, manifest: dict[str, Any]) -> None:
        numbers = [entry["shard"] for entry in manifest["shards"]]
        if numbers != list(range(len(numbers))):
            self._problem("manifest.json", "shards are not numbered 0, 1, 2, ... once each")
        plan = json.loads((self.out / "run/plan.json").read_bytes())
        planned = [shard[-1] for shard in plan["shards"]]
        if planned != [entry["planned"] for entry in manifest["shards"]]:
            self._problem("manifest.json", "shards or their rows are not those of run/plan.json")
        for entry in manifest["shards"]:
            self._shard(entry)

    def _shard(self, entry: dict[str, Any]) -> None:
        name = f"run/commits/{entry['shard']:06d}.json"
        if self._sha256(name, entry["commit_sha256"]):
            record = json.loads((self.out / name).read_bytes())
            files = [{key: file[key] for key in ("path", "sha256", "size", "rows")} for file in record["files"]]
            if {**{key: record[key] for key in entry if key != "commit_sha256"}, "files": files} != {
                key: value for key, value in entry.items() if key != "commit_sha256"
            }:
                self._problem(name, "differs from the manifest")
        if entry["planned"] != entry["ok"] + entry["quarantined"]:
            self._problem(name, "planned rows are not the sum of ok and quarantined ones")
        expected = {"data": entry["ok"]} | ({"quarantine": entry["quarantined"]} if entry["quarantined"] else {})
        paths = {f"{kind}/part-{entry['shard']:06d}.parquet": kind for kind in expected}
        if sorted(paths) != sorted(file["path"] for file in entry["files"]):
            self._problem(name, "does not name the data file and, with quarantined rows, the quarantine file")
            return
        self.report.shards += 1
        for file in entry["files"]:
            kind = paths[file["path"]]
            if not self._sha256(file["path"], file["sha256"]):
                continue
            total = self._part(file["path"], kind, expected[kind])
            self._ids[kind] += total
            if total % 2**128 != int(entry["ids_ok" if kind == "data" else "ids_quarantined"], 16):
                self._problem(file["path"], "ids are not those of the commit record")

    def _part(self, path: str, kind: str, rows: int) -> int:
        """Checks one file's rows and returns the sum of its ids' hashes."""
        total = found = 0
        with pq.ParquetFile(self.out / path) as parquet:
            schema = parquet.schema_arrow.remove_metadata()
            if kind == "data":
                self._schema = self._schema or schema
                if schema != self._schema:
                    self._problem(path, "columns or their types differ from those of the parts before it")
            extra = ("status", "n_tokens", "n_tokens_used") if kind == "data" else ("file", "row", "code")
            lacking = [name for name in ("id", *extra[: 1 if kind == "data" else 3]) if name not in schema.names]
            if lacking:
                self._problem(path, f"lacks column {', '.join(lacking)}")
                return 0
            columns = [name for name in ("id", *extra) if name in schema.names]
            for batch in parquet.iter_batches(columns=columns):
                found += batch.num_rows
                if batch.column("id").null_count:
                    self._problem(path, "has rows without id")
                total += sum(_hash(value) for value in batch.column("id").to_pylist() if value is not None)
                self._data(path, batch) if kind == "data" else self._quarantine(path, batch)
        if found != rows:
            self._problem(path, f"has {found} rows, {rows} were committed")
        self.report.rows += found
        if kind == "data":
            self.report.ok += found
        else:
            self.report.quarantined += found
        return total

    def _data(self, path: str, batch: pa.RecordBatch) -> None:
        statuses = Counter(batch.column("status").to_pylist())
        self._statuses.update(statuses)
        if unknown := set(statuses) - STATUSES:
            self._problem(path, f"has status {sorted(map(str, unknown))}, must be one of {sorted(STATUSES)}")
        if "n_tokens" not in batch.schema.names:
            return
        tokens = batch.column("n_tokens").to_pylist()
        self._tokens += sum(tokens_of_row or 0 for tokens_of_row in tokens)
        used = batch.column("n_tokens_used").to_pylist() if "n_tokens_used" in batch.schema.names else tokens
        if any(value is None or value < 0 for value in tokens):
            self._problem(path, "has rows whose n_tokens is null or negative")
        elif any(value is None or not 0 <= value <= most for value, most in zip(used, tokens, strict=True)):
            self._problem(path, "has rows whose n_tokens_used is null, negative or over n_tokens")

    def _quarantine(self, path: str, batch: pa.RecordBatch) -> None:
        rows = [batch.column(name).to_pylist() for name in ("file", "row", "code")]
        for file, row, code in zip(*rows, strict=True):
            if not file or row is None or row < 0 or not code:
                self._problem(path, "has rows without file, row or code")
            elif code == "unreadable":
                self._unreadable.setdefault(file, Rows()).add(row)

    def strays(self, manifest: dict[str, Any]) -> None:
        known = {file["path"] for entry in manifest["shards"] for file in entry["files"]}
        known |= {f"run/commits/{entry['shard']:06d}.json" for entry in manifest["shards"]}
        for folder in ("data", "quarantine", "run/commits"):
            for path in sorted((self.out / folder).iterdir()):
                # Readers pass over hidden files, such as a network file system keeps of one deleted while open.
                if f"{folder}/{path.name}" not in known and not path.name.startswith("."):
                    self._problem(f"{folder}/{path.name}", "was not written by this job, readers would take it")

    def totals(self, manifest: dict[str, Any]) -> None:
        report = self.report
        found = {
            "shards": report.shards,
            "rows": report.rows,
            "ok": report.ok,
            "quarantined": report.quarantined,
            "tokens": self._tokens,
            "statuses": dict(self._statuses),
            "ids_ok": f"{self._ids['data'] % 2**128:032x}",
            "ids_quarantined": f"{self._ids['quarantine'] % 2**128:032x}",
        }
        for key, value in manifest["totals"].items():
            if found[key] != value:
                self._problem("manifest.json", f"says {key} is {value}, the files say {found[key]}")

    def inputs(self, manifest: dict[str, Any]) -> None:
        for entry in manifest["inputs"]:
            try:
                status = os.stat(entry["path"])
                changed = f"{status.st_size:x}-{status.st_mtime_ns:x}" != entry["etag"]
            except OSError as error:
                self.report.problems.append(f"{entry['path']}: input cannot be read again ({error.strerror})")
                return
            if changed:
                self.report.problems.append(f"{entry['path']}: input changed since the job, cannot be compared")
                return
        count = total = 0
        try:
            for value in selected_ids(manifest, self._unreadable, self.report.problems):
                count += 1
                total += _hash(value)
        except _ERRORS as error:
            # Messages of decoders quote what they could not decode.
            reason = f" ({error.strerror})" if isinstance(error, OSError) else ""
            self.report.problems.append(f"inputs cannot be read again: {type(error).__name__}{reason}")
            return
        self.report.inputs_rechecked = True
        written = sum(self._ids.values())
        if count != self.report.rows:
            self._problem("data", f"and quarantine hold {self.report.rows} rows, the inputs {count}")
        elif (total - written) % 2**128:
            self._problem("data", "and quarantine hold as many rows as the inputs, but not the same ids")


def _hash(value: object) -> int:
    return int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=16).digest(), "little")
