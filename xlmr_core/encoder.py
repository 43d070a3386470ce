"""The RoBERTa-type encoder on packed tokens; read it top to bottom.

Post-LayerNorm transformer of "RoBERTa" (Liu et al. 2019), used unchanged by XLM-R (Conneau et al. 2020). It
must agree with `transformers.XLMRobertaModel` (tests/xlmr_core/test_encoder.py). One difference in form:
tokens lie packed in one row, and query, key and value are one matrix.

Letters: T packed tokens, D width, F feed-forward width, H heads, K width of a head.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

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
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        no_position = config.first_position - 1 if config.first_position else None
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size, no_position)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
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
        words_TD = self.word(batch.ids) if words_TD is None else words_TD
        types_TD = self.token_type.weight[0] if types_T is None else self.token_type(types_T)
        embedded_TD: Tensor = self.dropout(self.norm(words_TD + types_TD + self.position(batch.positions)))
        return embedded_TD


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with a residual and a LayerNorm behind it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = config.is_decoder
        self.qkv = Linear(width, 3 * width)
        self.attention_output = Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.intermediate = Linear(width, config.intermediate_size, activation=config.hidden_act)
        self.output = Linear(config.intermediate_size, width)
        self.output_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_TD: Tensor, batch: PackedBatch, rows: Tensor | None = None, attention: Attention = attend
    ) -> Tensor:
        """(T, D) to (T, D), or to (R, D) for R chosen rows, which attend to all the others."""
        qkv_T3HK = self.qkv(hidden_TD).unflatten(1, (3, self.num_heads, -1))
        context_THK = attention(qkv_T3HK, batch, self.attention_dropout if self.training else 0.0, self.is_causal)
        if rows is not None:
            hidden_TD, context_THK = hidden_TD[rows], context_THK[rows]
        attended_TD = self.dropout(self.attention_output(context_THK.flatten(1)))
        hidden_TD = self.attention_norm(hidden_TD + attended_TD)
        transformed_TD = self.dropout(self.output(self.intermediate(hidden_TD)))
        normed_TD: Tensor = self.output_norm(hidden_TD + transformed_TD)
        return normed_TD


class Encoder(nn.Module):
    """XLM-R without a head: packed token ids in, hidden states out.

    Args:
        config: Shape of the encoder. Fresh weights follow `initializer_range`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
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
        hidden_TD: Tensor = self.embeddings(batch)
        for layer in self.layers[:-1]:
            hidden_TD = layer(hidden_TD, batch)
        if not self.layers:
            return hidden_TD if rows is None else hidden_TD[rows]
        last_TD: Tensor = self.layers[-1](hidden_TD, batch, rows)
        return last_TD

    def set_words(self, table: nn.Embedding) -> None:
        """Replaces the word embedding table; the vocabulary has its size from then on."""
        self.embeddings.word = table
        self.config = replace(self.config, vocab_size=table.num_embeddings)

    def states(self, embedded_TD: Tensor, batch: PackedBatch, attention: Attention = attend) -> Iterator[Tensor]:
        """The embedded tokens, then what each layer makes of them, each (T, D)."""
        yield embedded_TD
        for layer in self.layers:
            embedded_TD = layer(embedded_TD, batch, attention=attention)
            yield embedded_TD


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
