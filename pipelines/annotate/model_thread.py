"""A model graph with one thread of its own.

Workers are called from two threads, so that one batch computes while another is decoded and written. All of torch stays
in one thread: two would each start a set of torch's own workers, and on a GPU hold two batches at once.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch

from xlmr_core.graph import EncodedRecords, GraphPlan, ModelGraph
from xlmr_core.graph.model import Outputs
from xlmr_core.memory import keep_freed_memory


class ModelThread:
    """Loads a graph and computes with it, one batch at a time; safe to call from any thread.

    Attributes:
        graph: For decoding, which needs no device and may run beside the next batch.
    """

    def __init__(
        self,
        plan: GraphPlan,
        *,
        device: str,
        dtype: Literal["float32", "bfloat16"],
        threads: int,
        max_tokens: int | None = None,
    ) -> None:
        """Loads the graph, on `threads` torch threads or as many as the machine has cores."""
        threads = min(threads, os.cpu_count() or 1)
        self._thread = ThreadPoolExecutor(1, "model", initializer=_settle, initargs=(threads,))
        loading = self._thread.submit(ModelGraph, plan, device=device, dtype=dtype, max_tokens=max_tokens)
        self.graph = loading.result()

    def forward(self, encoded: EncodedRecords, on_batch: Callable[[], None] | None = None) -> tuple[Outputs, float]:
        """Outputs of encoders and heads, and the seconds they took once it was their turn.

        `on_batch` is called after each packed batch, in the model's thread.
        """
        return self._thread.submit(self._timed, encoded, on_batch).result()

    def _timed(self, encoded: EncodedRecords, on_batch: Callable[[], None] | None) -> tuple[Outputs, float]:
        began = time.perf_counter()
        outputs = self.graph.forward(encoded, on_batch=on_batch)
        return outputs, time.perf_counter() - began


def _settle(threads: int) -> None:
    """What the model's thread does first, in a process whose purpose is inference."""
    torch.set_num_threads(threads)
    keep_freed_memory()
