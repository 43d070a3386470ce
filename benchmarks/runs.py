"""A few steps of training in a process of its own, ours or those of transformers' `Trainer`: its rate and its memory.

Both read the same token ids from one prepared folder, with the same threads, batch size and optimiser. The first step,
which makes the optimiser's state, is not timed.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

import torch

from benchmarks.corpus import Lengths, cut_texts
from benchmarks.measure import Row, cores, ratios
from pipelines.examples import Example
from pipelines.finetune.language_model import LanguageModel
from pipelines.finetune.run import TrainingSettings
from pipelines.finetune.start import ALONE, Goal, objective_of, open_start, write_start
from pipelines.finetune.steps import Steps, Stream, StreamSettings
from pipelines.finetune.training import train
from pipelines.finetune.training_set import TrainingSet

Contestant = Literal["trainer", "grouped", "ours"]
Task = Literal["sequence-classification", "fill-mask"]

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is trained on, ready to be read.

    Attributes:
        task: What is learnt.
        labels: Of a classifier.
        folder: Holds the model as it begins, and the training set.
        batch: Records of a step.
        steps: How many, the first not counted.
    """

    task: Task
    labels: Sequence[str]
    folder: str
    batch: int
    steps: int

    @property
    def goal(self) -> Goal:
        """What is learnt, as the loop has it."""
        return Goal(self.task, tuple(self.labels), "single_label_classification" if self.labels else None)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run took.

    Attributes:
        tokens: Real ones, without padding, in the steps that were timed.
        seconds: Of these steps.
        peak_bytes: Most memory that was resident at once in the process.
    """

    tokens: int
    seconds: float
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


@contextmanager
def workload(
    task: Task, model: Path, *, labels: Sequence[str] = (), batch: int, steps: int, lengths: Lengths
) -> Iterator[Workload]:
    """Tokenises texts for one epoch of a workload; they are gone afterwards.

    Args:
        task: What is learnt.
        model: From `checkpoints.random_model`.
        labels: Of a classifier.
        batch: Records of a step.
        steps: How many, besides the first.
        lengths: How long the texts are.
    """
    with TemporaryDirectory(prefix="xlmr-bench-") as folder:
        work = Workload(task, labels, folder, batch, steps)
        write_start(Path(folder, "model"), str(model), [work.goal], seed=0)
        texts = cut_texts(model, batch * (steps + 1), lengths)
        golds = [labels[number % len(labels)] if labels else None for number in range(len(texts))]
        examples = [Example(text, (), gold, "", "", "") for text, gold in zip(texts, golds, strict=True)]
        data, _ = objective_of(Path(folder, "model"), work.goal).training_set(examples)
        data.save(Path(folder, "data"))
        yield work


def measure(contestant: Contestant, work: Workload) -> Figures:
    """Runs a contestant in a fresh process.

    Raises:
        RuntimeError: It failed; the message is what it said last.
    """
    command = [sys.executable, "-m", "benchmarks.runs", contestant, json.dumps(asdict(work))]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{contestant} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures of several contestants.

    Attributes:
        figures: One a round, by contestant.
    """

    figures: Mapping[Contestant, Sequence[Figures]]

    def rate(self, benchmark: str, contestant: Contestant, name: str) -> Row:
        """Real tokens a second."""
        return Row.of(benchmark, name, [one.rate for one in self.figures[contestant]], "tokens/s")

    def peak(self, benchmark: str, contestant: Contestant, name: str) -> Row:
        """Peak memory of the process."""
        return Row.of(benchmark, name, [one.peak_bytes / 1e6 for one in self.figures[contestant]], "MB")

    def speedup(self, benchmark: str, peer: Contestant, name: str, *, goal: float) -> Row:
        """Our rate over a peer's of the same round."""
        ours, theirs = ([one.rate for one in self.figures[name]] for name in ("ours", peer))
        return Row.of(benchmark, name, ratios(ours, theirs), "x", goal=goal)

    def lightness(self, benchmark: str, peer: Contestant, name: str, *, goal: float) -> Row:
        """Our peak memory over a peer's of the same round."""
        ours, theirs = ([float(one.peak_bytes) for one in self.figures[name]] for name in ("ours", peer))
        return Row.of(benchmark, name, ratios(ours, theirs), "x", goal=goal, at_most=True)


def compare(contestants: Collection[Contestant], work: Workload, rounds: int, say: Callable[[str], None]) -> Comparison:
    """Runs each contestant once a round, so that a slow minute of the machine hits all of them.

    Args:
        contestants: Who runs.
        work: What they are trained on.
        rounds: How often each of them runs; every round begins with another one.
        say: Told what is being run.
    """
    figures: dict[Contestant, list[Figures]] = {contestant: [] for contestant in contestants}
    names = list(contestants)
    for number in range(rounds):
        first = number % len(names)
        for contestant in names[first:] + names[:first]:
            say(f"round {number + 1} of {rounds}: {contestant}")
            figures[contestant].append(measure(contestant, work))
    return Comparison(figures)


def run_ours(work: Workload) -> tuple[int, float]:
    """Our loop without Ray, as a worker of a job calls it; tokens and seconds of the timed steps."""
    folder = Path(work.folder)
    learner = open_start(folder / "model", [work.goal])
    objective = learner.objectives[ALONE]
    stream = Stream(
        TrainingSet.open(folder / "data"),
        StreamSettings(records=work.batch),
        first_position=learner.encoder.config.first_position,
        hide=objective.hiding if isinstance(objective, LanguageModel) else None,
    )
    # A step more than is looked at: the last would write a checkpoint.
    settings = TrainingSettings(steps=work.steps + 2, log_steps=1)
    tokens, seconds = 0.0, 0.0
    with TemporaryDirectory(prefix="xlmr-bench-") as checkpoints:
        for metrics in train(learner, Steps([stream]), settings, Path(checkpoints)):
            if metrics["step"] > 1:
                tokens += metrics["tokens"]
                seconds += metrics["seconds"]
            if metrics["step"] == work.steps + 1:
                break
    return round(tokens), seconds


def main(contestant: Contestant, work: Workload) -> Figures:
    """What the process of a contestant does."""
    torch.set_num_threads(cores())
    if contestant == "ours":
        tokens, seconds = run_ours(work)
    else:
        # Imported here: our process is weighed without transformers, as it runs without it.
        from benchmarks.peer_trainer import run_trainer

        tokens, seconds = run_trainer(work, grouped=contestant == "grouped")
    return Figures(tokens, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(asdict(main(cast(Contestant, sys.argv[1]), Workload(**json.loads(sys.argv[2]))))) + "\n"
    )
