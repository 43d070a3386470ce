import pytest
import torch
import transformers

from xlmr_core.checkpoint.keys import (
    PREFIXES,
    all_head_file_names,
    encoder_file_names,
    find_prefix,
    head_file_names,
    modern_name,
)
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import MaskedLMHead, SequenceHead, TokenHead

SMALL = EncoderConfig(vocab_size=20, hidden_size=8, num_hidden_layers=11, num_attention_heads=2, intermediate_size=8)


def names_of(module, translate):
    return [part for name in module.state_dict() for part in translate(name)]


def test_the_table_covers_exactly_the_names_transformers_writes(random_model):
    with torch.device("meta"):
        encoder = Encoder(SMALL)
    written = {n for n in random_model("XLMRobertaModel", num_hidden_layers=11).state_dict() if "pooler" not in n}
    names = names_of(encoder, encoder_file_names)
    assert set(names) == written
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("kind", "module", "class_name"),
    [
        ("sequence-classification", SequenceHead, "XLMRobertaForSequenceClassification"),
        ("token-classification", TokenHead, "XLMRobertaForTokenClassification"),
        ("question-answering", TokenHead, "XLMRobertaForQuestionAnswering"),
        ("multiple-choice", SequenceHead, "XLMRobertaForMultipleChoice"),
        ("masked-lm", MaskedLMHead, "XLMRobertaForMaskedLM"),
    ],
)
def test_head_names_are_those_of_transformers(random_model, kind, module, class_name):
    inside = ("roberta.embeddings.", "roberta.encoder.")
    written = {name for name in random_model(class_name).state_dict() if not name.startswith(inside)}
    # One tensor under two names.
    written = {name.removeprefix("roberta.") for name in written} - {"lm_head.bias"}
    assert set(names_of(module(SMALL, 2), lambda name: head_file_names(kind, name))) == written
    assert set(all_head_file_names(kind)) == written


@pytest.mark.parametrize(
    ("kind", "class_name"),
    [
        ("sequence-classification", "BertForSequenceClassification"),
        ("token-classification", "BertForTokenClassification"),
        ("question-answering", "BertForQuestionAnswering"),
        ("multiple-choice", "BertForMultipleChoice"),
        ("masked-lm", "BertForMaskedLM"),
    ],
)
def test_head_names_of_bert_are_those_of_transformers(kind, class_name):
    with torch.device("meta"):
        model = getattr(transformers, class_name)(transformers.BertConfig(num_hidden_layers=1))
    written = {name.removeprefix("bert.") for name in model.state_dict()} - {"cls.predictions.bias"}
    heads = {name for name in written if not name.startswith(("embeddings.", "encoder."))}
    assert set(all_head_file_names(kind, "bert")) == heads


def test_query_key_and_value_are_stacked_in_this_order():
    assert encoder_file_names("encoder.layer.10.attention.self.qkv.bias") == tuple(
        f"encoder.layer.10.attention.self.{part}.bias" for part in ("query", "key", "value")
    )


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_prefix_of_the_majority_is_found(prefix):
    names = [f"{prefix}embeddings.word_embeddings.weight", f"{prefix}encoder.layer.0.output.dense.bias"]
    assert find_prefix([*names, "embeddings.stray", "classifier.weight"], source="x") == prefix


def test_a_file_of_another_family_is_refused_with_what_it_holds():
    with pytest.raises(CheckpointError, match=r"no XLM-R encoder \(first names: wte\.weight\)"):
        find_prefix(["wte.weight"], source="x")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a.LayerNorm.gamma", "a.LayerNorm.weight"),
        ("a.LayerNorm.beta", "a.LayerNorm.bias"),
        ("roberta.embeddings.position_ids", None),
        ("embeddings.token_type_ids", None),
        ("layerwise_attention.gamma", "layerwise_attention.gamma"),
    ],
)
def test_old_names_become_modern_ones(old, new):
    assert modern_name(old) == new
