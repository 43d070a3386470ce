import json
from dataclasses import replace

import pytest
import torch

from pipelines.finetune.evaluate import report_labels
from pipelines.finetune.loop import LoopSettings, train
from pipelines.finetune.losses import LanguageAndEmbedding, joint_loss
from pipelines.finetune.mini_card import render
from pipelines.finetune.mini_export import export_mini
from pipelines.finetune.mini_measure import Measures
from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint


@pytest.fixture
def exported(tmp_path, batches, config, tokenizer_json):
    """A tiny run's model directory, and the model."""
    config = replace(config, max_position_embeddings=40)
    model = LanguageAndEmbedding(config, 3)
    settings = LoopSettings(2, dtype=torch.float32)
    train(model, batches, joint_loss, settings, tmp_path / "encoder")
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    labels = batches.texts.labels
    export_mini(tmp_path, tmp_path / "model", config=config, labels=labels, max_length=24, training_data="abc")
    return tmp_path / "model", model.eval()


def test_the_exported_heads_compute_what_was_trained(exported):
    directory, model = exported
    language, embedding = Checkpoint.open(f"{directory}#language"), Checkpoint.open(f"{directory}#embedding")
    batch = PackedBatch.from_lists([[0, 7, 8, 2], [0, 9, 2]], first_position=2)
    expected = model.language(model.encoder(batch), batch)
    logits = language.load_head("sequence-classification")(language.load_encoder()(batch), batch)
    assert torch.allclose(logits, expected, atol=1e-2)
    assert language.config.id2label == ("aaa_Latn", "bbb_Latn", "eng_Latn")
    assert (language.max_length, embedding.max_length) == (24, 24)
    assert embedding.embedding.pooling.modes == ("mean",)
    assert embedding.embedding.normalize


def test_position_rows_that_were_never_trained_are_copies_of_the_last_one(exported):
    directory, _ = exported
    table = Checkpoint.open(str(directory)).load_encoder().embeddings.position_embeddings.weight
    assert (table[25:] == table[25]).all()
    assert not (table[24] == table[25]).all()


def test_transformers_opens_the_directory(exported):
    transformers = pytest.importorskip("transformers")
    directory, _ = exported
    model = transformers.AutoModel.from_pretrained(directory, add_pooling_layer=False)
    assert model.config.hidden_size == 16
    assert json.loads((directory / "xlmr.json").read_text())["training_data_sha256"] == "abc"


def test_the_card_has_a_figure_for_every_place():
    report = report_labels(["eng_Latn", "deu_Latn", "deu_Latn"], ["eng_Latn", "eng_Latn", "deu_Latn"])
    share = {"deu": 0.25}
    measures = Measures(report, report, report, {1: 0.5}, share, share)
    words = "{held_out} {held_out_macro}\n{short}\n{ntrex_table}\n{confusions}\n{weak}\n{language_table}"
    card = render(words, measures)
    assert card.startswith("66.7 % 75.0 %\n| 1 | 50.0 % |")
    assert "| deu | deu_Latn | 50.0 % | 25.0 % | 25.0 % |" in card
    assert "deu_Latn as eng_Latn 1 of 2" in card
    assert "{" not in card
