"""Random models of `transformers`, the reference of every parity test."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

TINY = {
    "vocab_size": 120,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}

TESTS = Path(__file__).parents[1]


@pytest.fixture
def random_model():
    """Makes `random_model("XLMRobertaModel", num_labels=3, ...)`; every parameter is random, biases and norms too."""

    def make(class_name: str, seed: int = 0, **changes):
        torch.manual_seed(seed)
        config = transformers.XLMRobertaConfig(**{**TINY, **changes})
        model = getattr(transformers, class_name)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return model

    return make


@pytest.fixture
def texts_of():
    """Makes `texts_of([3, 7])`: one list of random ids for each length, with `<s>` and `</s>` where there is room."""

    def make(lengths, vocab_size: int = 120, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        return [
            [0, *torch.randint(3, vocab_size, (length - 2,), generator=generator).tolist(), 2][:length]
            if length > 1
            else [0]
            for length in lengths
        ]

    return make


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """What transformers 4.56.2 answered; `make oracle` writes it."""
    content: dict[str, Any] = json.loads((TESTS / "golden/question_answering.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="session")
def oracle_module() -> Callable[[str], ModuleType]:
    """Loads a file of the oracle that runs here too, `oracle_module("checkpoint")`; by path: tests are no package."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"oracle_{name}", TESTS / f"oracle/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def oracles(
    golden: dict[str, Any], oracle_module: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The checkpoints of the golden file, by name."""
    module = oracle_module("checkpoint")
    made = {}
    for name, arguments in golden["checkpoints"].items():
        arguments = {key: value for key, value in arguments.items() if key != "sha256"}
        made[name] = module.write_checkpoint(tmp_path_factory.mktemp("oracle"), **arguments)
    return made
