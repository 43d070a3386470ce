"""Sparse embedding: a weight for each distinct token of a record, as bge-m3's sparse head gives it.

Agrees with FlagEmbedding's `M3Embedder` (1.3, `_process_token_weights`): a token's weight is relu(linear(hidden
state)); of equal tokens the largest weight counts; `<s>`, `</s>`, `<pad>` and `<unk>` have none, also where a text
spells them out; weights of zero are left out. There a text ends at its limit; here the maximum is taken over all its
windows.

Paper: Chen et al. 2024, "BGE M3-Embedding". Letters: T tokens of all windows, M of them of texts, B sequences, E
weights, V tokens of the vocabulary, Q queries, P annotated records or passages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.tasks.columns import Column, Field, ListOf, Lists, StructOf, Structs
from xlmr_core.tasks.losses import in_batch_cross_entropy
from xlmr_core.tasks.own_head import load_own_head
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords
from xlmr_core.tokenization import SpecialTokens


@dataclass(frozen=True, slots=True)
class SparseOptions:
    """Options of a sparse embedding annotation.

    Attributes:
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Sparse:
    """The task; there is nothing of the checkpoint to settle.

    Attributes:
        options: As the user gave them.
    """

    options: SparseOptions

    head: ClassVar[HeadKind] = "sparse"
    per_token: ClassVar[bool] = True
    raw_width: ClassVar[int] = 1
    load_head = load_own_head

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: SparseOptions, *, pairs: bool = False) -> "Sparse":
        """Checks the head.

        Raises:
            CheckpointError: The checkpoint has no such head.
            TaskError: The head has other than one output.
        """
        if (outputs := checkpoint.num_outputs(cls.head)) != 1:
            rule = "it must have one, the token's weight; use another checkpoint"
            raise TaskError(f"{checkpoint.spec}: its {cls.head} head has {outputs} outputs, {rule}")
        return cls(options)

    @property
    def reading(self) -> Reading:
        """The text alone."""
        return Reading()

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`: token ids, ascending, and their weights."""
        return [Field(name, ListOf(StructOf((("token", "int32"), ("weight", "float32")))))]

    def facts(self) -> dict[str, object]:
        """Nothing besides weights and windows decides its results."""
        return {}

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Weight of each token, not negative (T, 1)."""
        weights_T1: Tensor = head(hidden_TD, batch.packed).relu()
        return weights_T1

    def decode(self, name: str, raw_T1: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Weights of tokens to columns of records."""
        assert records.special is not None
        weight_M, ids_M = raw_T1[records.content_rows(), 0], records.ids[records.content_tokens()]
        record_M = np.repeat(records.item, records.end - records.start)
        kept = (weight_M > 0) & ~np.isin(ids_M, unweighted(records.special))
        weight_M, ids_M, record_M = weight_M[kept], ids_M[kept], record_M[kept]
        # By record, by token, the largest weight first.
        order = np.lexsort((-weight_M, ids_M, record_M))
        weight_M, ids_M, record_M = weight_M[order], ids_M[order], record_M[order]
        first_E = (np.diff(ids_M, prepend=-1) != 0) | (np.diff(record_M, prepend=-1) != 0)
        splits = np.searchsorted(record_M[first_E], np.arange(len(records) + 1))
        return {name: Lists(splits, Structs({"token": ids_M[first_E], "weight": weight_M[first_E]}))}


def unweighted(special: SpecialTokens) -> list[int]:
    """Ids of the tokens that never have a weight."""
    return [special.bos, special.eos, special.pad, special.unk]


def lexical_score(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> float:
    """How well two sparse vectors match: the dot product, over the tokens they share.

    Args:
        first: What one record's column holds: dicts of `token` and `weight`.
        second: Likewise.
    """
    weights = {entry["token"]: entry["weight"] for entry in second}
    return sum(entry["weight"] * weights.get(entry["token"], 0.0) for entry in first)


def vocabulary_weights(raw_T1: Tensor, batch: PackedBatch, special: SpecialTokens, vocab_size: int) -> Tensor:
    """Weights of whole texts as vectors over the vocabulary, for training (B, V), float32.

    Args:
        raw_T1: Weights of the tokens, as `Sparse.forward` gives them (T, 1).
        batch: The texts, one sequence each.
        special: Tokens without a weight are among them.
        vocab_size: Tokens of the vocabulary, V.
    """
    weight_T = raw_T1[:, 0].float()
    weight_T = weight_T * ~torch.isin(batch.ids, torch.tensor(unweighted(special), device=batch.ids.device))
    place_T = batch.sequence_of_token * vocab_size + batch.ids
    empty = weight_T.new_zeros(len(batch.lengths) * vocab_size)
    return empty.scatter_reduce(0, place_T, weight_T, "amax").view(-1, vocab_size)


def loss(queries_QV: Tensor, passages_PV: Tensor, *, temperature: float = 0.02) -> Tensor:
    """InfoNCE with in-batch negatives on dot products of sparse vectors, a scalar, float32.

    Args:
        queries_QV: `vocabulary_weights` of the queries.
        passages_PV: Those of the passages: first each query's own, then negatives for all.
        temperature: Divides the dot products; 0.02 is the default of FlagEmbedding.
    """
    return in_batch_cross_entropy(queries_QV.float() @ passages_PV.float().T / temperature)
