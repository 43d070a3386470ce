"""Masked language modelling with XLM-R's 250,002 pieces: our loop against transformers' `Trainer`.

The Trainer has `DataCollatorForLanguageModeling` and its defaults otherwise. Each run is a process of its own, so that
each is weighed alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.checkpoints import random_model
from benchmarks.corpus import Lengths
from benchmarks.measure import Row
from benchmarks.runs import Contestant, compare, workload
from benchmarks.training import MEDIUM

NAME = "pretraining"

_NAMES: dict[Contestant, str] = {"trainer": "transformers Trainer", "ours": "ours"}
# The usual deviation of fresh weights, 0.02, in a width of 384.
_SPREAD = 0.4


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        shape: Of the encoder.
        steps: Steps of a run.
        rounds: Runs of each contestant.
        vocabulary: Rows of the word embedding table.
        batch: Texts of a step; 8 is the Trainer's default.
        lengths: How long they are.
    """

    shape: dict[str, int]
    steps: int
    rounds: int
    vocabulary: int = 250_002
    batch: int = 8
    lengths: Lengths = field(default_factory=Lengths)


FULL = Size(MEDIUM, steps=12, rounds=3)
QUICK = Size(
    {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}, steps=3, rounds=1
)


def run(size: Size, say: Callable[[str], None]) -> list[Row]:
    """Real tokens a second of both, and the memory of their processes."""
    model = random_model("XLMRobertaForMaskedLM", size.shape, spread=_SPREAD, vocabulary=size.vocabulary)
    with workload("fill-mask", model, batch=size.batch, steps=size.steps, lengths=size.lengths) as work:
        found = compare(_NAMES, work, size.rounds, say)
    layers, width = size.shape["num_hidden_layers"], size.shape["hidden_size"]
    where = f"{layers} layers of {width}, {size.vocabulary:,} pieces, float32, batches of {size.batch}"
    rows = [found.rate(NAME, contestant, f"{name}, {where}") for contestant, name in _NAMES.items()]
    rows.append(found.speedup(NAME, "trainer", "ours / Trainer", goal=2.0))
    rows += [found.peak(NAME, contestant, f"peak memory of {name}") for contestant, name in _NAMES.items()]
    rows.append(found.lightness(NAME, "trainer", "peak memory of ours / Trainer's", goal=0.5))
    return rows
