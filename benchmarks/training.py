"""Fine-tuning a classifier on texts of natural lengths: our loop against transformers' `Trainer`.

The Trainer runs with its defaults, batches as they come, and with `train_sampling_strategy="group_by_length"`, which
trains in an order that follows the lengths; ours draws every batch at random and packs it. Each run is a process of its
own, all in turn in every round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.checkpoints import BASE, LABELS, classifier
from benchmarks.corpus import Lengths
from benchmarks.measure import Row
from benchmarks.runs import Contestant, compare, workload

NAME = "training"

SMALL = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
MEDIUM = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}
_NAMES: dict[Contestant, str] = {
    "trainer": "transformers Trainer",
    "grouped": "transformers Trainer, group_by_length",
    "ours": "ours",
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        name: Of the shape.
        shape: Of the encoder.
        steps: Steps of a run.
        rounds: Runs of each contestant.
        batch: Texts of a step; 8 is the Trainer's default.
        lengths: How long they are.
    """

    name: str
    shape: dict[str, int]
    steps: int
    rounds: int
    batch: int = 8
    lengths: Lengths = field(default_factory=Lengths)


FULL = (
    Size("6 layers of 256", SMALL, steps=24, rounds=3),
    Size("12 layers of 384", MEDIUM, steps=40, rounds=5),
    Size("XLM-R base", BASE, steps=16, rounds=3),
)
QUICK = (
    Size(
        "2 layers of 128",
        {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
        steps=4,
        rounds=1,
    ),
)


def run(sizes: Sequence[Size], say: Callable[[str], None]) -> list[Row]:
    """Real tokens a second of all three, and the memory of their processes."""
    return [row for size in sizes for row in _run(size, say)]


def _run(size: Size, say: Callable[[str], None]) -> list[Row]:
    with workload(
        "sequence-classification",
        classifier(size.shape),
        labels=LABELS,
        batch=size.batch,
        steps=size.steps,
        lengths=size.lengths,
    ) as work:
        found = compare(_NAMES, work, size.rounds, say)
    where = f"{size.name}, float32, batches of {size.batch}"
    rows = [found.rate(NAME, contestant, f"{name}, {where}") for contestant, name in _NAMES.items()]
    rows.append(found.speedup(NAME, "trainer", f"ours / Trainer, {size.name}", goal=2.0))
    rows.append(found.speedup(NAME, "grouped", f"ours / Trainer with group_by_length, {size.name}", goal=1.3))
    rows += [found.peak(NAME, contestant, f"peak memory of {name}, {size.name}") for contestant, name in _NAMES.items()]
    return rows
