"""A model graph with one thread of its own.

Workers are called from two threads, so that one batch computes while another is decoded and written. All of torch stays
in one thread: two would each start a set of torch's own workers, and on a GPU hold two batches at once.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch

from xlmr_core.graph import EncodedRecords, GraphPlan, ModelGraph
from xlmr_core.graph.model import Outputs


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
        self._thread = ThreadPoolExecutor(1, "model", initializer=torch.set_num_threads, initargs=(threads,))
        loading = self._thread.submit(ModelGraph, plan, device=device, dtype=dtype, max_tokens=max_tokens)
        self.graph = loading.result()

    def forward(self, encoded: EncodedRecords) -> tuple[Outputs, float]:
        """Outputs of encoders and heads, and the seconds they took once it was their turn."""
        return self._thread.submit(self._timed, encoded).result()

    def _timed(self, encoded: EncodedRecords) -> tuple[Outputs, float]:
        began = time.perf_counter()
        outputs = self.graph.forward(encoded)
        return outputs, time.perf_counter() - began
