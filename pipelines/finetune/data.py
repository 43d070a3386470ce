"""A tokenised copy of the training data: flat columns on disk, memory-mapped, written once.

Letters: R rows (texts), N tokens of all rows together.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlmr_core.errors import InputError

FORMAT = 1
_COLUMNS = {"ids": np.uint16, "splits": np.int64, "label": np.int16, "group": np.int32}


@dataclass(frozen=True, slots=True)
class TokenisedTexts:
    """Texts as ids without special tokens.

    Attributes:
        ids: Token ids of all rows, end to end (N,), uint16.
        splits: Row r owns `ids[splits[r]:splits[r + 1]]` (R+1,), int64.
        label: Number of the language of each row (R,), int16.
        group: Rows of one group are translations of each other (R,), int32; -1 for none.
        labels: Names of the languages; `label` indexes them.
    """

    ids: np.ndarray
    splits: np.ndarray
    label: np.ndarray
    group: np.ndarray
    labels: tuple[str, ...]

    def __len__(self) -> int:
        """R."""
        return len(self.label)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row (R,), int64."""
        return np.diff(self.splits)


def write_texts(
    folder: Path,
    chunks: Iterable[Sequence[np.ndarray]],
    *,
    label: np.ndarray,
    group: np.ndarray,
    labels: Sequence[str],
    source: str,
) -> TokenisedTexts:
    """Writes the columns; `meta.json` comes last, so a folder that has it is complete.

    Args:
        folder: Made if it does not exist; an incomplete copy in it is written over.
        chunks: Ids of the rows, in order, in chunks of any size.
        label: See `TokenisedTexts`.
        group: See `TokenisedTexts`.
        labels: See `TokenisedTexts`.
        source: Identity of what the copy was made from (`source_digest`).

    Returns:
        The memory-mapped copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    lengths = []
    with (folder / "ids.bin").open("wb") as file:
        for rows in chunks:
            lengths.append(np.array([len(row) for row in rows], dtype=np.int64))
            np.concatenate([np.asarray(row, dtype=np.uint16) for row in rows]).tofile(file)
    splits = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    assert len(splits) == len(label) + 1 == len(group) + 1
    for name, column in (("splits", splits), ("label", label), ("group", group)):
        column.astype(_COLUMNS[name]).tofile(folder / f"{name}.bin")
    meta = {"format": FORMAT, "source": source, "rows": len(label), "tokens": int(splits[-1]), "labels": list(labels)}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return open_texts(folder, source=source)


def open_texts(folder: Path, *, source: str) -> TokenisedTexts:
    """Maps a copy into memory.

    Raises:
        InputError: There is no complete copy in the folder, or it was made from something else.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no tokenised copy, it has no meta.json; make it first", code="no_copy"
        ) from None
    if (meta["format"], meta["source"]) != (FORMAT, source):
        rule = "it must come from the present data and tokenizer; delete it"
        raise InputError(f"{folder} was made from {meta['source']!r}, {rule}", code="stale_copy")
    columns = {name: np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r") for name, dtype in _COLUMNS.items()}
    return TokenisedTexts(**columns, labels=tuple(meta["labels"]))


def source_digest(files: Sequence[Path], *settings: object) -> str:
    """Identity of a copy: names, sizes and contents of the files, and the settings that shaped it."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
