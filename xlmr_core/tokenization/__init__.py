"""Text to tokens, tokens to windows, windows to packed model input."""

from xlmr_core.tokenization.encoding import Encodings, SpecialTokens
from xlmr_core.tokenization.packing import window_ids
from xlmr_core.tokenization.tokenizer import Tokenizer, text_problem
from xlmr_core.tokenization.windows import OnLong, Windows, plan_windows

__all__ = [
    "Encodings",
    "OnLong",
    "SpecialTokens",
    "Tokenizer",
    "Windows",
    "plan_windows",
    "text_problem",
    "window_ids",
]
