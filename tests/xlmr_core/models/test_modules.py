"""Names of modules and parameters, modules of a user's own, and tools that go by either."""

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from torch import nn

import xlmr_core
from xlmr_core.errors import ArgumentError

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
IDS = torch.tensor([[0, 5, 80, 33, 2], [0, 7, 2, 9, 2]])


def fused(names):
    """What transformers calls its parameters, with query, key and value as one."""
    return {
        name.replace(f".{part}.", ".qkv.") if f"self.{part}." in name else name
        for name in names
        for part in ("query", "key", "value")
        if f"self.{part}." in name or not any(f"self.{other}." in name for other in ("query", "key", "value"))
    }


@pytest.mark.parametrize("head", HEADS)
def test_parameters_have_the_names_of_transformers(pair_of, head):
    ours, theirs = pair_of(f"XLMRoberta{head}")
    mine, other = ({name for name, _ in model.named_parameters(remove_duplicate=False)} for model in (ours, theirs))
    assert mine == fused(other) - {"lm_head.bias"}
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize(
    "chosen",
    [
        lambda name: "encoder.layer.0." in name,
        lambda name: name.startswith("roberta.embeddings"),
        lambda name: name.startswith("roberta.encoder"),
        lambda name: "LayerNorm" in name,
        lambda name: "attention" in name,
        lambda name: any(part in name for part in ("bias", "LayerNorm.weight")),
        lambda name: "classifier" not in name,
    ],
)
def test_parameters_chosen_by_name_are_those_of_transformers(pair_of, chosen):
    counts = [
        sum(parameter.numel() for name, parameter in model.named_parameters() if chosen(name))
        for model in pair_of("XLMRobertaForSequenceClassification")
    ]
    assert counts[0] == counts[1] > 0


def test_modules_of_the_users_own_are_saved_beside_the_model(pair_of, tmp_path):
    ours, _ = pair_of("XLMRobertaForTokenClassification")

    class Tagger(type(ours)):
        def __init__(self, config):
            super().__init__(config)
            self.crf = nn.Linear(3, 3)
            self.roberta.pooler = nn.Sequential(nn.Linear(32, 4))

    model = Tagger(ours.config)
    state = model.state_dict()
    assert {"crf.weight", "roberta.pooler.0.weight", "classifier.weight"} <= state.keys()
    other = Tagger(ours.config)
    other.load_state_dict(state)
    for name, value in model.named_parameters():
        assert torch.equal(value, other.get_parameter(name))
    model.save_pretrained(tmp_path)
    assert safetensors.torch.load_file(tmp_path / "model.safetensors").keys() == state.keys()
    model.classifier = nn.Linear(32, 7)
    assert model(IDS).logits.shape == (2, 5, 7)


@pytest.mark.parametrize("head", HEADS)
def test_a_state_dict_can_be_written_by_whoever_writes_them(pair_of, tmp_path, head):
    ours, theirs = pair_of(f"XLMRoberta{head}")
    safetensors.torch.save_file(ours.state_dict(), tmp_path / "a.safetensors", metadata={"format": "pt"})
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "a.safetensors"))
    safetensors.torch.save_model(ours, str(tmp_path / "b.safetensors"))


def test_a_part_of_query_key_and_value_may_be_loaded(pair_of):
    ours, theirs = pair_of("XLMRobertaModel")
    name = "encoder.layer.1.attention.self.query.weight"
    before = ours.state_dict()
    _, unexpected = ours.load_state_dict({name: torch.ones(32, 32)}, strict=False)
    assert not unexpected
    after = ours.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == [name]
    assert torch.equal(after[name], torch.ones(32, 32))
    with pytest.raises(RuntimeError, match=r"Missing key.*layer\.1\.attention\.self\.value\.weight"):
        ours.load_state_dict({key: value for key, value in before.items() if "1.attention.self.value" not in key})
    with pytest.raises(RuntimeError, match=f"size mismatch for {name}"):
        ours.load_state_dict(theirs.state_dict() | {name: torch.ones(3, 32)})


def test_layers_can_be_computed_again_for_their_gradients(pair_of):
    ours, _ = pair_of("XLMRobertaForSequenceClassification")
    ours.train()
    found = []
    for enable in (ours.gradient_checkpointing_disable, ours.gradient_checkpointing_enable):
        enable()
        seen = []
        hook = ours.roberta.encoder.layer[0].register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        ours(IDS, labels=torch.tensor([0, 1])).loss.backward()
        hook.remove()
        found.append((len(seen), {name: value.grad.clone() for name, value in ours.named_parameters()}))
        ours.zero_grad()
    assert [count for count, _ in found] == [1, 2]
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], atol=1e-6)


def test_submodules_answer_alone_as_those_of_transformers(pair_of):
    ours, theirs = pair_of("XLMRobertaModel")
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours.pooler(hidden), theirs.pooler(hidden), atol=1e-5)
    assert torch.equal(ours.embeddings.word_embeddings(IDS), theirs.embeddings.word_embeddings(IDS))
    assert ours.encoder.layer[1].output.dense.in_features == 64


def test_usual_arguments_of_saving_and_opening_are_known(pair_of, tmp_path):
    ours, _ = pair_of("XLMRobertaModel")
    ours.save_pretrained(tmp_path / "none", is_main_process=False)
    assert not (tmp_path / "none").exists()
    ours.save_pretrained(tmp_path / "one", safe_serialization=True, max_shard_size="5GB", save_function=torch.save)
    for wrong in ({"safe_serialization": False}, {"push_to_hub": True}):
        with pytest.raises(ArgumentError, match="not done here"):
            ours.save_pretrained(tmp_path / "two", **wrong)
    how = {"local_files_only": True, "cache_dir": str(tmp_path), "token": None}
    assert torch.equal(xlmr_core.XLMRobertaModel.from_pretrained(tmp_path / "one", **how)(IDS)[0], ours(IDS)[0])
    with pytest.raises(ArgumentError, match="cache_dir, local_files_only of a Hub id, set HF_HOME"):
        xlmr_core.XLMRobertaModel.from_pretrained("nobody/nothing", **how)


def test_the_trainer_of_transformers_trains_and_saves_a_tied_model(pair_of, tmp_path):
    ours, theirs = pair_of("XLMRobertaForMaskedLM")
    rows = [{"input_ids": ids, "labels": ids} for ids in IDS] * 4
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=2, report_to=[], use_cpu=True, disable_tqdm=True
    )
    transformers.Trainer(ours, arguments, train_dataset=rows).train()
    saved = safetensors.torch.load_file(tmp_path / "checkpoint-2/model.safetensors")
    theirs.load_state_dict(saved)
    assert torch.allclose(theirs(IDS).logits, ours.eval()(IDS).logits, atol=1e-5)


def test_small_things_that_scripts_do(pair_of):
    ours, _ = pair_of("XLMRobertaModel")
    mask = torch.ones(1, 5)
    mask[0, 3:] = 0
    assert torch.equal(ours(IDS, mask)[0], ours(IDS, mask.expand(2, 5))[0])
    assert ours.resize_token_embeddings(np.int64(130)).num_embeddings == 130
    assert type(ours.config.vocab_size) is int
    assert ours.config.torch_dtype is ours.config.dtype
    half = xlmr_core.AutoModel.from_config(ours.config, dtype=torch.bfloat16, attn_implementation="eager")
    assert half.dtype == torch.bfloat16
    assert half.config.attn_implementation == "eager"
    with pytest.raises(ArgumentError, match=r"is a transformers\.XLMRobertaConfig, it must be"):
        xlmr_core.XLMRobertaModel(transformers.XLMRobertaConfig())
