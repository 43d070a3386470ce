"""Sentence embedding: one vector for each record, as sentence-transformers computes it.

A text of several windows gets the mean of its windows' pooled vectors, weighted by their content tokens; Dense and
Normalize modules come after that mean, so that a long text's vector has unit length too.

Letters: W windows, P annotated records, D width.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint, EmbeddingSpec
from xlmr_core.errors import TaskError
from xlmr_core.heads import PoolingMode, PoolingSpec, pool
from xlmr_core.tasks.columns import Column, Field, VectorOf
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """Options of an embedding annotation.

    Attributes:
        pooling: Overrides the checkpoint's pooling; several modes are concatenated.
        normalize: Overrides whether vectors get unit length.
        prompt: Text put before every record, such as "query: ".
        prompt_name: Name of one of the checkpoint's own prompts.
        dimensions: Keep only the first so many values (Matryoshka models), normalised afterwards if at all; default:
            the checkpoint's own `truncate_dim`, else all.
        output: Stored as float32 or float16.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    pooling: tuple[PoolingMode, ...] | None = None
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    output: Literal["float32", "float16"] = "float32"
    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Embed:
    """The task, bound to one checkpoint's modules.

    Attributes:
        spec: Pooling and what follows it.
        prompt: Text put before every record.
        raw_width: Values of a pooled vector, before any module that follows.
        width: Values of a vector, D.
        normalize: Whether vectors get unit length at the end.
        options: As the user gave them.
    """

    spec: EmbeddingSpec
    prompt: str
    raw_width: int
    width: int
    normalize: bool
    options: EmbedOptions

    head: ClassVar[Literal["embedding"]] = "embedding"
    per_token: ClassVar[bool] = False

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: EmbedOptions, *, pairs: bool = False) -> "Embed":
        """Settles pooling, prompt and width.

        Raises:
            TaskError: No pooling is known, the prompt is unknown or there are too few dimensions.
        """
        spec = checkpoint.embedding
        if options.pooling is not None:
            pooling = PoolingSpec(options.pooling, spec.pooling.include_prompt if spec else True)
            spec = replace(spec, pooling=pooling) if spec else EmbeddingSpec.of_pooling(pooling)
        if spec is None:
            rule = "a wrong guess gives wrong vectors silently; pass pooling=mean or pooling=cls as its model card says"
            raise TaskError(f"{checkpoint.spec} does not say how its vectors are pooled, {rule}")
        width = checkpoint.embedding_width(spec)
        dimensions = options.dimensions if options.dimensions is not None else spec.truncate_dim
        if dimensions is not None and not 0 < dimensions <= width:
            raise TaskError(f"{checkpoint.spec}: dimensions={dimensions}, the model gives {width} values")
        return cls(
            spec=spec,
            prompt=settle_prompt(checkpoint.spec, spec, options.prompt, options.prompt_name),
            raw_width=checkpoint.config.hidden_size * len(spec.pooling.modes),
            width=dimensions or width,
            normalize=spec.normalize if options.normalize is None else options.normalize,
            options=options,
        )

    @property
    def reading(self) -> Reading:
        """The text behind its prompt."""
        first = self.spec.pooling.modes == ("cls",) and (self.spec.pooling.include_prompt or not self.prompt)
        return Reading(prompt=self.prompt, rows="first" if first else "all")

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`."""
        return [Field(name, VectorOf(self.options.output, self.width))]

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        pooling = {"pooling": list(self.spec.pooling.modes), "include_prompt": self.spec.pooling.include_prompt}
        return pooling | {"normalize": self.normalize, "width": self.width, "output": self.options.output}

    def load_head(self, checkpoint: Checkpoint) -> nn.Module:
        """Everything after pooling, Normalize excepted."""
        return checkpoint.load_embedding_modules()

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Pooled vectors of each window (W, raw_width), float32."""
        skip_B = None if self.spec.pooling.include_prompt else batch.prompt_B
        return pool(hidden_TD, batch.packed, self.spec.pooling.modes, skip_B)

    def decode(self, name: str, raw_WD: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Pooled vectors of windows to columns of records."""
        pooled_PD = torch.from_numpy(records.merge_windows(raw_WD, "tokens"))
        # A head that is being trained may be elsewhere.
        place = next(head.parameters(), pooled_PD).device
        with torch.inference_mode():
            return {name: self.finish(head, pooled_PD.to(place)).cpu().numpy()}

    def finish(self, head: nn.Module, pooled_PD: Tensor) -> Tensor:
        """Vectors from pooled ones (P, raw_width): modules, leading values, unit length (P, D), float32."""
        # Pooled vectors are float32 and few, so that nothing after them is rounded to less.
        with torch.autocast(pooled_PD.device.type, enabled=False):
            vectors_PD: Tensor = head(pooled_PD)[:, : self.width]
            return F.normalize(vectors_PD, dim=1) if self.normalize else vectors_PD


def unit(vectors_PD: np.ndarray) -> np.ndarray:
    """The vectors with unit length; a vector of zeros stays what it is."""
    # The floor is torch's own; only a vector of zeros is that short.
    vectors_PD = vectors_PD / np.maximum(np.linalg.norm(vectors_PD, axis=1, keepdims=True), 1e-12)
    return vectors_PD


def settle_prompt(
    spec_text: str, spec: EmbeddingSpec, prompt: str | None, name: str | None, *, option: str = "prompt_name"
) -> str:
    """The user's prompt, else the checkpoint's of that name, else its default one.

    Raises:
        TaskError: The checkpoint has no prompt of the name, which is the value of `option`.
    """
    if prompt is not None:
        return prompt
    name = name or spec.default_prompt_name
    if name is None:
        return ""
    if name not in spec.prompts:
        known = ", ".join(spec.prompts) or "none"
        raise TaskError(f"{spec_text}: {option}={name!r}, the checkpoint's prompts are {known}")
    return spec.prompts[name]
