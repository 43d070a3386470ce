"""Pseudo-perplexity: how likely a masked-LM finds a text.

Every token of the text is hidden once, alone, and the model says how probable it is there. The sum of the logarithms is
the text's pseudo-log-likelihood, and exp(-sum / tokens) its pseudo-perplexity; `<s>` and `</s>` are never hidden.
Source: Salazar et al. 2020, "Masked Language Model Scoring". In a longer text a token is hidden in the window
where it has most context (`widest_window`), once. An unknown token counts with the probability of `<unk>`, a literal
"<mask>" with that of `<mask>`.

What it costs: a window of L tokens goes through the encoder L times, so the time grows with the square of its length:
50 texts of 100 tokens are 5,000 windows and half a million tokens. A smaller `max_length` makes it cheaper. Memory
hardly grows: a copy is laid out with its batch and is 36 bytes in the plan until then.

Letters: W windows, each of which hides one token; P annotated records, D width.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.tasks.columns import Column, Field
from xlmr_core.tasks.masked_lm import MaskedLM
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords


@dataclass(frozen=True, slots=True)
class PerplexityOptions:
    """Options of a pseudo-perplexity annotation.

    Attributes:
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    max_length: int | None = None
    stride: int = 128


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The task; there is nothing of the checkpoint to settle.

    Attributes:
        options: As the user gave them.
    """

    options: PerplexityOptions

    head: ClassVar[HeadKind] = "masked-lm"
    per_token: ClassVar[bool] = False
    raw_width: ClassVar[int] = 1

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: PerplexityOptions, *, pairs: bool = False) -> "Perplexity":
        """Checks that the head is there.

        Raises:
            CheckpointError: The checkpoint has no such head.
        """
        checkpoint.num_outputs(cls.head)
        return cls(options)

    @property
    def reading(self) -> Reading:
        """The text, once for each of its tokens."""
        return Reading(hides_each_token=True, rows="hidden")

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`."""
        return [Field(f"{name}_log_probability", "float32"), Field(f"{name}_perplexity", "float32")]

    def facts(self) -> dict[str, object]:
        """Nothing decides its results besides weights and windows."""
        return {}

    def load_head(self, checkpoint: Checkpoint) -> nn.Module:
        """The head's weights."""
        return MaskedLM.load(checkpoint)

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Logarithm of the hidden token's probability, nats (W, 1)."""
        assert batch.hidden_B is not None
        hidden_WD = hidden_TD[batch.hidden_at_B]
        log_probability_W1 = hidden_WD.new_zeros(len(hidden_WD), 1).float()
        for rows, logits_MV in head(hidden_WD):
            log_probability_W1[rows, 0] = -F.cross_entropy(logits_MV, batch.hidden_B[rows], reduction="none")
        return log_probability_W1

    def decode(self, name: str, raw_W1: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Log-probabilities of tokens to columns of records: their sum (nats) and exp(-mean)."""
        sum_P = np.bincount(records.item, weights=raw_W1[:, 0], minlength=len(records))
        count_P = np.bincount(records.item, minlength=len(records))
        # A model that rules out what stands there is beyond float32: infinity.
        with np.errstate(over="ignore"):
            perplexity_P = np.exp(-sum_P / count_P).astype(np.float32)
        return {f"{name}_log_probability": sum_P.astype(np.float32), f"{name}_perplexity": perplexity_P}
