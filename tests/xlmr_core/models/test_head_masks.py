"""Head masks against transformers 4.56.2, the last with them (tests/golden), on checkpoints with the same bytes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import xlmr_core
from xlmr_core.checkpoint.keys import encoder_file_names
from xlmr_core.errors import ArgumentError
from xlmr_core.models import PreTrainedModel

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/head_masks.json").read_text(encoding="utf-8"))
# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4

Json = dict[str, Any]


@pytest.fixture(scope="module")
def models(
    oracle_module: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PreTrainedModel]:
    """The models of the golden file by class, of the very weights that it speaks of."""
    writer = oracle_module("checkpoint")
    made = {}
    for name, arguments in GOLDEN["checkpoints"].items():
        wanted = {key: value for key, value in arguments.items() if key != "sha256"}
        directory = writer.write_checkpoint(tmp_path_factory.mktemp("oracle"), **wanted)
        assert writer.file_sha256(directory / "model.safetensors") == arguments["sha256"]
        made[name] = getattr(xlmr_core, name).from_pretrained(directory)
    return made


def gradients_by_file_name(model: PreTrainedModel) -> dict[str, Tensor]:
    """Gradients under the names that parameters have in files, where query, key and value are three."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            names = encoder_file_names(name)
            found |= dict(zip(names, parameter.grad.chunk(len(names)), strict=True))
    return found


def numbers(value: Any) -> Iterator[float]:
    """Every number of nested lists and dicts, in order."""
    if isinstance(value, float | int):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)


def description(case: Json) -> str:
    shape = "layers-heads" if isinstance(case["head_mask"][0], list) else "heads"
    padded = "whole" if all(map(all, case["inputs"]["attention_mask"])) else "padded"
    return f"{case['class']}-{shape}-{padded}" + ("" if case["output_attentions"] else "-without-attentions")


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=description)
def test_a_head_mask_does_what_it_did_in_transformers(
    case: Json, models: dict[str, PreTrainedModel], oracle_module: Callable[[str], ModuleType]
) -> None:
    observation = oracle_module("observation")
    model = models[case["class"]]
    output, importance = observation.call_model(model, case)
    gradients = gradients_by_file_name(model) | {"head_mask": importance}
    wanted = {name: gradients[name] for name in case["gradients"]}
    found = observation.observe(output, torch.tensor(case["inputs"]["attention_mask"]), wanted)
    assert len(found["attentions"]) == (2 if case["output_attentions"] else 0)
    for key, tolerance in (
        ("loss", TOLERANCE),
        ("outputs", TOLERANCE),
        ("attentions", TOLERANCE),
        ("gradients", GRADIENT_TOLERANCE),
    ):
        ours, theirs = torch.tensor(list(numbers([found[key]]))), torch.tensor(list(numbers([case[key]])))
        assert ours.numpy() == pytest.approx(theirs.numpy(), rel=0, abs=tolerance), key
    for name, summary in case["gradients"].items():
        # The same places: the largest entries by far, so rounding does not exchange them.
        assert found["gradients"][name]["largest"].keys() == summary["largest"].keys(), name


def test_the_golden_cases_depend_on_the_mask(models: dict[str, PreTrainedModel]) -> None:
    for name, model in models.items():
        case = next(case for case in GOLDEN["cases"] if case["class"] == name)
        inputs = {key: torch.tensor(value) for key, value in case["inputs"].items()}
        masked = model(**inputs, head_mask=torch.tensor(case["head_mask"]))
        assert (model(**inputs).to_tuple()[0] - masked.to_tuple()[0]).abs().max() > 100 * TOLERANCE, name


@pytest.mark.parametrize("shape", [(4,), (2, 4)])
def test_a_mask_of_ones_changes_nothing(shape: tuple[int, ...], models: dict[str, PreTrainedModel]) -> None:
    case = next(case for case in GOLDEN["cases"] if not all(map(all, case["inputs"]["attention_mask"])))
    inputs = {key: torch.tensor(value) for key, value in case["inputs"].items()}
    real = inputs["attention_mask"].bool()
    plain = models[case["class"]](**inputs)
    masked = models[case["class"]](**inputs, head_mask=torch.ones(shape))
    torch.testing.assert_close(masked[0][real], plain[0][real], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(), (3,), (4, 2), (2, 3), (1, 4)])
def test_a_mask_that_does_not_fit_the_heads_is_refused(
    shape: tuple[int, ...], models: dict[str, PreTrainedModel]
) -> None:
    ids = torch.tensor([[0, 5, 2]])
    with pytest.raises(ArgumentError, match=r"head_mask of shape .*\(4,\) \(heads\) or \(2, 4\)"):
        models["XLMRobertaModel"](ids, head_mask=torch.ones(shape))
