"""The contrastive loss against sentence-transformers' on the same vectors."""

import math

import pytest
import torch

from xlmr_core.tasks import embed


def vectors(count, *, seed):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("negatives", [0, 6])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", [20.0, 5.0])
def test_the_loss_equals_sentence_transformers(negatives, symmetric, scale):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    options = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"} if symmetric else {}
    reference = MultipleNegativesRankingLoss(model=torch.nn.Identity(), scale=scale, **options)
    first, second, others = vectors(6, seed=0), vectors(6, seed=1), vectors(negatives, seed=2)
    sides = [first, second, others] if negatives else [first, second]
    expected = reference.compute_loss_from_embeddings(sides, torch.tensor([]))
    found = embed.loss(first, second, others if negatives else None, scale=scale, symmetric=symmetric)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_pairs_of_one_group_are_no_negatives_of_each_other():
    first, group = vectors(4, seed=0), torch.tensor([1, 2, 1, 3])
    found = embed.loss(first, vectors(4, seed=1), group_P=group, scale=3)
    cosine = torch.nn.functional.cosine_similarity(first[:, None], vectors(4, seed=1)[None], dim=2) * 3
    expected = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or group[j] != group[i]]
        expected += -math.log(math.exp(cosine[i, i]) / sum(math.exp(cosine[i, j]) for j in others)) / 4
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_no_pairs_cost_nothing():
    nothing = torch.zeros(0, 4, requires_grad=True)
    assert embed.loss(nothing, nothing, symmetric=True).item() == 0
