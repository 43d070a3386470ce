"""What three more heads cost when they share the encoder's pass: label, tags, number and vector against the label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.checkpoints import BASE, classifier, four_heads
from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row, cores, ratios, take_turns
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.memory import keep_freed_memory

NAME = "heads"

_HEADS = ("label", "tags", "number", "vector")


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


FULL = Size(BASE, texts=256, lengths=Lengths(), rounds=5)
QUICK = Size(BASE, texts=64, lengths=Lengths(limit=256), rounds=2)


def run(size: Size, say: Callable[[str], None]) -> list[Row]:
    """Time of four heads over the time of one; random tags, which make far more entities than trained ones."""
    torch.set_num_threads(cores())
    keep_freed_memory()
    directory = four_heads(classifier(size.shape))
    texts = cut_texts(directory, size.texts, size.lengths)
    turns = {f"{len(heads)} of 4 heads": _annotate(directory, heads, texts) for heads in (_HEADS[:1], _HEADS)}
    for turn in turns.values():
        turn()
    one, four = take_turns(turns, size.rounds, say).values()
    return [
        Row.of(NAME, "one head, text to label", one, "s"),
        Row.of(NAME, "four heads, text to label, entities, number and vector", four, "s"),
        Row.of(NAME, "four heads / one head", ratios(four, one), "x", goal=1.15, at_most=True),
    ]


def _annotate(directory: Path, heads: Sequence[str], texts: Sequence[str]) -> Callable[[], object]:
    plan = GraphPlan.resolve([Request(head, f"{directory}#{head}") for head in heads])
    assert len({annotation.encoder_sha256 for annotation in plan.annotations}) == 1
    return partial(_pass, Preprocessor(plan), ModelGraph(plan), texts)


def _pass(preprocess: Preprocessor, graph: ModelGraph, texts: Sequence[str]) -> None:
    graph(preprocess(texts))
