"""From what a user typed to the files of a job: a sorted list without repeats, whatever the order typed."""

import glob
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xlmr_core.errors import InputError

FORMATS = ("text", "jsonl", "csv", "tsv", "parquet", "arrow")
_SUFFIXES = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_MAX_STATE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a job.

    Attributes:
        path: Absolute path.
        format: One of `FORMATS`; "arrow" is one file of a directory made by `datasets.save_to_disk`.
        compression: "gzip", "zstd" or None.
        size: Bytes on disk.
        etag: Changes whenever the size or the modification time does.
        rows: Records in the file; None until it was planned to its end.
    """

    path: str
    format: str
    compression: str | None
    size: int
    etag: str
    rows: int | None = None


def expand_inputs(inputs: Sequence[str | os.PathLike[str]], *, format: str | None = None) -> list[InputFile]:
    """Expands files, folders (recursively), globs and saved `datasets` directories.

    In folders and globs, hidden files, names that start with "_" and names without a known suffix are
    passed over; a file named itself is always taken. A file reached twice (also through links) counts once.

    Args:
        inputs: Paths or glob patterns, in any order.
        format: One of `FORMATS` for every file, instead of what each suffix says.

    Returns:
        Files sorted by path.

    Raises:
        InputError: Listing every input that gives nothing, code "bad_input".
        OSError: A file that was listed cannot be looked at.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"format {format!r}, must be one of {', '.join(FORMATS)}", code="bad_input")
    search = _Search(format)
    for item in inputs:
        search.add(os.fspath(item))
    if not inputs:
        search.problems.append("no inputs; name at least one file, folder or glob")
    if search.problems:
        raise InputError("\n".join(search.problems), code="bad_input")
    unique: dict[str, InputFile] = {}
    for file in sorted(search.found, key=lambda file: file.path):
        unique.setdefault(os.path.realpath(file.path), file)
    return list(unique.values())


def etag_of(status: os.stat_result) -> str:
    """Identity of a file's content as far as its metadata tells: size and modification time."""
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def check_unchanged(file: InputFile) -> None:
    """Raises InputError, code "input_changed", when `file` is not what it was when it was planned."""
    try:
        status = os.stat(file.path)
    except OSError as error:
        raise InputError(
            f"{file.path} was planned but cannot be read now ({error.strerror}); "
            "put it back unchanged and run the same command again",
            code="input_changed",
        ) from error
    if etag_of(status) != file.etag:
        raise InputError(
            f"{file.path} changed after it was planned (size {file.size} then, {status.st_size} now, or "
            "another modification time), inputs must stay as they are; start again with another --output",
            code="input_changed",
        )


def relative_names(files: Iterable[InputFile]) -> list[str]:
    """Paths below the deepest folder that holds all files, with forward slashes and valid in UTF-8."""
    paths = [file.path for file in files]
    if not paths:
        return []
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, root) for path in paths]
    return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]


@dataclass(slots=True)
class _Search:
    format: str | None
    found: list[InputFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, item: str) -> None:
        before = len(self.found), len(self.problems)
        if os.path.lexists(item):
            self._add_named(item)
        elif glob.has_magic(item):
            for match in sorted(glob.glob(item, recursive=True)):
                if _passed_over(os.path.basename(match.rstrip("/"))):
                    continue
                if os.path.isdir(match):
                    self._add_folder(match)
                else:
                    self._add_file(match)
        elif "://" in item:
            self.problems.append(f"{item}: remote inputs are not read; mount or download them")
        else:
            self.problems.append(f"{item}: no such file or folder, and no glob pattern; check the path")
        if (len(self.found), len(self.problems)) == before:
            self.problems.append(
                f"{item}: holds no readable input, files must end in {', '.join(_SUFFIXES)} "
                "(also with .gz or .zst); pass --format for other names"
            )

    def _add_named(self, path: str) -> None:
        if os.path.isdir(path):
            self._add_folder(path)
        elif not os.path.exists(path):
            self.problems.append(f"{path}: a link that leads nowhere; repair or remove it")
        elif not stat.S_ISREG(os.stat(path).st_mode):
            self.problems.append(f"{path}: not a regular file (a pipe, socket or device); copy it to a file first")
        elif not self._add_file(path):
            self.problems.append(f"{path}: the name does not say the format; pass --format {'|'.join(FORMATS[:-1])}")

    def _add_folder(self, top: str) -> None:
        for folder, names in _walk(top, self.problems):
            if "state.json" in names and "dataset_info.json" in names:
                self._add_saved_dataset(folder)
                continue
            for name in names:
                if not _passed_over(name) and name != "dataset_dict.json":
                    self._add_file(os.path.join(folder, name))

    def _add_saved_dataset(self, folder: str) -> None:
        state = os.path.join(folder, "state.json")
        try:
            with open(state, "rb") as file:
                content = json.loads(file.read(_MAX_STATE_BYTES))
            names = [entry["filename"] for entry in content["_data_files"]]
            if any(name != os.path.basename(name) for name in names):
                raise ValueError("a data file lies outside the folder")
            if content.get("_indices_files"):
                raise ValueError("rows are selected through an index file")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.problems.append(f"{state}: not a saved dataset ({error!r}); save it again with save_to_disk")
            return
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.exists(path) or not self._add_file(path, "arrow"):
                self.problems.append(f"{path}: named in state.json but missing; save it again")

    def _add_file(self, path: str, format: str | None = None) -> bool:
        stem, suffix = os.path.splitext(path)
        compression = _COMPRESSIONS.get(suffix.lower())
        if compression is not None:
            suffix = os.path.splitext(stem)[1]
        format = format or self.format or _SUFFIXES.get(suffix.lower())
        try:
            status = os.stat(path)
        except OSError as error:
            if format is None or os.path.islink(path):
                return False
            raise OSError(f"{path} was listed but cannot be looked at ({error.strerror}); run it again") from error
        if format is None or not stat.S_ISREG(status.st_mode):
            return False
        if compression is not None and format in ("parquet", "arrow"):
            self.problems.append(f"{path}: {format} inside {compression}; decompress it first")
            return True
        self.found.append(InputFile(os.path.abspath(path), format, compression, status.st_size, etag_of(status)))
        return True


def _walk(top: str, problems: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields every folder below `top` with its sorted file names; follows links, but no folder twice."""
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted((entry.name, _is_folder(entry)) for entry in listing)
        except OSError as error:
            problems.append(f"{folder}: folder cannot be read ({error.strerror}); change its permissions")
            continue
        folders = [name for name, is_folder in entries if is_folder]
        yield folder, [name for name, is_folder in entries if not is_folder]
        waiting += [os.path.join(folder, name) for name in reversed(folders) if not _passed_over(name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also through a link; one that leads nowhere is none."""
    try:
        return entry.is_dir()
    except OSError:
        if entry.is_symlink():
            return False
        raise


def _passed_over(name: str) -> bool:
    return name.startswith((".", "_"))


def first_inside(files: Iterable[InputFile], folder: Path) -> str | None:
    """The first file that lies in `folder`, links resolved: an output in its own input would feed on itself."""
    resolved = folder.resolve()
    return next((file.path for file in files if Path(file.path).resolve().is_relative_to(resolved)), None)
