"""Training here against the transformers Trainer, fed the same records in the same steps."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from pipelines.finetune.checkpoints import checkpoints
from pipelines.finetune.goal import Goal
from pipelines.finetune.learner import Learner
from pipelines.finetune.run import TrainingSettings, Workers, rate_at
from pipelines.finetune.start import open_start
from pipelines.finetune.steps import Steps, Stream, StreamSettings
from pipelines.finetune.supervised import Supervised
from pipelines.finetune.training import train
from pipelines.finetune.validation import validation_loss
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import encoder_file_names, head_file_names
from xlmr_core.graph import GraphPlan, Request

STEPS, RECORDS = 20, 8
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TAGS = ["O", "B-PER", "I-PER"]
TOLERANCE = 1e-5
# RoBERTa's own. With Adam's usual 1e-8, gradients that are nothing but rounding become steps of full size.
EPSILON = 1e-6
# What is added to all that a softmax compares changes nothing: the gradient of these is rounding, and they only drift.
# So is that of every key's bias.
NO_SAY = {
    "multiple-choice": ("classifier.bias",),
    "question-answering": ("qa_outputs.bias", "layer.1.output.LayerNorm.bias"),
}


@dataclass
class Example:
    text: str
    gold: object
    second: tuple[str, ...] = ()
    language: str = "xx"


@pytest.fixture(scope="module")
def lines(sample_texts):
    return [" ".join(text.split()[:12]) for text in sample_texts if len(text.split()) > 6]


def tagged(text, number):
    """Words, their places and a tag for each."""
    words, places, at = text.split(), [], 0
    for word in words:
        places.append((at, at + len(word)))
        at += len(word) + 1
    return SimpleNamespace(spans=places, labels=[TAGS[(number + place) % 3] for place in range(len(words))])


def case(kind, make_checkpoint, lines):
    """A checkpoint, examples and options of a head."""
    count = STEPS * RECORDS
    lines = (lines * 3)[:count]
    match kind:
        case "sequence-classification":
            directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"], **NO_DROPOUT)
            return directory, [Example(text, "abc"[n % 3]) for n, text in enumerate(lines)], {}
        case "regression":
            directory = make_checkpoint(
                "XLMRobertaForSequenceClassification", labels=["n"], problem_type="regression", **NO_DROPOUT
            )
            return directory, [Example(text, float(n % 5)) for n, text in enumerate(lines)], {}
        case "several labels":
            several = {"labels": ["a", "b", "c"], "problem_type": "multi_label_classification", **NO_DROPOUT}
            directory = make_checkpoint("XLMRobertaForSequenceClassification", **several)
            return directory, [Example(text, [("a", "b"), (), ("c",)][n % 3]) for n, text in enumerate(lines)], {}
        case "pairs":
            directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b"], **NO_DROPOUT)
            examples = [Example(text, "ab"[n % 2], (lines[n - 1][:30],)) for n, text in enumerate(lines)]
            return directory, examples, {}
        case "token-classification":
            directory = make_checkpoint("XLMRobertaForTokenClassification", labels=TAGS, **NO_DROPOUT)
            return directory, [Example(text, tagged(text, n)) for n, text in enumerate(lines)], {}
        case "question-answering":
            directory = make_checkpoint("XLMRobertaForQuestionAnswering", **NO_DROPOUT)
            examples = [
                Example(text, [(0, len(text.split()[0]))] if n % 4 else [], ("Wer war es?",))
                for n, text in enumerate(lines)
            ]
            return directory, examples, {}
        case "multiple-choice":
            directory = make_checkpoint("XLMRobertaForMultipleChoice", **NO_DROPOUT)
            return directory, [Example(text, n % 2, (lines[n - 1][:20], "nein")) for n, text in enumerate(lines)], {}
        case "translations":
            directory = make_checkpoint("XLMRobertaForMaskedLM", **NO_DROPOUT)
            return directory, [Example(text[:30], None, (lines[n - 1][:30],)) for n, text in enumerate(lines)], {}
        case "fill-mask":
            return make_checkpoint("XLMRobertaForMaskedLM", **NO_DROPOUT), [Example(text, None) for text in lines], {}
        case "causal-lm":
            directory = make_checkpoint("XLMRobertaForCausalLM", is_decoder=True, **NO_DROPOUT)
            return directory, [Example(text, None) for text in lines], {}


KINDS = [
    "sequence-classification",
    "regression",
    "several labels",
    "pairs",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "fill-mask",
    "translations",
    "causal-lm",
]
HEADS = {
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
    "token-classification": "token-classification",
    "fill-mask": "masked-lm",
    "translations": "masked-lm",
    "causal-lm": "masked-lm",
}


def start(directory, examples, options):
    """A learner with the checkpoint's weights, and what it learns from."""
    pairs = bool(examples[0].second)
    task = Checkpoint.open(str(directory)).task
    if task in ("fill-mask", "causal-lm"):
        learner = open_start(directory, [Goal(task, pairs=pairs)])
        data, refused = learner.objectives["task"].training_set(examples)
        assert not refused
        # The Trainer must hide the same tokens, so they are hidden once and for all.
        hide = learner.objectives["task"].hiding
        return learner, data if hide is None else hide(data, np.random.default_rng(0))
    plan = GraphPlan.resolve([Request("task", str(directory), options)], on_long="truncate", pairs=pairs)
    objective = Supervised(plan)
    data, refused = objective.training_set(examples)
    assert not refused
    checkpoint = Checkpoint.open(str(directory))
    head = objective.annotation.task.load_head(checkpoint)
    learner = Learner(checkpoint.load_encoder(), {"task": head}, {"task": objective})
    return learner, data


