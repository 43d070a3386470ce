"""Pseudo-perplexity against a loop that hides one token after the other in transformers' model."""

import tracemalloc

import numpy as np
import pytest
import torch
import transformers

from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.graph.windows import plan_window_sets
from xlmr_core.tasks.columns import to_list
from xlmr_core.tokenization import Tokenizer

# Relative: a sum over tokens of logarithms that differ by float32 rounding.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("XLMRobertaForMaskedLM", seed=7, initializer_range=0.2)


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return Tokenizer.load(checkpoint)


def resolve(directory, on_long="window", **options):
    request = Request("p", str(directory), {"task": "pseudo-perplexity"} | options)
    return GraphPlan.resolve([request], on_long=on_long)


def annotate(directory, texts, **options):
    plan = resolve(directory, **options)
    return ModelGraph(plan)(Preprocessor(plan)(texts))


@pytest.fixture(scope="module")
def model(checkpoint):
    return transformers.AutoModelForMaskedLM.from_pretrained(checkpoint).eval()


def brute_force(model, mask, ids, windows):
    """Log-probability of each token, each hidden alone in the window where it is farthest from an edge."""
    found = []
    for place, token in enumerate(ids):

        def margin(window, place=place):
            left = np.inf if window[0] == 0 else place - window[0]
            right = np.inf if window[1] == len(ids) else window[1] - 1 - place
            return min(left, right) if window[0] <= place < window[1] else -1

        start, end = max(windows, key=margin)
        shown = [0, *ids[start:end], 2]
        shown[1 + place - start] = mask
        with torch.inference_mode():
            logits = model(torch.tensor([shown])).logits[0, 1 + place - start]
        found.append(logits.double().log_softmax(0)[token].item())
    return found


def assert_equal(result, row, log_probabilities):
    total = sum(log_probabilities)
    np.testing.assert_allclose(result.columns["p_log_probability"][row], total, rtol=TOLERANCE)
    expected = np.exp(-total / len(log_probabilities))
    np.testing.assert_allclose(result.columns["p_perplexity"][row], expected, rtol=TOLERANCE)


def test_short_texts_equal_hiding_one_token_after_the_other(checkpoint, model, tokenizer, sample_texts):
    texts = [text[:12].strip() for text in sample_texts[::9] if text.strip()][:25]
    result = annotate(checkpoint, texts)
    for row, text in enumerate(texts):
        ids = tokenizer.encode([text]).ids.tolist()
        assert_equal(result, row, brute_force(model, tokenizer.special.mask, ids, [(0, len(ids))]))
    # The texts differ, or equality would say little.
    assert result.columns["p_perplexity"].std() > 0.1 * result.columns["p_perplexity"].mean()


def test_in_a_long_text_a_token_is_hidden_once_where_it_has_most_context(checkpoint, model, tokenizer, sample_texts):
    texts = [text[:160] for text in sorted(sample_texts, key=len)[-2:]]
    limit, stride = 24, 9
    result = annotate(checkpoint, texts, max_length=limit, stride=stride)
    for row, text in enumerate(texts):
        ids = tokenizer.encode([text]).ids.tolist()
        windows = [(start, min(start + limit - 2, len(ids))) for start in range(0, len(ids), limit - 2 - stride)]
        windows = windows[: next(n for n, (_, end) in enumerate(windows) if end == len(ids)) + 1]
        assert len(windows) > 3
        assert result.n_windows[row] == len(windows)
        assert_equal(result, row, brute_force(model, tokenizer.special.mask, ids, windows))


def test_a_cut_text_counts_what_is_left(checkpoint, model, tokenizer, sample_texts):
    text = max(sample_texts, key=len)
    result = annotate(checkpoint, [text], on_long="truncate", max_length=16)
    ids = tokenizer.encode([text]).ids.tolist()[:14]
    assert_equal(result, 0, brute_force(model, tokenizer.special.mask, ids, [(0, 14)]))
    assert result.status.tolist() == ["truncated"]


