"""XLM-RoBERTa in plain torch: tokenization, the packed encoder, heads, checkpoints, and the graph that joins them.

Start reading at `xlmr_core.graph`. To try a checkpoint: `from xlmr_core import pipeline`. The classes that the
documentation of XLM-RoBERTa and RoBERTa describes are here by their names: `from xlmr_core import XLMRobertaModel`.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "interface": ("Pipeline", "pipeline"),
    "models": (
        "AutoConfig",
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForMaskedLM",
        "AutoModelForMultipleChoice",
        "AutoModelForQuestionAnswering",
        "AutoModelForSequenceClassification",
        "AutoModelForTokenClassification",
        "RobertaConfig",
        "RobertaForCausalLM",
        "RobertaForMaskedLM",
        "RobertaForMultipleChoice",
        "RobertaForQuestionAnswering",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
        "RobertaModel",
        "XLMRobertaConfig",
        "XLMRobertaForCausalLM",
        "XLMRobertaForMaskedLM",
        "XLMRobertaForMultipleChoice",
        "XLMRobertaForQuestionAnswering",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaForTokenClassification",
        "XLMRobertaModel",
    ),
    "pretrained_tokenizers": (
        "AutoTokenizer",
        "BatchEncoding",
        "RobertaTokenizer",
        "RobertaTokenizerFast",
        "XLMRobertaTokenizer",
        "XLMRobertaTokenizerFast",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    """Loads what the package offers on its top when it is asked for; importing a room loads only that room."""
    if name in _ROOM_OF:
        return getattr(import_module(f"xlmr_core.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOM_OF})
