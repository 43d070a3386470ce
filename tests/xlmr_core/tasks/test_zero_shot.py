"""Zero-shot classification against transformers' pipeline and against tokenising every pair."""

import numpy as np
import pytest
import torch
import transformers

from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.graph.windows import plan_window_sets
from xlmr_core.tasks.columns import to_list
from xlmr_core.tokenization import window_ids

NLI = ["entailment", "neutral", "contradiction"]
LABELS = ("sport", "Politik", "наука", "عربي", "科学 and art")
# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def nli(make_checkpoint):
    return make_checkpoint("XLMRobertaForSequenceClassification", labels=NLI, seed=3, initializer_range=0.5)


@pytest.fixture(scope="module")
def texts(sample_texts, tokenizer_json):
    """Texts that fit into one window together with any of the hypotheses."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    fitting = [text for text in sample_texts if 2 < len(tokenizer.encode(text).ids) <= 40]
    assert len(fitting) > 100
    return fitting[::9]


def resolve(directory, **options):
    options = {"task": "zero-shot-classification", "candidate_labels": LABELS, "scores": True} | options
    return GraphPlan.resolve([Request("z", str(directory), options)])


def annotate(directory, texts, **options):
    plan = resolve(directory, **options)
    return ModelGraph(plan)(Preprocessor(plan)(texts)).columns


def expected(directory, texts, labels=LABELS, **options):
    """The pipeline's scores in the order of the candidate labels (P, L)."""
    pipeline = transformers.pipeline("zero-shot-classification", str(directory), dtype=torch.float32, device="cpu")
    found = pipeline(list(texts), candidate_labels=list(labels), **options)
    return np.array([[one["scores"][one["labels"].index(label)] for label in labels] for one in found])


def test_composed_ids_equal_tokenising_every_pair_in_every_script(nli, sample_texts):
    plan = resolve(nli)
    # Long ones have several windows, which no single call of the tokenizer gives.
    texts = [text[:30] for text in sample_texts]
    encoded = Preprocessor(plan)(texts)
    (windows,) = plan_window_sets(plan, encoded)
    ids, splits = window_ids(
        windows.items.text,
        windows.windows,
        np.arange(len(windows.windows)),
        plan.views[0].special,
        second=windows.items.second,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(nli)
    item = windows.windows.item
    whole = [i for i in range(len(item)) if np.count_nonzero(item == item[i]) == 1]
    assert len(whole) > 0.9 * len(item) > 3000
    records, labels = windows.record[whole], item[whole] % len(LABELS)
    pairs = [(texts[r], f"This example is {LABELS[label]}.") for r, label in zip(records, labels, strict=True)]
    theirs = tokenizer([a for a, _ in pairs], [b for _, b in pairs])["input_ids"]
    assert [ids[splits[i] : splits[i + 1]].tolist() for i in whole] == theirs


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("template", ["This example is {}.", "{}", "Thema: {} ؟。"])
def test_scores_equal_the_pipeline(nli, texts, multi_label, template):
    ours = annotate(nli, texts, template=template, multi_label=multi_label)
    theirs = expected(nli, texts, hypothesis_template=template, multi_label=multi_label)
    assert np.ptp(theirs) > 0.15
    np.testing.assert_allclose(ours["z_scores"], theirs, atol=TOLERANCE)
    assert to_list(ours["z_label"]) == [LABELS[i] for i in theirs.argmax(1)]
    np.testing.assert_allclose(ours["z_score"], theirs.max(1), atol=TOLERANCE)


def test_one_candidate_label_is_scored_against_contradiction_as_in_the_pipeline(nli, texts):
    ours = annotate(nli, texts, candidate_labels=("sport",))["z_scores"]
    np.testing.assert_allclose(ours, expected(nli, texts, ["sport"]), atol=TOLERANCE)
    assert np.ptp(ours) > 0.05


def test_several_labels_may_hold_or_none(nli, texts):
    ours = annotate(nli, texts, multi_label=True, threshold=0.4)
    given = to_list(ours["z_labels"])
    assert given == [[LABELS[i] for i in np.flatnonzero(row >= 0.4)] for row in ours["z_scores"]]
    assert len({len(labels) for labels in given}) > 2


@pytest.mark.parametrize("order", [["contradiction", "neutral", "entailment"], ["Entailment", "Contradiction"]])
def test_outputs_are_found_by_name_wherever_the_pipeline_is_right(make_checkpoint, texts, order):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=order, seed=4)
    ours = annotate(directory, texts[:5], multi_label=True)["z_scores"]
    np.testing.assert_allclose(ours, expected(directory, texts[:5], multi_label=True), atol=TOLERANCE)


def test_of_two_outputs_the_other_one_is_contradiction(make_checkpoint, texts):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["entailment", "not_entailment"])
    ours = annotate(directory, texts[:5], multi_label=True)["z_scores"]
    np.testing.assert_allclose(ours, expected(directory, texts[:5], multi_label=True), atol=TOLERANCE)


