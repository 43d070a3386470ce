"""Losses, gradients and targets of masked and causal language models are those of transformers, in bounded memory."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given
from hypothesis import strategies as st

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import initialise
from xlmr_core.heads import MaskedLMHead
from xlmr_core.tasks import masked_lm, vocabulary_loss

LENGTHS = (20, 13, 7, 2)


@pytest.fixture
def factors():
    """Features, projection, bias and targets of 7 tokens over 50, large enough that probabilities underflow."""
    generator = torch.Generator().manual_seed(0)
    features, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((7, 12), (50, 12), (50,)))
    features *= 20
    return *(factor.requires_grad_() for factor in (features, weight, bias)), torch.arange(7) * 7


def plain(features, weight, bias, targets):
    return F.cross_entropy(F.linear(features, weight, bias), targets)


@pytest.mark.parametrize("tokens_at_a_time", [1, 2, 3, 7, 100])
def test_a_loss_in_portions_equals_the_plain_one_with_its_gradients(factors, monkeypatch, tokens_at_a_time):
    monkeypatch.setattr(vocabulary_loss, "_LOGITS", 50 * tokens_at_a_time)
    *leaves, targets = factors
    expected = plain(*leaves, targets)
    loss, _ = vocabulary_loss.vocabulary_loss(*leaves, targets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(value * 0.3, leaves) for value in (loss, expected))
    for own, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-5, atol=1e-5)


def test_each_token_has_its_loss(factors):
    features, weight, bias, targets = factors
    _, each = vocabulary_loss.vocabulary_loss(*factors)
    expected = F.cross_entropy(F.linear(features, weight, bias), targets, reduction="none")
    torch.testing.assert_close(each, expected, rtol=1e-6, atol=1e-6)
    assert not each.requires_grad


def test_a_loss_beyond_the_reach_of_float32_probabilities_is_finite(factors):
    features, weight, bias, targets = factors
    loss, _ = vocabulary_loss.vocabulary_loss(features * 1000, weight, bias, targets)
    assert loss.item() == pytest.approx(plain(features * 1000, weight, bias, targets).item(), rel=1e-6)


def test_only_what_is_trained_gets_a_gradient(factors):
    features, weight, bias, targets = factors
    loss, _ = vocabulary_loss.vocabulary_loss(features, weight.detach(), bias.detach(), targets)
    (gradient,) = torch.autograd.grad(loss, [features])
    (expected,) = torch.autograd.grad(plain(*factors), [features])
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert not vocabulary_loss.vocabulary_loss(*factors)[0].requires_grad


def test_the_loss_holds_one_portion_of_logits(factors, monkeypatch):
    monkeypatch.setattr(vocabulary_loss, "_LOGITS", 100)
    sizes = []
    linear = F.linear

    def watched(*arguments):
        logits = linear(*arguments)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(vocabulary_loss.F, "linear", watched)
    vocabulary_loss.vocabulary_loss(*factors)
    assert sizes == [100, 100, 100, 50]


def test_autocast_rounds_the_products_and_nothing_else(factors):
    *leaves, targets = factors
    expected = plain(*(leaf.bfloat16().float() for leaf in leaves), targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = vocabulary_loss.vocabulary_loss(*leaves, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    gradients = torch.autograd.grad(loss, leaves)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    for own, their in zip(gradients, torch.autograd.grad(plain(*leaves, targets), leaves), strict=True):
        assert torch.cosine_similarity(own.flatten(), their.flatten(), dim=0) > 0.99


def test_a_loss_without_targets_is_zero():
    head, hidden = MaskedLMHead(EncoderConfig(hidden_size=12), 9), torch.randn(6, 12, requires_grad=True)
    loss, each = masked_lm.losses(head, hidden, torch.full((6,), -100))
    loss.backward()
    assert loss.item() == 0
    assert len(each) == 0
    assert not hidden.grad.any()


sequences = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=6)


@given(sequences)
def test_each_token_is_followed_by_the_next_of_its_own_sequence(ids):
    lengths = np.array([len(sequence) for sequence in ids])
    targets = masked_lm.next_tokens(np.concatenate(ids), lengths)
    assert targets.tolist() == [token for sequence in ids for token in (*sequence[1:], -100)]


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    return [[0, *torch.randint(5, 2000, (length - 2,), generator=generator).tolist(), 2] for length in LENGTHS]


def their_batch(texts):
    ids = torch.full((len(texts), max(LENGTHS)), 1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    return ids, torch.where(ids == 1, -100, ids)


def test_a_causal_model_has_the_loss_and_gradients_of_transformers(make_checkpoint, texts):
    directory = make_checkpoint(
        "XLMRobertaForCausalLM", is_decoder=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    ids, labels = their_batch(texts)
    expected = model(ids, attention_mask=(ids != 1).long(), labels=labels).loss
    expected.backward()
    checkpoint = Checkpoint.open(str(directory))
    assert checkpoint.task == "causal-lm"
    encoder = checkpoint.load_encoder()
    head = checkpoint.load_head("masked-lm", encoder)
    packed = PackedBatch.from_lists(texts, first_position=2)
    targets = torch.from_numpy(masked_lm.next_tokens(packed.ids.numpy(), np.array(LENGTHS)))
    loss, _ = masked_lm.losses(head, encoder(packed), targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    ours = {"decoder": head.decoder.bias, "dense": head.dense.weight} | {
        name: encoder.get_parameter(name)
        for name in (
            "embeddings.word_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "encoder.layer.0.output.dense.weight",
        )
    }
    theirs = {"decoder": model.lm_head.bias, "dense": model.lm_head.dense.weight} | {
        name: model.roberta.get_parameter(name) for name in ours if "." in name
    }
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=0, atol=1e-5, msg=name)


def test_a_tied_masked_model_trains_its_table_from_both_sides_as_transformers_does(make_checkpoint, texts):
    directory = make_checkpoint("XLMRobertaForMaskedLM", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = transformers.AutoModelForMaskedLM.from_pretrained(directory)
    ids, labels = their_batch(texts)
    labels = torch.where(torch.arange(ids.shape[1]) % 3 == 1, labels, -100)
    checkpoint = Checkpoint.open(str(directory))
    encoder = checkpoint.load_encoder()
    head = checkpoint.load_head("masked-lm", encoder)
    assert head.decoder.weight is encoder.embeddings.word_embeddings.weight
    packed = PackedBatch.from_lists(texts, first_position=2)
    rates = {"lr": 0.001, "weight_decay": 0.1, "fused": True}
    parameters = {id(parameter): parameter for module in (encoder, head) for parameter in module.parameters()}
    optimisers = torch.optim.AdamW(model.parameters(), **rates), torch.optim.AdamW(parameters.values(), **rates)
    for _ in range(3):
        expected = model(ids, attention_mask=(ids != 1).long(), labels=labels).loss
        loss, _ = masked_lm.losses(head, encoder(packed), labels[ids != 1])
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
        expected.backward()
        loss.backward()
        table = encoder.embeddings.word_embeddings.weight
        their_table = model.roberta.embeddings.word_embeddings.weight
        torch.testing.assert_close(table.grad, their_table.grad, rtol=0, atol=1e-5)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    torch.testing.assert_close(table, their_table, rtol=0, atol=1e-5)


def test_the_gradient_of_a_tied_table_is_whole_whatever_a_batch_asks_for(make_checkpoint, texts):
    checkpoint = Checkpoint.open(str(make_checkpoint("XLMRobertaForMaskedLM")))
    encoder = checkpoint.load_encoder()
    alone = checkpoint.load_encoder()
    head = checkpoint.load_head("masked-lm", encoder)
    packed = PackedBatch.from_lists(texts, first_position=2)
    for model in (encoder, alone):
        for _ in range(2):
            model(packed).square().sum().backward()
    table, expected = (model.embeddings.word_embeddings.weight for model in (encoder, alone))
    assert head.decoder.weight is table
    assert table.grad.layout == torch.strided
    torch.testing.assert_close(table.grad, expected.grad, rtol=1e-5, atol=1e-5)


def test_fresh_weights_of_a_projection_of_its_own_are_not_tied(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForMaskedLM", tie_word_embeddings=False)
    checkpoint = Checkpoint.open(str(directory))
    encoder = checkpoint.load_encoder()
    head = checkpoint.load_head("masked-lm", encoder)
    assert head.decoder.weight is not encoder.embeddings.word_embeddings.weight
    initialise(head, 0.02)
    assert not torch.equal(head.decoder.weight, encoder.embeddings.word_embeddings.weight)
