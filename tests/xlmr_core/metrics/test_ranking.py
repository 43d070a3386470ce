"""Rankings against scikit-learn and brute force; nearest neighbours against one full matrix."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics import Ranking, Retrieval, retrieval_accuracy

QUICK = settings(max_examples=25, deadline=None)
EXACT = {"rel": 1e-12, "abs": 1e-12}


@st.composite
def queries(draw):
    """What six documents are worth, and an order of them."""
    gains = draw(st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any))
    return gains, draw(st.permutations(range(6)))


@QUICK
@given(st.lists(queries(), min_size=1, max_size=4))
def test_rankings_equal_scikit_learn(rows):
    ranking = Ranking(cutoffs=(1, 3, 6))
    ranking.add([dict(enumerate(gains)) for gains, _ in rows], [order for _, order in rows])
    result = ranking.result()
    gains = np.array([gains for gains, _ in rows])
    # Scores that put the documents into this order.
    scores = np.array([[-order.index(document) for document in range(6)] for _, order in rows])
    for k in (1, 3, 6):
        assert result[f"ndcg@{k}"] == pytest.approx(oracle.ndcg_score(gains, scores, k=k), **EXACT)
        found = [
            (row > 0)[np.argsort(-score)[:k]].sum() / (row > 0).sum() for row, score in zip(gains, scores, strict=True)
        ]
        assert result[f"recall@{k}"] == pytest.approx(np.mean(found), **EXACT)
    assert result["map"] == pytest.approx(oracle.label_ranking_average_precision_score(gains > 0, scores), **EXACT)
    first = [next(rank for rank, document in enumerate(order, 1) if row[document]) for row, order in rows]
    assert result["mrr"] == pytest.approx(np.mean([1 / rank for rank in first]), **EXACT)
    assert result["total"] == len(rows)


def test_relevant_documents_that_are_not_found_count_as_missed():
    ranking = Ranking(cutoffs=(2,))
    ranking.add([{"a": 1, "b": 1, "c": 1, "d": 1}], [["x", "a", "a", "b"]])
    # "a" at rank 2, "b" at rank 3; what is named again is not there.
    assert ranking.result() == pytest.approx(
        {
            "mrr": 1 / 2,
            "map": (1 / 2 + 2 / 3) / 4,
            "ndcg@2": (1 / math.log2(3)) / (1 + 1 / math.log2(3)),
            "recall@2": 1 / 4,
            "total": 1,
            "without_relevant": 0,
        }
    )


def test_queries_without_a_relevant_document_are_left_out_and_counted():
    ranking = Ranking()
    ranking.add([{}, {"a": 0, "b": -1}, {"a": 1}], [["a"], ["a"], []])
    result = ranking.result()
    assert (result["total"], result["without_relevant"], result["mrr"]) == (1, 2, 0)
    assert math.isnan(Ranking().result()["ndcg@10"])


def test_cutoffs_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="1 or more"):
        Ranking(cutoffs=(0, 1))
    with pytest.raises(ArgumentError, match="must be the same"):
        Ranking(cutoffs=(1,)).merge(Ranking(cutoffs=(2,)))


def full_matrix(sources, targets):
    cosine = sources @ targets.T / np.linalg.norm(sources, axis=1)[:, None] / np.linalg.norm(targets, axis=1)
    rows = np.arange(len(sources))
    return (cosine.argmax(1) == rows).mean(), (cosine.argmax(0) == rows).mean()


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_nearest_neighbours_equal_the_full_matrix_in_blocks_of_any_size(block):
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(40, 8)) * rng.uniform(0.01, 100, size=(40, 1))
    targets = sources + np.linalg.norm(sources, axis=1)[:, None] * 0.4 * rng.normal(size=(40, 8))
    result = retrieval_accuracy(sources, targets, block=block)
    forward, backward = full_matrix(sources, targets)
    assert 0.1 < forward != backward < 0.9
    assert (result["forward"], result["backward"]) == (forward, backward)
    assert result["accuracy"] == pytest.approx((forward + backward) / 2, **EXACT)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_of_equally_near_texts_the_first_is_taken(block):
    right, up = [1.0, 0.0], [0.0, 1.0]
    result = retrieval_accuracy(np.array([right, up, up]), np.array([right, right, up]), block=block)
    # To 0, 2, 2 and back to 0, 0, 1; of the last ones it would be 1, 2, 2 and 0, 0, 2.
    assert (result["forward"], result["backward"]) == pytest.approx((2 / 3, 1 / 3))


def test_vectors_of_zeros_are_near_nothing():
    sources = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert retrieval_accuracy(sources, sources)["accuracy"] == 1
    assert retrieval_accuracy(sources[::-1], sources[::-1])["forward"] == pytest.approx(0.5)


def test_vectors_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="rows, width"):
        retrieval_accuracy(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ArgumentError, match="nan or infinity"):
        retrieval_accuracy(np.full((1, 3), np.nan), np.zeros((1, 3)))
    assert math.isnan(retrieval_accuracy(np.zeros((0, 3)), np.zeros((0, 3)))["accuracy"])


def test_pools_of_retrieval_are_counted_together_but_searched_apart():
    rng = np.random.default_rng(0)
    pools = [(rng.normal(size=(size, 8)), rng.normal(size=(size, 8))) for size in (5, 9)]
    each = [Retrieval() for _ in pools]
    whole = Retrieval()
    for found, pool in zip(each, pools, strict=True):
        found.add(*pool)
        whole.add(*pool)
    assert each[0].merge(each[1]) == whole
    assert whole.total == 14
    results = [retrieval_accuracy(*pool) for pool in pools]
    right = sum(result["forward"] * result["total"] for result in results)
    assert whole.result()["forward"] == pytest.approx(right / 14)
