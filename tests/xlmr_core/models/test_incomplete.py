"""Checkpoints that lack something or do not fit: what is initialised with a warning, and what is refused."""

import json
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import xlmr_core
from xlmr_core import pipeline
from xlmr_core.errors import ArgumentError, CheckpointError, XLMRError

HEADS = (
    *("Model", "ForMaskedLM", "ForCausalLM", "ForSequenceClassification", "ForMultipleChoice"),
    *("ForTokenClassification", "ForQuestionAnswering"),
)
IDS = torch.tensor([[0, 5, 80, 33, 2], [0, 7, 2, 1, 1]])
CLASSIFIER = "XLMRobertaForSequenceClassification"

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def open_ours(name: str, directory: Path, **options: object) -> xlmr_core.models.PreTrainedModel:
    return getattr(xlmr_core, name).from_pretrained(directory, **options)


def open_theirs(name: str, directory: Path, **options: object) -> transformers.PreTrainedModel:
    return getattr(transformers, name).from_pretrained(directory, **options).eval()


def rewrite(directory: Path, change: Change) -> None:
    """Changes the tensors of `model.safetensors`."""
    file = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def logits(model: nn.Module) -> Tensor:
    """What it says of two texts that hide nothing."""
    with torch.no_grad():
        result: Tensor = model(IDS[None] if "MultipleChoice" in type(model).__name__ else IDS).to_tuple()[0]
    return result


def assert_same(one: nn.Module, other: nn.Module) -> None:
    mine, wanted = one.state_dict(), other.state_dict()
    assert mine.keys() == wanted.keys()
    assert all(torch.equal(mine[name], wanted[name]) for name in mine)
    torch.testing.assert_close(logits(one), logits(other), rtol=0, atol=1e-5)


# What is not in the file.


@pytest.mark.parametrize("head", [head for head in HEADS if head not in ("Model", "ForCausalLM")])
def test_a_head_that_is_not_in_the_file_is_initialised_with_one_warning_that_names_it(theirs, head: str):
    directory = theirs("XLMRobertaModel")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mine = open_ours(f"XLMRoberta{head}", directory)
    assert len(said) == 1
    other, told = getattr(transformers, f"XLMRoberta{head}").from_pretrained(directory, output_loading_info=True)
    assert told["missing_keys"]
    assert all(name in str(said[0].message) for name in told["missing_keys"])
    assert said[0].filename == __file__
    fresh = {name: (mine.state_dict()[name], other.state_dict()[name]) for name in told["missing_keys"]}
    for name, (one, wanted) in fresh.items():
        # Biases and norms start as constants, matrices at random with one spread.
        assert torch.equal(one, wanted) if one.dim() == 1 else 0.5 < one.std() / wanted.std() < 2, name
    assert logits(mine).isfinite().all()


TASKS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
}


@pytest.mark.parametrize("task", TASKS)
def test_a_pipeline_refuses_the_checkpoint_that_a_class_initialises(make_checkpoint, task: str):
    directory = make_checkpoint("XLMRobertaModel")
    with pytest.warns(UserWarning, match="initialised at random"):
        open_ours(f"XLMRoberta{TASKS[task]}", directory)
    with pytest.raises(XLMRError, match=r"is missing|are missing|no .* head"):
        pipeline(task, str(directory))("Guten Morgen")


def test_a_missing_part_of_the_encoder_is_an_error(theirs):
    directory = theirs(CLASSIFIER)
    gone = "encoder.layer.1.output.dense.weight"
    rewrite(directory, lambda tensors: {name: t for name, t in tensors.items() if name != f"roberta.{gone}"})
    with pytest.raises(CheckpointError, match=rf"{gone} is missing"):
        open_ours(CLASSIFIER, directory)


def test_layers_beyond_those_asked_for_are_left_out_with_a_warning(theirs):
    directory = theirs(CLASSIFIER)
    with pytest.warns(UserWarning, match=r"no place for encoder\.layer\.2.*: not read"):
        mine = open_ours(CLASSIFIER, directory, num_hidden_layers=2)
    assert_same(mine, open_theirs(CLASSIFIER, directory, num_hidden_layers=2))


# Overrides.


@pytest.mark.parametrize(
    "overrides",
    [
        {"num_labels": 3, "problem_type": "multi_label_classification"},
        {"id2label": {0: "x", 1: "y", 2: "z"}, "label2id": {"x": 0, "y": 1, "z": 2}},
        {"hidden_dropout_prob": 0.5},
    ],
    ids=str,
)
def test_overrides_that_fit_the_head_keep_its_weights(theirs, overrides: dict[str, object]):
    directory = theirs(CLASSIFIER, num_labels=3)
    mine, other = open_ours(CLASSIFIER, directory, **overrides), open_theirs(CLASSIFIER, directory, **overrides)
    assert_same(mine, other)
    for name in ("num_labels", "id2label", "label2id", "problem_type", "hidden_dropout_prob"):
        assert getattr(mine.config, name) == getattr(other.config, name), name


