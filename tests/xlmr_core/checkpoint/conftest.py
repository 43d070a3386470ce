"""Model directories to change and to open."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint


@pytest.fixture
def saved(random_model, tmp_path):
    """Makes `saved("XLMRobertaModel", ...)`: the directory in which transformers saved a random model."""

    def make(class_name="XLMRobertaModel", name="model", **changes):
        random_model(class_name, **changes).save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def rewrite():
    """Makes `rewrite(directory, change)`: replaces the tensors of a directory by what `change` makes of them."""

    def make(directory, change):
        save_file(change(load_file(directory / "model.safetensors")), directory / "model.safetensors")
        return directory

    return make


@pytest.fixture
def edit_json():
    """Makes `edit_json(path, key=value)`: sets keys of a JSON file, which need not exist; `...` removes one."""

    def make(path, **changes):
        content = json.loads(path.read_text()) if path.exists() else {}
        content = {key: value for key, value in (content | changes).items() if value is not ...}
        path.write_text(json.dumps(content))

    return make


@pytest.fixture
def hidden_of(texts_of):
    """Makes `hidden_of(directory)`: hidden states of three fixed texts."""

    @torch.inference_mode()
    def make(directory):
        encoder = Checkpoint.open(str(directory)).load_encoder()
        return encoder(PackedBatch.from_lists(texts_of([3, 9, 30]), first_position=encoder.config.first_position))

    return make
