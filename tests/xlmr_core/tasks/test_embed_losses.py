"""The losses of sentence vectors against sentence-transformers' on the same vectors, in value and gradient."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer import losses as theirs

from xlmr_core.tasks import embed_losses
from xlmr_core.tasks.embed_losses import cosent, info_nce, margin_mse, matryoshka, teacher_mse
from xlmr_core.tasks.similarity import loss as cosine_mse

WIDTH = 16


def vectors(count, *, seed):
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def assert_equal(ours, reference, *inputs):
    """Both give the same number and the same gradient with respect to every input."""
    found, expected = (value_and_gradients(loss, inputs) for loss in (ours, reference))
    torch.testing.assert_close(found[0], expected[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found[1:], expected[1:], atol=1e-5, rtol=1e-5)


def value_and_gradients(loss, inputs):
    leaves = [value.clone().requires_grad_() for value in inputs]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


class Ready(torch.nn.Module):
    """A model whose columns of vectors are there already, as the losses of sentence-transformers call it."""

    device = torch.device("cpu")

    def __getitem__(self, _number):
        return self

    def forward(self, features):
        return dict(features)

    def get_embedding_dimension(self):
        return WIDTH


def of_columns(loss, labels=None):
    return lambda *columns: loss([{"sentence_embedding": column} for column in columns], labels)


@pytest.mark.parametrize("negatives", [0, 6])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", [20.0, 5.0])
@pytest.mark.parametrize("scores", [1 << 24, 30], ids=["at once", "in blocks"])
def test_the_contrastive_loss_equals_that_of_sentence_transformers(monkeypatch, negatives, symmetric, scale, scores):
    monkeypatch.setattr(embed_losses, "_SCORES", scores)
    directions = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    reference = theirs.MultipleNegativesRankingLoss(Ready(), scale=scale, **(directions if symmetric else {}))
    inputs = [vectors(6, seed=0), vectors(6, seed=1), *([vectors(negatives, seed=2)] if negatives else [])]
    assert_equal(
        lambda *sides: info_nce(*sides, scale=scale, symmetric=symmetric),
        lambda *sides: reference.compute_loss_from_embeddings(list(sides), torch.tensor([])),
        *inputs,
    )


def test_the_contrastive_loss_equals_the_cached_one_of_sentence_transformers():
    reference = theirs.CachedMultipleNegativesRankingLoss(Ready(), mini_batch_size=2)
    inputs = [vectors(6, seed=seed) for seed in range(3)]
    assert_equal(info_nce, lambda *sides: reference.calculate_loss([[side] for side in sides]), *inputs)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(4, 9)), min_size=1, max_size=8),
    st.lists(st.integers(0, 9), max_size=5),
    st.booleans(),
    st.sampled_from([7, 1 << 24]),
)
def test_what_shares_a_group_is_no_negative(groups, others, symmetric, scores):
    """Against the definition, one pair after the other."""
    first, second, negatives = (vectors(len(x), seed=s) for s, x in enumerate((groups, groups, others)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed_losses, "_SCORES", scores)
        found = info_nce(
            first,
            second,
            negatives,
            scale=3,
            symmetric=symmetric,
            group_PG=torch.tensor(groups),
            negative_group_N=torch.tensor(others, dtype=torch.int64),
        )
    there = asked(first, torch.cat([second, negatives]), groups, [*groups, *((other,) for other in others)])
    back = asked(second, first, groups, groups)
    assert found.item() == pytest.approx((there + back) / 2 if symmetric else there, abs=1e-5)


def asked(asking, candidates, groups, candidate_groups):
    cosine = torch.nn.functional.cosine_similarity(asking[:, None], candidates[None], dim=2).double() * 3
    total = 0.0
    for i, own in enumerate(groups):
        kept = [j for j, other in enumerate(candidate_groups) if j == i or not set(own) & set(other)]
        total += cosine[i, kept].logsumexp(0).item() - cosine[i, i].item()
    return total / len(groups)


def test_one_group_for_each_pair_may_be_a_plain_row():
    first, second, group = vectors(4, seed=0), vectors(4, seed=1), torch.tensor([1, 2, 1, 3])
    assert info_nce(first, second, group_PG=group) == info_nce(first, second, group_PG=group[:, None])
    assert info_nce(first, second, group_PG=group) < info_nce(first, second)


@pytest.mark.parametrize("gold", [[0.1, 0.9, 0.5, 0.3, 0.7], [1.0, 0.0, 1.0, 0.0, 0.0], [2.0] * 5])
def test_the_graded_loss_equals_that_of_sentence_transformers(gold):
    gold = torch.tensor(gold)
    assert_equal(
        lambda a, b: cosent(torch.nn.functional.cosine_similarity(a, b), gold, scale=10.0),
        of_columns(theirs.CoSENTLoss(Ready(), scale=10.0), gold),
        vectors(5, seed=0),
        vectors(5, seed=1),
    )


def test_the_loss_of_cosines_equals_that_of_sentence_transformers():
    gold = torch.tensor([0.2, -0.4, 1.0])
    splits = torch.tensor([0, 2, 4, 6])
    assert_equal(
        lambda a, b: cosine_mse(torch.stack([a, b], dim=1).flatten(0, 1), gold, splits),
        of_columns(theirs.CosineSimilarityLoss(Ready()), gold),
        vectors(3, seed=0),
        vectors(3, seed=1),
    )


def test_the_loss_to_a_teacher_equals_that_of_sentence_transformers():
    teacher = vectors(4, seed=5)
    assert_equal(
        lambda a, b: teacher_mse(torch.cat([a, b]), teacher.repeat(2, 1)),
        of_columns(theirs.MSELoss(Ready()), teacher),
        vectors(4, seed=0),
        vectors(4, seed=1),
    )


@pytest.mark.parametrize("others", [1, 3])
def test_the_loss_of_margins_equals_that_of_sentence_transformers(others):
    gold = torch.randn(4, 1 + others, generator=torch.Generator().manual_seed(0))
    splits = torch.arange(0, 4 * (1 + others) + 1, 1 + others)
    assert_equal(
        lambda text, *seconds: margin_mse(
            (text[:, None] * torch.stack(seconds, dim=1)).sum(2).flatten(), gold.flatten(), splits
        ),
        of_columns(theirs.MarginMSELoss(Ready()), gold),
        *(vectors(4, seed=seed) for seed in range(2 + others)),
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.5, 2.0)])
def test_cut_vectors_are_trained_as_sentence_transformers_does_it(weights):
    sizes, model = (16, 8, 3), Ready()
    reference = theirs.MatryoshkaLoss(model, theirs.MultipleNegativesRankingLoss(model), sizes, weights)
    assert_equal(
        lambda *sides: matryoshka(
            lambda joined: info_nce(*joined.split(5)), torch.cat(sides), dimensions=sizes, weights=weights
        ),
        of_columns(reference, torch.tensor([])),
        *(vectors(5, seed=seed) for seed in range(3)),
    )


def test_cut_vectors_and_a_teacher_go_together_as_in_sentence_transformers():
    teacher, sizes, model = vectors(4, seed=5), (16, 4), Ready()
    reference = theirs.MatryoshkaLoss(model, theirs.MSELoss(model), sizes)
    assert_equal(
        lambda a: matryoshka(lambda cut: teacher_mse(cut, teacher[:, : cut.shape[1]]), a, sizes, (1.0, 1.0)),
        of_columns(reference, teacher),
        vectors(4, seed=0),
    )


def test_nothing_costs_nothing():
    nothing, none = torch.zeros(0, 4, requires_grad=True), torch.zeros(0)
    group = SimpleNamespace(group_PG=none.long(), negative_group_N=none.long())
    assert info_nce(nothing, nothing, symmetric=True).item() == 0
    assert info_nce(nothing, nothing, nothing, **vars(group)).item() == 0
    assert cosent(none, none).item() == 0
    assert teacher_mse(nothing, nothing).item() == 0
    assert margin_mse(none, none, torch.zeros(1, dtype=torch.int64)).item() == 0
    assert margin_mse(torch.ones(2), torch.ones(2), torch.tensor([0, 1, 2])).item() == 0


def test_half_precision_vectors_are_computed_in_float32():
    first, second = vectors(4, seed=0), vectors(4, seed=1)
    for loss in (info_nce, teacher_mse):
        found = loss(first.bfloat16(), second.bfloat16())
        assert found.dtype == torch.float32
        assert found == loss(first.bfloat16().float(), second.bfloat16().float())
    assert math.isfinite(cosent(first[:, 0].bfloat16(), second[:, 0]).item())
