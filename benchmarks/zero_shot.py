"""Zero-shot classification by 20 labels: ours against transformers' pipeline, float32, same texts and threads.

The pipeline tokenises every pair and, unless it is told to batch, computes it alone; nothing is padded then. Batches of
20, the pairs of one text, are what it can do best: their lengths are all but equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.checkpoints import BASE, random_model
from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row, cores, ratios, take_turns
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.memory import keep_freed_memory

NAME = "zero-shot"

_NLI = ("entailment", "neutral", "contradiction")
_LABELS = (
    *("politics", "economy", "sport", "science", "technology", "health", "education", "travel", "food", "art"),
    *("music", "film", "literature", "religion", "law", "war", "weather", "environment", "family", "fashion"),
)
_LENGTHS = Lengths(mean=25.0, sigma=0.7, limit=120)
# Largest difference of a score that float32 explains.
_TOLERANCE = 1e-4
_SMALL = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of one shape is measured.

    Attributes:
        name: What the shape is called.
        shape: Of the encoder.
        texts: How many.
        batches: Pairs that the pipeline computes together, each of them a contestant.
        rounds: Turns of each contestant.
    """

    name: str
    shape: dict[str, int]
    texts: int
    batches: tuple[int, ...]
    rounds: int


# Base shape over 1,000 texts would take the pipeline half an hour.
FULL = (
    Size("6x256", _SMALL, texts=1_000, batches=(1,), rounds=1),
    Size("base", BASE, texts=10, batches=(1, 20), rounds=2),
)
QUICK = (Size("6x256", _SMALL, texts=10, batches=(1, 20), rounds=1),)

# Scores of all labels for each text (P, L).
Contestant = Callable[[Sequence[str]], np.ndarray]


def run(sizes: Sequence[Size], say: Callable[[str], None]) -> list[Row]:
    """Time of both, their ratio, and how far their scores are apart."""
    torch.set_num_threads(cores())
    keep_freed_memory()
    return [row for size in sizes for row in _compare(size, say)]


def _compare(size: Size, say: Callable[[str], None]) -> list[Row]:
    directory = random_model("XLMRobertaForSequenceClassification", size.shape, _NLI)
    texts = cut_texts(directory, size.texts, _LENGTHS)
    what = f"{size.name} shape, {size.texts:,} texts"
    contestants: dict[str, Contestant] = {_peer_name(batch): _peer(directory, batch) for batch in size.batches}
    contestants["ours"] = _ours(directory)
    said: dict[str, np.ndarray] = {}

    def turn(name: str) -> None:
        said[name] = contestants[name](texts)

    for contestant in contestants.values():
        contestant(texts[:2])
    seconds = take_turns(
        {name: partial(turn, name) for name in contestants}, size.rounds, lambda text: say(f"{what}: {text}")
    )
    rows = [Row.of(NAME, f"{what}: {name}", taken, "s") for name, taken in seconds.items()]
    for name in map(_peer_name, size.batches):
        # The promise is about the pipeline as it is; told to batch, it has none to keep.
        goal = 3.0 if name == _peer_name(1) else None
        rows.append(Row.of(NAME, f"{what}: {name} / ours", ratios(seconds[name], seconds["ours"]), "x", goal=goal))
    apart = max(float(np.abs(scores - said["ours"]).max()) for scores in said.values())
    return [*rows, Row(NAME, f"{what}: largest difference of a score", apart, "", goal=_TOLERANCE, at_most=True)]


def _peer_name(batch: int) -> str:
    return "transformers" if batch == 1 else f"transformers, batches of {batch}"


def _peer(directory: Path, batch: int) -> Contestant:
    pipeline = transformers.pipeline(
        "zero-shot-classification", str(directory), dtype=torch.float32, device="cpu", batch_size=batch
    )

    def classify(texts: Sequence[str]) -> np.ndarray:
        found = pipeline(list(texts), candidate_labels=list(_LABELS))
        ranked = [dict(zip(one["labels"], one["scores"], strict=True)) for one in found]
        return np.array([[scores[label] for label in _LABELS] for scores in ranked])

    return classify


def _ours(directory: Path) -> Contestant:
    options = {"task": "zero-shot-classification", "candidate_labels": _LABELS, "scores": True}
    plan = GraphPlan.resolve([Request("topic", str(directory), options)])
    preprocess, graph = Preprocessor(plan), ModelGraph(plan)

    def classify(texts: Sequence[str]) -> np.ndarray:
        scores = graph(preprocess(texts)).columns["topic_scores"]
        assert isinstance(scores, np.ndarray)
        return scores

    return classify
