"""Packed batches: sequences laid end to end, never padded, and the plan that cuts work into them.

Letters: T packed tokens, B sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xlmr_core.tokenization.encoding import bounds, ranges


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """B sequences of together T tokens.

    Attributes:
        ids: Token ids, special tokens included (T,), int64.
        positions: Rows of the position table (T,), int64; each sequence starts at `first_position`, as does the second
            part of one that was told to.
        cu_seqlens: Bounds (B+1,), int32: sequence b is `ids[cu_seqlens[b]:cu_seqlens[b + 1]]`.
        lengths: The same bounds as plain lengths, on the host, so that planning never waits for a device.
    """

    ids: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    lengths: tuple[int, ...]

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @property
    def starts(self) -> Tensor:
        """Where each sequence begins, that is where its `<s>` is (B,)."""
        return self.cu_seqlens[:-1].long()

    @property
    def sequence_of_token(self) -> Tensor:
        """Which sequence each token belongs to (T,), int64."""
        lengths = (self.cu_seqlens[1:] - self.cu_seqlens[:-1]).long()
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=lengths.device), lengths)

    def single_tokens(self, rows: Tensor) -> "PackedBatch":
        """One token of each sequence as a sequence of its own; `rows` are their places among the T tokens (B,)."""
        cu_seqlens = torch.arange(len(rows) + 1, dtype=torch.int32, device=rows.device)
        return PackedBatch(self.ids[rows], self.positions[rows], cu_seqlens, (1,) * len(rows))

    @classmethod
    def from_numpy(
        cls,
        ids: np.ndarray,
        lengths: np.ndarray,
        *,
        first_position: int,
        first_parts: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> "PackedBatch":
        """Packs flat ids.

        Args:
            ids: Token ids of all sequences, end to end (T,).
            lengths: Tokens of each sequence (B,), all positive, summing to T.
            first_position: Position of each sequence's first token, see `EncoderConfig.first_position`.
            first_parts: Tokens of each sequence before its positions start again (B,), 0 or its length where they do
                not. A pair of translations is trained so: `<s> A </s>`, then `</s> B </s>` from the first position
                (translation language modelling, Lample and Conneau 2019).
            device: Where the tensors go.
        """
        assert int(lengths.sum()) == len(ids)
        assert (lengths > 0).all()
        parts = lengths
        if first_parts is not None:
            assert ((first_parts >= 0) & (first_parts <= lengths)).all()
            parts = np.stack([first_parts, lengths - first_parts], axis=1).ravel()
        positions = ranges(np.full(len(parts), first_position), parts)
        return cls(
            ids=torch.from_numpy(ids.astype(np.int64)).to(device),
            positions=torch.from_numpy(positions).to(device),
            cu_seqlens=torch.from_numpy(bounds(lengths).astype(np.int32)).to(device),
            lengths=tuple(lengths.tolist()),
        )

    @classmethod
    def from_lists(
        cls, sequences: Sequence[Sequence[int]], *, first_position: int, device: torch.device | str = "cpu"
    ) -> "PackedBatch":
        """Packs plain lists of ids; for short inputs and tests."""
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        ids = np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
        return cls.from_numpy(ids, lengths, first_position=first_position, device=device)


def plan_batches(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Cuts sequences into batches of at most `max_tokens` tokens, longest first.

    Equal lengths end up side by side, which is what grouped attention needs, and the largest batch comes
    first, so that a lack of memory shows at once. A single sequence longer than the budget is a batch of its
    own.

    Args:
        lengths: Tokens of each sequence (B,).
        max_tokens: Budget of a batch, tokens.

    Returns:
        One array of sequence numbers a batch; together a permutation of range(B).
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order], dtype=np.int64)
    batches, first, spent = [], 0, 0
    while first < len(order):
        stop = max(int(np.searchsorted(ends, spent + max_tokens, side="right")), first + 1)
        batches.append(order[first:stop])
        first, spent = stop, int(ends[stop - 1])
    return batches


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the tokens of a packed batch lie in a padded one, whichever side the padding is on.

    Attributes:
        shape: Rows and columns of the padded batch, B and L.
        places: Row times L plus column of each packed token (T,), rising; None when nothing is padding.
        lengths: Tokens of each row.
    """

    shape: tuple[int, int]
    places: Tensor | None
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, real: Tensor) -> "Grid":
        """Finds the tokens of a mask (B, L), bool."""
        shape = (real.shape[0], real.shape[1])
        lengths = tuple(real.sum(1).tolist())
        return cls(shape, None if sum(lengths) == real.numel() else real.flatten().nonzero().squeeze(1), lengths)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, ...) to (T, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.places is None else flat.index_select(0, self.places)

    def pad(self, packed: Tensor) -> Tensor:
        """(T, ...) to (B, L, ...), zeros where there is no token."""
        if self.places is None:
            return packed.view(*self.shape, *packed.shape[1:])
        empty = packed.new_zeros(self.shape[0] * self.shape[1], *packed.shape[1:])
        return empty.index_copy(0, self.places, packed).view(*self.shape, *packed.shape[1:])

    def batch(self, ids_BL: Tensor, positions_BL: Tensor) -> PackedBatch:
        """The tokens as a packed batch."""
        lengths = torch.tensor(self.lengths, device=ids_BL.device)
        cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        return PackedBatch(self.pack(ids_BL), self.pack(positions_BL), cu_seqlens, self.lengths)
