"""Configs: what is read, what is refused, and that writing loses nothing."""

import json

import pytest
import transformers

from xlmr_core.config import EncoderConfig
from xlmr_core.errors import CheckpointError

REAL = {
    "model_type": "xlm-roberta",
    "vocab_size": 250002,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def test_defaults_are_the_documented_ones():
    ours, theirs = EncoderConfig(), transformers.XLMRobertaConfig()
    for name in ("vocab_size", "hidden_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(("rows", "usable"), [(514, 512), (8194, 8192)])
def test_positions_before_the_first_are_not_usable(rows, usable):
    assert EncoderConfig.from_dict(REAL | {"max_position_embeddings": rows}).max_tokens == usable


def test_bert_uses_every_position():
    config = EncoderConfig.from_dict(REAL | {"model_type": "bert", "max_position_embeddings": 512})
    assert (config.first_position, config.max_tokens) == (0, 512)


def test_labels_are_put_in_order_of_their_ids():
    raw = REAL | {"id2label": {"10": "k", **{str(i): "abcdefghij"[i] for i in range(9, -1, -1)}}}
    assert "".join(EncoderConfig.from_dict(raw).id2label) == "abcdefghijk"


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ({"0": "a", "2": "c"}, "ids [0, 2]"),
        ({"0": "a", "1": "a"}, "repeats a name"),
        ({"zero": "a"}, "no"),
        (["a", "b"], "not a map"),
    ],
)
def test_labels_that_are_no_enumeration_are_refused(labels, complaint):
    with pytest.raises(CheckpointError, match="id2label") as error:
        EncoderConfig.from_dict(REAL | {"id2label": labels})
    assert complaint in str(error.value)


def test_all_problems_are_reported_at_once():
    bad = {
        "model_type": "gpt2",
        "hidden_size": "768",
        "num_hidden_layers": -1,
        "pad_token_id": "1",
        "layer_norm_eps": 0,
        "hidden_dropout_prob": "0.1",
        "classifier_dropout": 2,
        "hidden_act": "mish",
        "problem_type": "ranking",
        "position_embedding_type": "relative_key",
        "is_decoder": "yes",
        "architectures": "XLMRobertaModel",
    }
    with pytest.raises(CheckpointError) as error:
        EncoderConfig.from_dict(REAL | bad, source="x/config.json")
    assert "x/config.json" in str(error.value)
    for name in bad:
        assert name in str(error.value)


@pytest.mark.parametrize("model_type", ["xlm", "xlm-roberta-xl", "xlm-roberta-flash", "mpnet", "modernbert"])
def test_other_families_are_refused_by_name(model_type):
    with pytest.raises(CheckpointError, match=f"model_type '{model_type}', this encoder runs xlm-roberta"):
        EncoderConfig.from_dict(REAL | {"model_type": model_type})


def test_heads_must_divide_the_width():
    with pytest.raises(CheckpointError, match="hidden_size 768, num_attention_heads 7 must divide it"):
        EncoderConfig.from_dict(REAL | {"num_attention_heads": 7})


def test_too_few_positions_are_refused():
    with pytest.raises(CheckpointError, match="leaves 3 tokens"):
        EncoderConfig.from_dict(REAL | {"max_position_embeddings": 5})


def test_writing_keeps_what_it_does_not_know(tmp_path):
    raw = REAL | {"id2label": {"0": "no", "1": "yes"}, "transformers_version": "4.1", "custom": {"a": [1]}}
    config = EncoderConfig.from_dict(raw)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert EncoderConfig.from_file(tmp_path / "config.json") == config
    assert config.to_dict()["custom"] == {"a": [1]}
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.id2label == {0: "no", 1: "yes"}
    assert theirs.hidden_size == 768


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        EncoderConfig.from_file(tmp_path / "config.json")


def test_a_missing_or_endless_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        EncoderConfig.from_file(tmp_path / "config.json")
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(CheckpointError, match="bytes"):
        EncoderConfig.from_file(tmp_path / "config.json")
