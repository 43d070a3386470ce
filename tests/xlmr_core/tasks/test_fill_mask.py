"""Fill mask against transformers' pipeline, over windows, and the way targets name tokens."""

import json
import pickle

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks import masked_lm
from xlmr_core.tasks.columns import to_list
from xlmr_core.tasks.fill_mask import filled_texts, target_ids
from xlmr_core.tokenization import Tokenizer

# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("XLMRobertaForMaskedLM", seed=2)


@pytest.fixture(scope="module")
def pipeline(checkpoint):
    return transformers.pipeline("fill-mask", str(checkpoint), dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return Tokenizer.load(checkpoint)


@pytest.fixture(scope="module")
def words(sample_texts, tokenizer):
    """Texts of some words, in many scripts, that fit into one window of the checkpoint."""
    fitting = [text.split() for text in sample_texts if 6 < len(tokenizer.encode([text]).ids) <= 60]
    return [words for words in fitting if len(words) > 3][::6]


@pytest.fixture(scope="module")
def small_graph(checkpoint):
    plan = resolve(checkpoint, max_length=16, stride=4)
    return Preprocessor(plan), ModelGraph(plan)


def masked(words, *places):
    return " ".join("<mask>" if place in places else word for place, word in enumerate(words))


def resolve(directory, on_long="window", **options):
    return GraphPlan.resolve([Request("f", str(directory), {"task": "fill-mask"} | options)], on_long=on_long)


def annotate(directory, texts, **options):
    plan = resolve(directory, **options)
    return ModelGraph(plan)(Preprocessor(plan)(texts))


def masks_of(directory, texts, **options):
    return to_list(annotate(directory, texts, **options).columns["f_masks"])


def assert_same(ours, theirs):
    """Answers in the pipeline's form: everything equal, scores within the tolerance."""
    if ours and isinstance(ours[0], list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
        return
    plain = [[{key: one[key] for key in one if key != "score"} for one in side] for side in (ours, theirs)]
    assert plain[0] == plain[1]
    np.testing.assert_allclose([o["score"] for o in ours], [t["score"] for t in theirs], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("top_k", [1, 5, 40])
def test_answers_equal_the_pipeline_in_every_script(checkpoint, pipeline, tokenizer, words, top_k):
    texts = [masked(some, number % len(some)) for number, some in enumerate(words)]
    assert len(texts) > 40
    found = masks_of(checkpoint, texts, top_k=top_k)
    for text, masks, theirs in zip(texts, found, pipeline(texts, top_k=top_k), strict=True):
        assert len(masks) == 1
        assert_same(filled_texts(masks, text, tokenizer), theirs)


def test_several_masks_are_answered_one_by_one_as_the_pipeline_does(checkpoint, pipeline, tokenizer, words):
    texts = [masked(some, 1, len(some) - 1, *range(number % 3)) for number, some in enumerate(words[:20])]
    for text, masks, theirs in zip(texts, masks_of(checkpoint, texts), pipeline(texts), strict=True):
        assert len(masks) == text.count("<mask>")
        assert_same(filled_texts(masks, text, tokenizer), theirs)


def test_scores_of_targets_are_those_of_the_whole_vocabulary(checkpoint, pipeline, tokenizer, words):
    pieces = ["▁the", "▁de", ",", "▁и", "a"]
    texts = [masked(some, 2) for some in words[:20]]
    ids, problems = target_ids(pieces, tokenizer)
    assert not problems
    # The pipeline is asked by piece, as the vocabulary writes it, so that both mean the same tokens.
    spelled = tokenizer.tokens(ids)
    for top_k in (2, 5, 50):
        theirs = pipeline(texts, targets=spelled, top_k=top_k)
        found = masks_of(checkpoint, texts, targets=tuple(pieces), top_k=top_k)
        for text, masks, expected in zip(texts, found, theirs, strict=True):
            assert_same(filled_texts(masks, text, tokenizer), expected)
            assert len(masks[0]["predictions"]) == min(top_k, len(ids))


def test_a_mask_points_into_its_text_and_a_piece_is_that_of_the_vocabulary(checkpoint, tokenizer, words):
    texts = [f"  {masked(some, 0, 3)} ".replace(" <mask>", " \t <mask>") for some in words]
    for text, masks in zip(texts, masks_of(checkpoint, texts, top_k=3), strict=True):
        assert [text[mask["start"] : mask["end"]] for mask in masks] == ["<mask>"] * 2
        for mask in masks:
            scores = [one["score"] for one in mask["predictions"]]
            assert scores == sorted(scores, reverse=True)
            tokens = [one["token"] for one in mask["predictions"]]
            assert [one["piece"] for one in mask["predictions"]] == tokenizer.tokens(tokens)


def test_in_a_long_text_a_mask_is_read_where_it_has_most_context(checkpoint, sample_texts, tokenizer):
    long = max(sample_texts, key=len).split()
    text = masked(long, *range(3, len(long), 7))
    limit, stride, mask = 32, 13, tokenizer.special.mask
    (found,) = masks_of(checkpoint, [text], max_length=limit, stride=stride)
    ids = tokenizer.encode([text]).ids
    starts = range(0, len(ids), limit - 2 - stride)
    windows = [(start, min(start + limit - 2, len(ids))) for start in starts]
    windows = windows[: next(n for n, (_, end) in enumerate(windows) if end == len(ids)) + 1]
    assert len(windows) > 3
    model = transformers.AutoModelForMaskedLM.from_pretrained(checkpoint).eval()
    places = np.flatnonzero(ids == mask)
    assert len(found) == len(places)
    for place, one in zip(places.tolist(), found, strict=True):

        def margin(window, place=place):
            left = np.inf if window[0] == 0 else place - window[0]
            right = np.inf if window[1] == len(ids) else window[1] - 1 - place
            return min(left, right) if window[0] <= place < window[1] else -1

        start, end = max(windows, key=margin)
        with torch.inference_mode():
            logits = model(torch.tensor([[0, *ids[start:end].tolist(), 2]])).logits[0, 1 + place - start]
        scores, tokens = logits.softmax(0).topk(5)
        assert [p["token"] for p in one["predictions"]] == tokens.tolist()
        np.testing.assert_allclose([p["score"] for p in one["predictions"]], scores, rtol=0, atol=TOLERANCE)


def test_masks_are_answered_in_portions_without_a_difference(checkpoint, words, monkeypatch):
    texts = [masked(some, 0, 1, 2) for some in words[:10]]
    whole = masks_of(checkpoint, texts)
    # Room for the logits of two masks.
    monkeypatch.setattr(masked_lm, "_LOGITS", 2 * 3001)
    for one, other in zip(whole, masks_of(checkpoint, texts), strict=True):
        for mask, same in zip(one, other, strict=True):
            assert [p["token"] for p in mask["predictions"]] == [p["token"] for p in same["predictions"]]


def test_a_mask_that_was_cut_away_has_no_answer_and_the_record_says_truncated(checkpoint):
    text = "eins <mask> " + "zwei " * 80 + "<mask>"
    result = annotate(checkpoint, [text], on_long="truncate")
    ((only,),) = to_list(result.columns["f_masks"])
    assert text[only["start"] : only["end"]] == "<mask>"
    assert result.status.tolist() == ["truncated"]


def test_texts_without_a_mask_fail_alone(checkpoint):
    texts = ["no mask", "a <mask> here", "", "none"]
    result = annotate(checkpoint, texts)
    assert {row: error.code for row, error in result.failed.items()} == {0: "no_mask", 3: "no_mask"}
    assert result.annotated.tolist() == [False, True, False, False]
    assert len(to_list(result.columns["f_masks"])) == 1


def test_nothing_to_answer_is_an_empty_column(checkpoint):
    assert masks_of(checkpoint, ["", "no mask"]) == []


def small_tokenizer(directory, vocabulary):
    """A unigram tokenizer of exactly these pieces."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((name, 0.0) for name in special), *((piece, -1.0) for piece in vocabulary), ("<mask>", 0.0)]
    library = Library(models.Unigram(pieces, unk_id=3))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.save(str(directory / "tokenizer.json"))
    return Tokenizer.load(directory)


def test_targets_name_tokens_as_the_documentation_says(tmp_path):
    vocabulary = ["▁", "▁word", "word", "ing", "▁sing", "北京", "▁a", "b"]
    tokenizer = small_tokenizer(tmp_path, vocabulary)

    def piece(target):
        ids, problems = target_ids([target], tokenizer)
        return tokenizer.tokens(ids)[0] if ids else problems[0]

    assert piece("word") == "▁word"
    assert piece("▁word") == "▁word"
    assert piece("ing") == "ing"
    assert piece("北京") == "北京"
    assert piece("##word") == "word"
    assert piece("##北京") == "北京"
    assert "is unknown" in piece("##") or "tokens" in piece("##")
    assert piece("</s>") == "</s>"
    assert "is 2 tokens (▁word ing), a mask stands for one" in piece("wording")
    assert "can be asked for as it is written here, such as ▁word" in piece("wording")
    assert "is unknown to the tokenizer" in piece("ξ")
    assert "is unknown to the tokenizer" in piece("<unk>")
    assert "a target is empty" in piece(" ")
    assert target_ids(["word", "b", "▁word"], tokenizer)[0] == target_ids(["word", "b"], tokenizer)[0]


def test_every_piece_of_a_vocabulary_can_be_asked_for(tokenizer):
    special = tokenizer.special
    for token, piece in enumerate(tokenizer.tokens(range(tokenizer.vocab_size))):
        if token != special.unk:
            spelled = piece if piece.startswith("▁") or token == special.mask else f"##{piece}"
            assert target_ids([spelled], tokenizer) == ((token,), [])


@settings(deadline=None)
@given(st.text(max_size=12))
def test_a_target_is_the_token_that_its_text_is_or_is_refused_by_name(tokenizer, text):
    ids, problems = target_ids([text], tokenizer)
    assert len(ids) + len(problems) == 1
    if ids:
        # The piece is the text as typed, or all that the tokenizer makes of it.
        literal = tokenizer.token_id(text.removeprefix("##"))
        assert [*ids] == [literal] or [*ids] == tokenizer.encode([text]).ids.tolist()
        assert tokenizer.special.unk not in ids
    else:
        assert repr(text) in problems[0] or not text.strip()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.just("<mask>"), st.text(max_size=6)), max_size=9))
def test_every_mask_of_any_text_is_found_where_it_stands(small_graph, parts):
    text = "".join([*parts, "<mask>"])
    preprocess, graph = small_graph
    (masks,) = to_list(graph(preprocess([text])).columns["f_masks"])
    # A mask reads the same wherever it is looked for, so that finding is counting.
    starts = [place for place in range(len(text)) if text.startswith("<mask>", place)]
    assert [(mask["start"], mask["end"]) for mask in masks] == [(start, start + 6) for start in starts]


def test_all_wrong_options_are_named_at_once(checkpoint):
    with pytest.raises(TaskError) as error:
        resolve(checkpoint, targets="unquestionably new|a|", top_k=0)
    assert all(part in str(error.value) for part in ("'unquestionably new' is", "a target is empty", "top_k=0"))


@pytest.mark.parametrize("top_k", [0, -1, 1001, 10**9])
def test_a_top_k_that_cannot_be_is_refused(checkpoint, top_k):
    with pytest.raises(TaskError, match=f"top_k={top_k}, it must be from 1 to 1000"):
        resolve(checkpoint, top_k=top_k)


def test_no_more_answers_than_tokens(make_checkpoint, tmp_path):
    tokenizer = small_tokenizer(tmp_path, ["▁a"])
    directory = make_checkpoint("XLMRobertaForMaskedLM", vocab_size=tokenizer.vocab_size)
    (directory / "tokenizer.json").write_bytes((tmp_path / "tokenizer.json").read_bytes())
    assert len(masks_of(directory, ["a <mask>"], top_k=6)[0][0]["predictions"]) == 6
    with pytest.raises(TaskError, match="from 1 to 6"):
        resolve(directory, top_k=7)


def test_no_targets_are_refused(checkpoint):
    with pytest.raises(TaskError, match="no targets, at least one is needed"):
        resolve(checkpoint, targets=())


def test_a_head_of_another_task_is_refused(make_checkpoint):
    tagger = make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X"])
    with pytest.raises(TaskError, match="has no masked-lm head"):
        resolve(tagger)


def test_the_plan_stays_light(checkpoint):
    plan = resolve(checkpoint, targets="a")
    assert len(pickle.dumps(plan)) < 4000
    assert json.loads(json.dumps(plan.fingerprint()))["annotations"][0]["targets"] == list(
        plan.annotations[0].task.targets
    )


def test_equal_weights_with_other_tokenizers_keep_their_own_words(checkpoint, make_checkpoint):
    other = make_checkpoint("XLMRobertaForMaskedLM", seed=2)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    # The same ids under other names.
    for row in range(10, len(vocabulary)):
        if vocabulary[row][0].isalpha():
            vocabulary[row][0] += "\u0301"
    (other / "tokenizer.json").write_text(json.dumps(content))
    requests = [Request(name, str(path), {"top_k": 1000}) for name, path in (("one", checkpoint), ("two", other))]
    plan = GraphPlan.resolve(requests)
    columns = ModelGraph(plan)(Preprocessor(plan)(["<mask>"])).columns
    pieces = [{p["piece"] for p in to_list(columns[f"{name}_masks"])[0][0]["predictions"]} for name in ("one", "two")]
    assert not any(piece.endswith("\u0301") for piece in pieces[0])
    assert any(piece.endswith("\u0301") for piece in pieces[1])


def test_the_quick_way_in_gives_the_pipelines_answers(checkpoint, pipeline, words):
    from xlmr_core import pipeline as quick

    text, both = masked(words[0], 1), masked(words[1], 0, 2)
    ours = quick("fill-mask", str(checkpoint))
    assert_same(ours(text), pipeline(text))
    assert_same(ours(both, top_k=2), pipeline(both, top_k=2))


def test_dynamic_masking_hides_as_often_as_it_says():
    count, ordinary = 400_000, np.arange(5, 3000)
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 3000, size=count)
    special = rng.random(count) < 0.2
    hidden, targets = masked_lm.hide_tokens(ids, special, rng, mask=3000, replacements=ordinary)
    chosen = targets != -100
    assert not chosen[special].any()
    np.testing.assert_array_equal(hidden[~chosen], ids[~chosen])
    np.testing.assert_array_equal(targets[chosen], ids[chosen])
    shares = {
        chosen[~special].mean(): (0.15, (~special).sum()),
        (hidden == 3000)[chosen].mean(): (0.8, chosen.sum()),
        # One random token in 2,995 is the hidden one again.
        (hidden == ids)[chosen].mean(): (0.1 + 0.1 / 2995, chosen.sum()),
    }
    for share, (expected, size) in shares.items():
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / size)
    assert set(np.unique(hidden)) <= {*ordinary.tolist(), 3000}


def test_dynamic_masking_is_a_pure_function_of_its_generator():
    ids, special = np.arange(500), np.zeros(500, dtype=bool)

    def hide(seed):
        return masked_lm.hide_tokens(ids, special, np.random.default_rng(seed), mask=500, replacements=ids)

    np.testing.assert_array_equal(hide(1), hide(1))
    assert (hide(1)[1] != hide(2)[1]).any()
    np.testing.assert_array_equal(ids, np.arange(500))


def test_nothing_and_everything_can_be_hidden():
    ids, special = np.arange(50), np.arange(50) % 2 == 0
    for rate, expected in ((0.0, np.zeros(50, dtype=bool)), (1.0, ~special)):
        rng = np.random.default_rng(0)
        _, targets = masked_lm.hide_tokens(ids, special, rng, mask=99, replacements=ids, rate=rate)
        np.testing.assert_array_equal(targets != -100, expected)
    none = masked_lm.hide_tokens(ids[:0], special[:0], np.random.default_rng(0), mask=99, replacements=ids)
    assert [len(part) for part in none] == [0, 0]


def test_loss_and_gradients_equal_transformers(checkpoint):
    from xlmr_core.batch import Grid
    from xlmr_core.checkpoint import Checkpoint

    opened = Checkpoint.open(str(checkpoint))
    encoder, head = opened.load_encoder(), opened.load_head("masked-lm")
    model = transformers.AutoModelForMaskedLM.from_pretrained(checkpoint).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 2000, (4, 20), generator=generator)
    real = torch.arange(20) < torch.tensor([20, 7, 13, 2])[:, None]
    labels = torch.where(real & (torch.rand(4, 20, generator=generator) < 0.3), ids, -100)
    expected = model(ids, attention_mask=real.long(), labels=labels).loss
    packed = Grid.of(real).batch(ids, real.cumsum(1) + encoder.config.pad_token_id)
    loss, _ = masked_lm.losses(head, encoder(packed), labels[real])
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected.item()) < TOLERANCE
    loss.backward()
    expected.backward()
    ours, theirs = head.dense.weight.grad, model.lm_head.dense.weight.grad
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
