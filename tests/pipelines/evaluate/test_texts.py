"""Probabilities of texts, vectors of translations and of graded pairs, rankings: each against an independent oracle."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers.util import cos_sim
from sklearn.metrics import ndcg_score
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast

from pipelines.evaluate import job
from pipelines.evaluate.job import evaluate
from pipelines.evaluate.measures import worst_first
from pipelines.evaluate.tables import notes
from pipelines.evaluate.vectors import VectorPairs
from pipelines.labelled import LabelledSection
from xlmr_core import pipeline
from xlmr_core.errors import InputError, TaskError
from xlmr_core.metrics import Retrieval


@pytest.fixture(scope="module")
def encoder(make_checkpoint):
    return f"{make_checkpoint('XLMRobertaModel')},pooling=mean"


def test_texts_cost_what_transformers_says_of_each_hidden_token(make_checkpoint, lines, write):
    model = str(make_checkpoint("XLMRobertaForMaskedLM"))
    texts = [text[:40].strip() for text in lines[:6]]
    rows = [{"text": text, "lang": ("de", "fr")[n % 2]} for n, text in enumerate(texts)]
    done = evaluate([model], [write("plain.jsonl", rows)], LabelledSection())
    tokenizer, theirs = (kind.from_pretrained(model) for kind in (PreTrainedTokenizerFast, AutoModelForMaskedLM))
    nats, tokens = [], []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        places = torch.arange(1, ids.shape[1] - 1)
        hidden = ids.repeat(len(places), 1)
        hidden[torch.arange(len(places)), places] = tokenizer.mask_token_id
        with torch.inference_mode():
            logits = theirs(hidden, attention_mask=torch.ones_like(hidden)).logits
        chances = logits[torch.arange(len(places)), places].log_softmax(dim=1)
        nats.append(-float(chances[torch.arange(len(places)), ids[0, places]].sum()))
        tokens.append(len(places))
    french = done.results[0].scores.measures()["fr"]
    assert french["tokens"] == sum(tokens[1::2])
    assert french["perplexity"] == pytest.approx(math.exp(sum(nats[1::2]) / sum(tokens[1::2])), rel=1e-4)
    characters, size = sum(map(len, texts[1::2])), sum(len(text.encode()) for text in texts[1::2])
    assert french["bits_per_character"] == pytest.approx(sum(nats[1::2]) / math.log(2) / characters, rel=1e-5)
    assert french["bits_per_byte"] == pytest.approx(sum(nats[1::2]) / math.log(2) / size, rel=1e-5)
    assert done.shown[0] == "bits_per_character"


def test_translations_are_found_as_by_comparing_all_with_all(encoder, lines, tmp_path):
    first = [text for text in lines if text.isascii()][:20]
    pairs = {"de": [text[::-1] for text in first], "fr": [text.upper() for text in first]}
    (tmp_path / "en.txt").write_text("\n".join(first) + "\n", encoding="utf-8")
    inputs = []
    for language, texts in pairs.items():
        (tmp_path / f"{language}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
        inputs += [str(tmp_path / "en.txt"), str(tmp_path / f"{language}.txt")]
    done = evaluate([encoder], inputs, LabelledSection(format="parallel"), task="embedding")
    embed = pipeline("sentence-embedding", encoder.split(",")[0], pooling="mean")
    there = np.array(embed(first))
    right = {}
    for language, texts in pairs.items():
        cosine = cos_sim(there, np.array(embed(texts))).numpy()
        right[language] = [(cosine.argmax(axis=axis) == np.arange(20)).sum() for axis in (1, 0)]
        measures = done.results[0].scores.measures()[f"en-{language}"]
        assert [measures["forward"], measures["backward"]] == [count / 20 for count in right[language]]
    whole = done.results[0].scores.together()
    assert whole["forward"] == sum(count for count, _ in right.values()) / 40
    assert whole["total"] == 40


def test_vectors_wait_in_a_file_that_goes_with_them():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 7, 5)).astype(np.float32)
    pairs = VectorPairs()
    pairs.add(first[:3].tolist(), second[:3].tolist())
    pairs.add([*first[3:].tolist(), None], [*second[3:].tolist(), [0.0] * 5])
    folder = pairs.folder.name
    found = pairs.retrieval()
    alone = Retrieval()
    alone.add(first, second)
    # What has no vector is found by nobody.
    assert (found.forward, found.backward, found.total) == (alone.forward, alone.backward, 8)
    assert not Path(folder).exists()
    assert VectorPairs().retrieval() == Retrieval()


def test_pairs_that_do_not_belong_together_are_no_translations(encoder, lines, write):
    rows = [{"text": text, "pair": text[::-1], "score": n % 2} for n, text in enumerate(lines[:10])]
    done = evaluate([encoder], [write("pairs.jsonl", rows)], LabelledSection(), task="embedding")
    assert done.results[0].scores.together()["total"] == 5
    assert list(notes(done)) == ["5 records are left out: no_positive"]


def test_more_pairs_than_can_be_compared_are_refused_at_the_start(encoder, lines, write, monkeypatch):
    monkeypatch.setattr(job, "MOST_PAIRS", 5)
    rows = [{"text": text, "pair": text[::-1], "lang": "de"} for text in lines[:6]]
    with pytest.raises(InputError, match="de: more pairs, retrieval compares each with all of at most 5"):
        evaluate([encoder], [write("pairs.jsonl", rows)], LabelledSection(), task="embedding")


def test_graded_pairs_are_correlated_as_scipy_does(encoder, lines, write):
    rng = np.random.default_rng(0)
    rows = [
        {"sentence1": text, "sentence2": lines[n - 1], "score": float(score)}
        for n, (text, score) in enumerate(zip(lines, rng.integers(0, 5, len(lines)), strict=True))
    ]
    done = evaluate([encoder], [write("sts.jsonl", rows)], LabelledSection(), task="similarity")
    vectors = np.array(pipeline("sentence-embedding", encoder.split(",")[0], pooling="mean")(lines))
    cosines = np.diagonal(cos_sim(vectors, np.roll(vectors, 1, axis=0)).numpy())
    expected = spearmanr([row["score"] for row in rows], cosines).statistic
    assert done.results[0].scores.together()["spearman"] == pytest.approx(expected, abs=1e-3)


def test_documents_are_ranked_as_scikit_learn_ranks_them(make_checkpoint, lines, write):
    reranker = str(make_checkpoint("XLMRobertaForSequenceClassification", num_labels=1))
    queries = [
        {"query": text[:30], "positive": [lines[n - 1][:30]], "negative": [lines[n - k][:30] for k in (2, 3, 4)]}
        for n, text in enumerate(lines[:20])
    ]
    done = evaluate([reranker], [write("queries.jsonl", queries)], LabelledSection(), task="rerank")
    rank = pipeline("text-ranking", reranker)
    ranks, gains = [], []
    for row in queries:
        documents = row["positive"] + row["negative"]
        scores = [score_of["score"] for score_of in sorted(rank(row["query"], documents), key=lambda d: d["corpus_id"])]
        ranks.append(1 + sum(score > scores[0] for score in scores[1:]))
        gains.append(ndcg_score([[1, 0, 0, 0]], [scores]))
    whole = done.results[0].scores.together()
    assert whole["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert whole["ndcg@10"] == pytest.approx(np.mean(gains))


def test_of_equal_scores_the_worst_document_comes_first(make_checkpoint, lines, write):
    reranker = str(make_checkpoint("XLMRobertaForSequenceClassification", num_labels=1))
    rows = [{"query": text[:30], "positive": ["gleich"], "negative": ["gleich", "gleich"]} for text in lines[:5]]
    done = evaluate([reranker], [write("queries.jsonl", rows)], LabelledSection(), task="rerank")
    assert done.results[0].scores.together()["mrr"] == pytest.approx(1 / 3)


def test_scores_that_differ_by_rounding_are_equal():
    assert worst_first([0.5, 0.50000003, 0.9, 0.1], [0.0, 1.0, 1.0, 1.0]) == [2, 0, 1, 3]
    assert worst_first([], []) == []


def test_a_vector_model_that_does_not_say_how_it_pools_is_refused(make_checkpoint, lines, write):
    rows = [{"text": text, "pair": text[::-1]} for text in lines[:3]]
    bare = str(make_checkpoint("XLMRobertaModel"))
    with pytest.raises(TaskError, match="does not say how its vectors are pooled"):
        evaluate([bare], [write("pairs.jsonl", rows)], LabelledSection(), task="embedding")
