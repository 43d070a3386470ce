"""What is frozen stays as it was; what is trained is all that a checkpoint holds, and it is written either way."""

import copy

import pytest
import torch

from pipelines.finetune.learner import Learner
from pipelines.finetune.trainable import (
    TrainableSettings,
    adapter_base,
    choose_trainable,
    load_trainable_state,
    trainable_problems,
    trainable_state,
)
from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.errors import CheckpointError, TaskError
from xlmr_core.lora import LowRank, branches

LABELS = ["a", "b", "c"]
TEXTS = [[0, 5, 7, 2], [0, 100, 101, 102, 103, 2], [0, 9, 9, 9, 2]]


@pytest.fixture(scope="module")
def directory(make_checkpoint):
    return make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS)


@pytest.fixture
def base(directory):
    return Checkpoint.open(str(directory))


def learner_of(base, settings=None, seed=0):
    # Opened anew: what one checkpoint loads twice lies in the same memory.
    base = Checkpoint.open(base.resolved)
    learner = Learner(base.load_encoder(), {"task": base.load_head("sequence-classification")}, {})
    if settings:
        choose_trainable(learner, settings, seed=seed)
    return learner.train()


def logits_of(learner):
    batch = PackedBatch.from_lists(TEXTS, first_position=2)
    return learner.heads["task"](learner.encoder(batch), batch)


def train(learner, steps=3, optimiser=None):
    optimiser = optimiser or optimiser_of(learner)
    for step in range(steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits_of(learner), torch.tensor([0, 1, 2])).backward()
        optimiser.step()
    return optimiser


def optimiser_of(learner):
    return torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)


FROZEN = {
    None: (),
    "embeddings": ("encoder.embeddings.",),
    0: ("encoder.embeddings.",),
    1: ("encoder.embeddings.", "encoder.encoder.layer.0."),
    2: ("encoder.",),
    "encoder": ("encoder.",),
}


@pytest.mark.parametrize("freeze", FROZEN)
def test_training_changes_what_is_not_frozen_and_nothing_else(base, freeze):
    learner = learner_of(base, TrainableSettings(freeze))
    before = copy.deepcopy(learner.state_dict())
    optimiser = train(learner)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(FROZEN[freeze]), name
    trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    states = [state["exp_avg"].numel() for state in optimiser.state.values()]
    assert sum(states) == trained == choose_trainable(learner, TrainableSettings(freeze), seed=0)


def test_frozen_layers_keep_their_dropout(base):
    learner = learner_of(base, TrainableSettings("encoder"))
    assert not torch.equal(logits_of(learner), logits_of(learner))


def test_the_forward_pass_keeps_nothing_of_frozen_lower_layers(base):
    def kept_bytes(freeze):
        learner, kept = learner_of(base, TrainableSettings(freeze)), []
        parameters = {parameter.data_ptr() for parameter in learner.parameters()}

        def keep(tensor):
            if tensor.data_ptr() not in parameters:
                kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits_of(learner)
        return sum(kept)

    whole, half, head = kept_bytes(None), kept_bytes(1), kept_bytes("encoder")
    assert head < 0.1 * whole < half < 0.6 * whole


LORA = TrainableSettings(lora=LowRank(4, 8.0, 0.1, targets=("query", "value", "dense")))


