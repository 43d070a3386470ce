"""Similarity against sentence-transformers: its vectors, its four functions, its loss."""

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.columns import to_list
from xlmr_core.tasks.similarity import loss, targets

# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5
FUNCTIONS = ["cosine", "dot", "euclidean", "manhattan"]


@pytest.fixture(scope="module")
def make_model(make_checkpoint):
    """Writes a sentence-transformers directory: `make_model(function="dot", normalize=True, prompts={...})`."""

    def make(*, function=None, normalize=False, prompts=None, include_prompt=False):
        directory = make_checkpoint("XLMRobertaModel", seed=9)
        kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
        modules = [
            {
                "idx": i,
                "name": str(i),
                "path": kind and f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ]
        (directory / "modules.json").write_text(json.dumps(modules))
        (directory / "1_Pooling").mkdir()
        pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
        pooling["include_prompt"] = include_prompt
        (directory / "1_Pooling/config.json").write_text(json.dumps(pooling))
        (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
        settings = {"similarity_fn_name": function, "prompts": prompts or {}}
        (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
        return directory

    return make


@pytest.fixture(scope="module")
def records(sample_texts):
    """Texts with 1 to 4 second texts each, all of one window."""
    texts = [text[:30] for text in sample_texts if len(text) > 30]
    return [(texts[9 * n], [texts[9 * n + 1 + k] for k in range(1 + n % 4)]) for n in range(12)]


def annotate(directory, texts, seconds, **options):
    plan = GraphPlan.resolve([Request("s", str(directory), {"task": "similarity"} | options)], pairs=True)
    return ModelGraph(plan)(Preprocessor(plan)(texts, seconds))


def scores(directory, records, **options):
    result = annotate(directory, [text for text, _ in records], [seconds for _, seconds in records], **options)
    assert result.annotated.all()
    return to_list(result.columns["s_scores"])


def sentence_transformer(directory):
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SentenceTransformer(str(directory), device="cpu")


def assert_agree(ours, directory, records, *, query=None, **options):
    """The similarities are those of sentence-transformers, told `options`, and `query` for the records' texts."""
    model, query = sentence_transformer(directory), query or options
    for row, (text, seconds) in zip(ours, records, strict=True):
        truth = model.similarity(model.encode([text], **query), model.encode(seconds, **options))[0].numpy()
        # Dot products and distances are as large as vectors are; rounding grows with them.
        np.testing.assert_allclose(row, truth, atol=TOLERANCE * max(1, np.abs(truth).max()), rtol=0)


@pytest.mark.parametrize("function", [None, *FUNCTIONS])
def test_the_checkpoints_own_function_is_used(make_model, records, function):
    directory = make_model(function=function)
    assert_agree(scores(directory, records), directory, records)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_another_function_can_be_asked_for(make_model, records, function):
    # Of vectors of unit length cosine and dot product would be the same.
    directory, named = make_model(function="cosine"), make_model(function=function)
    assert_agree(scores(directory, records, similarity=function), named, records)


def test_the_prompt_goes_before_every_text(make_model, records):
    directory = make_model(prompts={"sts": "ein Satz: "})
    short = [(text[:12], [second[:12] for second in seconds]) for text, seconds in records]
    found = scores(directory, short, prompt_name="sts")
    assert found != scores(directory, short)
    assert_agree(found, directory, short, prompt_name="sts")


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("sides", [("sts", "query"), ("sts", None), (None, "query")], ids=["both", "seconds", "texts"])
def test_each_side_has_a_prompt_of_its_own(make_model, records, sides, include_prompt):
    prompts = {"sts": "ein Satz: ", "query": "sucht: ", "nothing": ""}
    directory = make_model(prompts=prompts, include_prompt=include_prompt)
    seconds, query = (name or "nothing" for name in sides)
    short = [(text[:12], [second[:12] for second in others]) for text, others in records]
    found = scores(directory, short, prompt_name=seconds, query_prompt_name=query)
    assert_agree(found, directory, short, query={"prompt_name": query}, prompt_name=seconds)
    assert found == scores(directory, short, prompt=prompts[seconds], query_prompt=prompts[query])
    assert found != scores(directory, short, prompt_name=query, query_prompt_name=seconds)


def test_a_prompt_that_the_checkpoint_lacks_is_refused_by_the_name_of_its_option(make_model):
    with pytest.raises(TaskError, match="query_prompt_name='other', the checkpoint's prompts are sts"):
        annotate(make_model(prompts={"sts": "ein Satz: "}), ["a"], [["b"]], query_prompt_name="other")


def test_long_texts_on_either_side_have_the_vectors_of_an_embedding(make_model, sample_texts):
    directory = make_model(normalize=True)
    long = sorted(sample_texts, key=len)[-12:-10]
    result = annotate(directory, ["kurz", long[0]], [[long[0], "anders"], [long[1]]], stride=8)
    assert result.n_windows.min() > 2
    plan = GraphPlan.resolve([Request("v", str(directory), {"stride": 8})])
    vectors = ModelGraph(plan)(Preprocessor(plan)(["kurz", long[0], "anders", long[1]])).columns["v"]
    cosine = vectors @ vectors.T
    found = to_list(result.columns["s_scores"])
    np.testing.assert_allclose(found[0], [cosine[0, 1], cosine[0, 2]], atol=TOLERANCE)
    np.testing.assert_allclose(found[1], [cosine[1, 3]], atol=TOLERANCE)


def test_records_that_cannot_be_compared_are_refused_alone(make_model):
    result = annotate(make_model(), ["eins", "zwei", "", "vier"], [["a", ""], [], ["b"], ["vier"]])
    assert {row: error.code for row, error in result.failed.items()} == {0: "empty_pair", 1: "no_pair"}
    assert result.status[[2, 3]].tolist() == ["empty", "ok"]
    assert to_list(result.columns["s_scores"]) == [[pytest.approx(1, abs=TOLERANCE)]]


@pytest.mark.parametrize(("texts", "failed"), [(["a", "b"], {0: "no_pair", 1: "no_pair"}), ([""], {})])
def test_records_of_which_none_has_a_second_text_are_refused_and_raise_nothing(make_model, texts, failed):
    plan = GraphPlan.resolve([Request("s", str(make_model()), {"task": "similarity"})], pairs=True)
    result = ModelGraph(plan)(Preprocessor(plan)(texts, [[] for _ in texts]))
    assert not result.annotated.any()
    assert {record: error.code for record, error in result.failed.items()} == failed


def test_a_function_that_nobody_knows_is_refused(make_model):
    with pytest.raises(TaskError, match="similarity_fn_name 'hamming', known are cosine, dot"):
        annotate(make_model(function="hamming"), ["a"], [["b"]])


def test_an_encoder_without_pooling_is_refused_not_guessed(make_checkpoint):
    bare = make_checkpoint("XLMRobertaModel")
    with pytest.raises(TaskError, match="pooling=mean"):
        annotate(bare, ["a"], [["b"]])
    assert annotate(bare, ["a"], [["b"]], pooling="mean").annotated.all()


def test_the_loss_equals_sentence_transformers(make_model, records):
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    model = sentence_transformer(make_model())
    wanted = torch.from_numpy(
        targets([[(row + k) % 5 / 2 - 1 for k in range(len(s))] for row, (_, s) in enumerate(records)])
    )
    texts = [text for text, seconds in records for text in [text, *seconds]]
    vectors = torch.from_numpy(model.encode(texts))
    splits = torch.tensor([0, *(1 + len(seconds) for _, seconds in records)]).cumsum(0)
    first = torch.cat([vectors[a].expand(b - a - 1, -1) for a, b in pairwise(splits)])
    second = torch.cat([vectors[a + 1 : b] for a, b in pairwise(splits)])
    theirs = CosineSimilarityLoss(model).compute_loss_from_embeddings([first, second], wanted)
    assert loss(vectors, wanted, splits).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_similarities_out_of_range_are_named_all_at_once():
    with pytest.raises(TaskError) as error:
        targets([[0.5], [5.0, -2.0]])
    assert "record 1, text 0: similarity 5.0" in str(error.value)
    assert "record 1, text 1: similarity -2.0" in str(error.value)
