"""Labels against scikit-learn, for any labels, also such that are never gold or never predicted."""

import math
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from sklearn.preprocessing import MultiLabelBinarizer

from xlmr_core.metrics import Accuracy, Classification, MultiLabel

QUICK = settings(max_examples=25, deadline=None)
# Quotients of small whole numbers, added in another order.
EXACT = {"rel": 1e-12, "abs": 1e-12}
LABELS = st.sampled_from(["pos", "neg", "neutral", "中", ""])
SETS = st.sets(st.sampled_from("abcd"))


@QUICK
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1))
def test_one_label_a_record_equals_scikit_learn(rows):
    gold, predicted = zip(*rows, strict=True)
    scores = Classification()
    scores.add(gold, predicted)
    result = scores.result()
    for average in ("micro", "macro", "weighted"):
        expected = oracle.precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert result[f"{average}_{name}"] == pytest.approx(value, **EXACT)
    assert result["accuracy"] == oracle.accuracy_score(gold, predicted)
    assert result["total"] == len(rows)
    labels = sorted({*gold, *predicted})
    columns = oracle.precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
    assert list(scores.by_label()) == labels
    for of_label, expected in zip(scores.by_label().values(), zip(*columns, strict=True), strict=True):
        assert tuple(of_label.values()) == pytest.approx(expected, **EXACT)
    labels.append("of no record")  # scikit-learn warns of matrices of one label.
    confusions = [[scores.confusions[one, other] for other in labels] for one in labels]
    assert confusions == oracle.confusion_matrix(gold, predicted, labels=labels).tolist()


@QUICK
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_matthews_correlation_equals_scikit_learn(rows):
    gold, predicted = zip(*rows, strict=True)
    scores = Classification()
    scores.add(gold, predicted)
    # scikit-learn divides with 0 / 0 where both sides are one and the same label, and says 0.
    expected = oracle.matthews_corrcoef(gold, predicted) if len({*gold, *predicted}) > 1 else 0
    assert scores.result()["matthews"] == pytest.approx(expected, **EXACT)


# With one column scikit-learn takes the table for a single label of two classes.
@QUICK
@given(st.lists(st.tuples(SETS, SETS), min_size=1).filter(lambda rows: len(set().union(*chain(*rows))) > 1))
def test_several_labels_a_record_equal_scikit_learn(rows):
    gold, predicted = zip(*rows, strict=True)
    scores = MultiLabel()
    scores.add(gold, predicted)
    table = MultiLabelBinarizer(classes=sorted(set().union(*gold, *predicted))).fit([])
    gold_NC, predicted_NC = table.transform(gold), table.transform(predicted)
    result = scores.result()
    for average in ("micro", "macro", "weighted"):
        expected = oracle.f1_score(gold_NC, predicted_NC, average=average, zero_division=0)
        assert result[f"{average}_f1"] == pytest.approx(expected, **EXACT)
    assert result["subset_accuracy"] == oracle.accuracy_score(gold_NC, predicted_NC)
    supports = [of["support"] for of in scores.by_label().values()]
    assert supports == gold_NC.sum(axis=0).tolist()


def test_a_label_named_twice_counts_once():
    scores = MultiLabel()
    scores.add([["a", "a"]], [["a"]])
    assert scores.result()["subset_accuracy"] == scores.result()["micro_f1"] == 1


def test_nothing_to_count_is_not_a_number_and_no_error():
    assert math.isnan(Classification().result()["accuracy"])
    assert math.isnan(MultiLabel().result()["subset_accuracy"])
    assert math.isnan(Accuracy().result()["accuracy"])
    assert Classification().result()["macro_f1"] == MultiLabel().result()["micro_f1"] == 0
    assert Classification().by_label() == {}


def test_choices_are_right_when_they_are_equal():
    scores = Accuracy()
    scores.add(np.array([0, 3, 2, 1]), np.array([0, 3, 1, 1]))
    assert scores.result() == {"accuracy": 0.75, "total": 4}


def test_lists_of_different_length_are_refused():
    for scores in (Accuracy(), Classification(), MultiLabel()):
        with pytest.raises(ValueError, match="argument"):
            scores.add(["a"], ["a", "b"])
