"""Tokenised records as flat columns: one array for all ids, bounds beside it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that frame every sequence: `<s> A </s>` and `<s> A </s></s> B </s>`."""

    bos: int
    eos: int
    pad: int
    unk: int
    mask: int | None


@dataclass(frozen=True, slots=True)
class Encodings:
    """Tokens of R records: no special tokens, no padding, nothing cut.

    Attributes:
        ids: Token ids of all records, end to end (N,), int32.
        splits: Bounds (R+1,), int64: record r owns `ids[splits[r]:splits[r + 1]]`.
        offsets: Code-point spans into the original text (N, 2), int32; None when not asked for.
    """

    ids: np.ndarray
    splits: np.ndarray
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.splits) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each record (R,), int64."""
        return np.diff(self.splits)


def bounds(lengths: np.ndarray) -> np.ndarray:
    """Lengths (R,) to bounds (R+1,), int64, starting at 0."""
    result = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=result[1:])
    return result


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers from `starts[i]` to `starts[i] + lengths[i] - 1`, for all i end to end, int64."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    result: np.ndarray = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return result


def join(parts: list[Encodings]) -> Encodings:
    """Puts the records of several encodings of single texts behind each other."""
    if len(parts) == 1:
        return parts[0]
    spans = [part.offsets for part in parts if part.offsets is not None]
    return Encodings(
        ids=np.concatenate([part.ids for part in parts]),
        splits=bounds(np.concatenate([part.lengths for part in parts])),
        offsets=np.concatenate(spans) if spans else None,
    )
