"""Bidirectional attention over packed sequences; no mask, no padding.

Letters: T packed tokens, n sequences of one length L, H heads, K width of a head.
"""

from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.batch import PackedBatch

# Scores grow with the square of the length; 8,192 tokens would already take gigabytes, which SDPA never holds.
_LONGEST_PRODUCT = 1024


def attend(qkv_T3HK: Tensor, batch: PackedBatch, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention inside each sequence.

    On CUDA in half precision: one variable-length flash kernel. Elsewhere: neighbours of equal length share
    one dense call, so a batch sorted by length costs few calls and not one wasted product. A boolean mask
    would keep SDPA off its flash kernel, hence no mask anywhere.

    Args:
        qkv_T3HK: Queries, keys and values (T, 3, H, K).
        batch: Gives the bounds of the sequences.
        dropout: Probability of dropping an attention weight; 0 outside training.

    Returns:
        (T, H, K).
    """
    if qkv_T3HK.is_cuda and qkv_T3HK.dtype in (torch.float16, torch.bfloat16) and dropout == 0.0:
        return _varlen(qkv_T3HK, batch)
    return _grouped(qkv_T3HK, batch.lengths, dropout)


def _varlen(qkv_T3HK: Tensor, batch: PackedBatch) -> Tensor:
    # Imported here: torch builds without CUDA cannot load the kernel.
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = qkv_T3HK.unbind(1)
    bounds = batch.cu_seqlens
    out = varlen_attn(query, key, value, bounds, bounds, batch.max_length, batch.max_length)
    # It gives a pair only where auxiliary outputs are asked for.
    assert isinstance(out, Tensor)
    return out


def _grouped(qkv_T3HK: Tensor, lengths: tuple[int, ...], dropout: float) -> Tensor:
    runs = [(length, sum(1 for _ in members)) for length, members in groupby(lengths)]
    in_bfloat16 = qkv_T3HK.dtype == torch.bfloat16 and not qkv_T3HK.is_cuda and dropout == 0.0
    outputs = []
    # split and unbind, not slices: the gradient of a slice is a whole zero tensor for each run.
    parts = torch.split(qkv_T3HK, [length * count for length, count in runs])
    for part_T3HK, (length, count) in zip(parts, runs, strict=True):
        part_nL3HK = part_T3HK.reshape(count, length, *part_T3HK.shape[1:])
        query, key, value = (part.transpose(1, 2) for part in part_nL3HK.unbind(2))
        if in_bfloat16 and length <= _LONGEST_PRODUCT:
            out_nHLK = _products(query, key, value)
        else:
            out_nHLK = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
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
