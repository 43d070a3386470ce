"""What the job adds to the engine: `annotate`, Parquet to committed Parquet, against tokenise, forward, decode alone.

Steady state of the job is the time from its first commit to its last, and the tokens of all shards but the first: so
start of Ray, loading of the model and closing stay out, reading, transport, writing and commits stay in. The engine
runs before and after the job, over the same texts, in large portions, which suit it best.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from benchmarks import job
from benchmarks.checkpoints import BASE, classifier
from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row, cores
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.memory import keep_freed_memory

NAME = "annotate"

_STEADY_SECONDS = 120.0
# Beyond the goal, since the first shard does not count and the machine's speed wanders.
_RESERVE = 1.25
_CALIBRATION_TEXTS = 256
_PORTION = 512


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        shape: Of the encoder.
        seconds: Least length of the job's steady state.
        lengths: How long the texts are.
        shard_rows: Rows of a shard; None for the job's choice.
    """

    shape: dict[str, int]
    seconds: float
    lengths: Lengths
    shard_rows: int | None = None


FULL = Size(BASE, seconds=_STEADY_SECONDS, lengths=Lengths())
QUICK = Size(BASE, seconds=15.0, lengths=Lengths())


def run(size: Size, say: Callable[[str], None]) -> list[Row]:
    """Token rate of the job in steady state over that of the engine."""
    torch.set_num_threads(cores())
    keep_freed_memory()
    directory = classifier(size.shape)
    plan = GraphPlan.resolve([Request("topic", str(directory))])
    engine = Engine(plan)
    engine.rate(cut_texts(directory, 8, size.lengths))
    speed = engine.rate(cut_texts(directory, _CALIBRATION_TEXTS, size.lengths))
    count = max(_CALIBRATION_TEXTS, int(speed * size.seconds * _RESERVE / size.lengths.mean))
    texts = cut_texts(directory, count, size.lengths)
    with TemporaryDirectory(prefix="xlmr-bench-") as folder:
        source, output = Path(folder, "texts.parquet"), Path(folder, "out")
        job.write_texts(source, texts, row_group=10_000)
        say(f"engine, {count:,} texts")
        before = engine.rate(texts)
        say("job")
        job.annotate(source, output, f"topic={directory}", shard_rows=size.shard_rows)
        say("engine again")
        after = engine.rate(texts)
        commits = job.commit_times(output)
        assert job.committed_rows(output) == count
    assert sum(commits.tokens) == engine.tokens
    bare = Row.of(NAME, "engine alone, before and after", [before, after], "tokens/s")
    return [
        bare,
        Row(NAME, f"annotate, steady state of {len(commits.when)} shards", commits.steady_rate, "tokens/s"),
        Row(NAME, "annotate / engine", commits.steady_rate / bare.value, "x", goal=0.85),
        Row(NAME, "length of the steady state", commits.steady_seconds, "s", goal=size.seconds),
    ]


class Engine:
    """Tokenise, forward and decode in this process.

    Attributes:
        tokens: Tokens of the last call to `rate` that went through the encoder.
    """

    def __init__(self, plan: GraphPlan) -> None:
        self._plan = plan
        self._graph = ModelGraph(plan)
        self.tokens = 0

    def rate(self, texts: Sequence[str]) -> float:
        """Tokens a second over texts, in their order."""
        # A new one each time: it remembers words, and the second pass would find them all.
        preprocess = Preprocessor(self._plan)
        self.tokens = 0
        began = perf_counter()
        for first in range(0, len(texts), _PORTION):
            encoded = preprocess(texts[first : first + _PORTION])
            outputs = self._graph.forward(encoded)
            self._graph.decode(encoded, outputs)
            self.tokens += sum(int(part.windows.length.sum()) for part in outputs.windows)
        return self.tokens / (perf_counter() - began)
