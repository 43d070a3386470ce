"""Token ids to predictions: encoders, heads and everything after them.

Letters: R records, P annotated records, W windows of a pass, T tokens of these windows, C outputs of a head.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from xlmr_core.batch import PackedBatch, plan_batches
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.encoder import Encoder, optimise_for_inference
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.graph.opened import OpenModels
from xlmr_core.graph.plan import Annotation, GraphPlan
from xlmr_core.graph.preprocess import EncodedRecords
from xlmr_core.graph.windows import WindowSet, plan_window_sets, windowed_records
from xlmr_core.tasks.columns import Column
from xlmr_core.tasks.spans import WindowBatch
from xlmr_core.tokenization import window_ids
from xlmr_core.tokenization.encoding import bounds, ranges
from xlmr_core.tokenization.packing import content_starts

Dtype = Literal["float32", "bfloat16", "float16"]
Status = Literal["ok", "truncated", "empty"]

# So many records that fail one and all are no coincidence.
_SYSTEMATIC = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Annotations:
    """Predictions for R records.

    Attributes:
        annotated: Which records have predictions (R,), bool; P of them are true.
        columns: Values of every output column for the P annotated records, in their order.
        n_tokens: Tokens of the whole record with special tokens, by the first annotation's tokenizer (R,), int32.
        n_tokens_used: Tokens that some window held, at the annotation that used least (R,), int32.
        n_windows: Windows, at the annotation that needed most (R,), int32.
        failed: Records that could not be processed, and why. A record that is neither annotated nor failed is
            empty: it has no tokens.
    """

    annotated: np.ndarray
    columns: dict[str, Column]
    n_tokens: np.ndarray
    n_tokens_used: np.ndarray
    n_windows: np.ndarray
    failed: dict[int, InputError]

    @property
    def status(self) -> np.ndarray:
        """Of each record, "ok", "truncated" or "empty" (R,); meaningless for failed ones."""
        status: np.ndarray = np.where(self.n_tokens_used < self.n_tokens, "truncated", "ok")
        return np.where(self.annotated, status, "empty")


@dataclass(slots=True)
class Outputs:
    """What the encoders and heads gave for one set of records.

    Attributes:
        windows: Windows of each pass and which annotation uses which.
        raw: Output of each annotation's head, by name: one row a window (W, C) or a token (T, C), float32.
        failed: Records whose windows could not be computed.
    """

    windows: list[WindowSet]
    raw: dict[str, np.ndarray] = field(default_factory=dict)
    failed: dict[int, InputError] = field(default_factory=dict)


class ModelGraph:
    """All encoders and heads of a plan, loaded once, ready to compute.

    Args:
        plan: What to run.
        device: "cpu", "cuda" or "cuda:0".
        dtype: Compute type; "float16" on CUDA only. Norms, softmax and pooling accumulate in float32 whatever it is.
        max_tokens: Budget of a packed batch, tokens; default: a measured one for the device.
        opened: What is open already.
        loaded: A graph on the same device and of the same type, whose encoders and heads are used where they are
            wanted again: other options or labels cost no loading.

    Raises:
        CheckpointError: Weights that do not fit their config, or are missing.
    """

    def __init__(
        self,
        plan: GraphPlan,
        *,
        device: str = "cpu",
        dtype: Dtype = "float32",
        max_tokens: int | None = None,
        opened: OpenModels | None = None,
        loaded: "ModelGraph | None" = None,
    ) -> None:
        self._begin(plan, torch.device(device), max_tokens)
        self._encoders: dict[str, Encoder] = dict(loaded._encoders) if loaded else {}
        opened = opened or OpenModels()
        # Equal heads, such as one with other options, are loaded once.
        self._loaded_heads: dict[tuple[str, ...], nn.Module] = dict(loaded._loaded_heads) if loaded else {}
        for annotation in plan.annotations:
            self._load(annotation, opened.checkpoint(annotation.model), getattr(torch, dtype))
        self._heads = {a.name: self._loaded_heads[self._head_key(a)] for a in plan.annotations}

    @classmethod
    def of_modules(
        cls, plan: GraphPlan, encoder: Encoder, heads: Mapping[str, nn.Module], *, max_tokens: int | None = None
    ) -> "ModelGraph":
        """A graph over modules in memory, such as those that are being trained.

        Nothing is loaded, copied, moved, reordered or frozen: it computes with the weights that they have when it is
        called, where they lie, in their type. Dropout is off only where the caller has turned it off.

        Args:
            plan: How texts are read and answers decoded; the weights that it was resolved with do not matter.
            encoder: What all annotations read.
            heads: By the annotations' names.
            max_tokens: Budget of a packed batch, tokens; default: a measured one for the device.
        """
        graph = cls.__new__(cls)
        graph._begin(plan, next(encoder.parameters()).device, max_tokens)
        graph._encoders = {annotation.encoder_sha256: encoder for annotation in plan.annotations}
        graph._heads = {annotation.name: heads[annotation.name] for annotation in plan.annotations}
        # Whoever loads another graph beside this one must not take weights for its own that change.
        graph._loaded_heads = {}
        return graph

    def _begin(self, plan: GraphPlan, device: torch.device, max_tokens: int | None) -> None:
        self.plan, self.device = plan, device
        self.max_tokens = max_tokens or (2_048 if device.type == "cpu" else 32_768)

    def _load(self, annotation: Annotation, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        """Loads what an annotation needs and is not there yet."""
        if annotation.encoder_sha256 not in self._encoders:
            encoder = checkpoint.load_encoder()
            optimise_for_inference(encoder, device=self.device, dtype=dtype)
            self._encoders[annotation.encoder_sha256] = encoder
        key = self._head_key(annotation)
        if key not in self._loaded_heads:
            head = annotation.task.load_head(checkpoint)
            # Pooled vectors are float32 and few: what follows pooling stays exact and on the host.
            place = ("cpu", torch.float32) if annotation.task.head == "embedding" else (self.device, dtype)
            self._loaded_heads[key] = optimise_for_inference(head, device=place[0], dtype=place[1])

    def _head_key(self, annotation: Annotation) -> tuple[str, ...]:
        """What makes a head this one; some know the words of their tokenizer."""
        tokenizer = self.plan.views[annotation.view].tokenizer_sha256
        return annotation.task.head, annotation.head_sha256, tokenizer

    def __call__(self, encoded: EncodedRecords) -> Annotations:
        """Forward and decode."""
        return self.decode(encoded, self.forward(encoded))

    def forward(self, encoded: EncodedRecords, *, on_batch: Callable[[], None] | None = None) -> Outputs:
        """Runs every encoder once over its windows, and every head on its hidden states.

        Args:
            encoded: The records.
            on_batch: Called after each packed batch, as a sign of life.

        Raises:
            CheckpointError: Not one of many records could be computed: the fault is not theirs.
        """
        outputs = Outputs(plan_window_sets(self.plan, encoded))
        for windows in outputs.windows:
            self._run_pass(windows, outputs, on_batch or (lambda: None))
        return outputs

    def decode(self, encoded: EncodedRecords, outputs: Outputs) -> Annotations:
        """Merges windows and turns raw outputs into columns; touches neither encoder nor device."""
        count = len(encoded)
        failed = dict(outputs.failed)
        annotated, n_windows = np.ones(count, dtype=bool), np.zeros(count, dtype=np.int32)
        used_share = np.ones(count)
        for windows in outputs.windows:
            failed |= windows.refused
            for name, used in windows.used.items():
                annotated &= windows.counts(name) > 0
                n_windows = np.maximum(n_windows, windows.counts(name))
                used_share = np.minimum(used_share, used / np.maximum(windows.total, 1))
        annotated[list(failed)] = False
        n_tokens = outputs.windows[0].total
        n_used = np.rint(n_tokens * used_share)
        # Rounding must not hide that another tokenizer's window lost something.
        n_used = np.where(used_share < 1, np.minimum(n_used, n_tokens - 1), n_used)
        n_used = np.where(annotated, n_used, 0).astype(np.int32)
        columns: dict[str, Column] = {}
        for annotation in self.plan.annotations:
            windows = next(w for w in outputs.windows if annotation.name in w.rows)
            records, rows = windowed_records(encoded, windows, annotation, annotated)
            raw = outputs.raw[annotation.name][rows]
            columns |= annotation.task.decode(annotation.name, raw, records, self._heads[annotation.name])
        return Annotations(annotated, columns, n_tokens, n_used, np.where(annotated, n_windows, 0), failed)

    def _run_pass(self, windows: WindowSet, outputs: Outputs, on_batch: Callable[[], None]) -> None:
        """One encoder over all its windows; fills `outputs`."""
        annotations = [a for a in self.plan.annotations if a.name in windows.rows]
        order: list[np.ndarray] = []
        results: dict[str, list[Tensor]] = {a.name: [] for a in annotations}
        with torch.inference_mode():
            for chosen in plan_batches(windows.windows.length, self.max_tokens):
                for part, tensors in self._run_batch(windows, annotations, chosen, outputs.failed):
                    order.append(part)
                    for name, tensor in tensors.items():
                        results[name].append(tensor)
                on_batch()
        computed = np.concatenate(order) if order else np.zeros(0, dtype=np.int64)
        for annotation in annotations:
            per_token = annotation.task.per_token
            raw = _in_window_order(windows, per_token, annotation.task.raw_width, computed, results[annotation.name])
            _refuse_non_finite(windows, per_token, raw, outputs.failed)
            outputs.raw[annotation.name] = raw
        _refuse_systematic(windows, outputs.failed)

    def _run_batch(
        self,
        windows: WindowSet,
        annotations: list[Annotation],
        chosen: np.ndarray,
        failed: dict[int, InputError],
    ) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Computes chosen windows; when that raises, halves them until the window at fault stands alone.

        Halving also answers a lack of memory. What stands alone and still raises fails its record only.
        """
        try:
            results = self._compute(windows, annotations, chosen)
        except (RuntimeError, ValueError, IndexError, ArithmeticError, MemoryError) as error:
            if _spoils_device(error):
                raise
            kind = type(error).__name__
            code = "out_of_memory" if isinstance(error, (torch.OutOfMemoryError, MemoryError)) else "model_error"
        else:
            yield chosen, results
            return
        # Out here the traceback is gone, and with it the tensors of the attempt that failed.
        logger.warning("batch failed windows=%d error=%s", len(chosen), kind)
        if len(chosen) == 1:
            record = int(windows.record[chosen[0]])
            failed[record] = InputError(f"the model raised {kind} on this record", code=code)
            return
        middle = len(chosen) // 2
        for half in (chosen[:middle], chosen[middle:]):
            yield from self._run_batch(windows, annotations, half, failed)

    def _compute(self, windows: WindowSet, annotations: list[Annotation], chosen: np.ndarray) -> dict[str, Tensor]:
        """One packed batch through the encoder and all heads."""
        view = self.plan.views[windows.view]
        encoder = self._encoders[windows.encoder_sha256]
        items, text_first = windows.items, windows.reading.layout != "question"
        ids, cu_seqlens = window_ids(
            items.text, windows.windows, chosen, view.special, second=items.second, text_first=text_first
        )
        first_position = encoder.config.first_position
        packed = PackedBatch.from_numpy(ids, np.diff(cu_seqlens), first_position=first_position, device=self.device)
        batch = self._window_batch(packed, windows, chosen, cu_seqlens)
        wanted = {annotation.task.reading.rows for annotation in annotations}
        rows = batch.rows(wanted.pop()) if len(wanted) == 1 else None
        hidden_TD = encoder(packed, rows)
        if rows is not None:
            batch = batch.single_tokens(rows)
        return {a.name: a.task.forward(self._heads[a.name], hidden_TD, batch).float() for a in annotations}

    def _window_batch(
        self, packed: PackedBatch, windows: WindowSet, chosen: np.ndarray, cu_seqlens: np.ndarray
    ) -> WindowBatch:
        """The packed windows with what some heads need to know of them."""
        views, plan = self.plan.views, windows.windows
        prompt = hidden = hidden_at = None
        tokens_B = np.full(len(chosen), views[windows.view].prompt_tokens)
        if windows.items.is_second is not None and windows.second_view is not None:
            is_second_B = windows.items.is_second[plan.item[chosen]]
            tokens_B = np.where(is_second_B, views[windows.second_view].prompt_tokens, tokens_B)
        if tokens_B.any():
            # `<s>`, and in a text's first window the prompt; nothing where there is no prompt.
            begins = plan.start[chosen] == 0
            if plan.pair_start is not None:
                begins &= plan.pair_start[chosen] == 0
            prompt = torch.from_numpy(np.where(tokens_B > 0, np.where(begins, tokens_B + 1, 1), 0)).to(self.device)
        if plan.hidden is not None:
            text, token = windows.items.text, plan.hidden[chosen]
            of_text = text.encodings.splits[text.of_item[plan.item[chosen]]]
            hidden = torch.from_numpy(text.encodings.ids[of_text + token].astype(np.int64)).to(self.device)
            places = cu_seqlens[:-1] + content_starts(plan, text_first=True)[0][chosen] + token - plan.start[chosen]
            hidden_at = torch.from_numpy(places).to(self.device)
        return WindowBatch(packed, prompt, hidden, hidden_at)