@pytest.mark.parametrize("settings", [TrainableSettings(), TrainableSettings(1), TrainableSettings("encoder"), LORA])
def test_a_run_resumed_from_what_was_trained_ends_as_the_whole_run(base, settings, tmp_path):
    whole = learner_of(base, settings)
    train(whole, 4)
    first = learner_of(base, settings)
    optimiser = train(first, 2)
    torch.save({"learner": trainable_state(first), "optimiser": optimiser.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    # Branches start from another seed, which must not matter.
    second = learner_of(base, settings, seed=9)
    load_trainable_state(second, state["learner"])
    optimiser = optimiser_of(second)
    optimiser.load_state_dict(state["optimiser"])
    for step in (2, 3):
        torch.manual_seed(step)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits_of(second), torch.tensor([0, 1, 2])).backward()
        optimiser.step()
    for (name, one), (_, two) in zip(whole.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(one, two), name


def test_a_checkpoint_of_branches_is_small(base):
    learner = learner_of(base, LORA)
    state = trainable_state(learner)
    assert {name.split(".")[0] for name in state} == {"encoder", "heads"}
    assert all(".lora_" in name for name in state if name.startswith("encoder."))
    assert len([name for name in state if name.startswith("encoder.")]) == 2 * len(branches(learner.encoder))
    assert sum(value.numel() for value in state.values()) < 0.1 * sum(p.numel() for p in learner.parameters())


def test_a_table_that_two_modules_share_is_frozen_and_stored_for_both(make_checkpoint):
    base = Checkpoint.open(str(make_checkpoint("XLMRobertaForMaskedLM")))
    table, names = "encoder.embeddings.word_embeddings.weight", ("heads.task.decoder.weight", "heads.task.dense.weight")
    for freeze in (None, "embeddings"):
        encoder = base.load_encoder()
        head = base.load_head("masked-lm")
        head.decoder.weight = encoder.embeddings.word_embeddings.weight
        learner = Learner(encoder, {"task": head}, {})
        choose_trainable(learner, TrainableSettings(freeze), seed=0)
        found = trainable_state(learner)
        assert [name in found for name in (table, *names)] == [freeze is None, freeze is None, True]


def test_a_checkpoint_of_other_parameters_is_refused(base):
    state = trainable_state(learner_of(base, LORA))
    for settings in (TrainableSettings(), TrainableSettings("encoder"), TrainableSettings(lora=LowRank(2))):
        with pytest.raises(CheckpointError, match="of other parameters than are trained"):
            load_trainable_state(learner_of(base, settings), state)
    wider = TrainableSettings(lora=LowRank(5, targets=("query", "value", "dense")))
    with pytest.raises(CheckpointError, match="lora_A"):
        load_trainable_state(learner_of(base, wider), state)


@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_what_is_written_answers_as_what_was_trained(base, save, tmp_path):
    settings = TrainableSettings(lora=LORA.lora, save=save)
    learner = learner_of(base, settings)
    before = logits_of(learner.eval()).detach()
    train(learner.train())
    expected = logits_of(learner.eval())
    assert (expected - before).abs().max() > 0.1
    head = TrainedHead(learner.heads["task"], tuple(LABELS))
    write_model_directory(
        tmp_path / "model",
        learner.encoder,
        tokenizer=base.tokenizer_directory,
        head=head,
        base=adapter_base(settings, base),
    )
    assert (tmp_path / "model/adapter_config.json").exists() == (save == "adapter")
    opened = Checkpoint.open(str(tmp_path / "model"))
    assert opened.config.id2label == tuple(LABELS)
    assert (logits_of(learner_of(opened).eval()) - expected).abs().max() <= 1e-5
    assert len(branches(learner.encoder)) == 10


def test_the_base_of_an_adapter_is_the_model_without_its_head(base, directory):
    settings = TrainableSettings(lora=LowRank(), save="adapter")
    assert adapter_base(settings, base) == str(directory)
    assert adapter_base(settings, Checkpoint.open("mini#language")) == "mini"
    assert adapter_base(TrainableSettings(lora=LowRank()), base) is None


def test_everything_that_does_not_fit_is_told_at_once_as_users_type_it(base, tmp_path):
    settings = TrainableSettings(3, LowRank(0, targets=("q_proj",), layers=(2,)), "adapter")
    problems = "\n".join(trainable_problems(settings, base, ["causal-lm"]))
    for complaint in (
        "training.freeze=3, the model has 2 layers",
        "lora.rank 0, it must be at least 1",
        "lora.targets 'q_proj', there are attention.self.query",
        "lora.layers 2, the encoder has 2, counted from 0",
        "training.freeze=3, low-rank branches freeze all of the encoder",
        "lora.save adapter, an adapter cannot say that its base reads from one side",
    ):
        assert complaint in problems
    (problem,) = trainable_problems(TrainableSettings(save="adapter"), base, ["fill-mask"])
    assert problem == "lora.save adapter, there are no low-rank branches to write; set lora.rank"
    for fine in (TrainableSettings(), TrainableSettings(2), TrainableSettings("encoder"), LORA):
        assert not trainable_problems(fine, base, ["sequence-classification"])


def test_an_adapter_cannot_be_the_base_of_an_adapter_but_of_a_merged_model(base, tmp_path):
    settings = TrainableSettings(lora=LowRank(), save="adapter")
    learner = learner_of(base, settings)
    write_model_directory(
        tmp_path / "model",
        learner.encoder,
        tokenizer=base.tokenizer_directory,
        head=TrainedHead(learner.heads["task"]),
        base=adapter_base(settings, base),
    )
    adapted = Checkpoint.open(str(tmp_path / "model"))
    (problem,) = trainable_problems(settings, adapted, ["sequence-classification"])
    assert "is an adapter itself and cannot be the base of another; choose merged" in problem
    assert not trainable_problems(TrainableSettings(lora=LowRank()), adapted, ["sequence-classification"])


def test_a_frozen_encoder_without_a_head_is_refused(base):
    learner = Learner(base.load_encoder(), {}, {})
    with pytest.raises(TaskError, match=r"training\.freeze encoder, nothing is left to train"):
        choose_trainable(learner, TrainableSettings("encoder"), seed=0)
