"""Multi-vector embedding: a vector for each token, as bge-m3's ColBERT head gives them.

Agrees with FlagEmbedding's `M3Embedder` (1.3, `_colbert_embedding`, `_process_colbert_vecs`): linear(hidden state) of
every token but `<s>`, `</s>` included, each of unit length. There a text ends at its limit; here every token is read in
the window where it has most context, and `</s>` in the last window.

Papers: Khattab and Zaharia 2020, "ColBERT"; Chen et al. 2024, "BGE M3-Embedding". Letters: W windows, T tokens of all
windows, N tokens of all records, P annotated records or passages, Q queries, K width of a vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.tasks.columns import Column, Field, ListOf, Lists, VectorOf
from xlmr_core.tasks.losses import in_batch_cross_entropy
from xlmr_core.tasks.own_head import load_own_head
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords
from xlmr_core.tokenization.encoding import bounds


@dataclass(frozen=True, slots=True)
class MultiVectorOptions:
    """Options of a multi-vector embedding annotation.

    Attributes:
        dimensions: Keep only the first so many values of each vector; default: all.
        output: Stored as float32 or float16.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    dimensions: int | None = None
    output: Literal["float32", "float16"] = "float32"
    max_length: int | None = None
    stride: int = 128


@dataclass(frozen=True, slots=True)
class MultiVector:
    """The task, bound to one checkpoint's head.

    Attributes:
        width: Values of a vector, K.
        options: As the user gave them.
    """

    width: int
    options: MultiVectorOptions

    head: ClassVar[HeadKind] = "multi-vector"
    per_token: ClassVar[bool] = True
    load_head = load_own_head

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: MultiVectorOptions, *, pairs: bool = False) -> "MultiVector":
        """Settles the width.

        Raises:
            CheckpointError: The checkpoint has no such head.
            TaskError: There are fewer values than dimensions asked for.
        """
        width = checkpoint.num_outputs(cls.head)
        dimensions = width if options.dimensions is None else options.dimensions
        if not 0 < dimensions <= width:
            raise TaskError(f"{checkpoint.spec}: dimensions={dimensions}, the head gives {width} values")
        return cls(dimensions, options)

    @property
    def reading(self) -> Reading:
        """The text alone."""
        return Reading()

    @property
    def raw_width(self) -> int:
        """Values of a vector, K."""
        return self.width

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`: a vector for each token and one for the end."""
        return [Field(name, ListOf(VectorOf(self.options.output, self.width)))]

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        return {"width": self.width, "output": self.options.output}

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Vector of each token, of unit length (T, K), float32."""
        return F.normalize(head(hidden_TD, batch.packed)[:, : self.width].float(), dim=1)

    def decode(self, name: str, raw_TK: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Vectors of tokens to columns of records."""
        last_P = np.flatnonzero(np.diff(records.item, append=len(records)))
        ends_PK = raw_TK[bounds(records.length)[1:][last_P] - 1]
        vectors = np.insert(records.stitch_tokens(raw_TK), records.splits[1:], ends_PK, axis=0)
        return {name: Lists(records.splits + np.arange(len(records) + 1), vectors)}


def text_vectors(raw_TK: Tensor, batch: PackedBatch) -> list[Tensor]:
    """The vectors of each text, for training: of all its tokens but `<s>`.

    Args:
        raw_TK: Vectors of the tokens, as `MultiVector.forward` gives them.
        batch: The texts, one sequence each.
    """
    return [vectors[1:] for vectors in torch.split(raw_TK, list(batch.lengths))]


def max_sim(queries: Sequence[Tensor], passages: Sequence[Tensor]) -> Tensor:
    """How well passages answer queries: the mean over a query's vectors of the best match in the passage.

    FlagEmbedding's `colbert_score`; ColBERT itself takes the sum.

    Args:
        queries: The vectors of each query, (any number, K) each.
        passages: The vectors of each passage, likewise.

    Returns:
        (Q, P), float32; 1 is the best for vectors of unit length.
    """
    vectors_NK = torch.cat(list(queries)).float()
    best_NP = torch.stack([(vectors_NK @ passage.float().T).amax(1) for passage in passages], dim=1)
    return torch.stack([best.mean(0) for best in torch.split(best_NP, [len(query) for query in queries])])


def loss(queries: Sequence[Tensor], passages: Sequence[Tensor], *, temperature: float = 0.02) -> Tensor:
    """InfoNCE with in-batch negatives on `max_sim`, a scalar, float32.

    Args:
        queries: `text_vectors` of the queries.
        passages: Those of the passages: first each query's own, then negatives for all.
        temperature: Divides the scores; 0.02 is the default of FlagEmbedding.
    """
    return in_batch_cross_entropy(max_sim(queries, passages) / temperature)
