"""LoRA adapters on their base compute what `peft` computes; whatever is no plain LoRA is refused by name."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.diagnosis import diagnose
from xlmr_core.errors import CheckpointError

# peft asks transformers by a name that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

CLASS = "XLMRobertaForSequenceClassification"


@pytest.fixture
def adapted(saved, tmp_path):
    """Makes `adapted(**lora)`: an adapter directory on a saved base, and peft's model of both."""

    def make(name="adapter", *, base=None, seed=0, **lora):
        base = base or saved(CLASS, num_labels=3)
        torch.manual_seed(seed)
        model = transformers.XLMRobertaForSequenceClassification.from_pretrained(base)
        model = peft.get_peft_model(model, peft.LoraConfig(**({"r": 4, "lora_alpha": 12} | lora))).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(tmp_path / name)
        return tmp_path / name, model

    return make


@torch.inference_mode()
def logits_of(directory, texts, kind="sequence-classification"):
    checkpoint = Checkpoint.open(str(directory))
    batch = PackedBatch.from_lists(texts, first_position=checkpoint.config.first_position)
    return checkpoint.load_head(kind)(checkpoint.load_encoder()(batch), batch)


@torch.inference_mode()
def reference_of(model, texts):
    return torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in texts])


@pytest.mark.parametrize(
    "lora",
    [
        {"task_type": "SEQ_CLS"},
        {"task_type": "SEQ_CLS", "use_rslora": True, "target_modules": ["query", "key", "value", "dense"]},
        {"task_type": "SEQ_CLS", "target_modules": r".*layer\.1\..*(query|dense)"},
        {"task_type": "SEQ_CLS", "target_modules": "all-linear"},
        {"target_modules": ["key"], "rank_pattern": {"layer.0.attention.self.key": 2}, "alpha_pattern": {"key": 3}},
        {"target_modules": ["classifier.dense", "output.dense"]},
    ],
)
def test_logits_are_those_of_peft(adapted, texts_of, lora):
    directory, model = adapted(**lora)
    texts = texts_of([3, 9, 30])
    expected, base = reference_of(model, texts), reference_of(model.unload(), texts)
    assert not torch.allclose(expected, base, atol=1e-4)
    assert torch.allclose(logits_of(directory, texts), expected, atol=1e-5)


def test_a_base_without_prefix_and_without_head_gets_both(adapted, saved, rewrite, edit_json, texts_of):
    directory, model = adapted(task_type="SEQ_CLS")
    texts = texts_of([3, 9, 30])
    expected = reference_of(model, texts)
    base = directory.parent / "model"
    rewrite(base, lambda tensors: {k.removeprefix("roberta."): t for k, t in tensors.items() if "classifier" not in k})
    edit_json(base / "config.json", architectures=["XLMRobertaModel"], id2label=..., label2id=...)
    edit_json(directory / "config.json", id2label={"0": "no", "1": "yes", "2": "maybe"})
    assert torch.allclose(logits_of(directory, texts), expected, atol=1e-5)
    checkpoint = Checkpoint.open(str(directory))
    assert (checkpoint.task, checkpoint.config.id2label) == ("sequence-classification", ("no", "yes", "maybe"))
    assert checkpoint.directory == directory
    assert not checkpoint.report.warnings


