"""Weighted and softened losses against torch's own and the Trainer's, whole and in parts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_pt_utils import LabelSmoother

from xlmr_core.tasks.losses import cross_entropy
from xlmr_core.tasks.weighting import mean_loss, weighted_binary_cross_entropy, weighted_cross_entropy

# The first example of a process may be slow.
relaxed = settings(deadline=None, max_examples=50)

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
SEEDS = st.integers(0, 2**31 - 1)


def batch(seed, targets=12, labels=5):
    """Logits, targets of which some are ignored and one is not, weights of labels."""
    rng = torch.Generator().manual_seed(seed)
    gold = torch.randint(labels, (targets,), generator=rng)
    gold[torch.rand(targets, generator=rng) < 0.3] = -100
    gold[0] = 0
    weight = torch.rand(labels, generator=rng) * 4 + 0.1
    return torch.randn(targets, labels, generator=rng) * 3, gold, weight


@relaxed
@given(SEEDS, st.floats(0, 1))
def test_weights_and_smoothing_are_those_of_torch(seed, smoothing):
    logits, gold, weight = batch(seed)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = nn.CrossEntropyLoss(weight, label_smoothing=smoothing)(theirs, gold)
    found = mean_loss(*weighted_cross_entropy(ours, gold, weight, smoothing=smoothing))
    torch.testing.assert_close(found, expected, **TOLERANCE)
    expected.backward()
    found.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, **TOLERANCE)


@relaxed
@given(SEEDS, st.floats(0, 1))
def test_smoothing_is_that_of_the_trainer(seed, smoothing):
    logits, gold, _ = batch(seed)
    expected = LabelSmoother(epsilon=smoothing)(SequenceClassifierOutput(logits=logits[None]), gold[None])
    torch.testing.assert_close(
        mean_loss(*weighted_cross_entropy(logits, gold, smoothing=smoothing)), expected, **TOLERANCE
    )


@relaxed
@given(SEEDS)
def test_several_labels_are_weighted_as_torch_does(seed):
    logits, _, weight = batch(seed)
    gold = (logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)) > 0).float()
    expected = nn.BCEWithLogitsLoss(pos_weight=weight)(logits, gold)
    torch.testing.assert_close(mean_loss(*weighted_binary_cross_entropy(logits, gold, weight)), expected, **TOLERANCE)


@relaxed
@given(SEEDS, st.integers(1, 11), st.floats(0, 0.5))
def test_sums_of_parts_are_those_of_the_whole(seed, cut, smoothing):
    """So micro-batches weighted by what their targets count add up to the loss of the step."""
    logits, gold, weight = batch(seed)
    whole = mean_loss(*weighted_cross_entropy(logits, gold, weight, smoothing=smoothing))
    parts = [
        weighted_cross_entropy(some, of, weight, smoothing=smoothing)
        for some, of in ((logits[:cut], gold[:cut]), (logits[cut:], gold[cut:]))
    ]
    counted = sum(counts.sum() for _, counts in parts)
    together = sum(mean_loss(*part) * part[1].sum() / counted for part in parts)
    torch.testing.assert_close(together, whole, **TOLERANCE)


def test_weights_of_one_change_nothing():
    logits, gold, _ = batch(3)
    found = mean_loss(*weighted_cross_entropy(logits, gold, torch.ones(5)))
    torch.testing.assert_close(found, cross_entropy(logits, gold), **TOLERANCE)


def test_no_target_is_no_loss_and_no_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    found = mean_loss(*weighted_cross_entropy(logits, torch.full((3,), -100), torch.ones(4), smoothing=0.1))
    found.backward()
    assert found == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_float32_whatever_the_logits_are(dtype):
    logits, gold, weight = batch(1)
    assert {x.dtype for x in weighted_cross_entropy(logits.to(dtype), gold, weight)} == {torch.float32}
    several = weighted_binary_cross_entropy(logits.to(dtype), torch.zeros(12, 5), weight)
    assert {x.dtype for x in several} == {torch.float32}
