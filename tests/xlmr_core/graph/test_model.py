"""What the graph promises beyond parity: sharing, windows, independence of company, contained failures."""

import json
import shutil
import weakref

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmr_core.errors import CheckpointError, TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.columns import Labels, Lists, to_list

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def resolve(*requests, **options):
    return GraphPlan.resolve([Request.parse(text) for text in requests], **options)


def annotate(plan, texts):
    return ModelGraph(plan)(Preprocessor(plan)(texts))


@pytest.fixture(scope="module")
def classifier(make_checkpoint):
    return make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"], seed=1)


@pytest.fixture(scope="module")
def tagger(make_checkpoint):
    return make_checkpoint("XLMRobertaForTokenClassification", labels=BIO, seed=2)


def same(one, other):
    """Whether two results agree: everything discrete equal, scores within float32 rounding."""
    assert one.columns.keys() == other.columns.keys()
    np.testing.assert_array_equal(one.annotated, other.annotated)
    for name, column in one.columns.items():
        same_column(column, other.columns[name])


def same_column(column, other):
    if isinstance(column, np.ndarray):
        np.testing.assert_allclose(column, other, atol=1e-5)
    elif isinstance(column, Labels):
        assert to_list(column) == to_list(other)
    elif isinstance(column, Lists):
        np.testing.assert_array_equal(column.splits, other.splits)
        same_column(column.values, other.values)
    else:
        for name, values in column.fields.items():
            same_column(values, other.fields[name])


def test_annotations_with_equal_encoder_weights_share_one_pass(classifier, tmp_path):
    copy = shutil.copytree(classifier, tmp_path / "copy under another name")
    plan = resolve(
        f"one={classifier}",
        f"two={copy},max_length=32,scores=true",
        f"three={copy},task=embedding,pooling=mean",
    )
    assert len(plan.views) == 1
    graph = ModelGraph(plan)
    encoded = Preprocessor(plan)(["ein Satz", "ein anderer Satz"])
    calls = []
    for encoder in graph._encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    graph(encoded)
    assert len(graph._encoders) == len(calls) == 1


def test_another_encoder_is_another_pass(classifier, tagger):
    assert len({a.encoder_sha256 for a in resolve(f"one={classifier}", f"two={tagger}").annotations}) == 2


def test_results_do_not_depend_on_what_else_runs(classifier, tagger, sample_texts):
    texts = [text for text in sample_texts if text.strip()][::9]
    requests = [
        f"a={classifier},scores=true",
        f"b={classifier},task=embedding,pooling=mean,stride=7",
        f"t={tagger}",
    ]
    together = annotate(resolve(*requests), texts)
    for request in requests:
        alone = annotate(resolve(request), texts)
        for name, column in alone.columns.items():
            same_column(column, together.columns[name])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_record_says_the_same_alone_and_in_any_company(classifier, sample_texts, data):
    plan = resolve(f"a={classifier},scores=true")
    texts = data.draw(st.lists(st.sampled_from(sample_texts[::7]), min_size=1, max_size=12))
    together = annotate(plan, texts)
    alone = [annotate(plan, [text]) for text in texts]
    assert together.annotated.tolist() == [bool(one.annotated[0]) for one in alone]
    rows = [one.columns["a_scores"] for one in alone if one.annotated[0]]
    if rows:
        np.testing.assert_allclose(together.columns["a_scores"], np.concatenate(rows), atol=1e-5)


