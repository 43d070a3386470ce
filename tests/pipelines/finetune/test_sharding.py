"""Two processes that each hold a part of a model train it as one process does that holds it whole."""

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from pipelines.examples import Example
from pipelines.finetune.best import Aim
from pipelines.finetune.checkpoints import checkpoints
from pipelines.finetune.goal import Goal
from pipelines.finetune.run import TrainingSettings, Validation, Workers
from pipelines.finetune.sentence_vectors import embedding_settings
from pipelines.finetune.sharding import is_sharded, shard, whole_learner
from pipelines.finetune.start import open_start, write_start
from pipelines.finetune.steps import Steps, Stream, StreamSettings, is_short
from pipelines.finetune.trainable import TrainableSettings, choose_trainable
from pipelines.finetune.training import train
from pipelines.finetune.training_set import TrainingSet
from pipelines.finetune.validation import validation_loss
from pipelines.finetune.vector_loss import VectorLoss
from xlmr_core.lora import LowRank

STEPS, WORKERS = 10, 2
TOLERANCE = 1e-6
# With Adam's usual 1e-8, gradients that are nothing but rounding become steps of full size.
SETTINGS = TrainingSettings(
    STEPS, learning_rate=1e-3, warmup_steps=3, epsilon=1e-6, max_grad_norm=0.5, log_steps=1, checkpoint_steps=4
)
TOPIC, WORDS = Goal("sequence-classification", ("a", "b", "c"), name="topic"), Goal("fill-mask", name="words")
VECTORS = Goal(
    "embedding",
    name="vectors",
    settings=embedding_settings(None, VectorLoss()),
    pairs=True,
    vector_loss=VectorLoss(),
)
GOALS = (TOPIC, WORDS, VECTORS)
# All of the lower layer is frozen.
UPPER = TrainableSettings(lora=LowRank(4, targets=("query", "dense"), layers=(1,)))


@dataclass(frozen=True)
class Case:
    """A run."""

    goals: tuple[Goal, ...]
    trained: TrainableSettings = field(default_factory=TrainableSettings)
    checkpointing: bool = False
    validated: bool = False
    stop: int | None = None


CASES = {
    "two heads": Case((TOPIC, WORDS), validated=True),
    "vectors, low-rank branches, activations computed again": Case((TOPIC, VECTORS), UPPER, checkpointing=True),
}


def learner_of(case, folder):
    learner = open_start(folder / "start", list(case.goals))
    choose_trainable(learner, case.trained, seed=0)
    learner.encoder.encoder.checkpointing = case.checkpointing
    return learner


def steps_of(case, learner, folder):
    streams = []
    for goal in case.goals:
        hide = getattr(learner.objectives[goal.name], "hiding", None)
        cut = StreamSettings(8, max_tokens=140)
        data = TrainingSet.open(folder / goal.name)
        together = goal.task == "embedding"
        streams.append(Stream(data, cut, first_position=2, goal=goal.name, hide=hide, together=together))
    return Steps(streams)


def look(stream, learner, workers):
    """Only the first worker has something to measure."""
    whole = whole_learner(learner)
    found = validation_loss(whole, stream, rank=workers.rank, workers=2 * workers.count)
    if workers.rank:
        found.sums.zero_()
    if workers.reduce is not None:
        workers.reduce(found.sums)
    return {stream.goal: found}


def run(case, learner, folder, output, workers=None):
    """Lines of the run and the weights at its end."""
    steps = steps_of(case, learner, folder)
    validation = None
    if case.validated:
        stream = steps.streams[0]
        # Turned round, so that the best weights need not be the last.
        validation = Validation(4, Aim(greater=True), {stream.goal: "loss"}, lambda *of: look(stream, *of))
    lines = []
    for line in train(learner, steps, SETTINGS, output, workers, validation):
        lines.append((line["loss"], line["grad_norm"], line["tokens"]))
        if len(lines) == case.stop:
            break
    return lines, whole_learner(learner).state_dict()


