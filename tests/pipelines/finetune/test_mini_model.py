import json

import pytest
import torch
from safetensors.torch import load_file

from pipelines.config import load_config
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.mini import HEADS, PRETRAIN, write_configs
from pipelines.finetune.mini_model import CONFIG, MAX_LENGTH, install, write_fresh
from pipelines.finetune.mini_tokenizer import train_tokenizer
from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.heads import SequenceHead, pool


@pytest.fixture(scope="module")
def start(sample_texts, tmp_path_factory):
    """A model of chance with a small vocabulary."""
    tokenizer = train_tokenizer(
        sample_texts, ["a"] * len(sample_texts), vocab_size=3_000, alpha=0.5, sample_chars=80_000, seed=0
    )
    directory = tmp_path_factory.mktemp("mini") / "start"
    write_fresh(directory, tokenizer, settings={"max_length": MAX_LENGTH})
    return directory


@pytest.fixture(scope="module")
def installed(start, tmp_path_factory):
    """As `xlmr finetune` leaves it, and installed."""
    folder = tmp_path_factory.mktemp("installed")
    encoder = Checkpoint.open(str(start)).load_encoder()
    head = TrainedHead(SequenceHead(encoder.config, 2), ("deu_Latn", "eng_Latn"), "single_label_classification")
    write_model_directory(folder / "trained", encoder, tokenizer=start, heads={"language": head})
    install(folder / "trained", folder / "mini", settings={"max_length": MAX_LENGTH, "training_data_sha256": "abc"})
    return folder / "mini", encoder, head.module


def test_a_start_is_an_ordinary_model_directory_and_always_the_same(start, sample_texts, tmp_path):
    checkpoint = Checkpoint.open(str(start))
    assert checkpoint.max_length == MAX_LENGTH
    assert checkpoint.config.vocab_size < CONFIG.vocab_size
    tokenizer = train_tokenizer(
        sample_texts, ["a"] * len(sample_texts), vocab_size=3_000, alpha=0.5, sample_chars=80_000, seed=0
    )
    write_fresh(tmp_path / "again", tokenizer, settings={})
    assert Checkpoint.open(str(tmp_path / "again")).encoder_sha256() == checkpoint.encoder_sha256()


def test_at_the_start_a_text_is_the_mean_of_its_tokens(start):
    encoder = Checkpoint.open(str(start)).load_encoder()
    batch = PackedBatch.from_lists([[0, *range(10, 30), 2], [0, *range(50, 70), 2]], first_position=2)
    read = encoder(batch)[batch.starts]
    mean = pool(encoder.embeddings(batch), batch, ("mean",))
    assert torch.cosine_similarity(read[0] - read[1], mean[0] - mean[1], dim=0) > 0.8


def test_installed_heads_compute_what_was_trained(installed):
    directory, encoder, head = installed
    found = Checkpoint.open(f"{directory}#language")
    batch = PackedBatch.from_lists([[0, 7, 8, 2], [0, 9, 2]], first_position=2)
    expected = head.eval()(encoder(batch), batch)
    # Weights were rounded to float16.
    logits = found.load_head("sequence-classification")(found.load_encoder()(batch), batch)
    assert torch.allclose(logits, expected, atol=1e-2)
    assert found.config.id2label == ("deu_Latn", "eng_Latn")
    assert found.max_length == MAX_LENGTH


def test_installed_weights_take_two_bytes_each(installed):
    directory, _, _ = installed
    files = sorted(directory.rglob("*.safetensors"))
    assert len(files) == 2
    assert {value.dtype for path in files for value in load_file(path).values()} == {torch.float16}
    assert json.loads((directory / "config.json").read_text())["dtype"] == "float16"
    assert json.loads((directory / "xlmr.json").read_text())["training_data_sha256"] == "abc"


def test_position_rows_that_were_never_trained_are_copies_of_the_last_one(installed):
    directory, _, _ = installed
    table = Checkpoint.open(str(directory)).load_encoder().embeddings.position_embeddings.weight
    last = MAX_LENGTH + 1
    assert (table[last:] == table[last]).all()
    assert not (table[last - 1] == table[last]).all()


def test_transformers_opens_the_directory(installed):
    transformers = pytest.importorskip("transformers")
    directory, _, _ = installed
    model = transformers.AutoModel.from_pretrained(directory, add_pooling_layer=False)
    assert model.config.hidden_size == CONFIG.hidden_size


def test_the_configs_are_what_the_two_commands_take(tmp_path):
    write_configs(tmp_path)
    first, second = (load_config(FinetuneConfig, file=tmp_path / name) for name in (PRETRAIN, HEADS))
    assert first.goals["task"].task == "fill-mask"
    assert list(second.goals) == ["language", "topic", "pos", "entities", "embedding"]
    assert second.model.path == f"{first.output.path}/model"
