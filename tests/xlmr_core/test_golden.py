"""The golden files speak of checkpoints and a tokenizer that are here byte for byte; else `make oracle` is due."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parents[1]
GOLDEN = json.loads((TESTS / "golden/question_answering.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def oracle_checkpoint(oracle_module: Callable[[str], ModuleType]) -> ModuleType:
    """The writer that the oracle ran."""
    return oracle_module("checkpoint")


@pytest.mark.parametrize("name", GOLDEN["checkpoints"])
def test_the_weights_are_those_of_the_golden_file(name, oracle_checkpoint, tmp_path):
    arguments = dict(GOLDEN["checkpoints"][name])
    expected = arguments.pop("sha256")
    directory = oracle_checkpoint.write_checkpoint(tmp_path / "model", **arguments)
    assert oracle_checkpoint.file_sha256(directory / "model.safetensors") == expected


def test_the_tokenizer_is_that_of_the_golden_file(oracle_checkpoint, tmp_path):
    arguments = {"architecture": "XLMRobertaModel", "seed": 0, "max_positions": 66}
    directory = oracle_checkpoint.write_checkpoint(tmp_path / "model", **arguments)
    assert oracle_checkpoint.file_sha256(directory / "tokenizer.json") == GOLDEN["made_with"]["tokenizer_sha256"]


@pytest.mark.parametrize(
    "architecture",
    [
        "XLMRobertaModel",
        *(
            f"XLMRobertaFor{task}"
            for task in (
                "MaskedLM",
                "SequenceClassification",
                "TokenClassification",
                "QuestionAnswering",
                "MultipleChoice",
            )
        ),
    ],
)
def test_every_architecture_is_complete(architecture, oracle_checkpoint, tmp_path):
    import transformers

    directory = oracle_checkpoint.write_checkpoint(tmp_path, architecture, 0, 66)
    model, report = getattr(transformers, architecture).from_pretrained(directory, output_loading_info=True)
    assert not any(report.values()), report
    assert model.config.max_position_embeddings == 66


def test_other_seeds_give_other_weights(oracle_checkpoint, tmp_path):
    first, second = (
        oracle_checkpoint.write_checkpoint(tmp_path / str(seed), "XLMRobertaModel", seed, 66) for seed in (0, 1)
    )
    hashes = {oracle_checkpoint.file_sha256(directory / "model.safetensors") for directory in (first, second)}
    assert len(hashes) == 2


def test_golden_cases_cannot_be_turned_by_rounding():
    cases = GOLDEN["question_answering"]
    assert len(cases) >= 60
    assert len({case["language"] for case in cases}) >= 15
    for case in cases:
        scores = [answer["score"] for answer in case["answers"]]
        assert min([high - low for high, low in itertools.pairwise(scores)], default=1) > 1e-4
