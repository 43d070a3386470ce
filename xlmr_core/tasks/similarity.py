"""Similarity: how close a record's text is to each of its second texts, by their vectors.

Vectors are those of `tasks.embed`, each text on its own, so that long texts and prompts are treated as there. Agrees
with sentence-transformers' `encode` and `similarity` (6.2).

Letters: W windows, I items (a record's text, then its second texts), P annotated records, M second texts, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.embedding import Similarity
from xlmr_core.errors import TaskError
from xlmr_core.heads import PoolingMode
from xlmr_core.tasks.columns import Column, Field, ListOf, Lists
from xlmr_core.tasks.embed import Embed, EmbedOptions, settle_prompt, unit
from xlmr_core.tasks.losses import group_of_item
from xlmr_core.tasks.reading import Reading, Rows
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords
from xlmr_core.tokenization.encoding import bounds


@dataclass(frozen=True, slots=True)
class SimilarityOptions:
    """Options of a similarity annotation.

    Attributes:
        similarity: How two vectors are compared; distances are negative; default: the checkpoint's own, else cosine.
        pooling: As for an embedding, see `EmbedOptions`; so are those below.
        normalize: Likewise.
        prompt: Text put before every text of the record, such as "passage: " with "query: " for `query_prompt`.
        prompt_name: Name of one of the checkpoint's own prompts, such as "document".
        query_prompt: Text put before the record's text alone; default: the prompt of every text.
        query_prompt_name: Name of the checkpoint's prompt for it, such as "query".
        dimensions: Keep only the first so many values of a vector.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    similarity: Similarity | None = None
    pooling: tuple[PoolingMode, ...] | None = None
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    query_prompt: str | None = None
    query_prompt_name: str | None = None
    dimensions: int | None = None
    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Similar:
    """The task, bound to one checkpoint's vectors.

    Attributes:
        embed: Makes them.
        query_prompt: Text put before the record's text.
        similarity: Compares them.
        options: As the user gave them.
    """

    embed: Embed
    query_prompt: str
    similarity: Similarity
    options: SimilarityOptions

    head: ClassVar[Literal["embedding"]] = "embedding"
    per_token: ClassVar[bool] = False

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: SimilarityOptions, *, pairs: bool = False) -> "Similar":
        """Settles how vectors are made and compared.

        Raises:
            TaskError: As for an embedding.
        """
        vectors = EmbedOptions(
            pooling=options.pooling,
            normalize=options.normalize,
            prompt=options.prompt,
            prompt_name=options.prompt_name,
            dimensions=options.dimensions,
        )
        embed = Embed.bind(checkpoint, vectors)
        query_prompt = embed.prompt
        if options.query_prompt is not None or options.query_prompt_name is not None:
            given, name = options.query_prompt, options.query_prompt_name
            query_prompt = settle_prompt(checkpoint.spec, embed.spec, given, name, option="query_prompt_name")
        return cls(embed, query_prompt, options.similarity or embed.spec.similarity or "cosine", options)

    @property
    def reading(self) -> Reading:
        """The text and each second text, each alone behind its prompt."""
        text = replace(self.embed, prompt=self.query_prompt).reading
        seconds = self.embed.reading
        rows: Rows = "all" if "all" in (text.rows, seconds.rows) else "first"
        return replace(text, layout="apart", second_prompt=seconds.prompt, rows=rows)

    @property
    def raw_width(self) -> int:
        """Values of a pooled vector."""
        return self.embed.raw_width

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`: the similarities in the order of the second texts."""
        return [Field(f"{name}_scores", ListOf("float32"))]

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        return self.embed.facts() | {"similarity": self.similarity, "second_prompt": self.embed.prompt}

    def load_head(self, checkpoint: Checkpoint) -> nn.Module:
        """Everything after pooling, Normalize excepted."""
        return self.embed.load_head(checkpoint)

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Pooled vectors of each window (W, raw_width), float32."""
        return self.embed.forward(head, hidden_TD, batch)

    def decode(self, name: str, raw_WD: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Pooled vectors of windows to columns of records."""
        vectors_ID = self.embed.decode(name, raw_WD, records, head)[name]
        assert isinstance(vectors_ID, np.ndarray)
        first_P, sizes = records.item_splits[:-1], np.diff(records.item_splits) - 1
        scores_M = compare(
            np.repeat(vectors_ID[first_P], sizes, axis=0), np.delete(vectors_ID, first_P, axis=0), self.similarity
        )
        return {f"{name}_scores": Lists(bounds(sizes), scores_M)}


def compare(first_MD: np.ndarray, second_MD: np.ndarray, how: Similarity) -> np.ndarray:
    """Similarity of vectors in pairs (M,), float32; distances are negative, so that more is always closer."""
    match how:
        case "cosine":
            scores_M = (unit(first_MD) * unit(second_MD)).sum(axis=1)
        case "dot":
            scores_M = (first_MD * second_MD).sum(axis=1)
        case "euclidean":
            scores_M = -np.linalg.norm(first_MD - second_MD, axis=1)
        case "manhattan":
            scores_M = -np.abs(first_MD - second_MD).sum(axis=1)
    return np.asarray(scores_M, dtype=np.float32)


def targets(similarities: Sequence[Sequence[float]]) -> np.ndarray:
    """Wanted cosines of all second texts, record after record (M,), float32.

    Args:
        similarities: Of each record's second texts, from -1 to 1.

    Raises:
        TaskError: Values that are no cosines; all of them.
    """
    problems = [
        f"record {number}, text {place}: similarity {value}"
        for number, values in enumerate(similarities)
        for place, value in enumerate(values)
        if not -1 <= value <= 1
    ]
    if problems:
        raise TaskError("; ".join(problems) + "; a similarity must be from -1 to 1, so scale them")
    return np.array(list(chain.from_iterable(similarities)), dtype=np.float32)


def loss(vectors_ID: Tensor, targets_M: Tensor, splits: Tensor) -> Tensor:
    """Mean squared error of the cosines, float32; sentence-transformers' `CosineSimilarityLoss`.

    Args:
        vectors_ID: Vectors after all modules: a record's text, then its second texts (I, D).
        targets_M: Wanted cosines (M,).
        splits: Record p has the vectors splits[p] to splits[p + 1] (P+1,), int64.
    """
    first_I = splits[:-1][group_of_item(splits)]
    vectors_ID = vectors_ID.float()
    is_second = first_I != torch.arange(len(first_I), device=first_I.device)
    cosine_M = F.cosine_similarity(vectors_ID[first_I][is_second], vectors_ID[is_second])
    return F.mse_loss(cosine_M, targets_M.float())
