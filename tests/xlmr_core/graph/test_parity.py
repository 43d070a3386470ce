"""The graph against transformers' pipelines and sentence-transformers on the same random checkpoints."""

import json
import unicodedata
import warnings

import numpy as np
import pytest
import regex
import torch

from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.columns import to_list

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
# Two float32 paths through the same weights differ by rounding; see the house rule on tolerances.
TOLERANCE = 1e-5


def annotate(requests, texts, pairs=None, **options):
    plan = GraphPlan.resolve([Request.parse(text) for text in requests], pairs=pairs is not None, **options)
    return ModelGraph(plan)(Preprocessor(plan)(texts, pairs))


@pytest.fixture(scope="module")
def short_texts(sample_texts, tokenizer_json):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    # The pipelines cut what is longer than the tiny checkpoint's 64 tokens; that is tested elsewhere.
    fitting = [text for text in sample_texts if 2 < len(tokenizer.encode(text).ids) <= 64]
    assert len(fitting) > 100
    return fitting[::5]


def pipeline(task, directory, **options):
    import transformers

    return transformers.pipeline(task, str(directory), dtype=torch.float32, device="cpu", **options)


def expected_scores(classifier, inputs, labels, **options):
    found = classifier(inputs, top_k=None, **options)
    return np.array([[next(one["score"] for one in row if one["label"] == label) for label in labels] for row in found])


@pytest.mark.parametrize(
    ("problem_type", "count"),
    [
        ("single_label_classification", 5),
        ("multi_label_classification", 4),
        (None, 3),
        (None, 1),
        ("regression", 2),
    ],
)
def test_classification_scores_equal_the_pipeline(make_checkpoint, short_texts, problem_type, count):
    labels = [f"class {i}" for i in range(count)]
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=labels, problem_type=problem_type)
    result = annotate([f"c={directory},scores=true"], short_texts)
    expected = expected_scores(pipeline("text-classification", directory), short_texts, labels)
    if problem_type == "regression":
        np.testing.assert_allclose(result.columns["c_scores"], expected, atol=TOLERANCE)
        return
    np.testing.assert_allclose(result.columns["c_scores"], expected, atol=TOLERANCE)
    best = result.columns["c_label"]
    assert [best.names[code] for code in best.codes] == [labels[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(result.columns["c_score"], expected.max(1), atol=TOLERANCE)


def test_pairs_equal_the_pipeline(make_checkpoint, short_texts):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["no", "yes"])
    first, second = [t[:40] for t in short_texts[:30]], [t[:40] for t in short_texts[30:60]]
    first, second = first[: len(second)], second[: len(first)]
    result = annotate([f"nli={directory},scores=true"], first, [[text] for text in second])
    inputs = [{"text": a, "text_pair": b} for a, b in zip(first, second, strict=True)]
    expected = expected_scores(pipeline("text-classification", directory), inputs, ["no", "yes"])
    np.testing.assert_allclose(result.columns["nli_scores"], expected, atol=TOLERANCE)


def exact(groups, text):
    """The pipeline's groups, outside ones too, without what the next one begins with and without blanks at the edges.

    Groups that then hold nothing are none; see the known faults in tasks.entities. Combining marks, which the
    normaliser composes with the letter before, belong to it.
    """
    nexts = [*(group["start"] for group in groups[1:]), len(text)]
    for group, following in zip(groups, nexts, strict=True):
        piece = text[group["start"] : min(group["end"], following)]
        if piece.strip():
            start = group["start"] + len(piece) - len(piece.lstrip())
            end = start + len(piece.strip())
            while end < following and unicodedata.category(text[end])[0] == "M":
                end += 1
            yield group | {"start": start, "end": end}


# To the pipeline a sentence in one of these is one word.
UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")


def assert_entities_equal(entities, directory, texts, strategy):
    tagger = pipeline("token-classification", directory, aggregation_strategy=strategy, ignore_labels=[])
    tagger.tokenizer.model_max_length = 64
    key = "entity" if strategy == "none" else "entity_group"
    for got, groups, text in zip(entities, tagger(texts), texts, strict=True):
        found = [group for group in exact(groups, text) if group[key] != "O"]
        assert [(e["label"], e["start"], e["end"]) for e in got] == [(e[key], e["start"], e["end"]) for e in found]
        np.testing.assert_allclose([e["score"] for e in got], [float(e["score"]) for e in found], atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_entities_equal_the_pipeline(make_checkpoint, short_texts, strategy):
    directory = make_checkpoint("XLMRobertaForTokenClassification", labels=BIO)
    # The pipeline joins words over tabs and line breaks (see tasks.entities), so these stay out of the comparison.
    texts = [text for text in short_texts if not any(c.isspace() and c != " " for c in text)]
    if strategy not in ("none", "simple"):
        texts = [text for text in texts if not UNSPACED.search(text)]
    assert len(texts) > 50
    entities = to_list(annotate([f"ner={directory},aggregation={strategy}"], texts).columns["ner_entities"])
    assert_entities_equal(entities, directory, texts, strategy)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", ["simple", "average"])
def test_entities_of_truncated_texts_equal_the_pipeline(make_checkpoint, sample_texts, tokenizer_json, strategy):
    from tokenizers import Tokenizer

    directory = make_checkpoint("XLMRobertaForTokenClassification", labels=BIO)
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    # Short ones between long ones: whose tokens are whose must not slip.
    texts = [t for t in sample_texts if t.strip() and not UNSPACED.search(t) and not regex.search(r"[^\S ]", t)][:60]
    assert sum(len(tokenizer.encode(text).ids) > 64 for text in texts) > 5
    result = annotate([f"ner={directory},aggregation={strategy}"], texts, on_long="truncate")
    assert "truncated" in result.status
    assert_entities_equal(to_list(result.columns["ner_entities"]), directory, texts, strategy)


POOLINGS = ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def write_modules(directory, modes, *, normalize, prompts=None):
    """Makes a sentence-transformers directory of a bare encoder."""
    names = {
        "cls": "cls_token",
        "mean": "mean_tokens",
        "max": "max_tokens",
        "weightedmean": "weightedmean_tokens",
    }
    modules = [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
    modules += [("2_Normalize", "models.Normalize")] if normalize else []
    listing = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    (directory / "modules.json").write_text(json.dumps(listing))
    (directory / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{names.get(mode, mode)}": mode in modes for mode in POOLINGS}
    pooling = {"word_embedding_dimension": 32, **flags}
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    if prompts:
        settings = {"prompts": prompts, "default_prompt_name": None}
        (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return directory


@pytest.mark.parametrize("modes", [*[[mode] for mode in POOLINGS], ["mean", "cls"]], ids="+".join)
def test_embeddings_equal_sentence_transformers(make_checkpoint, short_texts, modes):
    from sentence_transformers import SentenceTransformer

    directory = write_modules(make_checkpoint("XLMRobertaModel"), modes, normalize=modes == ["mean"])
    vectors = annotate([f"v={directory}"], short_texts).columns["v"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = SentenceTransformer(str(directory), device="cpu").encode(short_texts)
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE * max(1, np.abs(expected).max()))


def test_prompts_equal_sentence_transformers(make_checkpoint, short_texts):
    from sentence_transformers import SentenceTransformer

    texts = [text[:30] for text in short_texts]
    prompts = {"query": "query: ", "document": "passage: "}
    directory = write_modules(make_checkpoint("XLMRobertaModel"), ["mean"], normalize=True, prompts=prompts)
    vectors = annotate([f"v={directory},prompt_name=query"], texts).columns["v"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = SentenceTransformer(str(directory), device="cpu").encode(texts, prompt_name="query")
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)
