"""Task heads on packed hidden states, and sentence pooling.

Letters: T packed tokens, M of them, B sequences, D width, C outputs, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from xlmr_core.batch import PackedBatch
from xlmr_core.config import Activation, EncoderConfig
from xlmr_core.linear import Linear

# A target that takes no part in a loss.
IGNORED = -100

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)


class SequenceHead(nn.Module):
    """dense, tanh, projection on `<s>`: the heads of `XLMRobertaForSequenceClassification` and `...ForMultipleChoice`.

    BERT calls the first layer its pooler in both.

    Args:
        config: Width and dropout.
        num_outputs: C; one for multiple choice, where each choice is a sequence of its own.
        input_dropout: Before the first layer; default: the config's for classifiers.
        dropout: Before the projection; the same default.
    """

    def __init__(
        self,
        config: EncoderConfig,
        num_outputs: int,
        *,
        input_dropout: float | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, activation="tanh")
        self.out_proj = Linear(config.hidden_size, num_outputs)
        self.input_dropout = nn.Dropout(classifier_dropout(config) if input_dropout is None else input_dropout)
        self.dropout = nn.Dropout(classifier_dropout(config) if dropout is None else dropout)

    def forward(self, hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        """Logits (B, C)."""
        features_BD = self.dense(self.input_dropout(hidden_TD[batch.starts]))
        logits_BC: Tensor = self.out_proj(self.dropout(features_BD))
        return logits_BC


class TokenHead(nn.Module):
    """One projection for each token.

    The head of `XLMRobertaForTokenClassification`; with two outputs, start and end of an answer, that of
    `XLMRobertaForQuestionAnswering`; and both of bge-m3's: one output is a token's weight in a sparse vector, many are
    its own vector.

    Args:
        config: Width and dropout.
        num_outputs: C.
        dropout: Before the projection; default: the config's for classifiers.
    """

    def __init__(self, config: EncoderConfig, num_outputs: int, *, dropout: float | None = None) -> None:
        super().__init__()
        self.classifier = Linear(config.hidden_size, num_outputs)
        self.dropout = nn.Dropout(classifier_dropout(config) if dropout is None else dropout)

    def forward(self, hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        """Outputs (T, C)."""
        outputs_TC: Tensor = self.classifier(self.dropout(hidden_TD))
        return outputs_TC


class MaskedLMHead(nn.Module):
    """dense, gelu, LayerNorm, projection to the vocabulary: the head of `XLMRobertaForMaskedLM`.

    The projection is the word embedding table in most checkpoints; here it is a parameter like any other.

    Args:
        config: Width and epsilon.
        num_outputs: Tokens of the vocabulary, V.
    """

    def __init__(self, config: EncoderConfig, num_outputs: int) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, activation=lm_activation(config))
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = Linear(config.hidden_size, num_outputs)

    def forward(self, hidden_MD: Tensor) -> Tensor:
        """Logits (M, V) of the M tokens that are asked about; V is large, so choose them first."""
        logits_MV: Tensor = self.decoder(self.features(hidden_MD))
        return logits_MV

    def features(self, hidden_MD: Tensor) -> Tensor:
        """What is projected to the vocabulary (M, D)."""
        features_MD: Tensor = self.layer_norm(self.dense(hidden_MD))
        return features_MD


def lm_activation(config: EncoderConfig) -> Activation:
    """Activation of a masked-LM head: gelu, whatever the encoder has, but in BERT the encoder's."""
    return config.hidden_act if config.model_type == "bert" else "gelu"


Head = SequenceHead | TokenHead | MaskedLMHead


@dataclass(frozen=True, slots=True)
class PoolingSpec:
    """How hidden states become one vector; the `1_Pooling` module of sentence-transformers.

    Attributes:
        modes: One or more modes; several are concatenated in this order.
        include_prompt: Whether tokens of a prompt count.
    """

    modes: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True


def pool(hidden_TD: Tensor, batch: PackedBatch, modes: Sequence[PoolingMode], skip_B: Tensor | None = None) -> Tensor:
    """Reduces token vectors to one vector a sequence; sums run in float32 whatever the model's dtype.

    Same definitions as sentence-transformers' `Pooling`: special tokens count; "weightedmean" weighs a token by
    its position; "mean_sqrt_len_tokens" divides the sum by the root of the length.

    Args:
        hidden_TD: Last hidden states (T, D).
        batch: Bounds of the sequences.
        modes: What to compute, concatenated in this order.
        skip_B: How many tokens at the start of each sequence do not count (B,): `<s>` and the prompt. The
            last token always counts, so a window that is all prompt still has a vector.

    Returns:
        (B, D * len(modes)), float32.
    """
    hidden_TD = hidden_TD.float()
    sequence_T = batch.sequence_of_token
    index_T = torch.arange(len(hidden_TD), device=hidden_TD.device) - batch.starts[sequence_T]
    count_T = torch.ones(len(hidden_TD), device=hidden_TD.device)
    ends_B = batch.cu_seqlens[1:].long() - 1
    first_B = batch.starts
    if skip_B is not None:
        skip_B = torch.minimum(skip_B.to(ends_B), ends_B - batch.starts)
        first_B = batch.starts + skip_B
        count_T = (index_T >= skip_B[sequence_T]).float()
    parts = []
    for mode in modes:
        match mode:
            case "cls":
                parts.append(hidden_TD[first_B])
            case "lasttoken":
                parts.append(hidden_TD[ends_B])
            case "max":
                masked_TD = hidden_TD.masked_fill(count_T[:, None] == 0, -torch.inf)
                parts.append(_segment(masked_TD, sequence_T, len(batch.lengths), "amax"))
            case "mean" | "mean_sqrt_len_tokens":
                summed_BD = _segment(hidden_TD * count_T[:, None], sequence_T, len(batch.lengths), "sum")
                length_B1 = _segment(count_T[:, None], sequence_T, len(batch.lengths), "sum").clamp(min=1e-9)
                parts.append(summed_BD / (length_B1 if mode == "mean" else length_B1.sqrt()))
            case "weightedmean":
                weight_T1 = ((index_T + 1) * count_T)[:, None]
                summed_BD = _segment(hidden_TD * weight_T1, sequence_T, len(batch.lengths), "sum")
                parts.append(summed_BD / _segment(weight_T1, sequence_T, len(batch.lengths), "sum").clamp(min=1e-9))
    return torch.cat(parts, dim=1)


def _segment(values_TD: Tensor, sequence_T: Tensor, count: int, how: Literal["sum", "amax"]) -> Tensor:
    """Sums or maxima inside each sequence (B, D)."""
    start = torch.full((count, values_TD.shape[1]), 0.0 if how == "sum" else -torch.inf, device=values_TD.device)
    if how == "sum":
        return start.index_add_(0, sequence_T, values_TD)
    return start.scatter_reduce_(0, sequence_T[:, None].expand_as(values_TD), values_TD, "amax")


def classifier_dropout(config: EncoderConfig) -> float:
    """Dropout of classification heads."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