def sharded_run(case, folder, output, rank):
    learner = learner_of(case, folder)
    shard(learner, torch.device("cpu"))
    assert is_sharded(learner)
    assert all(len(p.to_local()) <= -(-len(p) // WORKERS) for p in learner.parameters())
    return run(case, learner, folder, output, Workers(rank, WORKERS, dist.all_reduce))


def worker(number, folder):
    """One of the processes, of which this is the first: all cases, one after the other."""
    rank, store = number + 1, dist.FileStore(f"{folder}/store", WORKERS)
    # Who waits in vain shall fail.
    dist.init_process_group("gloo", rank=rank, world_size=WORKERS, store=store, timeout=timedelta(seconds=100))
    try:
        found = run_all(rank, folder)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    torch.save(found, folder / f"found-{rank}")


def run_all(rank, folder):
    found = {name: sharded_run(case, folder, folder / name, rank) for name, case in CASES.items()}
    broken = folder / "broken"
    sharded_run(replace(CASES["two heads"], stop=6), folder, broken, rank)
    dist.barrier()
    if rank == 0:
        (broken / "step-000000099").mkdir()  # Torn: a name and nothing in it.
    found["resumed"] = sharded_run(CASES["two heads"], folder, broken, rank)
    return found


@pytest.fixture(scope="module")
def folder(make_checkpoint, sample_texts):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [" ".join(text.split()[:12]) for text in sample_texts if len(text.split()) > 6]
        base = make_checkpoint("XLMRobertaForMaskedLM", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0)
        write_start(folder / "start", str(base), GOALS, seed=0)
        whole = open_start(folder / "start", GOALS)
        for goal in GOALS:
            # Of one head fewer records than of the others.
            some = texts[70:100] if goal is WORDS else texts[:70]
            examples = [
                Example(text, (texts[-n],), (1.0,), "de", str(n), f"file:{n}")
                if goal is VECTORS
                else Example(text, (), "abc"[n % 3], "de", str(n), f"file:{n}")
                for n, text in enumerate(some)
            ]
            whole.objectives[goal.name].training_set(examples)[0].save(folder / goal.name)
        yield folder


@pytest.fixture(scope="module")
def found(folder):
    """What each of two workers says of all cases."""
    others = multiprocessing.spawn(worker, (folder,), nprocs=WORKERS - 1, join=False)
    worker(-1, folder)
    others.join()
    return [torch.load(folder / f"found-{rank}", weights_only=True) for rank in range(WORKERS)]


@pytest.mark.parametrize("name", CASES)
def test_two_workers_with_a_part_each_train_as_one_with_all(name, found, folder, tmp_path):
    case = CASES[name]
    lines, weights = run(case, learner_of(case, folder), folder, tmp_path)
    (ours, ours_weights), (theirs, theirs_weights) = (of_worker[name] for of_worker in found)
    assert ours == theirs
    for column, tolerance in ((0, TOLERANCE), (1, 10 * TOLERANCE), (2, 0)):
        np.testing.assert_allclose(*([line[column] for line in of] for of in (ours, lines)), rtol=tolerance)
    assert ours_weights.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(ours_weights[key], theirs_weights[key]), key
        pair = [with_say(key, value) for value in (ours_weights[key], value)]
        torch.testing.assert_close(*pair, rtol=TOLERANCE, atol=TOLERANCE, msg=key)


def with_say(key, value):
    """The bias of keys changes nothing: its gradient is rounding, and it only drifts."""
    if not key.endswith("qkv.bias"):
        return value
    query, _, value = value.chunk(3)
    return torch.cat([query, value])


@pytest.mark.parametrize("name", CASES)
def test_workers_would_wait_for_each_other_without_fillers(name, folder):
    case = CASES[name]
    steps = steps_of(case, learner_of(case, folder), folder)
    fillers = 0
    for step in range(STEPS):
        parts = [list(steps.micro_batches(step, rank=rank, workers=WORKERS, even=True)) for rank in range(WORKERS)]
        assert len({len(part) for part in parts}) == 1
        batches = [batch for part in parts for batch in part]
        assert sorted(batch.seed for batch in batches if not batch.is_filler) == [
            batch.seed for batch in steps.micro_batches(step)
        ]
        assert all(batch.weight == 0 for batch in batches if batch.is_filler)
        fillers += sum(batch.is_filler for batch in batches)
    assert 0 < fillers < STEPS
    counts = [len(stream.parts(step)) for stream in steps.together for step in range(STEPS)]
    assert not counts or 0 < sum(is_short(count, 1, WORKERS) for count in counts) < STEPS


def test_a_sharded_run_that_was_stopped_ends_as_one_that_was_not(found, folder):
    """Bit for bit, dropout and the state of the optimiser included."""
    assert found[0]["resumed"][0] == found[0]["two heads"][0][4:]
    whole, resumed = (last_state(folder / name) for name in ("two heads", "broken"))
    assert len(whole["optimiser"]["state"]) == len(whole["learner"]) - 1  # One is there by two names.
    torch.testing.assert_close(whole, resumed, rtol=0, atol=0)


def last_state(folder):
    state = torch.load(checkpoints(folder)[-1] / "state.pt", weights_only=True)
    assert state["step"] == STEPS
    return {part: state[part] for part in ("learner", "optimiser")}


def test_a_run_that_is_not_sharded_goes_on_with_a_checkpoint_of_one_that_is(found, folder, tmp_path):
    case = CASES["two heads"]
    before, _ = checkpoints(folder / "two heads")
    assert before.name == "step-000000008"
    shutil.copytree(before, tmp_path / before.name)
    for best in (folder / "two heads").glob("best-*"):
        shutil.copy(best, tmp_path)
    lines, _ = run(case, learner_of(case, folder), folder, tmp_path)
    assert [line[0] for line in lines] == pytest.approx(
        [line[0] for line in found[0]["two heads"][0][8:]], rel=TOLERANCE
    )