def test_long_texts_equal_brute_force_over_transformers_windows(classifier, sample_texts):
    import transformers

    texts = sorted(sample_texts, key=len)[-6:]
    result = annotate(resolve(f"a={classifier},scores=true,stride=10"), texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(classifier)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    for row, text in enumerate(texts):
        cut = tokenizer(text, truncation=True, max_length=64, stride=10, return_overflowing_tokens=True)
        with torch.inference_mode():
            logits = torch.stack([model(torch.tensor([ids])).logits[0] for ids in cut["input_ids"]])
        assert result.n_windows[row] == len(logits) > 1
        expected = logits.mean(0).softmax(-1).numpy()
        np.testing.assert_allclose(result.columns["a_scores"][row], expected, atol=1e-5)


def test_every_record_says_how_much_of_it_was_read(classifier):
    long, short = "wort " * 200, "ein Satz"
    texts = [short, long, "", " \n\t"]
    windowed = annotate(resolve(f"a={classifier}"), texts)
    assert windowed.status.tolist() == ["ok", "ok", "empty", "empty"]
    assert windowed.n_tokens_used.tolist() == windowed.n_tokens.tolist()
    assert windowed.n_tokens[2:].tolist() == [0, 0]
    assert windowed.n_windows[1] > 3
    cut = annotate(resolve(f"a={classifier}", on_long="truncate"), texts)
    assert cut.status.tolist() == ["ok", "truncated", "empty", "empty"]
    assert (cut.n_tokens_used[1], cut.n_windows[1]) == (64, 1)
    refused = annotate(resolve(f"a={classifier}", on_long="error"), texts)
    assert {row: error.code for row, error in refused.failed.items()} == {1: "too_long"}
    assert refused.annotated.tolist() == [True, False, False, False]


def test_a_record_that_raises_takes_no_other_with_it(classifier, sample_texts):
    plan = resolve(f"a={classifier},scores=true")
    texts = [text for text in sample_texts if text.strip()][:40]
    encoded = Preprocessor(plan)(texts)
    expected = ModelGraph(plan)(encoded)
    graph = ModelGraph(plan)
    poison = int(encoded.views[0].ids[encoded.views[0].splits[17]])
    holders = {
        row
        for row in range(len(texts))
        if poison in encoded.views[0].ids[encoded.views[0].splits[row] : encoded.views[0].splits[row + 1]]
    }

    def refuse(module, args):
        if poison in args[0].ids.tolist():
            raise RuntimeError("poison")

    graph._encoders[plan.annotations[0].encoder_sha256].register_forward_pre_hook(refuse)
    result = graph(encoded)
    assert set(result.failed) == holders
    assert {error.code for error in result.failed.values()} == {"model_error"}
    kept = np.array([row not in holders for row in range(len(texts))])
    np.testing.assert_allclose(result.columns["a_scores"], expected.columns["a_scores"][kept], atol=1e-5)


def test_a_number_that_is_none_fails_the_record_and_not_the_job(classifier):
    plan = resolve(f"a={classifier}")
    graph = ModelGraph(plan)
    encoded = Preprocessor(plan)(["gut", "schlecht"])
    bad = int(encoded.views[0].ids[0])
    graph._encoders[plan.annotations[0].encoder_sha256].embeddings.word_embeddings.weight[bad] = torch.nan
    result = graph(encoded)
    assert result.failed[0].code == "non_finite"
    assert 0 not in np.flatnonzero(result.annotated)


def test_all_problems_of_all_requests_are_reported_at_once(classifier, tagger, tmp_path):
    with pytest.raises(TaskError) as error:
        resolve(
            f"a={classifier},merg=max",
            f"a={tagger},labels=O|X",
            f"c={tmp_path}",
            f"d={classifier},max_length=4096",
        )
    message = str(error.value)
    for part in ("given twice", "did you mean 'merge'", "got 2 labels", str(tmp_path), "max_length=4096"):
        assert part in message


def test_an_encoder_without_pooling_is_refused_not_guessed(make_checkpoint):
    bare = make_checkpoint("XLMRobertaModel")
    with pytest.raises(TaskError, match="does not say"):
        resolve(f"v={bare}")
    with pytest.raises(TaskError, match="pooling=mean"):
        resolve(f"v={bare},task=embedding")


@pytest.mark.parametrize("texts", [[], ["", " "]], ids=["no records", "empty records"])
def test_nothing_to_annotate_is_no_special_case(classifier, tagger, texts):
    plan = resolve(f"a={classifier},scores=true", f"t={tagger}", f"v={tagger},task=embedding,pooling=mean|cls")
    result = annotate(plan, texts)
    assert result.annotated.tolist() == [False] * len(texts)
    assert result.columns["a_scores"].shape == (0, 3)
    assert result.columns["v"].shape == (0, 64)
    assert to_list(result.columns["t_entities"]) == []


def test_what_a_checkpoint_settles_is_part_of_the_fingerprint(make_checkpoint, classifier, tmp_path):
    """The same weights under another problem type write other columns: that is another job."""
    same_weights = shutil.copytree(classifier, tmp_path / "multi")
    config = json.loads((same_weights / "config.json").read_text())
    (same_weights / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    before, after = resolve(f"a={classifier}"), resolve(f"a={same_weights}")
    assert before.annotations[0].encoder_sha256 == after.annotations[0].encoder_sha256
    assert before.fingerprint() != after.fingerprint()
    assert before.fingerprint() == resolve(f"a={classifier}").fingerprint()


def test_a_plan_means_the_same_in_any_working_directory(classifier, monkeypatch):
    monkeypatch.chdir(classifier.parent)
    plan = resolve(f"a={classifier.name}")
    monkeypatch.chdir("/")
    assert annotate(plan, ["ein Satz"]).annotated.all()


def test_a_failed_batch_is_gone_from_memory_before_its_halves_run(classifier):
    """Halving answers a lack of memory only if what did not fit is let go."""
    plan = resolve(f"a={classifier}")
    graph = ModelGraph(plan)
    alive, most = [], []

    def fail_large(module, args, hidden):
        alive.append(weakref.ref(hidden))
        most.append(sum(ref() is not None for ref in alive))
        if len(args[0].lengths) > 1:
            raise torch.OutOfMemoryError("too much")

    graph._encoders[plan.annotations[0].encoder_sha256].register_forward_hook(fail_large)
    result = graph(Preprocessor(plan)([f"Satz Nummer {i}" for i in range(8)]))
    assert result.annotated.all()
    # The batch at work, and the one whose results are being collected.
    assert max(most) <= 2


def test_a_model_that_fails_every_record_ends_the_job(classifier):
    plan = resolve(f"a={classifier}")
    graph = ModelGraph(plan)
    graph._encoders[plan.annotations[0].encoder_sha256].embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="not one of 30 records"):
        graph(Preprocessor(plan)([f"Satz Nummer {i}" for i in range(30)]))


def test_every_packed_batch_gives_a_sign_of_life(classifier):
    plan = resolve(f"a={classifier}")
    beats = []
    graph = ModelGraph(plan, max_tokens=16)
    graph.forward(Preprocessor(plan)(["ein Satz von vielen"] * 9), on_batch=lambda: beats.append(1))
    assert len(beats) > 2


def test_a_comma_can_be_part_of_an_option():
    request = Request.parse(r"v=some/model,prompt=Given a query\, find: ,pooling=mean")
    assert request.options == {"prompt": "Given a query, find: ", "pooling": "mean"}


def test_pair_is_true_or_false_and_nothing_else(classifier):
    with pytest.raises(TaskError, match="pair='maybe', it must be true or false"):
        resolve(f"a={classifier},pair=maybe", pairs=True)


def test_blank_texts_are_empty_for_byte_level_tokenizers_too(classifier, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["ein Satz"], trainer)
    directory = shutil.copytree(classifier, tmp_path / "bytes")
    tokenizer.save(str(directory / "tokenizer.json"))
    assert annotate(resolve(f"a={directory}"), ["ein Satz", "   ", "\n"]).status.tolist() == ["ok", "empty", "empty"]


@pytest.mark.parametrize(
    ("request_text", "message"),
    [
        ("status={tagger},task=embedding,pooling=mean", "column 'status'"),
        ("a={classifier},labels=x|x|y", "names must differ"),
        ("a={classifier},threshold=0.3", "for multi label heads"),
        ("a={classifier},problem_type=multi_label_classification,threshold=nan", "from 0 to 1"),
    ],
)
def test_options_that_would_mislead_are_refused(classifier, tagger, request_text, message):
    with pytest.raises(TaskError, match=message):
        resolve(request_text.format(classifier=classifier, tagger=tagger))
