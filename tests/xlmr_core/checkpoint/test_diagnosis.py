"""The doctor says what a checkpoint is and from which file, and finds everything that is wrong, not only the first."""

import json

import pytest
import torch

from xlmr_core.checkpoint.diagnosis import diagnose


def found(diagnosis, topic, level="fact"):
    return [finding for finding in diagnosis.findings if (finding.topic, finding.level) == (topic, level)]


def said(diagnosis, topic, level="fact"):
    return " | ".join(finding.says for finding in found(diagnosis, topic, level))


@pytest.fixture
def sound(make_checkpoint):
    return make_checkpoint(
        "XLMRobertaForSequenceClassification",
        labels=["contradiction", "neutral", "entailment"],
        problem_type="single_label_classification",
    )


def test_a_sound_classifier_is_described_with_the_file_of_each_decision(sound):
    diagnosis = diagnose(str(sound))
    assert not diagnosis.errors
    assert diagnosis.is_model
    assert said(diagnosis, "family") == "xlm-roberta"
    assert "2 layers, width 32, 4 attention heads" in said(diagnosis, "shape")
    assert "begin at row 2" in said(diagnosis, "positions")
    assert said(diagnosis, "prefix") == "roberta."
    assert said(diagnosis, "stored type") == "41 tensors float32"
    assert "Unigram" in said(diagnosis, "tokenizer")
    assert "sequence-classification, 3 outputs; serves sequence-classification, zero-shot" in said(diagnosis, "head")
    assert said(diagnosis, "labels") == "3: contradiction, neutral, entailment"
    (task,), (limit,) = found(diagnosis, "task"), found(diagnosis, "length limit")
    assert (task.says, task.source) == ("sequence-classification", "config.json")
    assert limit.says.startswith(
        "64 tokens, the smallest of: 64 model_max_length in tokenizer_config.json, 64 positions"
    )
    assert len(said(diagnosis, "sha256 of the encoder")) == len(said(diagnosis, "sha256 of the head")) == 64
    assert json.loads(json.dumps(diagnosis.to_dict()))["sound"]


@pytest.mark.parametrize(
    ("class_name", "task", "head", "lm"),
    [
        ("XLMRobertaForMaskedLM", "fill-mask", "serves fill-mask, pseudo-perplexity", "tied to the word embeddings"),
        ("XLMRobertaForQuestionAnswering", "question-answering", "question-answering, 2 outputs", ""),
        ("XLMRobertaForMultipleChoice", "multiple-choice", "multiple-choice, 1 outputs", ""),
    ],
)
def test_every_head_is_named_with_what_it_serves(make_checkpoint, class_name, task, head, lm):
    diagnosis = diagnose(str(make_checkpoint(class_name)))
    assert said(diagnosis, "task") == task
    assert head in said(diagnosis, "head")
    assert said(diagnosis, "masked-LM head") == lm
    assert not diagnosis.errors


def test_a_masked_lm_head_with_a_matrix_of_its_own_is_told_from_a_copy(make_checkpoint, rewrite, edit_json):
    directory = make_checkpoint("XLMRobertaForMaskedLM")
    word = "roberta.embeddings.word_embeddings.weight"
    rewrite(directory, lambda tensors: tensors | {"lm_head.decoder.weight": tensors[word].clone()})
    assert said(diagnose(str(directory)), "masked-LM head").endswith("equal to the word embeddings")
    rewrite(directory, lambda tensors: tensors | {"lm_head.decoder.weight": tensors[word] + 1})
    assert "though tie_word_embeddings is not false" in said(diagnose(str(directory)), "masked-LM head", "warning")
    edit_json(directory / "config.json", tie_word_embeddings=False)
    assert said(diagnose(str(directory)), "masked-LM head") == "a matrix of its own"


def test_a_bare_encoder_asks_for_the_options_that_settle_it(make_checkpoint):
    diagnosis = diagnose(str(make_checkpoint("XLMRobertaModel")))
    (task,), (pooling,) = found(diagnosis, "task", "warning"), found(diagnosis, "pooling", "warning")
    assert task.settle == "pass task="
    assert "pooling=mean or pooling=cls" in pooling.settle
    assert "pooler.dense.weight" in said(diagnosis, "tensor", "ignored")
    assert not diagnosis.errors


def test_pooling_modules_and_prompts_are_told(make_checkpoint, edit_json):
    directory = make_checkpoint("XLMRobertaModel")
    edit_json(
        directory / "xlmr.json", task="embedding", pooling=["cls", "mean"], normalize=True, prompts={"query": "query: "}
    )
    diagnosis = diagnose(str(directory))
    assert said(diagnosis, "pooling") == "cls+mean, then unit length; prompt included; 64 values"
    assert said(diagnosis, "prompt") == "query: 'query: '"
    assert found(diagnosis, "pooling")[0].source == "xlmr.json"


def test_all_that_is_broken_is_found_in_one_go(sound, rewrite, edit_json):
    def damage(tensors):
        tensors["roberta.encoder.layer.0.output.dense.bias"] = torch.zeros(7)
        tensors["classifier.out_proj.bias"][0] = torch.nan
        return {name: tensor for name, tensor in tensors.items() if name != "classifier.dense.weight"}

    rewrite(sound, damage)
    edit_json(sound / "config.json", id2label={"0": "a", "2": "b"}, num_attention_heads=5)
    (sound / "tokenizer.json").write_text("{")
    (sound / "modules.json").write_text('[{"type": "custom.Evil"}]')
    diagnosis = diagnose(str(sound))
    everything = "\n".join(finding.says for finding in diagnosis.errors)
    for part in ("id2label has the ids", "num_attention_heads 5 must divide", "tokenizer.json", "custom.Evil", "NaN"):
        assert part in everything
    assert len({finding.says for finding in diagnosis.errors}) == len(diagnosis.errors)
    edit_json(sound / "config.json", id2label=..., num_attention_heads=4)
    (sound / "modules.json").unlink()
    everything = "\n".join(finding.says for finding in diagnose(str(sound)).errors)
    assert "output.dense.bias has the shape (7,), the config asks for (32,)" in everything


def test_an_announced_head_that_is_missing_is_an_error(sound, rewrite):
    rewrite(sound, lambda tensors: {k: t for k, t in tensors.items() if k != "classifier.dense.weight"})
    (error,) = diagnose(str(sound)).errors
    assert error.says == "classifier.dense.weight missing, sequence-classification needs them"


def test_a_tokenizer_of_another_checkpoint_is_an_error(sound, rewrite):
    word = "roberta.embeddings.word_embeddings.weight"
    rewrite(sound, lambda tensors: tensors | {word: tensors[word][:-1].clone()})
    assert "the embedding table has" in diagnose(str(sound)).errors[0].says


@pytest.mark.parametrize("kind", ["nowhere", "empty"])
def test_what_is_no_model_is_said_to_be_none(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    diagnosis = diagnose(str(tmp_path / kind))
    assert not diagnosis.is_model
    assert diagnosis.errors


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\x00", b'{"a": [', None])
def test_no_broken_file_breaks_the_doctor(sound, name, content):
    (sound / name).unlink()
    if content is not None:
        (sound / name).write_bytes(content)
    diagnosis = diagnose(str(sound))
    assert diagnosis.errors or (name, content) == ("tokenizer_config.json", None)
    assert json.dumps(diagnosis.to_dict())
