"""Multiple choice against `XLMRobertaForMultipleChoice`, one record at a time, and its losses and targets."""

import numpy as np
import pytest
import torch
import transformers

from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.choice import MOST_CHOICES, losses, targets
from xlmr_core.tasks.columns import to_list
from xlmr_core.tasks.scores import rank_in_groups
from xlmr_core.tasks.weighting import mean_loss

# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def chooser(make_checkpoint):
    # No more choices than the reader's weights must tell apart; wide, so that they are apart.
    return make_checkpoint("XLMRobertaForMultipleChoice", seed=7, initializer_range=0.5)


@pytest.fixture(scope="module")
def records(sample_texts):
    """Texts with 2 to 5 choices each, cut so that a text and a choice fit into one window."""
    texts = [text[:20] for text in sample_texts if len(text) > 20]
    sizes = [2 + number % 4 for number in range(24)]
    return [(texts[7 * n], [texts[7 * n + 1 + k][:12] for k in range(size)]) for n, size in enumerate(sizes)]


def annotate(directory, texts, choices, **options):
    requests = [Request("c", str(directory), {"task": "multiple-choice"} | options)]
    plan = GraphPlan.resolve(requests, pairs=True)
    return ModelGraph(plan)(Preprocessor(plan)(texts, choices))


def reference(directory):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    return tokenizer, transformers.AutoModelForMultipleChoice.from_pretrained(directory).eval()


def padded_logits(directory, text, choices):
    """What transformers says of one record, its choices padded to the longest."""
    tokenizer, model = reference(directory)
    inputs = tokenizer([text] * len(choices), list(choices), padding=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] <= 64
    with torch.inference_mode():
        return model(**{key: value[None] for key, value in inputs.items()}).logits[0]


def test_any_number_of_choices_equals_the_padded_model(chooser, records):
    result = annotate(chooser, [text for text, _ in records], [choices for _, choices in records])
    assert result.annotated.all()
    columns = {name: to_list(column) for name, column in result.columns.items()}
    for row, (text, choices) in enumerate(records):
        truth = padded_logits(chooser, text, choices).softmax(0).numpy()
        np.testing.assert_allclose(columns["c_scores"][row], truth, atol=TOLERANCE)
        assert columns["c_choice"][row] == truth.argmax()
        assert columns["c_score"][row] == pytest.approx(truth.max(), abs=TOLERANCE)
    assert len(set(columns["c_choice"])) > 2


@pytest.mark.parametrize("merge", ["mean", "max"])
def test_long_texts_equal_brute_force_over_transformers_windows(chooser, sample_texts, merge):
    text, choices = sorted(sample_texts, key=len)[-10], ["eins", "zwei und drei", "早上好"]
    result = annotate(chooser, [text], [choices], merge=merge, stride=8)
    tokenizer, model = reference(chooser)
    logits = []
    for choice in choices:
        cut = tokenizer(text, choice, truncation="only_first", max_length=64, stride=8, return_overflowing_tokens=True)[
            "input_ids"
        ]
        assert len(cut) > 1
        with torch.inference_mode():
            of_windows = torch.stack([model(torch.tensor([[ids]])).logits[0, 0] for ids in cut])
        logits.append(of_windows.mean() if merge == "mean" else of_windows.max())
    truth = torch.stack(logits).softmax(0).numpy()
    np.testing.assert_allclose(to_list(result.columns["c_scores"])[0], truth, atol=TOLERANCE)