@pytest.mark.parametrize("overrides", [{"num_labels": 5}, {"id2label": {i: f"c{i}" for i in range(5)}}], ids=str)
def test_a_head_of_another_size_is_an_error_unless_it_may_be_initialised(theirs, overrides: dict[str, object]):
    directory = theirs(CLASSIFIER, num_labels=3)
    with pytest.raises(CheckpointError, match=r"classifier\.out_proj\.weight has the shape \(3, 32\), .* \(5, 32\)"):
        open_ours(CLASSIFIER, directory, **overrides)
    said = r"does not hold classifier\.out_proj\.weight, classifier\.out_proj\.bias: initialised"
    with pytest.warns(UserWarning, match=said):
        mine = open_ours(CLASSIFIER, directory, ignore_mismatched_sizes=True, **overrides)
    other = open_theirs(CLASSIFIER, directory, ignore_mismatched_sizes=True, **overrides)
    assert logits(mine).shape == logits(other).shape == (2, 5)
    assert torch.equal(mine.classifier.dense.weight, other.classifier.dense.weight)


def test_an_encoder_of_another_size_is_an_error_that_says_so(theirs):
    directory = theirs("XLMRobertaModel")
    with pytest.raises(CheckpointError, match=r"token_type_embeddings\.weight has the shape \(2, 32\), .* \(1, 32\)"):
        open_ours("XLMRobertaModel", directory, type_vocab_size=1)


def test_a_given_configuration_counts_and_is_not_changed(theirs, tmp_path: Path):
    directory = theirs(CLASSIFIER, num_labels=3)
    config = xlmr_core.XLMRobertaConfig.from_pretrained(
        directory, attn_implementation="eager", problem_type="regression"
    )
    before = config.to_json_string()
    mine = open_ours(CLASSIFIER, directory, config=config, dtype="bfloat16")
    assert (mine.config.attn_implementation, mine.config.problem_type) == ("eager", "regression")
    assert config.to_json_string() == before
    config.save_pretrained(tmp_path / "config")
    for name in (CLASSIFIER, "AutoModelForSequenceClassification"):
        assert open_ours(name, directory, config=tmp_path / "config").config.problem_type == "regression"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_label": 3}, "got num_label, it is no setting"),
        ({"dtype": "float33"}, "dtype 'float33', it must be 'auto' or a floating-point type"),
        ({"dtype": torch.int8}, "dtype torch.int8, it must be"),
        ({"device_map": "gpu"}, "device_map 'gpu', it must be 'auto' or a device"),
        ({"quantization_config": {}}, "quantization_config is not implemented"),
        ({"attn_implementation": "flex"}, "attn_implementation 'flex', it must be one of"),
        ({"config": {"hidden_size": 32}}, "config is a dict, it must be a XLMRobertaConfig or the path of one"),
    ],
    ids=str,
)
def test_an_option_that_there_is_not_is_refused(theirs, options: dict[str, object], said: str):
    with pytest.raises(ArgumentError, match=said):
        open_ours(CLASSIFIER, theirs(CLASSIFIER), **options)


# What cannot be opened.


class Payload:
    """Would create a file if anyone ever unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def test_pickled_code_is_refused_and_never_runs(theirs, tmp_path: Path):
    directory, trap = theirs(CLASSIFIER), tmp_path / "trap"
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload(trap)}, protocol=2))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds pickled objects.*code never runs"):
        open_ours(CLASSIFIER, directory)
    assert not trap.exists()


def cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda directory: (directory / "config.json").unlink(), r"config\.json does not exist"),
        (lambda directory: (directory / "model.safetensors").unlink(), "has no weights"),
        (cut, "is no valid safetensors file"),
        (lambda directory: edit_config(directory, model_type="bert"), "has model_type 'bert'"),
    ],
    ids=["config", "weights", "truncated", "family"],
)
@pytest.mark.parametrize("name", [CLASSIFIER, "AutoModelForSequenceClassification"])
def test_a_broken_directory_is_one_clear_error(theirs, name: str, harm: Callable[[Path], None], said: str):
    directory = theirs(CLASSIFIER)
    harm(directory)
    with pytest.raises(CheckpointError, match=said):
        open_ours(name, directory)


def test_a_configuration_that_no_model_can_have_names_its_directory(theirs):
    directory = theirs(CLASSIFIER)
    edit_config(directory, hidden_act="swish", num_attention_heads=0)
    with pytest.raises(ArgumentError, match=rf"{re.escape(str(directory))}:\n  num_attention_heads 0.*\n  hidden_act"):
        open_ours(CLASSIFIER, directory)


def test_a_model_that_is_nowhere_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in (CLASSIFIER, "AutoModel"):
        with pytest.raises(CheckpointError, match=r"cannot be had.*hf download org/nowhere"):
            open_ours(name, "org/nowhere")
        with pytest.raises(CheckpointError, match="is no directory, it must be one, mini, or a Hub id"):
            open_ours(name, "no such model")
        with pytest.raises(CheckpointError, match="names a head, these classes open directories"):
            open_ours(name, "mini#language")