def test_neither_company_nor_batching_changes_a_text(checkpoint, sample_texts):
    texts = [text[:60] for text in sample_texts[:8] if text.strip()]
    plan = resolve(checkpoint)
    together = ModelGraph(plan, max_tokens=37)(Preprocessor(plan)(texts)).columns["p_log_probability"]
    alone = [annotate(checkpoint, [text]).columns["p_log_probability"][0] for text in texts]
    np.testing.assert_allclose(together, alone, rtol=TOLERANCE)


def test_empty_texts_stay_empty(checkpoint):
    result = annotate(checkpoint, ["", "ein Satz", " "])
    assert result.status.tolist() == ["empty", "ok", "empty"]
    assert result.columns["p_perplexity"].shape == (1,)
    assert annotate(checkpoint, [""]).columns["p_perplexity"].shape == (0,)


def test_beside_fill_mask_it_shares_the_head_and_changes_nothing(checkpoint):
    requests = [
        Request("p", str(checkpoint), {"task": "pseudo-perplexity"}),
        Request("f", str(checkpoint), {"task": "fill-mask"}),
    ]
    plan = GraphPlan.resolve(requests)
    texts = ["ein <mask> Satz", "two <mask> <mask>"]
    graph = ModelGraph(plan)
    both = graph(Preprocessor(plan)(texts))
    assert len(graph._loaded_heads) == 1
    alone = annotate(checkpoint, texts).columns
    for name, column in alone.items():
        np.testing.assert_allclose(both.columns[name], column, rtol=TOLERANCE)
    assert [len(masks) for masks in to_list(both.columns["f_masks"])] == [1, 2]


def test_planning_copies_costs_bytes_not_windows(checkpoint, tokenizer):
    text = " ".join("Wort" for _ in range(200))
    plan = resolve(checkpoint)
    encoded = Preprocessor(plan)([text] * 60)
    tracemalloc.start()
    (windows,) = plan_window_sets(plan, encoded)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    copies = len(windows.windows)
    assert copies == int(encoded.views[0].lengths.sum())
    # Laid out, a copy is 4 bytes for each of its 64 tokens.
    assert held / copies < 64
    assert peak / copies < 128


def test_bfloat16_stays_close(checkpoint, sample_texts):
    texts = [text[:60] for text in sample_texts[:8] if text.strip()]
    plan = resolve(checkpoint)
    low = ModelGraph(plan, dtype="bfloat16")(Preprocessor(plan)(texts)).columns
    assert low["p_log_probability"].dtype == np.float32
    exact = annotate(checkpoint, texts).columns["p_log_probability"]
    np.testing.assert_allclose(low["p_log_probability"], exact, rtol=0.02)


def test_the_quick_way_in_names_both_numbers(checkpoint):
    from xlmr_core import pipeline

    answer = pipeline("pseudo-perplexity", str(checkpoint))("ein Satz")
    assert answer.keys() == {"log_probability", "perplexity"}


def test_a_model_that_rules_a_text_out_gives_infinity_and_no_warning(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForMaskedLM", seed=1, initializer_range=60.0)
    columns = annotate(directory, ["ein Satz der nicht sein kann"]).columns
    assert columns["p_log_probability"][0] < -500
    assert columns["p_perplexity"][0] == np.inf


def test_a_head_of_another_task_is_refused(make_checkpoint):
    tagger = make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X"])
    with pytest.raises(TaskError, match="has no masked-lm head"):
        resolve(tagger)


def test_options_that_mean_nothing_are_refused(checkpoint):
    with pytest.raises(TaskError, match="unknown option 'top_k'"):
        resolve(checkpoint, top_k=3)
    with pytest.raises(TaskError, match="max_length=1000, the checkpoint takes"):
        resolve(checkpoint, max_length=1000)
