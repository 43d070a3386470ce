"""Documented models beside those of transformers with the same random weights."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

import xlmr_core
from xlmr_core.models import PreTrainedModel

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
SHAPE = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    # Wide enough that every part has a say in the result.
    "initializer_range": 0.2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

Pair = tuple[PreTrainedModel, transformers.PreTrainedModel]


@pytest.fixture(scope="session")
def pair_of() -> Callable[..., Pair]:
    """Ours and theirs: `pair_of("XLMRobertaForMaskedLM", num_hidden_layers=1)`, in evaluation mode."""

    def make(name: str, **settings: object) -> Pair:
        values = SHAPE | ({"is_decoder": True} if name.endswith("CausalLM") else {}) | settings
        family = "XLMRoberta" if name.startswith("XLM") else "Roberta"
        torch.manual_seed(0)
        theirs = getattr(transformers, name)(getattr(transformers, f"{family}Config")(**values)).eval()
        ours = getattr(xlmr_core, name)(getattr(xlmr_core, f"{family}Config")(**values)).eval()
        ours.load_state_dict(theirs.state_dict())
        return ours, theirs

    return make


@pytest.fixture
def theirs(pair_of, tmp_path: Path) -> Callable[..., Path]:
    """A directory written by transformers: `theirs("XLMRobertaForMaskedLM", num_labels=3)`."""

    def make(name: str, **settings: object) -> Path:
        directory = tmp_path / "theirs"
        pair_of(name, **settings)[1].save_pretrained(directory)
        return directory

    return make


@pytest.fixture(autouse=True)
def _quiet_about_padding_on_the_left() -> None:
    """Tests of numbers pad on both sides; that the warning comes is a test of its own."""
    warnings.filterwarnings("ignore", message="attention_mask is 0 in the first column")
