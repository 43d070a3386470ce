"""Text to tokens, tokens to windows, windows to packed model input."""

from xlmr_core.tokenization.encoding import Encodings, SpecialTokens
from xlmr_core.tokenization.packing import PackedOrigin, packed_origin, window_ids
from xlmr_core.tokenization.tokenizer import Tokenizer, text_problem
from xlmr_core.tokenization.windows import OnLong, Windows, plan_windows

__all__ = [
    "Encodings",
    "OnLong",
    "PackedOrigin",
    "SpecialTokens",
    "Tokenizer",
    "Windows",
    "packed_origin",
    "plan_windows",
    "text_problem",
    "window_ids",
]
