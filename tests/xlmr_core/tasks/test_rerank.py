"""Reranking against sentence-transformers' CrossEncoder, and what a classifier of pairs does with several."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import transformers

from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.columns import to_list
from xlmr_core.tasks.rerank import listwise_loss, loss, targets

# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reranker(make_checkpoint):
    return make_checkpoint("XLMRobertaForSequenceClassification", num_labels=1, seed=8, initializer_range=0.5)


@pytest.fixture(scope="module")
def records(sample_texts):
    """Queries with 1 to 6 documents each, cut so that a pair fits into one window."""
    texts = [text[:20] for text in sample_texts if len(text) > 20]
    return [(texts[11 * n][:10], [texts[11 * n + 1 + k] for k in range(1 + n % 6)]) for n in range(18)]


def cross_encoder(directory):
    from sentence_transformers import CrossEncoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CrossEncoder(str(directory), device="cpu")


def annotate(directory, texts, documents, task="rerank", **options):
    plan = GraphPlan.resolve([Request("r", str(directory), {"task": task} | options)], pairs=True)
    return ModelGraph(plan)(Preprocessor(plan)(texts, documents))


def columns(directory, records, **options):
    result = annotate(directory, [query for query, _ in records], [documents for _, documents in records], **options)
    assert result.annotated.all()
    return to_list(result.columns["r_scores"]), to_list(result.columns["r_order"])


@pytest.mark.parametrize("top_k", [None, 2])
def test_scores_and_order_equal_the_cross_encoder(reranker, records, top_k):
    model = cross_encoder(reranker)
    scores, order = columns(reranker, records, **({} if top_k is None else {"top_k": top_k}))
    for row, (query, documents) in enumerate(records):
        truth = model.predict([(query, document) for document in documents])
        np.testing.assert_allclose(scores[row], truth, atol=TOLERANCE)
        ranked = model.rank(query, documents, top_k=top_k)
        assert order[row] == [one["corpus_id"] for one in ranked]
    assert len({tuple(one) for one in order}) > 5


@pytest.mark.parametrize("where", ["sentence_transformers", "sbert_ce_default_activation_function"])
def test_a_cross_encoders_own_activation_is_used(reranker, records, tmp_path, where):
    directory = shutil.copytree(reranker, tmp_path / "own")
    config = json.loads((directory / "config.json").read_text())
    identity = "torch.nn.modules.linear.Identity"
    stored = {"activation_fn": identity, "version": "5.0.0"} if where == "sentence_transformers" else identity
    (directory / "config.json").write_text(json.dumps(config | {where: stored}))
    query, documents = records[5]
    truth = cross_encoder(directory).predict([(query, document) for document in documents])
    ((scores), *_), _ = columns(directory, [records[5]])
    np.testing.assert_allclose(scores, truth, atol=TOLERANCE * np.abs(truth).max())
    assert np.abs(truth).max() > 1
    ((squeezed), *_), _ = columns(directory, [records[5]], activation="sigmoid")
    np.testing.assert_allclose(squeezed, 1 / (1 + np.exp(-truth)), atol=TOLERANCE)


def test_a_long_document_is_as_relevant_as_its_best_window(reranker, sample_texts):
    document, query = sorted(sample_texts, key=len)[-20], "wo und wann"
    tokenizer = transformers.AutoTokenizer.from_pretrained(reranker)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(reranker).eval()
    cut = tokenizer(query, document, truncation="only_second", max_length=64, stride=6, return_overflowing_tokens=True)[
        "input_ids"
    ]
    assert len(cut) > 2
    with torch.inference_mode():
        logits = torch.stack([model(torch.tensor([ids])).logits[0, 0] for ids in cut])
    for merge, merged in (("max", logits.max()), ("mean", logits.mean())):
        (scores,), _ = columns(reranker, [(query, ["kurz", document])], stride=6, merge=merge)
        assert scores[1] == pytest.approx(merged.sigmoid().item(), abs=TOLERANCE)


def test_empty_documents_are_scored_as_the_cross_encoder_does(reranker):
    truth = cross_encoder(reranker).predict([("wo", ""), ("wo", "hier"), ("", "hier")])
    scores, _ = columns(reranker, [("wo", ["", "hier"]), ("", ["hier"])])
    np.testing.assert_allclose([*scores[0], *scores[1]], truth, atol=TOLERANCE)


def test_records_that_cannot_be_ranked_are_refused_alone(reranker):
    result = annotate(reranker, ["wo", "", "wo", " "], [[], ["", "hier"], ["hier"], [" "]])
    assert {row: error.code for row, error in result.failed.items()} == {0: "no_pair", 1: "empty_pair"}
    assert result.status[[2, 3]].tolist() == ["ok", "empty"]
    assert len(to_list(result.columns["r_scores"])) == 1


def test_a_classifier_of_pairs_reads_one_second_text(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["no", "yes"])
    texts, pairs = ["eins", "zwei", "", "vier"], [["a"], ["a", "b"], ["a", "b"], ["b"]]
    result = annotate(directory, texts, pairs, task="sequence-classification", scores=True)
    assert {row: error.code for row, error in result.failed.items()} == {1: "too_many_pairs", 2: "too_many_pairs"}
    alone = annotate(directory, [texts[0], texts[3]], [["a"], ["b"]], task="sequence-classification", scores=True)
    np.testing.assert_allclose(result.columns["r_scores"], alone.columns["r_scores"], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"top_k": 0}, "top_k=0, it must be at least 1"), ({"activation": "softmax"}, "always 1")],
)
def test_options_that_mean_nothing_are_refused(reranker, options, message):
    with pytest.raises(TaskError, match=message):
        annotate(reranker, ["a"], [["b"]], **options)


def test_a_head_with_several_outputs_is_refused(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["no", "yes"])
    with pytest.raises(TaskError, match="its head has 2 outputs, a reranker has one"):
        annotate(directory, ["a"], [["b"]])


def test_an_unknown_activation_is_not_guessed(reranker, tmp_path):
    directory = shutil.copytree(reranker, tmp_path / "tanh")
    config = json.loads((directory / "config.json").read_text())
    stored = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    (directory / "config.json").write_text(json.dumps(config | {"sentence_transformers": stored}))
    with pytest.raises(TaskError, match="pass activation=sigmoid or activation=none"):
        annotate(directory, ["a"], [["b"]])
    assert annotate(directory, ["a"], [["b"]], activation="none").annotated.all()


def test_both_losses_equal_sentence_transformers(reranker, records):
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, ListNetLoss

    model = cross_encoder(reranker)
    queries, documents = [query for query, _ in records], [documents for _, documents in records]
    sizes = [len(one) for one in documents]
    relevances = [[(3 * row + place) % 4 / 3 for place in range(size)] for row, size in enumerate(sizes)]
    wanted = torch.from_numpy(targets(relevances))
    pairs = [(query, document) for query, several in records for document in several]
    with torch.no_grad():
        logits = torch.from_numpy(model.predict(pairs, activation_fn=torch.nn.Identity()))[:, None]
        flat = [[query for query, _ in pairs], [document for _, document in pairs]]
        pointwise = BinaryCrossEntropyLoss(model)(flat, wanted)
        listwise = ListNetLoss(model)([queries, documents], [torch.tensor(one) for one in relevances])
    splits = torch.tensor([0, *sizes]).cumsum(0)
    assert loss(logits, wanted).item() == pytest.approx(pointwise.item(), abs=TOLERANCE)
    assert listwise_loss(logits, wanted, splits).item() == pytest.approx(listwise.item(), abs=TOLERANCE)


def test_relevances_out_of_range_are_named_all_at_once():
    with pytest.raises(TaskError) as error:
        targets([[0.5, 2.0], [-1.0], [float("nan")]])
    message = str(error.value)
    for problem in ("record 0, document 1: relevance 2.0", "record 1, document 0: relevance -1.0", "record 2"):
        assert problem in message
