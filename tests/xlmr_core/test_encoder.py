"""The packed encoder against `transformers.XLMRobertaModel` in float32 and float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder, flops_per_token, optimise_for_inference

LENGTHS = [1, 2, 3, 7, 64, 127, 128, 511, 512]


def alone(model, texts):
    """What the reference makes of each text, one at a time, end to end (T, D)."""
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in texts])


def assert_agrees(hidden_TD, model, texts):
    """At most 1e-5 from the reference, or at most 3 times its own distance from float64."""
    reference_TD = alone(model, texts)
    exact_TD = alone(model.double(), texts)
    model.float()
    rounding = (reference_TD - exact_TD).abs().max()
    assert (hidden_TD - reference_TD).abs().max() <= 1e-5 or (hidden_TD - exact_TD).abs().max() <= 3 * rounding


def loaded(model, tmp_path, *, prepack: bool, dtype=torch.float32) -> Encoder:
    model.save_pretrained(tmp_path)
    encoder = Checkpoint.open(str(tmp_path)).load_encoder()
    return optimise_for_inference(encoder, device="cpu", dtype=dtype) if prepack else encoder


@torch.inference_mode()
def run(encoder, texts):
    return encoder(PackedBatch.from_lists(texts, first_position=encoder.config.first_position))


@pytest.mark.parametrize("prepack", [False, True])
def test_every_length_agrees_in_one_pack(random_model, texts_of, tmp_path, prepack):
    model, texts = random_model("XLMRobertaModel"), texts_of(LENGTHS)
    assert_agrees(run(loaded(model, tmp_path, prepack=prepack), texts), model, texts)


@pytest.mark.parametrize("prepack", [False, True])
def test_every_length_agrees_alone(random_model, texts_of, tmp_path, prepack):
    model, texts = random_model("XLMRobertaModel"), texts_of(LENGTHS)
    encoder = loaded(model, tmp_path, prepack=prepack)
    assert_agrees(torch.cat([run(encoder, [text]) for text in texts]), model, texts)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu", "tanh"])
def test_every_activation_agrees_fused_and_not(random_model, texts_of, tmp_path, activation):
    model, texts = random_model("XLMRobertaModel", hidden_act=activation), texts_of([5, 30])
    for prepack in (False, True):
        assert_agrees(run(loaded(model, tmp_path, prepack=prepack), texts), model, texts)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8), seed=st.integers(0, 2**31))
def test_company_changes_nothing(random_model, texts_of, tmp_path_factory, lengths, seed):
    model, texts = random_model("XLMRobertaModel"), texts_of(lengths, seed=seed)
    encoder = loaded(model, tmp_path_factory.getbasetemp() / "company", prepack=True)
    assert_agrees(run(encoder, texts), model, texts)


def test_the_padding_id_inside_a_text_is_a_token_like_any_other_for_attention(random_model, tmp_path):
    model = random_model("XLMRobertaModel")
    ids, positions = [0, 5, 1, 6, 2], torch.arange(2, 7)
    with torch.inference_mode():
        expected = model(torch.tensor([ids]), position_ids=positions[None]).last_hidden_state[0]
    assert torch.allclose(run(loaded(model, tmp_path, prepack=False), [ids]), expected, atol=1e-5)


def test_bfloat16_is_no_farther_from_the_truth_than_twice_the_reference(random_model, texts_of, tmp_path):
    model, texts = random_model("XLMRobertaModel"), texts_of([3, 64, 200])
    hidden_TD = run(loaded(model, tmp_path, prepack=True, dtype=torch.bfloat16), texts).float()
    exact_TD = alone(model.double(), texts)
    reference_TD = alone(model.bfloat16(), texts).float()
    assert (hidden_TD - exact_TD).abs().max() <= 2 * (reference_TD - exact_TD).abs().max()
    assert (hidden_TD - exact_TD).abs().mean() <= 0.02


@pytest.mark.parametrize(
    ("prepack", "lengths"),
    [
        (True, [60, 7]),
        pytest.param(False, [512, 130, 40, 2], marks=pytest.mark.slow),
        pytest.param(True, [512, 130, 40, 2], marks=pytest.mark.slow),
    ],
)
def test_the_base_shape_agrees(random_model, texts_of, tmp_path, prepack, lengths):
    shape = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    model, texts = random_model("XLMRobertaModel", vocab_size=1000, **shape), texts_of(lengths, 1000)
    assert_agrees(run(loaded(model, tmp_path, prepack=prepack), texts), model, texts)


def test_fresh_weights_are_small_and_norms_neutral(random_model, tmp_path):
    random_model("XLMRobertaModel").save_pretrained(tmp_path)
    torch.manual_seed(0)
    encoder = Encoder(Checkpoint.open(str(tmp_path)).config)
    assert 0.015 < encoder.encoder.layer[0].attention.self.qkv.weight.std() < 0.025
    assert not encoder.encoder.layer[0].attention.self.qkv.bias.any()
    assert (encoder.embeddings.LayerNorm.weight == 1).all()


def test_a_loaded_encoder_learns_and_its_file_stays_as_it_was(random_model, texts_of, tmp_path):
    encoder = loaded(random_model("XLMRobertaModel"), tmp_path, prepack=False).train()
    before = (tmp_path / "model.safetensors").read_bytes()
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(PackedBatch.from_lists(texts_of([5, 9]), first_position=2)).square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    optimiser.step()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not torch.equal(
        encoder.embeddings.word_embeddings.weight,
        Checkpoint.open(str(tmp_path)).load_encoder().embeddings.word_embeddings.weight,
    )


def test_matrices_cost_two_operations_a_parameter():
    base = EncoderConfig(hidden_size=768, num_hidden_layers=12, intermediate_size=3072)
    assert flops_per_token(base, 0) == 2 * 12 * (4 * 768 * 768 + 2 * 768 * 3072)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_chosen_tokens_come_out_as_among_all_of_them(random_model, texts_of, tmp_path, layers):
    encoder = loaded(random_model("XLMRobertaModel", num_hidden_layers=layers), tmp_path, prepack=True)
    texts = texts_of([3, 9, 9, 30, 1])
    batch = PackedBatch.from_lists(texts, first_position=2)
    with torch.inference_mode():
        every = encoder(batch)
        for rows in (batch.starts, torch.tensor([51, 4, 4])):
            assert torch.allclose(encoder(batch, rows), every[rows], atol=1e-5)


@pytest.mark.parametrize("rows", [None, [0, 5]])
@pytest.mark.parametrize("frozen", [False, True])
def test_layers_computed_again_have_the_same_gradients_and_keep_less(texts_of, rows, frozen):
    """Dropout included: what is computed again meets the same chance. Frozen embeddings have no gradient to follow."""
    shape = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(**shape, intermediate_size=64, max_position_embeddings=66)).train()
    encoder.embeddings.requires_grad_(not frozen)
    batch = PackedBatch.from_lists(texts_of([5, 30, 9]), first_position=encoder.config.first_position)
    wanted = None if rows is None else torch.tensor(rows)

    def gradients(checkpointing):
        encoder.encoder.checkpointing, kept = checkpointing, []
        encoder.zero_grad()
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):
            hidden = encoder(batch, wanted)
        hidden.square().sum().backward()
        return hidden.detach(), [p.grad for p in encoder.parameters() if p.grad is not None], sum(kept)

    hidden, expected, whole = gradients(False)
    again, found, kept = gradients(True)
    assert torch.equal(hidden, again)
    assert len(found) == len(expected) > 0
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert kept < 0.3 * whole