def test_records_that_leave_no_choice_are_refused_with_a_code_and_take_no_other_with_them(chooser):
    text, long = "ein Satz", "wort " * 100
    choices = [["a", "b"], [], ["a"], ["a", " "], ["a"] * (MOST_CHOICES + 1), ["a", long]]
    result = annotate(chooser, [text, text, text, text, text, "ein ganzer Satz " * 20], choices)
    codes = {row: error.code for row, error in result.failed.items()}
    assert codes == {1: "no_pair", 2: "too_few_pairs", 3: "empty_pair", 4: "too_many_pairs", 5: "pair_too_long"}
    assert result.annotated.tolist() == [True] + [False] * 5
    alone = annotate(chooser, [text], [choices[0]])
    np.testing.assert_allclose(to_list(result.columns["c_scores"]), to_list(alone.columns["c_scores"]), atol=TOLERANCE)


def test_an_empty_text_is_empty_whatever_its_choices(chooser):
    result = annotate(chooser, ["", " "], [["a", "b"], ["a"]])
    assert result.status.tolist() == ["empty", "empty"]
    assert not result.failed
    assert to_list(result.columns["c_scores"]) == []


def test_equal_choices_have_equal_scores(chooser):
    result = annotate(chooser, ["ein Satz"], [["a", "b", "a", "b"]])
    (scores,), (choice,) = to_list(result.columns["c_scores"]), to_list(result.columns["c_choice"])
    assert scores[:2] == pytest.approx(scores[2:], abs=TOLERANCE)
    # Which of two equal ones, rounding decides: they lie at other places of the packed batch.
    assert choice % 2 == int(scores[1] > scores[0])


def test_of_equal_scores_the_first_wins():
    scores, splits = np.array([0.1, 0.4, 0.1, 0.4, 0.5, 0.5], dtype=np.float32), np.array([0, 4, 6])
    assert rank_in_groups(scores, splits)[splits[:-1]].tolist() == [1, 0]


def test_a_head_of_another_task_is_refused(make_checkpoint):
    classifier = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b"])
    with pytest.raises(TaskError, match="has no multiple-choice head"):
        annotate(classifier, ["a"], [["b", "c"]])


def test_records_without_choices_are_refused_when_planning(chooser):
    with pytest.raises(TaskError, match="reads a second text of every record"):
        GraphPlan.resolve([Request("c", str(chooser), {"task": "multiple-choice"})])


def test_the_loss_equals_transformers(chooser, records):
    tokenizer, model = reference(chooser)
    same_size = [record for record in records if len(record[1]) == 4]
    labels = targets([number % 4 for number in range(len(same_size))], [4] * len(same_size))
    texts = [text for text, choices in same_size for _ in choices]
    inputs = tokenizer(texts, [choice for _, choices in same_size for choice in choices], padding=True)
    shaped = {key: torch.tensor(value).view(len(same_size), 4, -1) for key, value in inputs.items()}
    with torch.inference_mode():
        output = model(**shaped, labels=torch.from_numpy(labels))
    splits = torch.arange(0, 4 * len(same_size) + 1, 4)
    ours = mean_loss(*losses(output.logits.reshape(-1, 1), torch.from_numpy(labels), splits))
    assert ours.item() == pytest.approx(output.loss.item(), abs=1e-6)


def test_records_of_any_size_and_without_a_target_share_a_batch():
    logits, splits = torch.tensor([[1.0], [2.0], [0.5], [3.0], [1e4], [-1e4]]), torch.tensor([0, 2, 4, 6])
    gold = torch.from_numpy(targets([1, None, 0], [2, 2, 2]))
    logits.requires_grad_()
    value = mean_loss(*losses(logits, gold, splits))
    expected = (torch.nn.functional.cross_entropy(logits[None, :2, 0], torch.tensor([1])) + 0) / 2
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[2:4].abs().max() == 0
    assert torch.isfinite(logits.grad).all()
    assert mean_loss(*losses(logits, torch.full((3,), -100), splits)).item() == 0


def test_targets_that_are_no_choices_are_named_all_at_once():
    with pytest.raises(TaskError) as error:
        targets([2, 0, -1], [2, 2, 3])
    assert "record 0: choice 2, it has the choices 0 to 1" in str(error.value)
    assert "record 2: choice -1" in str(error.value)
