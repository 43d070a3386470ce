"""Question answering over long contexts: ours against transformers' own windows, padded and in batches of 8.

transformers 5.3 dropped the pipeline, so that the peer is what it did: overflowing windows, the model in padded
batches, the best span of each window in numpy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.checkpoints import BASE, random_model
from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row, cores, ratios, take_turns
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.memory import keep_freed_memory
from xlmr_core.tasks.columns import to_list

NAME = "questions"

_QUESTION = "Which of the cities lies on a river, and who wrote about it?"
_WINDOW, _STRIDE, _ANSWER = 384, 128, 15


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        shape: Of the encoder.
        contexts: How many.
        tokens: How long each is.
        rounds: Turns of each contestant.
    """

    shape: dict[str, int]
    contexts: int
    tokens: Lengths
    rounds: int


FULL = Size(BASE, contexts=50, tokens=Lengths(mean=700.0, sigma=0.5, limit=2_000), rounds=2)
QUICK = Size(
    {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
    contexts=6,
    tokens=Lengths(mean=500.0, sigma=0.5, limit=1_000),
    rounds=2,
)


def run(size: Size, say: Callable[[str], None]) -> list[Row]:
    """Time of both over the same contexts, and whether they find the same answers."""
    torch.set_num_threads(cores())
    keep_freed_memory()
    directory = random_model("XLMRobertaForQuestionAnswering", size.shape, spread=0.5)
    contexts = cut_texts(directory, size.contexts, size.tokens)
    contestants = {"transformers, batches of 8": Peer(directory), "ours": _ours(directory)}
    answers = {name: answer(contexts[:8]) for name, answer in contestants.items()}
    turns = {name: partial(answer, contexts) for name, answer in contestants.items()}
    theirs, ours = take_turns(turns, size.rounds, say).values()
    agreed = [one == other for one, other in zip(*answers.values(), strict=True)]
    return [
        Row.of(NAME, f"transformers float32, {size.contexts} contexts, batches of 8", theirs, "s"),
        Row.of(NAME, "ours float32", ours, "s"),
        Row.of(NAME, "transformers / ours", ratios(theirs, ours), "x", goal=2.0),
        Row(NAME, f"same answer ({len(agreed)} contexts)", 100 * sum(agreed) / len(agreed), "%", goal=100.0),
    ]


class Peer:
    """`XLMRobertaForQuestionAnswering` with overflowing windows of the tokenizer."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        self._model = transformers.AutoModelForQuestionAnswering.from_pretrained(directory).eval()

    def __call__(self, contexts: Sequence[str]) -> list[tuple[int, int]]:
        """Best span of each context, code points."""
        windows: dict[str, Any] = self._tokenizer(
            [_QUESTION] * len(contexts),
            list(contexts),
            truncation="only_second",
            max_length=_WINDOW,
            stride=_STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        # Equal answers of several windows add up, as in the old pipeline.
        scores: list[dict[str, float]] = [{} for _ in contexts]
        spans: list[dict[str, tuple[int, int]]] = [{} for _ in contexts]
        with torch.inference_mode():
            for first in range(0, len(windows["input_ids"]), 8):
                chosen = range(first, min(first + 8, len(windows["input_ids"])))
                padded = self._tokenizer.pad(
                    {"input_ids": [windows["input_ids"][index] for index in chosen]}, return_tensors="pt"
                )
                output = self._model(**padded)
                logits = torch.stack([output.start_logits, output.end_logits]).numpy()
                for row, window in enumerate(chosen):
                    score, (start, end) = _best_span(logits[:, row], windows, window)
                    context = windows["overflow_to_sample_mapping"][window]
                    text = contexts[context][start:end].lower()
                    scores[context][text] = scores[context].get(text, 0.0) + score
                    spans[context].setdefault(text, (start, end))
        return [spans[number][max(found, key=found.__getitem__)] for number, found in enumerate(scores)]


def _best_span(logits_2T: np.ndarray, windows: Any, window: int) -> tuple[float, tuple[int, int]]:
    """Score and code points of the best span of a window: the old pipeline's rule without words."""
    sides = windows.sequence_ids(window)
    allowed = np.array([side == 1 for side in sides])
    allowed[0] = True
    masked = np.where(allowed, logits_2T[:, : len(sides)], -10_000.0)
    exponent = np.exp(masked - masked.max(axis=1, keepdims=True))
    start, end = exponent / exponent.sum(axis=1, keepdims=True)
    start[0] = end[0] = 0.0
    scores = np.tril(np.triu(start[:, None] * end[None, :]), _ANSWER - 1)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    offsets = windows["offset_mapping"][window]
    return float(scores[first, last]), (offsets[first][0], offsets[last][1])


def _ours(directory: Path) -> Callable[[Sequence[str]], list[tuple[int, int]]]:
    options = {"question": _QUESTION, "max_length": _WINDOW, "stride": _STRIDE, "max_answer_length": _ANSWER}
    plan = GraphPlan.resolve([Request("qa", str(directory), {**options, "align_to_words": False})])
    preprocess, graph = Preprocessor(plan), ModelGraph(plan)

    def answer(contexts: Sequence[str]) -> list[tuple[int, int]]:
        found = to_list(graph(preprocess(contexts)).columns["qa_answers"])
        return [(best["start"], best["end"]) for best, *_ in found]

    return answer
