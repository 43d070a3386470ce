"""The RoBERTa-type encoder on packed tokens; read it top to bottom.

Post-LayerNorm transformer of "RoBERTa" (Liu et al. 2019), used unchanged by XLM-R (Conneau et al. 2020). It
must agree with `transformers.XLMRobertaModel` (tests/xlmr_core/test_encoder.py). One difference in form:
tokens lie packed in one row, and query, key and value are one matrix. Modules have the names they have there and in
files, which is why attributes such as `LayerNorm` and `self` look as they do.

Letters: T packed tokens, D width, F feed-forward width, H heads, K width of a head.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xlmr_core.attention import Attention, attend
from xlmr_core.batch import PackedBatch
from xlmr_core.config import EncoderConfig
from xlmr_core.linear import Linear


class Embeddings(nn.Module):
    """Sum of word, position and token type rows, then LayerNorm.

    The rows of the padding id and its position get no gradient.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, no_position = config.hidden_size, config.first_position - 1 if config.first_position else None
        self.word_embeddings = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width, no_position)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, batch: PackedBatch, words_TD: Tensor | None = None, types_T: Tensor | None = None) -> Tensor:
        """Vectors of the tokens before the first layer.

        Args:
            batch: B sequences of together T tokens.
            words_TD: What stands for the rows of the word table; default: those of the batch's ids.
            types_T: Rows of the token type table; default: row 0, as XLM-R never had a second segment.

        Returns:
            (T, D).
        """
        words_TD = self.word_embeddings(batch.ids) if words_TD is None else words_TD
        types_TD = self.token_type_embeddings.weight[0] if types_T is None else self.token_type_embeddings(types_T)
        summed_TD = words_TD + types_TD + self.position_embeddings(batch.positions)
        embedded_TD: Tensor = self.dropout(self.LayerNorm(summed_TD))
        return embedded_TD


class SelfAttention(nn.Module):
    """Query, key and value in one product, and what they pay attention to."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.is_causal = config.is_decoder

    def forward(self, hidden_TD: Tensor, batch: PackedBatch, attention: Attention) -> Tensor:
        """(T, D) to (T, D)."""
        qkv_T3HK = self.qkv(hidden_TD).unflatten(1, (3, self.num_heads, -1))
        context_THK = attention(qkv_T3HK, batch, self.dropout if self.training else 0.0, self.is_causal)
        return context_THK.flatten(1)


class Output(nn.Module):
    """A projection, added to what went into its sub-layer, then LayerNorm."""

    def __init__(self, config: EncoderConfig, in_features: int) -> None:
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner: Tensor, hidden_TD: Tensor) -> Tensor:
        """(T, in_features) and (T, D) to (T, D)."""
        normed_TD: Tensor = self.LayerNorm(hidden_TD + self.dropout(self.dense(inner)))
        return normed_TD


class SelfAttentionLayer(nn.Module):
    """Attention with its residual."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden_size)


class Intermediate(nn.Module):
    """The wide half of the feed-forward layer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, activation=config.hidden_act)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with a residual and a LayerNorm behind it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttentionLayer(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(
        self, hidden_TD: Tensor, batch: PackedBatch, rows: Tensor | None = None, attention: Attention = attend
    ) -> Tensor:
        """(T, D) to (T, D), or to (R, D) for R chosen rows, which attend to all the others."""
        context_TD = self.attention.self(hidden_TD, batch, attention)
        if rows is not None:
            hidden_TD, context_TD = hidden_TD[rows], context_TD[rows]
        attended_TD = self.attention.output(context_TD, hidden_TD)
        transformed_TD: Tensor = self.output(self.intermediate.dense(attended_TD), attended_TD)
        return transformed_TD


class Layers(nn.Module):
    """All layers, one after the other.

    Attributes:
        checkpointing: Whether training keeps only what goes into each layer and computes the rest again.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.checkpointing = False

    def forward(self, hidden_TD: Tensor, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        """(T, D) to (T, D), or to (R, D): see `Encoder.forward`."""
        for layer in self.layer[:-1]:
            hidden_TD = self._apply_layer(layer, hidden_TD, batch)
        if not self.layer:
            return hidden_TD if rows is None else hidden_TD[rows]
        return self._apply_layer(self.layer[-1], hidden_TD, batch, rows)

    def states(self, hidden_TD: Tensor, batch: PackedBatch, attention: Attention = attend) -> Iterator[Tensor]:
        """What goes in, then what each layer makes of it, each (T, D)."""
        yield hidden_TD
        for layer in self.layer:
            hidden_TD = self._apply_layer(layer, hidden_TD, batch, None, attention)
            yield hidden_TD

    def _apply_layer(
        self,
        layer: nn.Module,
        hidden_TD: Tensor,
        batch: PackedBatch,
        rows: Tensor | None = None,
        attention: Attention = attend,
    ) -> Tensor:
        if self.checkpointing and self.training:
            again_TD: Tensor = checkpoint(layer, hidden_TD, batch, rows, attention, use_reentrant=False)
            return again_TD
        result_TD: Tensor = layer(hidden_TD, batch, rows, attention)
        return result_TD


class Encoder(nn.Module):
    """XLM-R without a head: packed token ids in, hidden states out.

    Args:
        config: Shape of the encoder. Fresh weights follow `initializer_range`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        initialise(self, config.initializer_range)

    def forward(self, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        """Hidden states of the last layer.

        Args:
            batch: B sequences of together T tokens.
            rows: The only tokens whose hidden states are wanted (R,); the last layer then computes no others, which
                saves three quarters of it.

        Returns:
            (T, D), or (R, D).
        """
        hidden_TD: Tensor = self.encoder(self.embeddings(batch), batch, rows)
        return hidden_TD


def initialise(module: nn.Module, std: float) -> None:
    """Fresh weights as `transformers` makes them: normal matrices, zero biases and padding rows, unit LayerNorms."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)) and part.weight.device.type != "meta":
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None and part.weight.device.type != "meta":
            nn.init.zeros_(part.weight[part.padding_idx])
        if isinstance(part, nn.Linear) and part.bias is not None and part.bias.device.type != "meta":
            nn.init.zeros_(part.bias)


def optimise_for_inference(module: nn.Module, *, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """Freezes a model, moves it, and reorders its matrices for the CPU; in place.

    Args:
        module: Encoder or head, or anything that contains them.
        device: Where it will run.
        dtype: float32, bfloat16, or float16 on CUDA.
    """
    module.eval().requires_grad_(False).to(device=device, dtype=dtype)
    for part in module.modules():
        if isinstance(part, Linear):
            part.prepack()
    return module


def flops_per_token(config: EncoderConfig, length: float) -> float:
    """Floating-point operations of one forward pass for each token of a sequence of `length` tokens.

    24 D^2 for the four matrices of a layer when F = 4 D (written out for any F), 4 D length for attention.
    """
    width, inner = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (8.0 * width * width + 4.0 * width * inner + 4.0 * width * length)
