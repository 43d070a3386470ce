"""The engine against `transformers`: the same checkpoint, texts and threads, from text to label.

Every contestant tokenises, computes and decodes. A token counts once, padding never.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from benchmarks.checkpoints import BASE, classifier
from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row, cores, ratios, take_turns
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.encoder import flops_per_token, optimise_for_inference
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.linear import Linear
from xlmr_core.memory import keep_freed_memory
from xlmr_core.tokenization import Tokenizer

NAME = "engine"

# Scores of these contestants are compared with the first one's.
_ARRIVAL, _SORTED = "transformers float32, batches of 32 as they come", "transformers float32, sorted, batches of 8"
_FLOAT32, _BFLOAT16 = "ours float32", "ours bfloat16"
# A label may differ where two scores are closer than what the compute type resolves.
_SCORE_TOLERANCE = {_SORTED: 1e-4, _FLOAT32: 1e-4, _BFLOAT16: 5e-2}
# Rows, columns and depth of the products whose best rate counts as the machine's ceiling: those of an encoder layer.
_GEMMS = ((2048, 3072, 768), (2048, 768, 3072), (2048, 2304, 768))
_GEMM_REPEATS = 8


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        shape: Of the encoder.
        texts: How many.
        lengths: How long they are.
        rounds: Turns of each contestant.
    """

    shape: dict[str, int]
    texts: int
    lengths: Lengths
    rounds: int


FULL = Size(BASE, texts=256, lengths=Lengths(), rounds=3)
QUICK = Size(BASE, texts=64, lengths=Lengths(limit=256), rounds=1)


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a contestant says of B texts: indices of labels (B,) and scores of all labels (B, C)."""

    labels: np.ndarray
    scores: np.ndarray


Contestant = Callable[[Sequence[str]], Labelled]


def run(size: Size, say: Callable[[str], None]) -> list[Row]:
    """Speed of all contestants, their ratios, and how far their outputs are apart."""
    torch.set_num_threads(cores())
    # What our workers do; the peers profit from it too.
    keep_freed_memory()
    directory = classifier(size.shape)
    texts = cut_texts(directory, size.texts, size.lengths)
    lengths = Tokenizer.load(directory).encode(texts).lengths + 2
    peer = Peer(directory)
    contestants: dict[str, Contestant] = {
        _ARRIVAL: partial(peer, batch_size=32, by_length=False),
        _SORTED: partial(peer, batch_size=8, by_length=True),
        _FLOAT32: Ours(directory, "float32"),
        _BFLOAT16: Ours(directory, "bfloat16"),
    }
    said: dict[str, Labelled] = {}

    def turn(name: str) -> None:
        said[name] = contestants[name](texts)

    gemms = {dtype: Gemm(dtype) for dtype in (torch.float32, torch.bfloat16)}
    turns: dict[str, Callable[[], object]] = {name: partial(turn, name) for name in contestants}
    turns |= {str(dtype): gemm for dtype, gemm in gemms.items()}
    for contestant in contestants.values():
        contestant(texts[:8])
    seconds = take_turns(turns, size.rounds, say)
    speed = {name: [float(lengths.sum()) / taken for taken in seconds[name]] for name in contestants}
    rows = [Row.of(NAME, f"{name}", values, "tokens/s") for name, values in speed.items()]
    rows += [
        _ratio("ours float32 / transformers as they come", speed[_FLOAT32], speed[_ARRIVAL], 8.0),
        _ratio("ours float32 / transformers sorted", speed[_FLOAT32], speed[_SORTED], 1.8),
        _ratio("ours bfloat16 / ours float32", speed[_BFLOAT16], speed[_FLOAT32], 1.7),
    ]
    config = Checkpoint.open(str(directory)).config
    useful = sum(int(length) * flops_per_token(config, int(length)) for length in lengths) / float(lengths.sum())
    for name, dtype in ((_FLOAT32, torch.float32), (_BFLOAT16, torch.bfloat16)):
        rows += _share_of_ceiling(name, useful, speed[name], gemms[dtype])
    return rows + _agreement(said)


def _ratio(name: str, over: Sequence[float], under: Sequence[float], goal: float) -> Row:
    return Row.of(NAME, name, ratios(over, under), "x", goal=goal)


def _share_of_ceiling(name: str, useful: float, speed: Sequence[float], gemm: "Gemm") -> list[Row]:
    """The best matrix product of the run, and how much of it the whole way from text to label reaches."""
    ceiling = Row.of(NAME, f"best oneDNN product, {gemm.dtype}".replace("torch.", ""), gemm.rates, "GFLOP/s")
    shares = [100 * useful * 1e-9 * ratio for ratio in ratios(speed, gemm.rates)]
    return [ceiling, Row.of(NAME, f"{name}, useful work of that ceiling", shares, "%")]


def _agreement(said: dict[str, Labelled]) -> list[Row]:
    """Nobody is fast by being wrong: labels and scores of all against the plainest contestant's."""
    reference = said[_ARRIVAL]
    rows = []
    for name, tolerance in _SCORE_TOLERANCE.items():
        top = np.sort(reference.scores, axis=1)
        clear = top[:, -1] - top[:, -2] > 2 * tolerance
        same = 100 * float((said[name].labels == reference.labels)[clear].mean()) if clear.any() else 100.0
        apart = float(np.abs(said[name].scores - reference.scores).max())
        rows += [
            Row(NAME, f"{name}: same labels ({clear.sum()} clear texts)", same, "%", goal=100.0),
            Row(NAME, f"{name}: largest difference of a score", apart, "", goal=tolerance, at_most=True),
        ]
    rows.append(Row(NAME, "distinct labels among the texts", float(len(np.unique(reference.labels))), ""))
    return rows