def _spoils_device(error: Exception) -> bool:
    """Whether nothing can be computed in this process any more, as after an assertion inside a CUDA kernel."""
    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)


def _refuse_systematic(windows: WindowSet, failed: dict[int, InputError]) -> None:
    """Raises when a good number of records was tried and not one succeeded."""
    tried = np.unique(windows.record)
    if len(tried) >= _SYSTEMATIC and all(record in failed for record in tried.tolist()):
        first = failed[int(tried[0])]
        raise CheckpointError(
            f"not one of {len(tried)} records could be computed ({first.code}: {first}), some should; the checkpoint "
            "or this machine's libraries are at fault, not the records"
        )


def _in_window_order(
    windows: WindowSet, per_token: bool, width: int, computed: np.ndarray, parts: list[Tensor]
) -> np.ndarray:
    """Joins what the batches gave and puts it in the order of the windows; rows never computed are zero."""
    if not parts:
        return np.zeros((0, width), dtype=np.float32)
    joined = torch.cat(parts).cpu().numpy()
    lengths = windows.windows.length if per_token else np.ones(len(windows.windows.length), dtype=np.int64)
    begins = bounds(lengths)[:-1]
    sizes = lengths[computed]
    ordered = np.zeros((int(lengths.sum()), joined.shape[1]), dtype=np.float32)
    ordered[ranges(begins[computed], sizes)] = joined
    return ordered


def _refuse_non_finite(windows: WindowSet, per_token: bool, raw: np.ndarray, failed: dict[int, InputError]) -> None:
    """Fails every record for which a head gave something that is no number."""
    finite = np.isfinite(raw).all(axis=1)
    if finite.all():
        return
    window_of_row = np.arange(len(windows.windows.length))
    if per_token:
        window_of_row = np.repeat(window_of_row, windows.windows.length)
    for record in np.unique(windows.record[window_of_row[~finite]]).tolist():
        failed[record] = InputError("the model gave NaN or infinity for this record", code="non_finite")
