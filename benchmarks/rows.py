"""Everything but the model: a million short rows through a checkpoint that has an embedding table and a head only.

Parquet in, committed Parquet out, the whole process from its start to its end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import job
from benchmarks.checkpoints import classifier
from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row

NAME = "rows"

_STUB = {"hidden_size": 8, "num_hidden_layers": 0, "num_attention_heads": 1, "intermediate_size": 8}
_LENGTHS = Lengths(mean=10.0, sigma=0.5, limit=64)
_ROW_GROUP = 100_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        rows: Short texts.
    """

    rows: int


FULL = Size(1_000_000)
QUICK = Size(50_000)


def run(size: Size, say: Callable[[str], None]) -> list[Row]:
    """Wall time of the job and memory of its driver."""
    stub = classifier(_STUB)
    with TemporaryDirectory(prefix="xlmr-bench-") as folder:
        source, output = Path(folder, "rows.parquet"), Path(folder, "out")
        say(f"writing {size.rows:,} rows")
        # The number makes every row another one: no real corpus repeats itself to the last word.
        texts = [f"{text} {number}" for number, text in enumerate(cut_texts(stub, size.rows, _LENGTHS))]
        job.write_texts(source, texts, row_group=_ROW_GROUP)
        del texts
        say("annotating")
        driver = job.annotate(source, output, f"topic={stub}")
        rows, tokens = job.committed_rows(output), sum(job.commit_times(output).tokens)
    assert rows == size.rows
    return [
        Row(NAME, f"{rows:,} rows, {tokens:,} tokens, whole process", driver.seconds, "s", goal=60.0, at_most=True),
        Row(NAME, "rows a second, start included", rows / driver.seconds, "rows/s"),
        Row(NAME, "peak memory of the driver", driver.peak_bytes / 1e6, "MB", goal=600.0, at_most=True),
    ]