class Peer:
    """`transformers` with its default attention, batches padded to their longest text."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        self._model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()

    def __call__(self, texts: Sequence[str], *, batch_size: int, by_length: bool) -> Labelled:
        """Labels B texts in batches of `batch_size`, as they come or longest first."""
        all_ids = [torch.tensor(ids) for ids in self._tokenizer(list(texts)).input_ids]
        order = list(range(len(texts)))
        if by_length:
            order.sort(key=lambda index: -len(all_ids[index]))
        parts = []
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                ids = [all_ids[index] for index in order[first : first + batch_size]]
                padded = pad_sequence(ids, batch_first=True, padding_value=self._tokenizer.pad_token_id)
                mask = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
                parts.append(self._model(input_ids=padded, attention_mask=mask).logits.softmax(-1))
        scores = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        scores[order] = torch.cat(parts).numpy()
        return Labelled(scores.argmax(1), scores)


class Ours:
    """The model graph in one process."""

    def __init__(self, directory: Path, dtype: str) -> None:
        plan = GraphPlan.resolve([Request("topic", str(directory), {"scores": "true"})])
        self._preprocess = Preprocessor(plan)
        self._graph = ModelGraph(plan, dtype="bfloat16" if dtype == "bfloat16" else "float32")

    def __call__(self, texts: Sequence[str]) -> Labelled:
        """Labels texts."""
        columns = self._graph(self._preprocess(texts)).columns
        scores = columns["topic_scores"]
        assert isinstance(scores, np.ndarray)
        return Labelled(scores.argmax(1), scores)


class Gemm:
    """The products of an encoder layer alone, through the same prepacked oneDNN call.

    Attributes:
        dtype: Compute type.
        rates: Best rate of each turn, GFLOP/s.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.rates: list[float] = []
        self._products = []
        for rows, columns, depth in _GEMMS:
            linear = Linear(depth, columns)
            optimise_for_inference(linear, device="cpu", dtype=dtype)
            self._products.append((linear, torch.randn(rows, depth, dtype=dtype)))

    def __call__(self) -> None:
        """One turn."""
        with torch.inference_mode():
            self.rates.append(max(_rate(*product) for product in self._products for _ in range(_GEMM_REPEATS)))


def _rate(linear: Linear, x: torch.Tensor) -> float:
    """GFLOP/s of one product."""
    began = time.perf_counter()
    linear(x)
    return 2e-9 * x.numel() * linear.out_features / (time.perf_counter() - began)
