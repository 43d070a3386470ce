"""What a checkpoint says about itself, and that it never loads less than it promises."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import fields

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import PREFIXES, encoder_file_names
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError


def renamed(rename):
    return lambda tensors: {rename(name): value for name, value in tensors.items()}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_gives_the_same_hidden_states_and_hash(saved, rewrite, hidden_of, prefix):
    directory = saved()
    expected, digest = hidden_of(directory), Checkpoint.open(str(directory)).encoder_sha256()
    rewrite(directory, renamed(lambda name: prefix + name))
    assert torch.equal(hidden_of(directory), expected)
    checkpoint = Checkpoint.open(str(directory))
    assert checkpoint.encoder_sha256() == digest
    assert checkpoint.report.prefix == prefix


def test_heads_nobody_asked_for_are_ignored_and_listed(saved, edit_json):
    directory = saved("XLMRobertaForMaskedLM")
    edit_json(directory / "xlmr.json", task="embedding", pooling="mean")
    checkpoint = Checkpoint.open(str(directory))
    assert "lm_head.dense.weight" in checkpoint.report.ignored
    assert not set(checkpoint.report.read) & set(checkpoint.report.ignored)


HEAD_KEYS = {
    "sequence-classification": "classifier.out_proj.weight",
    "token-classification": "classifier.weight",
    "masked-lm": "lm_head.dense.weight",
    "question-answering": "qa_outputs.weight",
    "multiple-choice": "classifier.weight",
    "sparse": "sparse_linear.weight",
    "multi-vector": "colbert_linear.weight",
}


@pytest.mark.parametrize(("kind", "key"), HEAD_KEYS.items())
@pytest.mark.parametrize("method", ["load_head", "num_outputs", "head_sha256"])
def test_a_missing_head_is_an_error_that_names_its_key(saved, method, kind, key):
    checkpoint = Checkpoint.open(str(saved()))
    with pytest.raises(CheckpointError, match=rf"has no {kind} head, .*{key}.* missing; choose a checkpoint"):
        getattr(checkpoint, method)(kind)


@pytest.mark.parametrize(
    ("class_name", "task", "key"),
    [
        ("XLMRobertaForMaskedLM", "fill-mask", "lm_head.bias"),
        ("XLMRobertaForQuestionAnswering", "question-answering", "qa_outputs.weight"),
        ("XLMRobertaForMultipleChoice", "multiple-choice", "pooler.dense.weight"),
    ],
)
def test_the_class_a_checkpoint_was_saved_from_says_its_task(saved, class_name, task, key):
    checkpoint = Checkpoint.open(str(saved(class_name)))
    assert checkpoint.task == task
    assert key in checkpoint.report.read
    assert not checkpoint.report.ignored
    assert not checkpoint.report.warnings


def test_an_announced_head_that_is_not_there_is_a_warning_and_the_encoder_still_opens(saved, rewrite):
    directory = saved("XLMRobertaForSequenceClassification", num_labels=3)
    rewrite(directory, lambda tensors: {k: v for k, v in tensors.items() if "classifier" not in k})
    checkpoint = Checkpoint.open(str(directory))
    assert "classifier.out_proj.bias is missing; only its encoder can be used" in checkpoint.report.warnings[0]
    assert checkpoint.load_encoder().config.hidden_size == 48


def test_a_head_without_its_bias_is_never_made_up(saved, rewrite):
    directory = saved("XLMRobertaForSequenceClassification", num_labels=3)
    rewrite(directory, lambda tensors: {k: v for k, v in tensors.items() if k != "classifier.dense.bias"})
    with pytest.raises(CheckpointError, match=r"classifier\.dense\.bias is missing"):
        Checkpoint.open(str(directory)).load_head("sequence-classification")


def test_missing_misshapen_and_unused_are_reported_in_one_error(saved, rewrite):
    def damage(tensors):
        tensors["encoder.layer.0.output.dense.bias"] = torch.zeros(7)
        tensors["encoder.layer.2.output.dense.bias"] = torch.zeros(48)
        del tensors["encoder.layer.1.attention.self.key.weight"], tensors["embeddings.LayerNorm.weight"]
        return tensors

    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(str(rewrite(saved(), damage)))
    for line in (
        "encoder.layer.1.attention.self.key.weight is missing",
        "embeddings.LayerNorm.weight is missing",
        "encoder.layer.0.output.dense.bias has the shape (7,), the config asks for (48,)",
        "encoder.layer.2.output.dense.bias is in the file, the config leaves no place for it",
    ):
        assert line in str(error.value)


def test_the_vocabulary_is_as_large_as_its_table(saved, edit_json):
    directory = saved()
    edit_json(directory / "config.json", vocab_size=100)
    checkpoint = Checkpoint.open(str(directory))
    assert checkpoint.config.vocab_size == checkpoint.load_encoder().embeddings.word_embeddings.num_embeddings == 120
    assert any("vocab_size 100" in warning for warning in checkpoint.report.warnings)


def test_without_architectures_the_caller_says_the_task(saved, edit_json):
    directory = saved("XLMRobertaForTokenClassification", num_labels=5)
    edit_json(directory / "config.json", architectures=...)
    checkpoint = Checkpoint.open(str(directory))
    assert checkpoint.task is None
    assert (
        checkpoint.load_head("token-classification").classifier.out_features
        == checkpoint.num_outputs("token-classification")
        == 5
    )


@pytest.mark.parametrize(
    ("tokenizer", "sentence", "own", "expected"),
    [
        (None, ..., None, 512),
        (1e30, ..., None, 512),
        (514, ..., None, 512),
        (256, ..., None, 256),
        (1e30, None, None, 512),
        (512, 128, None, 128),
        (512, 128, 64, 64),
    ],
)
def test_the_longest_window_is_the_smallest_stated_limit(saved, edit_json, tokenizer, sentence, own, expected):
    directory = saved()
    edit_json(directory / "tokenizer_config.json", **({"model_max_length": tokenizer} if tokenizer else {}))
    if sentence is not ...:
        edit_json(directory / "sentence_xlm-roberta_config.json", max_seq_length=sentence, do_lower_case=False)
    if own:
        edit_json(directory / "xlmr.json", max_length=own)
    assert Checkpoint.open(str(directory)).max_length == expected


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ({"0": "neg", "1": "neutral", "2": "pos"}, None),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "no real names"),
        (..., "no real names"),
        ({"0": "neg", "1": "pos"}, "id2label has 2 names, the head has 3 outputs"),
    ],
)
def test_labels_are_complete_or_warned_about(saved, edit_json, labels, warning):
    directory = saved("XLMRobertaForSequenceClassification", num_labels=3)
    edit_json(directory / "config.json", id2label=labels, label2id=...)
    warnings = Checkpoint.open(str(directory)).report.warnings
    assert (warning is None and not warnings) or warning in warnings[0]


def test_label_ids_with_gaps_are_refused(saved, edit_json):
    directory = saved("XLMRobertaForSequenceClassification", num_labels=3)
    edit_json(directory / "config.json", id2label={"0": "a", "2": "c"})
    with pytest.raises(CheckpointError, match="id2label"):
        Checkpoint.open(str(directory))


@pytest.mark.parametrize("value", ["summarisation", 3])
def test_an_unknown_task_is_refused(saved, edit_json, value):
    directory = saved()
    edit_json(directory / "xlmr.json", task=value)
    with pytest.raises(CheckpointError, match="known are sequence-classification"):
        Checkpoint.open(str(directory))


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("config.json", {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}),
        ("config.json", {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.linear.Identity"}),
    ],
)
def test_a_cross_encoders_activation_is_kept_under_one_name(saved, edit_json, where, keys):
    directory = saved("XLMRobertaForSequenceClassification", num_labels=1)
    edit_json(directory / where, **keys)
    checkpoint = Checkpoint.open(str(directory))
    assert checkpoint.task == "sequence-classification"
    assert checkpoint.settings["activation_fn"] == "Identity"


def test_the_encoders_hash_follows_what_is_computed(saved, rewrite, edit_json):
    def digest():
        return Checkpoint.open(str(directory)).encoder_sha256()

    directory = saved("XLMRobertaForSequenceClassification", num_labels=3)
    first = digest()
    edit_json(directory / "config.json", id2label={"0": "a", "1": "b", "2": "c"}, hidden_dropout_prob=0.3)
    rewrite(directory, lambda tensors: tensors | {"classifier.dense.bias": torch.ones(48)})
    assert digest() == first
    edit_json(directory / "config.json", num_attention_heads=8)
    assert digest() != first
    edit_json(directory / "config.json", num_attention_heads=4)
    rewrite(directory, lambda tensors: tensors | {"roberta.embeddings.LayerNorm.bias": torch.ones(48)})
    assert digest() != first


def test_a_heads_hash_is_its_own(saved, rewrite):
    def digest():
        return Checkpoint.open(str(directory)).head_sha256("sequence-classification")

    directory = saved("XLMRobertaForSequenceClassification", num_labels=3)
    first = digest()
    rewrite(directory, lambda tensors: tensors | {"roberta.embeddings.LayerNorm.bias": torch.ones(48)})
    assert digest() == first
    rewrite(directory, lambda tensors: tensors | {"classifier.dense.bias": torch.ones(48)})
    assert digest() != first
    with pytest.raises(CheckpointError, match="token-classification"):
        Checkpoint.open(str(directory)).head_sha256("token-classification")


def test_the_hash_of_a_masked_lm_head_covers_the_table_it_projects_with(saved, rewrite):
    def digest():
        return Checkpoint.open(str(directory)).head_sha256("masked-lm")

    directory = saved("XLMRobertaForMaskedLM")
    word = "roberta.embeddings.word_embeddings.weight"
    first = digest()
    rewrite(directory, lambda tensors: tensors | {"lm_head.decoder.weight": tensors[word].clone()})
    assert digest() == first
    rewrite(directory, lambda tensors: tensors | {"lm_head.decoder.weight": tensors[word] + 1})
    assert digest() != first
    rewrite(directory, lambda tensors: tensors | {word: torch.zeros(120, 48)})
    second = digest()
    rewrite(directory, lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.decoder.weight"})
    assert len({first, second, digest()}) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(["config.json", "xlmr.json", "tokenizer_config.json"]), data=st.data(), value=JSON)
def test_no_value_in_a_settings_file_raises_anything_but_our_own_error(classifier, edit_json, file, data, value):
    names = [f.name for f in fields(EncoderConfig)]
    other = ["task", "pooling", "max_length", "prompts", "truncate_dim", "model_max_length", "sentence_transformers"]
    path = classifier / file
    before = path.read_bytes() if path.exists() else b"{}"
    edit_json(path, **{data.draw(st.sampled_from(names if file == "config.json" else other)): value})
    with suppress(CheckpointError):
        Checkpoint.open(str(classifier)).load_head("sequence-classification")
    path.write_bytes(before)


@pytest.fixture
def classifier(saved):
    return saved("XLMRobertaForSequenceClassification", num_labels=3)


LOAD = """
import resource, sys, time
from xlmr_core.checkpoint import Checkpoint
start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encoder = Checkpoint.open(sys.argv[1]).load_encoder()
touched = sum(float(p.sum()) for p in encoder.parameters())
print(time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_base_checkpoint_loads_in_seconds_and_about_once(tmp_path, edit_json):
    edit_json(
        tmp_path / "config.json",
        model_type="xlm-roberta",
        vocab_size=250002,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    with torch.device("meta"):
        encoder = Encoder(EncoderConfig.from_file(tmp_path / "config.json"))
    tensors = {
        part: torch.zeros(value.shape[0] // len(encoder_file_names(name)), *value.shape[1:])
        for name, value in encoder.state_dict().items()
        for part in encoder_file_names(name)
    }
    save_file(tensors, tmp_path / "model.safetensors")
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, done.stdout.split())
    assert seconds < 10
    assert gigabytes < 2.2
