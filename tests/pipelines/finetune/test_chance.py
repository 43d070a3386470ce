"""What a model reaches that always says the same: found by numbers, and by training one that can do nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.finetune.chance import (
    chance_of_labels,
    chance_of_numbers,
    chance_of_places,
    chance_of_several,
    count_tokens,
)
from xlmr_core.tasks.weighting import mean_loss, weighted_binary_cross_entropy, weighted_cross_entropy

# The first example of a process may be slow.
relaxed = settings(deadline=None, max_examples=50)


def lowest(loss, size):
    """The lowest loss of constant logits."""
    logits = torch.zeros(size, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def again():
        optimiser.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    optimiser.step(again)
    return float(loss(logits).detach())


def test_equal_labels_have_the_logarithm_of_their_number():
    assert chance_of_labels(np.array([7, 7, 7])) == pytest.approx(np.log(3))
    assert chance_of_labels(np.array([5, 0, 0])) == 0.0
    assert chance_of_labels(np.zeros(3)) == 0.0


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, [1.0, 5.0, 0.3]])
def test_labels_with_weights_and_smoothing_cannot_be_answered_better_by_one_answer(weights, smoothing):
    gold = torch.tensor([0] * 50 + [1] * 8 + [2] * 20 + [-100] * 5)
    weight = None if weights is None else torch.tensor(weights)

    def loss(logits):
        return mean_loss(*weighted_cross_entropy(logits.expand(len(gold), -1), gold, weight, smoothing=smoothing))

    counts = np.array([50, 8, 20])
    found = chance_of_labels(counts, None if weights is None else np.array(weights), smoothing=smoothing)
    assert found == pytest.approx(lowest(loss, 3), abs=1e-5)


@pytest.mark.parametrize("positive", [None, [1.0, 9.0, 0.5]])
def test_several_labels_cannot_be_answered_better_by_one_answer(positive):
    gold = torch.from_numpy((np.random.default_rng(0).random((60, 3)) < [0.1, 0.4, 0.8]).astype(np.float32))
    weight = None if positive is None else torch.tensor(positive)

    def loss(logits):
        return mean_loss(*weighted_binary_cross_entropy(logits.expand(60, -1), gold, weight))

    found = chance_of_several(gold.sum(0).numpy(), 60, None if positive is None else np.array(positive))
    assert found == pytest.approx(lowest(loss, 3), abs=1e-5)
    assert chance_of_several(np.array([0, 60]), 60) == 0.0


@relaxed
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50))
def test_numbers_have_their_variance(numbers):
    targets = np.array(numbers, dtype=np.float64)[:, None]
    assert chance_of_numbers(targets) == pytest.approx(np.var(numbers), abs=1e-9)


def test_places_and_tokens():
    assert chance_of_places(np.array([2, 8])) == pytest.approx(2 * np.log(2))
    ids = np.array([0, 4, 4, 5, 2], np.int32)
    assert count_tokens(ids, 6, special=[0, 2, 9]).tolist() == [0, 0, 0, 0, 2, 1]
