"""Targets and losses of classification against transformers' own, and windows merged by noisy-or."""

import numpy as np
import pytest
import torch

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.graph.windows import windowed_records
from xlmr_core.tasks.classify import Classify, ClassifyOptions
from xlmr_core.tasks.weighting import mean_loss

TEXTS = ["Hello world", "Grüße aus Köln", "我爱北京", "one two three"]
# Two float32 paths through the same weights.
TOLERANCE = 1e-5


def bound(directory, **options):
    return Classify.bind(Checkpoint.open(str(directory)), ClassifyOptions(**options))


def raw_of(directory, texts, **options):
    plan = GraphPlan.resolve([Request("c", str(directory), options)])
    graph, encoded = ModelGraph(plan), Preprocessor(plan)(texts)
    outputs = graph.forward(encoded)
    records, rows = windowed_records(encoded, outputs.windows[0], plan.annotations[0], np.ones(len(texts), bool))
    return torch.from_numpy(outputs.raw["c"][rows]), records, graph(encoded)


def reference_loss(directory, texts, labels):
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    with torch.no_grad():
        return model(**tokenizer(texts, return_tensors="pt", padding=True), labels=labels).loss


@pytest.mark.parametrize(
    ("problem_type", "count", "gold", "expected"),
    [
        ("single_label_classification", 3, ["b", "a", None, "c"], torch.tensor([1, 0, -100, 2])),
        (
            "multi_label_classification",
            3,
            [["b", "c"], [], ["a"], ["c"]],
            torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1.0]]),
        ),
        ("regression", 1, [0.5, -1, 2, 3.25], torch.tensor([[0.5], [-1], [2], [3.25]])),
        ("regression", 2, [[0, 1], [2, 3], [4, 5.5], [6, 7]], torch.tensor([[0, 1], [2, 3], [4, 5.5], [6, 7]])),
    ],
    ids=["single", "multi", "number", "numbers"],
)
def test_the_loss_equals_transformers(make_checkpoint, problem_type, count, gold, expected):
    labels = list("abc")[:count]
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=labels, problem_type=problem_type)
    task = bound(directory)
    targets = torch.from_numpy(task.targets(gold))
    assert targets.dtype == expected.dtype
    torch.testing.assert_close(targets, expected)
    loss = mean_loss(*task.losses(raw_of(directory, TEXTS)[0], targets))
    reference = reference_loss(directory, TEXTS, expected)
    torch.testing.assert_close(loss, reference, atol=TOLERANCE, rtol=TOLERANCE)


def test_no_known_label_costs_nothing(make_checkpoint):
    task = bound(make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b"]))
    raw = torch.randn(2, 2, requires_grad=True)
    mean_loss(*task.losses(raw, torch.from_numpy(task.targets([None, None])))).backward()
    assert raw.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("problem_type", "gold", "named"),
    [
        ("single_label_classification", ["a", "x", 3, "x"], ["'x' (record 1, 3)", "3 (record 2)", "known are a, b"]),
        (
            "multi_label_classification",
            [["a", "y"], "a", ["z"]],
            ["'y' (record 0)", "'a' where a list", "'z' (record 2)"],
        ),
        (
            "regression",
            [[1, 2], "1", [1, float("nan")], None],
            ["record 1: '1'", "record 2: [1, nan]", "record 3: None"],
        ),
    ],
)
def test_all_bad_gold_values_are_named_at_once(make_checkpoint, problem_type, gold, named):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b"], problem_type=problem_type)
    with pytest.raises(TaskError) as error:
        bound(directory).targets(gold)
    for part in named:
        assert part in str(error.value)


def test_noisy_or_over_windows_equals_a_plain_product(make_checkpoint, sample_texts):
    directory = make_checkpoint(
        "XLMRobertaForSequenceClassification", labels=["a", "b", "c"], problem_type="multi_label_classification"
    )
    texts = [text for text in sample_texts if text.strip()][:40]
    raw, records, result = raw_of(directory, texts, merge="noisy_or", scores="true", max_length="16")
    assert len(records.item) > len(texts)
    probabilities = torch.sigmoid(raw.double()).numpy()
    for record in range(len(texts)):
        none = np.ones(3)
        for window in np.flatnonzero(records.item == record):
            none = none * (1 - probabilities[window])
        np.testing.assert_allclose(result.columns["c_scores"][record], 1 - none, atol=1e-6)


def test_noisy_or_needs_scores_by_sigmoid(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"])
    with pytest.raises(TaskError, match="merge=noisy_or, it merges scores by sigmoid, these are by softmax"):
        bound(directory, merge="noisy_or")
    assert bound(directory, merge="noisy_or", activation="sigmoid").activation == "sigmoid"


def test_all_that_is_wrong_with_thresholds_is_named(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b"])
    with pytest.raises(TaskError, match=r"threshold=0.3, it is for multi label heads; .*; merge=noisy_or, it merges"):
        bound(directory, threshold=0.3, merge="noisy_or")
    several = {"problem_type": "multi_label_classification"}
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(TaskError, match="it must be from 0 to 1"):
            bound(directory, threshold=threshold, **several)
    settled = [bound(directory, threshold=given, **several).thresholds.facts() for given in (None, 0.0, 1.0)]
    assert settled == [0.5, 0.0, 1.0]


def test_an_empty_list_of_labels_is_refused(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b"])
    with pytest.raises(TaskError, match="got 0 labels, the head has 2 outputs"):
        bound(directory, labels=())
