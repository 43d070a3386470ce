"""The output directory of a job, from the first look to `_SUCCESS`.

    OUT/data/part-*.parquet  quarantine/part-*.parquet  manifest.json  _SUCCESS
    OUT/run/fingerprint.json  plan.json  commits/<shard>.json  lease/<n>.json  tmp/<lease token>/

`_SUCCESS` holds the manifest's SHA-256 in the form `sha256sum -c` reads; the manifest holds that of every
other file. Both come last, so their presence means that everything is there.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pipelines.annotate import durable, lease
from pipelines.annotate.columnar import MAX_SHARD_BYTES
from pipelines.annotate.commit import Commit, ShardWriter, commit_path, part_name, publish, read_commit
from pipelines.annotate.lease import OutputError
from pipelines.annotate.lines import MAX_RECORD_BYTES
from pipelines.annotate.plan import Plan

_VERSION = 1
_DIFFERENCES_SHOWN = 20
# Fields of a fingerprint that the files themselves decide, not what the user asked for.
_INPUT_FILES = ("inputs.sha256:", "inputs.files:")
_VALUE_SHOWN = 200
State = Literal["new", "resumable", "finished"]


@dataclass(slots=True)
class Output:
    """An output directory that is this job's to write (or, when finished, to read).

    Attributes:
        root: The directory.
        state: "new" without a plan yet, "resumable" with one, "finished" with `_SUCCESS`.
        lease: Held until `close`; None when finished.
    """

    root: Path
    state: State
    lease: lease.Lease | None

    def writer(self) -> ShardWriter:
        """The part that workers need."""
        assert self.lease is not None, "a finished output is not written"
        return ShardWriter(self.root, self.lease.token)

    def committed(self) -> set[int]:
        """Shards that are committed."""
        return {int(path.stem) for path in (self.root / "run" / "commits").glob("*.json")}

    def commits(self) -> Iterator[Commit]:
        """Records of the committed shards, in order, one in memory at a time."""
        for shard in sorted(self.committed()):
            yield read_commit(commit_path(self.root, shard))

    def save_plan(self, plan: Plan) -> None:
        """Stores the plan of a new job; from then on its shard borders are fixed."""
        install(self.root / "run" / "plan.json", plan.to_json().encode())
        self.state = "resumable"

    def load_plan(self) -> Plan:
        """The stored plan; commits refer to its shards, whatever shard size a resuming command asks."""
        return Plan.from_json((self.root / "run" / "plan.json").read_bytes())

    def finalise(self, plan: Plan) -> dict[str, Any]:
        """Writes the manifest and `_SUCCESS` once every shard is committed.

        Returns:
            The manifest.

        Raises:
            OutputError: When shards are missing, files are not as committed, or the lease was lost.
        """
        assert self.lease is not None, "a finished output is not written"
        self.lease.check()
        _recover(self.root, keep=None)
        manifest = _manifest(self.root, plan, self.committed())
        self.lease.check()
        durable.step("finalise:manifest")
        content = install(self.root / "manifest.json", _dump(manifest))
        durable.step("finalise:success")
        line = f"{hashlib.sha256(content).hexdigest()}  manifest.json\n"
        install(self.root / "_SUCCESS", line.encode())
        durable.step("finalise:done")
        self.state = "finished"
        return manifest

    def close(self) -> None:
        """Gives the lease back."""
        if self.lease is not None:
            self.lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_output(root: Path, fingerprint: Mapping[str, Any], *, lease_seconds: float = lease.TERM_SECONDS) -> Output:
    """Makes a directory this job's output, or takes up the job that stands there.

    Args:
        root: A directory that is absent, empty, or this very job's.
        fingerprint: JSON values of everything that decides the job's results; nested mappings are compared
            field by field.
        lease_seconds: See `lease.acquire`.

    Raises:
        OutputError: When the directory holds something else or another job, naming every field that differs
            with both values; when another driver is at work; when it cannot be written.
    """
    wanted = json.loads(_dump(fingerprint))
    try:
        _check_ours(root)
        if (root / "_SUCCESS").exists():
            _check_same_job(root, wanted)
            return Output(root, "finished", None)
        durable.step("open:folders")
        for folder in ("run/tmp", "run/commits", "data", "quarantine"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for made in (root / "run", root, root.absolute().parent):
            durable.sync_folder(made)
        held = lease.acquire(root / "run" / "lease", term=lease_seconds)
        try:
            return _open_held(root, wanted, held)
        except BaseException:
            held.release()
            raise
    except OSError as error:
        raise OutputError(
            f"{root} cannot be used as output ({error.strerror or error}); choose another --output"
        ) from error


def _open_held(root: Path, wanted: Any, held: lease.Lease) -> Output:
    if (root / "run" / "fingerprint.json").exists():
        _check_same_job(root, wanted)
    else:
        durable.step("open:fingerprint")
        install(root / "run" / "fingerprint.json", _dump(wanted))
    if (root / "_SUCCESS").exists():
        # The driver that held the lease until now has finished the job in the meantime.
        held.release()
        return Output(root, "finished", None)
    (root / "run" / "tmp" / held.token).mkdir()
    _recover(root, keep=held.token)
    state: State = "resumable" if (root / "run" / "plan.json").exists() else "new"
    return Output(root, state, held)


def _check_ours(root: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise OutputError(f"{root} is a file, an output is a directory; choose another --output")
    names = {path.name for path in root.iterdir()}
    inside = {path.name for path in (root / "run").iterdir()} if (root / "run").is_dir() else set()
    # Without a fingerprint only folders that a driver makes before it may be there.
    just_begun = names <= {"run", "data", "quarantine"} and inside <= {
        "tmp",
        "commits",
        "lease",
        ".fingerprint.json.tmp",
    }
    filled = any(path.is_file() for name in ("data", "quarantine") for path in root.glob(f"{name}/*"))
    if "fingerprint.json" not in inside and (filled or not just_begun):
        some = ", ".join(sorted(names)[:5])
        raise OutputError(
            f"{root} is not empty and not an output of this command (it holds {some}), "
            "an output starts empty; choose another --output"
        )


def _check_same_job(root: Path, wanted: Any) -> None:
    path = root / "run" / "fingerprint.json"
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} is damaged; delete {root} or choose another --output") from error
    differences = list(_differences("", found, wanted))
    if differences:
        more = len(differences) - _DIFFERENCES_SHOWN
        lines = differences[:_DIFFERENCES_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        what = "another job, one directory holds one; choose another --output, or delete it"
        if all(line.startswith(_INPUT_FILES) for line in differences):
            what = (
                "a job of other input files: some were added, removed or changed since it began; "
                "put them back as they were, or choose another --output"
            )
        raise OutputError(f"{root} holds {what}. What differs:\n  " + "\n  ".join(lines))


def _differences(name: str, found: Any, wanted: Any) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            field = f"{name}.{key}" if name else key
            yield from _differences(field, found.get(key, "(absent)"), wanted.get(key, "(absent)"))
    elif found != wanted:
        yield f"{name}: {_shown(found)} there, {_shown(wanted)} asked now"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_SHOWN else f"{text[:_VALUE_SHOWN]}..."


def _recover(root: Path, *, keep: str | None) -> None:
    """Ends all attempts but those below tmp/`keep`: publishes what they committed, deletes the rest.

    Moving a folder away first makes every later link out of it fail, so what is committed can only be what
    the commit records show after the move.
    """
    tmp = root / "run" / "tmp"
    for folder in sorted(tmp.iterdir()):
        if folder.name == keep:
            continue
        if not folder.name.endswith(".ended"):
            durable.step("recover:move")
            ended = folder.with_name(f"{folder.name}.ended")
            os.rename(folder, ended)
            folder = ended
        # Names with a leading dot are signs of life and what a network file system keeps of a file still open.
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        for shard in sorted({int(name.split(".")[0]) for name in names}):
            if commit_path(root, shard).exists():
                commit = read_commit(commit_path(root, shard))
                if any((folder / file.temporary).exists() for file in commit.files):
                    durable.step("recover:publish")
                    publish(root, folder, commit)
        durable.step("recover:delete")
        # What cannot be deleted yet, whoever comes next deletes.
        shutil.rmtree(folder, ignore_errors=True)
    durable.sync_folder(tmp)
    # A commit whose link was seen but not yet made to last must not be lost after the files moved.
    durable.sync_folder(root / "run" / "commits")


def _manifest(root: Path, plan: Plan, committed: set[int]) -> dict[str, Any]:
    planned = {shard.index for shard in plan.shards}
    if committed != planned:
        missing, foreign = sorted(planned - committed), sorted(committed - planned)
        raise OutputError(
            f"{root}: {len(missing)} shards are not committed {missing[:5]}, {len(foreign)} are not in the "
            f"plan {foreign[:5]}; run the same command again"
        )
    shards, totals, statuses = [], Counter[str](), Counter[str]()
    ids = {"ids_ok": 0, "ids_quarantined": 0}
    for shard in plan.shards:
        content = commit_path(root, shard.index).read_bytes()
        commit = Commit.from_dict(json.loads(content))
        if commit.planned != shard.rows:
            raise OutputError(
                f"{root}: shard {shard.index} was planned with {shard.rows} rows but committed with "
                f"{commit.planned}; delete {commit_path(root, shard.index)} and run again"
            )
        for file in commit.files:
            _check_size(root, file.path, file.size)
        totals.update(rows=commit.planned, ok=commit.ok, quarantined=commit.quarantined, tokens=commit.tokens)
        statuses.update(commit.statuses)
        for key in ids:
            ids[key] += int(getattr(commit, key), 16)
        entry = asdict(commit) | {"commit_sha256": hashlib.sha256(content).hexdigest()}
        del entry["attempt"], entry["stats"]
        for file in entry["files"]:
            del file["temporary"]
        shards.append(entry)
    _check_no_strays(root, planned)
    run = {
        name: hashlib.sha256((root / "run" / name).read_bytes()).hexdigest()
        for name in ("fingerprint.json", "plan.json")
    }
    return {
        "version": _VERSION,
        "fingerprint": json.loads((root / "run" / "fingerprint.json").read_bytes()),
        "run_sha256": run,
        "inputs": [asdict(file) | {"name": name} for file, name in zip(plan.files, plan.names, strict=True)],
        "unreadable": [asdict(entry) for entry in plan.unreadable],
        "columns": {key: getattr(plan.columns, key) for key in ("text", "pair", "id", "id_type", "keep")},
        "selection": {"limit": plan.limit, "sample": plan.sample, "seed": plan.seed},
        "bounds": {"record_bytes": MAX_RECORD_BYTES, "shard_bytes": MAX_SHARD_BYTES},
        "totals": {
            "shards": len(shards),
            **{key: totals[key] for key in ("rows", "ok", "quarantined", "tokens")},
            "statuses": dict(statuses),
            **{key: f"{value % 2**128:032x}" for key, value in ids.items()},
        },
        "shards": shards,
    }


def _check_size(root: Path, path: str, size: int) -> None:
    try:
        found = os.stat(root / path).st_size
    except OSError as error:
        raise OutputError(
            f"{root / path} is committed but cannot be read ({error.strerror}); delete its record in "
            f"{root / 'run' / 'commits'} and run again"
        ) from error
    if found != size:
        raise OutputError(
            f"{root / path} has {found} bytes, {size} were committed; delete it and its record in "
            f"{root / 'run' / 'commits'} and run again"
        )


def _check_no_strays(root: Path, planned: set[int]) -> None:
    names = {part_name(shard) for shard in planned}
    found = [path for kind in ("data", "quarantine") for path in (root / kind).iterdir()]
    # Readers of Parquet folders pass over hidden files.
    strays = [path for path in found if path.name not in names and not path.name.startswith(".")]
    if strays:
        raise OutputError(
            f"{root} holds files this job did not write, readers would take them for results: "
            f"{', '.join(map(str, strays[:5]))}; move them away and run again"
        )


def install(path: Path, content: bytes) -> bytes:
    """Puts a whole file in place at once and returns its content."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    durable.step(f"install:{path.name}")
    durable.write(temporary, content)
    durable.step(f"install:{path.name}-rename")
    durable.replace(temporary, path)
    return content


def _dump(values: Any) -> bytes:
    try:
        return (json.dumps(values, sort_keys=True, indent=1) + "\n").encode()
    except TypeError as error:
        raise OutputError(
            f"fingerprint must be JSON values: {error}",
        ) from error
