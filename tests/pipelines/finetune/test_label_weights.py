"""Weights of labels: equal to scikit-learn's, refused when they cannot be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from pipelines.finetune import label_weights as module
from pipelines.finetune.label_weights import count_labels, label_weights, target_weight
from xlmr_core.errors import TaskError

# The first example of a process may be slow.
relaxed = settings(deadline=None, max_examples=50)

LABELS = ["a", "b", "c", "d"]


@relaxed
@given(st.lists(st.sampled_from([-100, 0, 1, 3]), min_size=1).filter(lambda rows: max(rows) >= 0))
def test_balanced_weights_are_those_of_scikit_learn(rows):
    targets = np.array(rows, dtype=np.int64)
    known = targets[targets >= 0]
    there = np.unique(known)
    found = label_weights("balanced", LABELS, targets)
    np.testing.assert_allclose(found[there], compute_class_weight("balanced", classes=there, y=known), rtol=1e-6)
    # What never occurs is an ordinary label; what occurs counts 1 on average.
    assert set(found[np.setdiff1d(np.arange(4), there)]) <= {1.0}
    assert target_weight(targets, found) == pytest.approx(len(known))


def test_a_rare_one_of_several_labels_counts_what_is_without_it():
    targets = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], dtype=np.float32)
    assert label_weights("balanced", LABELS[:3], targets).tolist() == [3.0, 1.0, 1.0]
    assert count_labels(targets, 3).tolist() == [1, 0, 4]


def test_labels_are_counted_in_portions(monkeypatch):
    targets = np.random.default_rng(0).integers(0, 4, 1000)
    whole = count_labels(targets, 4)
    monkeypatch.setattr(module, "_PORTION", 7)
    assert count_labels(targets, 4).tolist() == whole.tolist() == np.bincount(targets).tolist()


def test_labels_that_are_not_named_count_one():
    assert label_weights({"b": 2.5}, LABELS, np.zeros(1, np.int64)).tolist() == [1.0, 2.5, 1.0, 1.0]


def test_all_that_is_wrong_with_weights_is_said_at_once():
    with pytest.raises(TaskError) as caught:
        label_weights({"x": 1.0, "a": 0.0, "b": float("nan")}, LABELS, np.zeros(1, np.int64))
    assert str(caught.value).split("\n") == [
        "class_weights.a=0.0, it must be a positive number",
        "class_weights.b=nan, it must be a positive number",
        "class_weights names x, labels are a, b, c, d",
    ]


def test_targets_without_weights_are_counted():
    assert target_weight(np.array([0, -100, 2]), None) == 2.0
    assert target_weight(np.array([0, -100, 2]), np.array([0.5, 1, 3], np.float32)) == 3.5
    assert target_weight(np.zeros((3, 4), np.float32), np.ones(4, np.float32)) == 12.0
