import math

import pytest
import torch
import torch.nn.functional as F

from pipelines.finetune.batches import Batches
from pipelines.finetune.losses import LanguageAndEmbedding, info_nce, joint_loss
from pipelines.finetune.warm_start import BagOfTokens, start_from_bag


def test_translations_that_coincide_cost_nothing_and_chance_costs_log_p():
    apart, group = torch.eye(8), torch.arange(8)
    assert info_nce(apart, apart, group, 0.05).item() == pytest.approx(0, abs=1e-6)
    alike = torch.ones(8, 8) / math.sqrt(8)
    assert info_nce(alike, alike, group, 0.05).item() == pytest.approx(math.log(8))


def test_pairs_of_one_group_are_no_negatives_of_each_other():
    same = F.normalize(torch.ones(2, 4))
    assert info_nce(same, same, torch.tensor([7, 7]), 0.05).item() == pytest.approx(0)


def test_no_pairs_cost_nothing():
    nothing = torch.zeros(0, 4, requires_grad=True)
    assert info_nce(nothing, nothing, torch.zeros(0, dtype=torch.int64), 0.05).item() == 0


def test_labels_that_do_not_count_do_not_enter_the_metrics(batches, config):
    torch.manual_seed(0)
    model = LanguageAndEmbedding(config, 3).eval()
    batch = batches(0)
    _, metrics = joint_loss(model, batch)
    logits, vectors = model(batch)
    counted = batch.label >= 0
    right = (logits.argmax(1) == batch.label)[counted].float().mean().item()
    assert metrics["language_accuracy"] == pytest.approx(right)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)))


def fit(model: torch.nn.Module, batches: Batches, *, steps: int, rate: float) -> float:
    """Trains on the language alone; returns the accuracy of the last ten steps."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    accuracies = []
    for step in range(steps):
        batch = batches(step)
        logits, _ = model(batch)
        counted = batch.label >= 0
        accuracies.append((logits.argmax(1) == batch.label)[counted].float().mean().item())
        optimiser.zero_grad()
        F.cross_entropy(logits, batch.label).backward()
        optimiser.step()
    return sum(accuracies[-10:]) / 10


def test_an_encoder_that_starts_as_the_bag_learns_far_faster_than_a_fresh_one(batches, config):
    torch.manual_seed(0)
    bag, started, fresh = BagOfTokens(config, 3), LanguageAndEmbedding(config, 3), LanguageAndEmbedding(config, 3)
    assert fit(bag, batches, steps=40, rate=0.03) > 0.9
    start_from_bag(started, bag, batches(0))
    assert fit(fresh, batches, steps=30, rate=3e-3) < 0.6
    assert fit(started, batches, steps=30, rate=3e-3) > 0.8