def run(learner, data, folder, *, settings=None, max_tokens=4096, workers=None, shuffle=False):
    first = learner.encoder.config.first_position
    cut = StreamSettings(RECORDS, max_tokens=max_tokens, shuffle=shuffle)
    steps = Steps([Stream(data, cut, first_position=first)])
    settings = settings or TrainingSettings(STEPS, learning_rate=1e-3, warmup_steps=4, epsilon=EPSILON, log_steps=1)
    return [line["loss"] for line in train(learner, steps, settings, folder, workers)]


def padded_batch(data, causal):
    """A collator: rows are numbers of records."""

    def collate(rows):
        numbers = np.array([row["number"] for row in rows])
        part = data.take(numbers)
        ids = list(torch.from_numpy(part.ids.astype(np.int64)).split(part.lengths.tolist()))
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
        batch = {"input_ids": padded, "attention_mask": (padded != 1).long()}
        targets = torch.from_numpy(part.targets)
        if data.restarts.any():
            positions = [torch.arange(2, 2 + n) for n in part.lengths.tolist()]
            for row, at in zip(positions, part.restarts.tolist(), strict=True):
                row[at:] -= at
            batch["position_ids"] = torch.nn.utils.rnn.pad_sequence(positions, batch_first=True, padding_value=1)
        match data.per:
            case "token" if causal:
                return batch | {"labels": padded.masked_fill(padded == 1, -100)}
            case "token":
                rows = targets.split(part.lengths.tolist())
                return batch | {
                    "labels": torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=-100)
                }
            case "record":
                shape = (len(numbers), -1, padded.shape[1])
                return {name: value.view(shape) for name, value in batch.items()} | {"labels": targets}
            case _ if targets.ndim == 2 and targets.dtype == torch.int64:
                return batch | {"start_positions": targets[:, 0], "end_positions": targets[:, 1]}
            case _:
                return batch | {"labels": targets}

    return collate


