"""Attention over packed sequences, no mask and no padding; and written out over a padded grid where weights are wanted.

Letters: T packed tokens, B rows or n sequences of one length L, H heads, K width of a head, N layers.
"""

from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.batch import PackedBatch

# Scores grow with the square of the length; 8,192 tokens would already take gigabytes, which SDPA never holds.
_LONGEST_PRODUCT = 1024


# Queries, keys and values (T, 3, H, K), their batch, dropout, whether causal; to (T, H, K).
Attention = Callable[[Tensor, PackedBatch, float, bool], Tensor]


def attend(qkv_T3HK: Tensor, batch: PackedBatch, dropout: float = 0.0, causal: bool = False) -> Tensor:
    """Scaled dot-product attention inside each sequence.

    On CUDA in half precision: one variable-length flash kernel. Elsewhere: neighbours of equal length share
    one dense call, so a batch sorted by length costs few calls and not one wasted product. A boolean mask
    would keep SDPA off its flash kernel, hence no mask anywhere.

    Args:
        qkv_T3HK: Queries, keys and values (T, 3, H, K).
        batch: Gives the bounds of the sequences.
        dropout: Probability of dropping an attention weight; 0 outside training.
        causal: Whether a token sees only itself and those before it.

    Returns:
        (T, H, K).
    """
    if qkv_T3HK.is_cuda and qkv_T3HK.dtype in (torch.float16, torch.bfloat16) and dropout == 0.0:
        return _varlen(qkv_T3HK, batch, causal)
    return _grouped(qkv_T3HK, batch.lengths, dropout, causal)


class EagerAttention:
    """Attention step by step over a padded grid, for what no kernel gives: its weights, and heads that are scaled.

    One of these serves one forward pass. Rows of the grid are the sequences of the batch, all of one length; padding
    is computed like every token and seen by none, as in transformers' eager attention.

    Args:
        real_BL: Which tokens may be seen, bool.
        head_mask_NH: Factor of each head's weights in each layer; None for 1.

    Attributes:
        weights: What each layer so far paid attention to (B, H, L, L), after dropout and the factor.
    """

    def __init__(self, real_BL: Tensor, head_mask_NH: Tensor | None = None) -> None:
        self._real = real_BL
        self._head_mask = head_mask_NH
        self.weights: list[Tensor] = []

    def __call__(self, qkv_T3HK: Tensor, batch: PackedBatch, dropout: float = 0.0, causal: bool = False) -> Tensor:
        """Attends; arguments as of `attend`."""
        length = self._real.shape[1]
        assert batch.lengths == (length,) * len(self._real)
        query, key, value = qkv_T3HK.view(-1, length, *qkv_T3HK.shape[1:]).permute(2, 0, 3, 1, 4)
        scores_BHLL = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        visible = self._real[:, None, None, :]
        if causal:
            visible = visible & torch.ones(length, length, dtype=torch.bool, device=visible.device).tril()
        lowest = torch.finfo(scores_BHLL.dtype).min
        # Filled twice: a token that may see nothing, such as padding before a causal text, gets zeros, as in SDPA.
        weights_BHLL = scores_BHLL.masked_fill(~visible, lowest).softmax(-1).masked_fill(~visible, 0.0)
        weights_BHLL = F.dropout(weights_BHLL, dropout)
        if self._head_mask is not None:
            weights_BHLL = weights_BHLL * self._head_mask[len(self.weights)][:, None, None].to(weights_BHLL.dtype)
        self.weights.append(weights_BHLL)
        context_BHLK: Tensor = weights_BHLL @ value
        return context_BHLK.transpose(1, 2).flatten(0, 1)


def _varlen(qkv_T3HK: Tensor, batch: PackedBatch, causal: bool) -> Tensor:
    # Imported here: torch builds without CUDA cannot load the kernel.
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = qkv_T3HK.unbind(1)
    bounds = batch.cu_seqlens
    window = (-1, 0) if causal else (-1, -1)
    out = varlen_attn(query, key, value, bounds, bounds, batch.max_length, batch.max_length, window_size=window)
    # It gives a pair only where auxiliary outputs are asked for.
    assert isinstance(out, Tensor)
    return out


def _grouped(qkv_T3HK: Tensor, lengths: tuple[int, ...], dropout: float, causal: bool) -> Tensor:
    runs = [(length, sum(1 for _ in members)) for length, members in groupby(lengths)]
    in_bfloat16 = qkv_T3HK.dtype == torch.bfloat16 and not qkv_T3HK.is_cuda and dropout == 0.0 and not causal
    outputs = []
    # split and unbind, not slices: the gradient of a slice is a whole zero tensor for each run.
    parts = torch.split(qkv_T3HK, [length * count for length, count in runs])
    for part_T3HK, (length, count) in zip(parts, runs, strict=True):
        part_nL3HK = part_T3HK.reshape(count, length, *part_T3HK.shape[1:])
        query, key, value = (part.transpose(1, 2) for part in part_nL3HK.unbind(2))
        if in_bfloat16 and length <= _LONGEST_PRODUCT:
            out_nHLK = _products(query, key, value)
        else:
            out_nHLK = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)
        outputs.append(out_nHLK.transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _products(query_nHLK: Tensor, key_nHLK: Tensor, value_nHLK: Tensor) -> Tensor:
    """Attention as two matrix products: on CPUs twice as fast as SDPA in bfloat16, which multiplies in float32 there.

    Scores are rounded to bfloat16, as in transformers' eager attention; the softmax runs in float32.
    """
    shape = query_nHLK.shape
    query, key, value = (part.flatten(0, 1) for part in (query_nHLK, key_nHLK, value_nHLK))
    # With beta 0 the first argument is not read; alpha scales before the rounding.
    scores = torch.baddbmm(query.new_empty(1), query, key.transpose(1, 2), beta=0, alpha=shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), value).view(shape)
