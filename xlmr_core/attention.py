"""Bidirectional attention over packed sequences; no mask, no padding.

Letters: T packed tokens, n sequences of one length L, H heads, K width of a head.
"""

from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.batch import PackedBatch


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
    outputs, start = [], 0
    for length, members in groupby(lengths):
        count = sum(1 for _ in members)
        stop = start + count * length
        qkv_nL3HK = qkv_T3HK[start:stop].reshape(count, length, *qkv_T3HK.shape[1:])
        query, key, value = (qkv_nL3HK[:, :, part].transpose(1, 2) for part in range(3))
        out_nHLK = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        outputs.append(out_nHLK.transpose(1, 2).flatten(0, 1))
        start = stop
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