class MaskedPadding(transformers.Trainer):
    """A softmax over the columns of a padded batch takes padding for text; ours has none."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        if "start_positions" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        ends = [inputs.pop(name) for name in ("start_positions", "end_positions")]
        outputs = model(**inputs)
        hidden = inputs["attention_mask"] == 0
        logits = [x.masked_fill(hidden, -torch.inf) for x in (outputs.start_logits, outputs.end_logits)]
        parts = [torch.nn.functional.cross_entropy(x, y) for x, y in zip(logits, ends, strict=True)]
        return sum(parts) / 2


def trainer(directory, data, folder):
    """Losses and final weights of the Trainer."""
    architecture = transformers.AutoConfig.from_pretrained(directory).architectures[0]
    model = getattr(transformers, architecture).from_pretrained(directory)
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=RECORDS,
        learning_rate=1e-3,
        warmup_steps=4,
        adam_epsilon=EPSILON,
        optim="adamw_torch",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
    )
    rows = [{"number": number} for number in range(len(data))]
    collate = padded_batch(data, "CausalLM" in architecture)
    done = MaskedPadding(model, arguments, train_dataset=rows, data_collator=collate)
    done.train()
    losses = [line["loss"] for line in done.state.log_history if "loss" in line]
    return [float(loss) for loss in losses], model.state_dict()


def assert_same_weights(learner, expected, head):
    ours = {f"roberta.{n}": v for n, v in named(learner.encoder, encoder_file_names).items()}
    heads = named(learner.heads["task"], lambda name: head_file_names(head, name))
    ours |= {f"roberta.{n}" if n.startswith("pooler.") else n: v for n, v in heads.items()}
    if "lm_head.decoder.bias" in ours:
        # One parameter under two names there.
        ours["lm_head.bias"] = ours["lm_head.decoder.bias"]
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        if not name.endswith(("key.bias", *NO_SAY.get(head, ()))):
            assert (value - expected[name]).abs().max() <= TOLERANCE, name


def named(module, file_names):
    found = {}
    for name, value in module.state_dict().items():
        parts = file_names(name)
        found |= dict(zip(parts, value.chunk(len(parts)), strict=True))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_equal_those_of_the_trainer(kind, make_checkpoint, lines, tmp_path):
    directory, examples, options = case(kind, make_checkpoint, lines)
    learner, data = start(directory, examples, options)
    expected, weights = trainer(directory, data, tmp_path / "theirs")
    losses = run(learner, data, tmp_path / "ours")
    np.testing.assert_allclose(losses, expected, atol=1e-4 if kind == "regression" else TOLERANCE, rtol=TOLERANCE)
    assert_same_weights(learner, weights, HEADS.get(kind, "sequence-classification"))


def test_two_workers_train_as_one_does(make_checkpoint, lines, tmp_path):
    """Each computes every other micro-batch; the sums of both are what one worker accumulates."""
    directory, examples, options = case("sequence-classification", make_checkpoint, lines)
    alone, data = start(directory, examples, options)
    losses = run(alone, data, tmp_path / "one", max_tokens=64)
    pair = [start(directory, examples, options)[0] for _ in range(2)]
    barrier, shared = threading.Barrier(2), {}

    def reduce_for(rank):
        def reduce(tensor):
            shared[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(shared[0] + shared[1])
            barrier.wait()

        return reduce

    def work(rank):
        found[rank] = run(pair[rank], data, tmp_path / "two", max_tokens=64, workers=Workers(rank, 2, reduce_for(rank)))

    found = {}
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found[0], losses, rtol=1e-6)
    assert found[0] == found[1]
    for one, two in zip(pair[0].parameters(), pair[1].parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("stop", [1, 7, 13])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(make_checkpoint, lines, tmp_path, stop):
    """Bit for bit, dropout and shuffling included."""
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"])
    examples = [Example(text, "abc"[n % 3]) for n, text in enumerate(lines[:60])]
    settings = TrainingSettings(16, learning_rate=1e-3, checkpoint_steps=3, log_steps=1, seed=7)
    whole, data = start(directory, examples, {})
    run(whole, data, tmp_path / "whole", settings=settings, shuffle=True)
    broken, _ = start(directory, examples, {})
    steps = Steps([Stream(data, StreamSettings(RECORDS), first_position=2)])
    for line in train(broken, steps, settings, tmp_path / "broken"):
        if line["step"] == stop:
            break
    (tmp_path / "broken/step-000000099").mkdir()  # Torn: a name and nothing in it.
    resumed, _ = start(directory, examples, {})
    rest = run(resumed, data, tmp_path / "broken", settings=settings, shuffle=True)
    assert len(rest) == 16 - stop // 3 * 3
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert [path.name for path in checkpoints(tmp_path / "whole")] == ["step-000000015", "step-000000016"]


@pytest.mark.parametrize("max_tokens", [1, 100, 100_000])
def test_every_record_is_seen_once_an_epoch_however_it_is_cut(make_checkpoint, lines, max_tokens):
    directory, examples, options = case("token-classification", make_checkpoint, lines)
    _, data = start(directory, examples[:50], options)
    stream = Stream(data, StreamSettings(8, max_tokens=max_tokens, seed=3), first_position=2)
    steps = Steps([stream])
    assert steps.per_epoch == 7
    for epoch in range(2):
        numbers = range(epoch * 7, epoch * 7 + 7)
        assert sorted(np.concatenate([stream.records(n) for n in numbers])) == list(range(50))
        for number in numbers:
            whole = list(steps.micro_batches(number))
            assert sum(batch.weight for batch in whole) == pytest.approx(1)
            parts = [list(steps.micro_batches(number, rank=rank, workers=3)) for rank in range(3)]
            assert sorted(batch.seed for part in parts for batch in part) == [batch.seed for batch in whole]
            assert all(len(batch.packed.ids) <= max_tokens or len(batch.packed.lengths) == 1 for batch in whole)
    assert not np.array_equal(stream.records(0), stream.records(7))
    again = Stream(data, StreamSettings(8, max_tokens=max_tokens, seed=3), first_position=2)
    assert np.array_equal(again.records(9), stream.records(9))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_rates_are_those_of_transformers(schedule):
    settings = TrainingSettings(50, learning_rate=2.0, warmup_steps=10, schedule=schedule)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    theirs = transformers.get_scheduler(name, optimiser, num_warmup_steps=10, num_training_steps=50)
    for step in range(50):
        assert rate_at(step, settings) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimiser.step()
        theirs.step()


def test_a_loss_that_is_no_number_ends_the_run(make_checkpoint, lines, tmp_path):
    directory, examples, options = case("sequence-classification", make_checkpoint, lines)
    learner, data = start(directory, examples, options)
    with torch.no_grad():
        learner.heads["task"].out_proj.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="at step 0, it must be finite; lower the learning rate"):
        run(learner, data, tmp_path)
    assert not checkpoints(tmp_path)


def test_gradients_that_are_no_numbers_end_the_run_before_they_reach_a_weight(make_checkpoint, lines, tmp_path):
    directory, examples, options = case("sequence-classification", make_checkpoint, lines)
    learner, data = start(directory, examples, options)
    bias = learner.heads["task"].out_proj.bias
    bias.register_hook(lambda gradient: gradient * torch.inf)
    before = bias.detach().clone()
    with pytest.raises(FloatingPointError, match=r"gradient norm .* at step 0"):
        run(learner, data, tmp_path)
    assert torch.equal(bias, before)
    assert not checkpoints(tmp_path)


def test_a_validation_of_a_language_model_computes_no_gradients(make_checkpoint, lines, monkeypatch):
    directory, examples, options = case("fill-mask", make_checkpoint, lines)
    learner, data = start(directory, examples, options)
    stream = Stream(data, StreamSettings(RECORDS, shuffle=False), first_position=2)
    monkeypatch.setattr("xlmr_core.tasks.vocabulary_loss._add_product", lambda *_: pytest.fail("a gradient"))
    assert validation_loss(learner, stream).sums[:, 1].sum() > 0