def test_contradiction_is_contradiction_where_the_pipeline_takes_neutral(make_checkpoint, texts):
    labels = ["neutral", "entailment", "contradiction"]
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=labels, seed=5)
    ours = annotate(directory, texts[:5], multi_label=True)["z_scores"]
    chosen = annotate(directory, texts[:5], multi_label=True, contradiction="neutral")["z_scores"]
    np.testing.assert_allclose(chosen, expected(directory, texts[:5], multi_label=True), atol=TOLERANCE)
    assert np.abs(ours - chosen).max() > 0.01


def test_outputs_without_a_telling_name_are_settled_by_name_or_number(make_checkpoint, texts):
    named = make_checkpoint("XLMRobertaForSequenceClassification", labels=NLI, seed=6)
    bare = make_checkpoint("XLMRobertaForSequenceClassification", num_labels=3, seed=6)
    truth = annotate(named, texts[:5], multi_label=True)["z_scores"]
    for settled in (
        {"entailment": "0", "contradiction": "2"},
        {"entailment": "label_0", "contradiction": "LABEL_2"},
        {"labels": tuple(NLI)},
    ):
        np.testing.assert_array_equal(annotate(bare, texts[:5], multi_label=True, **settled)["z_scores"], truth)
    with pytest.raises(TaskError, match=r"pass entailment= by name or number \(0 LABEL_0, 1 LABEL_1, 2 LABEL_2\)"):
        resolve(bare)
    with pytest.raises(TaskError, match="pass contradiction= by name or number"):
        resolve(bare, entailment="0", multi_label=True)


@pytest.mark.parametrize("merge", ["mean", "max"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_long_texts_equal_brute_force_over_transformers_windows(nli, sample_texts, merge, multi_label):
    texts = sorted(sample_texts, key=len)[-60:-58]
    ours = annotate(nli, texts, merge=merge, multi_label=multi_label, max_length=48, stride=9)["z_scores"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(nli)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(nli).eval()
    for row, text in enumerate(texts):
        merged = []
        for label in LABELS:
            cut = tokenizer(
                text,
                f"This example is {label}.",
                truncation="only_first",
                max_length=48,
                stride=9,
                return_overflowing_tokens=True,
            )
            assert len(cut["input_ids"]) > 1
            with torch.inference_mode():
                logits = torch.stack([model(torch.tensor([ids])).logits[0] for ids in cut["input_ids"]])
            merged.append(logits.mean(0) if merge == "mean" else logits.amax(0))
        logits = torch.stack(merged)
        truth = logits[:, [2, 0]].softmax(1)[:, 1] if multi_label else logits[:, 0].softmax(0)
        np.testing.assert_allclose(ours[row], truth.numpy(), atol=TOLERANCE)


def test_every_text_and_every_hypothesis_is_tokenised_once(nli, texts, monkeypatch):
    from xlmr_core.tokenization import Tokenizer

    seen = []
    encode = Tokenizer.encode

    def counted(self, texts, **options):
        seen.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    Preprocessor(resolve(nli))(texts)
    hypotheses = [f"This example is {label}." for label in LABELS]
    assert sorted(text for text in seen if text) == sorted([*texts, *hypotheses])


def test_empty_texts_stay_empty(nli):
    plan = resolve(nli)
    result = ModelGraph(plan)(Preprocessor(plan)(["", "ein Satz", " "]))
    assert result.status.tolist() == ["empty", "ok", "empty"]
    assert result.columns["z_scores"].shape == (1, len(LABELS))
    nothing = ModelGraph(plan)(Preprocessor(plan)([""]))
    assert nothing.columns["z_scores"].shape == (0, len(LABELS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidate_labels": ()}, "pass candidate_labels=a|b"),
        ({"candidate_labels": "a||b"}, "a candidate label is empty"),
        ({"candidate_labels": "a|b| a"}, "candidate_labels a twice"),
        ({"template": "This is it."}, "must hold {} once"),
        ({"template": "{} and {}"}, "must hold {} once"),
        ({"template": "{0} {}"}, "no other braces"),
        ({"threshold": 0.4}, "it is for multi_label=true"),
        ({"threshold": 1.5, "multi_label": True}, "from 0 to 1"),
        ({"entailment": "3"}, "the head's outputs are 0 entailment, 1 neutral, 2 contradiction"),
        ({"multi_label": True, "contradiction": "entailment"}, "they must be two outputs"),
        ({"labels": ("entailment", "entails", "no")}, "2 of the head's outputs begin with 'entail'"),
        ({"candidate_labels": ("x " * 80, "y")}, "goes with every record"),
    ],
)
def test_options_that_mean_nothing_are_refused(nli, options, message):
    with pytest.raises(TaskError) as error:
        resolve(nli, **options)
    assert message in str(error.value)


def test_all_wrong_options_are_named_at_once(nli):
    with pytest.raises(TaskError) as error:
        resolve(nli, candidate_labels="a|a", template="no", threshold=0.3)
    assert all(name in str(error.value) for name in ("candidate_labels", "template", "threshold"))


def test_a_head_of_another_task_is_refused(make_checkpoint):
    tagger = make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X"])
    with pytest.raises(Exception, match="has no sequence-classification head"):
        resolve(tagger)