def test_the_base_may_be_beside_the_adapter_and_has_the_tokenizer(adapted, edit_json, tokenizer_json):
    directory, _ = adapted(task_type="SEQ_CLS")
    edit_json(directory / "adapter_config.json", base_model_name_or_path="../model")
    assert Checkpoint.open(str(directory)).tokenizer_directory.resolve() == directory.parent / "model"
    (directory / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    assert Checkpoint.open(str(directory)).tokenizer_directory == directory


def test_hashes_tell_adapters_apart_and_a_trained_head_leaves_the_encoder_shared(adapted, saved):
    base = saved(CLASS, num_labels=3)
    whole, _ = adapted("whole", base=base, task_type="SEQ_CLS")
    other, _ = adapted("other", base=base, task_type="SEQ_CLS", seed=1)
    heads = [adapted(f"head-{seed}", base=base, seed=seed, target_modules=["classifier.dense"])[0] for seed in (0, 1)]
    opened = [Checkpoint.open(str(path)) for path in (base, *heads, whole, other)]
    assert len({checkpoint.encoder_sha256() for checkpoint in opened[:3]}) == 1
    assert len({checkpoint.encoder_sha256() for checkpoint in opened}) == 3
    assert len({checkpoint.head_sha256("sequence-classification") for checkpoint in opened}) == 5


def test_an_adapted_encoder_changes_nothing_in_its_base(adapted, saved, hidden_of):
    base = saved(CLASS, num_labels=3)
    before = hidden_of(base)
    directory, _ = adapted(base=base, task_type="SEQ_CLS")
    assert not torch.equal(hidden_of(directory), before)
    assert torch.equal(hidden_of(base), before)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3', only LORA"),
        ({"use_dora": True}, "use_dora True is not implemented"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out True is not implemented"),
        ({"bias": "all"}, "bias 'all' is not implemented"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' is not implemented"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"invented_later": 1}, "invented_later 1 is not implemented"),
        ({"r": 0, "lora_alpha": "8"}, "r 0, it must be a positive number"),
        ({"alpha_pattern": {"(a|b)*": 3}}, "not regular expressions"),
        ({"target_modules": ["key"]}, "self.query is adapted, target_modules does not name it"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is missing"),
        ({"base_model_name_or_path": "./nowhere/at/all"}, "base_model_name_or_path './nowhere/at/all' was not found"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(adapted, edit_json, changes, complaint):
    directory, _ = adapted(task_type="SEQ_CLS")
    edit_json(directory / "adapter_config.json", **changes)
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(str(directory))
    assert complaint in str(error.value)


def test_all_matrices_that_do_not_fit_are_named(adapted):
    directory, _ = adapted(task_type="SEQ_CLS", target_modules=["query", "value"])
    tensors = load_file(directory / "adapter_model.safetensors")
    query, value = (f"base_model.model.roberta.encoder.layer.0.attention.self.{name}" for name in ("query", "value"))
    tensors[f"{query}.lora_A.weight"] = torch.zeros(4, 47)
    beyond = query.replace("layer.0", "layer.7")
    tensors |= {f"{beyond}.lora_A.weight": torch.zeros(4, 48), f"{beyond}.lora_B.weight": torch.zeros(48, 4)}
    save_file(tensors, directory / "adapter_model.safetensors")
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(str(directory))
    assert "layer.0.attention.self.query is adapted by (48, 4) x (4, 47), the base's matrix is (48, 48)" in str(
        error.value
    )
    assert "layer.7.attention.self.query is adapted, the base has no such matrix" in str(error.value)
    del tensors[f"{value}.lora_B.weight"]
    save_file(tensors, directory / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"self\.value has only one of lora_A and lora_B"):
        Checkpoint.open(str(directory))


def test_an_adapter_without_safetensors_or_with_a_broken_config_is_named(adapted):
    directory, _ = adapted(task_type="SEQ_CLS")
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is missing"):
        Checkpoint.open(str(directory))
    (directory / "adapter_config.json").write_text(json.dumps([]))
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        Checkpoint.open(str(directory))


def test_the_doctor_names_adapter_and_base(adapted, tokenizer_json):
    directory, _ = adapted(task_type="SEQ_CLS")
    (directory / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    told = {finding.topic: finding.says for finding in diagnose(str(directory)).findings}
    assert told["adapter"] == "LoRA on 4 matrices, rank 4, 4 tensors replaced"
    assert told["base"] == str(directory.parent / "model")
    assert told["task"] == "sequence-classification"
