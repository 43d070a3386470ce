"""XLM-RoBERTa in plain torch: tokenization, the packed encoder, heads, checkpoints, and the graph that joins them.

Start reading at `xlmr_core.graph`. To try a checkpoint: `from xlmr_core import pipeline`.
"""

from typing import Any

__all__ = ["Pipeline", "pipeline"]


def __getattr__(name: str) -> Any:
    """Loads what the package offers on its top when it is asked for; importing a room loads only that room."""
    if name in __all__:
        from xlmr_core import interface

        return getattr(interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
