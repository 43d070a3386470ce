"""Low-rank branches compute, and learn, what `peft` does on the same weights; merging them changes nothing."""

import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder, optimise_for_inference
from xlmr_core.errors import TaskError
from xlmr_core.lora import LowRank, adapt, branches, merged

# peft asks transformers by a name that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense", "dense"]
SHAPE = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def batch_of(texts):
    return PackedBatch.from_lists(texts, first_position=2)


def shake(parameters, std=0.2, seed=1):
    """Branches as after training; fresh ones add nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * std)


def peft_pair(directory, low_rank, **lora):
    """Our encoder and head and peft's model, with the same random branches; and peft's parameters by our names."""
    checkpoint = Checkpoint.open(str(directory))
    encoder, head = checkpoint.load_encoder(), checkpoint.load_head("sequence-classification")
    adapt(encoder, low_rank, seed=0)
    base = transformers.XLMRobertaForSequenceClassification.from_pretrained(directory)
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=low_rank.rank,
        lora_alpha=low_rank.alpha,
        use_rslora=low_rank.rank_stabilised,
        target_modules=list(low_rank.targets),
        layers_to_transform=low_rank.layers,
        **lora,
    )
    theirs = peft.get_peft_model(base, config).eval()
    theirs_by_name = {}
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            module, _, half = name.removesuffix(".default.weight").rpartition(".")
            theirs_by_name[module.removeprefix("base_model.model.roberta."), half] = parameter
    shake(theirs_by_name.values())
    ours_by_name = {(n, half): getattr(b, half) for n, b in branches(encoder).items() for half in ("lora_A", "lora_B")}
    assert ours_by_name.keys() == theirs_by_name.keys()
    with torch.no_grad():
        for name, parameter in ours_by_name.items():
            parameter.copy_(theirs_by_name[name])
    return encoder, head, ours_by_name, theirs, theirs_by_name


@pytest.fixture
def directory(random_model, tmp_path):
    random_model("XLMRobertaForSequenceClassification", num_labels=3).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "low_rank",
    [
        LowRank(),
        LowRank(3, 12.0, rank_stabilised=True, targets=("key", "intermediate.dense")),
        LowRank(2, 5.0, targets=("query", "key", "value", "attention.output.dense"), layers=(1,)),
        LowRank(4, 8.0, targets=("query", "key", "value", "dense")),
    ],
)
def test_one_step_equals_that_of_peft_forward_and_backward(directory, low_rank, texts_of):
    encoder, head, ours, theirs, theirs_by_name = peft_pair(directory, low_rank)
    texts, labels = texts_of([3, 9, 30]), torch.tensor([0, 2, 1])
    logits = head(encoder(batch_of(texts)), batch_of(texts))
    expected = torch.cat([theirs(input_ids=torch.tensor([ids])).logits for ids in texts])
    assert (logits - expected).abs().max() <= 1e-6
    for values in (logits, expected):
        torch.nn.functional.cross_entropy(values, labels).backward()
    for name, parameter in ours.items():
        assert parameter.grad.abs().max() > 1e-3
        assert (parameter.grad - theirs_by_name[name].grad).abs().max() <= 1e-6, name
    head_grads = {name: p.grad for name, p in theirs.named_parameters() if "modules_to_save" in name}
    for name, parameter in head.named_parameters():
        assert (
            parameter.grad - head_grads[f"base_model.model.classifier.modules_to_save.default.{name}"]
        ).abs().max() <= 1e-6
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)
    assert all(p.grad is None for name, p in encoder.named_parameters() if name not in trained)


def test_fresh_branches_are_made_as_peft_makes_them(directory):
    """B is zero, A uniform between the same bounds."""
    wide = EncoderConfig(**SHAPE | {"hidden_size": 256, "num_hidden_layers": 1})
    encoder = Encoder(wide)
    adapt(encoder, LowRank(512, targets=("query",)), seed=3)
    (branch,) = branches(encoder).values()
    theirs = peft.get_peft_model(
        transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**wide.to_dict())),
        peft.LoraConfig(r=512, target_modules=["query"]),
    )
    a = next(parameter for name, parameter in theirs.named_parameters() if "lora_A" in name)
    assert not branch.lora_B.any()
    assert branch.lora_A.shape == a.shape
    assert branch.lora_A.abs().max().item() == pytest.approx(a.abs().max().item(), rel=1e-3)
    assert branch.lora_A.std().item() == pytest.approx(a.std().item(), rel=1e-2)


def test_fresh_branches_change_nothing_and_follow_their_seed_alone(texts_of):
    made = []
    for seed in (5, 5, 6):
        torch.manual_seed(0)
        encoder = Encoder(EncoderConfig(**SHAPE)).eval()
        before = encoder(batch_of(texts_of([4, 9])))
        torch.manual_seed(len(made))
        state = torch.get_rng_state()
        adapt(encoder, LowRank(), seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(encoder(batch_of(texts_of([4, 9]))), before)
        made.append(next(iter(branches(encoder).values())).lora_A)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@settings(max_examples=25, deadline=None)
@given(
    rank=st.integers(1, 20),
    alpha=st.floats(0.1, 40),
    rank_stabilised=st.booleans(),
    targets=st.one_of(st.just(["all-linear"]), st.lists(st.sampled_from(TARGETS), min_size=1, unique=True)),
    layers=st.one_of(st.none(), st.lists(st.integers(0, 2), min_size=1, unique=True)),
    seed=st.integers(0, 99),
)
def test_merging_changes_no_output(rank, alpha, rank_stabilised, targets, layers, seed):
    torch.manual_seed(seed)
    encoder = Encoder(EncoderConfig(**SHAPE)).eval()
    plain = {name: value.clone() for name, value in encoder.state_dict().items()}
    chosen = LowRank(rank, alpha, 0.0, rank_stabilised, tuple(targets), None if layers is None else tuple(layers))
    adapt(encoder, chosen, seed=seed)
    shake([parameter for parameter in encoder.parameters() if parameter.requires_grad], std=0.05)
    batch = batch_of([[0, 5, 7, 2], [0, 100, 101, 102, 103, 2]])
    whole = merged(encoder)
    assert (whole(batch) - encoder(batch)).abs().max() <= 1e-5
    # Of the matrices that changed, each was chosen; nothing else is copied.
    adapted = {name.rpartition(".")[0] for name in branches(encoder)}
    for name, value in whole.state_dict().items():
        changed = not torch.equal(value, plain[name])
        assert changed == (
            name.endswith("weight") and name.removesuffix(".qkv.weight").removesuffix(".dense.weight") in adapted
        )
    expected = range(3) if layers is None else layers
    assert {int(name.split(".")[2]) for name in branches(encoder)} == set(expected)
    assert [type(part) for part in whole.modules()] == [
        type(part) for part in Encoder(EncoderConfig(**SHAPE)).modules()
    ]


def test_merging_leaves_the_branches_in_place_and_shares_what_is_not_adapted():
    encoder = Encoder(EncoderConfig(**SHAPE))
    assert merged(encoder) is encoder
    adapt(encoder, LowRank(), seed=0)
    words = merged(encoder).embeddings.word_embeddings.weight
    assert words.data_ptr() == encoder.embeddings.word_embeddings.weight.data_ptr()
    assert len(branches(encoder)) == 6
    assert merged(encoder.train()).training


def test_branches_run_beside_matrices_in_the_layout_of_the_cpu(texts_of):
    encoder = Encoder(EncoderConfig(**SHAPE)).eval()
    adapt(encoder, LowRank(targets=("all-linear",)), seed=0)
    shake([parameter for parameter in encoder.parameters() if parameter.requires_grad], std=0.05)
    with torch.inference_mode():
        before = encoder(batch_of(texts_of([4, 9])))
        optimise_for_inference(encoder, device="cpu", dtype=torch.float32)
        assert torch.allclose(encoder(batch_of(texts_of([4, 9]))), before, atol=1e-5)


def test_dropout_falls_on_what_goes_into_a_branch_and_only_in_training():
    encoder = Encoder(EncoderConfig(**SHAPE))
    adapt(encoder, LowRank(dropout=0.5, targets=("intermediate.dense",), layers=(0,)), seed=0)
    branch = branches(encoder)["encoder.layer.0.intermediate.dense"]
    shake(branch.parameters())
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.no_grad():
        dropped, whole = branch.train()(x.expand(20_000, 16)), branch.eval()(x)
    assert len(dropped.unique(dim=0)) > 1_000
    assert (dropped.mean(0) - whole).abs().max() <= 0.02
    assert torch.equal(branch(x), whole)


@pytest.mark.parametrize(
    ("low_rank", "complaints"),
    [
        (
            LowRank(targets=("query", "q_proj")),
            [
                "targets 'q_proj', there are attention.self.query, attention.self.key, attention.self.value, "
                "attention.output.dense, intermediate.dense, output.dense; name endings of these, or all-linear"
            ],
        ),
        (LowRank(targets=("uery",)), ["targets 'uery'"]),
        (LowRank(targets=()), ["targets (), there are"]),
        (LowRank(layers=(0, 3, -1)), ["layers 3, -1, the encoder has 3, counted from 0"]),
        (LowRank(layers=()), ["layers (), the encoder has 3"]),
        (
            LowRank(0, -1.0, 1.0, targets=("word_embeddings",)),
            ["rank 0", "alpha -1.0", "dropout 1.0", "targets 'word_embeddings'"],
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_all_at_once(low_rank, complaints):
    encoder = Encoder(EncoderConfig(**SHAPE))
    with pytest.raises(TaskError) as error:
        adapt(encoder, low_rank, seed=0)
    assert all(complaint in str(error.value) for complaint in complaints)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_branches_are_not_put_on_branches():
    encoder = Encoder(EncoderConfig(**SHAPE))
    adapt(encoder, LowRank(), seed=0)
    with pytest.raises(TaskError, match="has low-rank branches already; merge them first"):
        adapt(encoder, LowRank(targets=("key",)), seed=0)
