"""Adapters written here compute the same in `peft` with transformers, and when they are opened here again."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors import safe_open

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.checkpoint.diagnosis import diagnose
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.checkpoint.task_heads import new_head
from xlmr_core.encoder import initialise
from xlmr_core.errors import CheckpointError
from xlmr_core.lora import LowRank, adapt, branches, merged

# peft asks transformers by a name that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

TRAINED = LowRank(4, 12.0, targets=("query", "value", "output.dense"), rank_stabilised=True)
TASKS: dict[str, tuple[HeadKind, str, int]] = {
    "sequence-classification": ("sequence-classification", "XLMRobertaForSequenceClassification", 3),
    "token-classification": ("token-classification", "XLMRobertaForTokenClassification", 5),
    "question-answering": ("question-answering", "XLMRobertaForQuestionAnswering", 2),
    "multiple-choice": ("multiple-choice", "XLMRobertaForMultipleChoice", 1),
    "fill-mask": ("masked-lm", "XLMRobertaForMaskedLM", 120),
}


@pytest.fixture
def base(saved, tokenizer_json):
    """A pretrained model as they come: a masked language model, with no head for what is learnt."""
    directory = saved("XLMRobertaForMaskedLM")
    (directory / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    return directory


@pytest.fixture
def trained(base):
    """Makes `trained(kind, outputs)`: an encoder with branches on the base and a head, as after training."""

    def make(kind, outputs, low_rank=TRAINED):
        checkpoint = Checkpoint.open(str(base))
        encoder = checkpoint.load_encoder()
        if kind == "masked-lm":
            head = checkpoint.load_head(kind, encoder)
        else:
            head = new_head(kind, checkpoint.config, outputs).eval()
            initialise(head, 0.3)
        adapt(encoder, low_rank, seed=0)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in (*encoder.parameters(), *head.parameters()):
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return encoder, head

    return make


@torch.inference_mode()
def outputs_of(encoder, head, texts):
    batch = PackedBatch.from_lists(texts, first_position=2)
    hidden = encoder(batch)
    return head(hidden) if hasattr(head, "decoder") else head(hidden, batch)


@torch.inference_mode()
def outputs_of_peft(model, texts, task):
    rows = []
    for ids in texts:
        ids = torch.tensor([ids] if task != "multiple-choice" else [[ids]])
        answer = model(input_ids=ids)
        if task == "question-answering":
            rows.append(torch.stack([answer.start_logits[0], answer.end_logits[0]], dim=-1))
        else:
            rows.append(answer.logits if task in ("sequence-classification", "multiple-choice") else answer.logits[0])
    return torch.cat(rows)


@pytest.mark.parametrize("task", TASKS)
def test_peft_and_this_package_open_what_was_trained(task, base, trained, tmp_path, texts_of):
    kind, architecture, outputs = TASKS[task]
    encoder, head = trained(kind, outputs)
    labels = tuple(f"name {index}" for index in range(outputs)) if "classification" in task else ()
    texts, directory = texts_of([3, 9, 30]), tmp_path / "adapter"
    expected = outputs_of(encoder, head, texts)
    write_model_directory(directory, encoder, tokenizer=base, head=TrainedHead(head, labels, task=task), base=str(base))
    config = transformers.AutoConfig.from_pretrained(directory)
    with warnings.catch_warnings():
        # Of tied tables, which it leaves alone here.
        warnings.simplefilter("ignore")
        model = getattr(transformers, architecture).from_pretrained(base, config=config)
        model = peft.PeftModel.from_pretrained(model, directory).eval()
    assert (outputs_of_peft(model, texts, task) - expected).abs().max() <= 1e-5
    opened = Checkpoint.open(str(directory))
    assert (opened.task, opened.config.id2label) == (task, labels)
    assert not opened.report.warnings
    assert (outputs_of(opened.load_encoder(), opened.load_head(kind), texts) - expected).abs().max() <= 1e-5
    assert all(
        torch.equal(one, two)
        for one, two in zip(opened.load_encoder().parameters(), merged(encoder).parameters(), strict=True)
    )


def test_peft_opens_it_by_itself(base, trained, tmp_path, texts_of):
    encoder, head = trained("sequence-classification", 3)
    write_model_directory(tmp_path / "adapter", encoder, tokenizer=base, head=TrainedHead(head), base=str(base))
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3).eval()
    texts = texts_of([3, 9, 30])
    found = outputs_of_peft(model, texts, "sequence-classification")
    assert (found - outputs_of(encoder, head, texts)).abs().max() <= 1e-5


def test_an_adapter_of_a_bert_encoder_has_its_names(base, edit_json, rewrite, trained, tmp_path, texts_of):
    """Whose first layer of the head stands inside the encoder, and which counts positions from 0."""
    edit_json(base / "config.json", model_type="bert", architectures=["BertModel"], tie_word_embeddings=...)
    rewrite(base, lambda found: {n.removeprefix("roberta."): t for n, t in found.items() if n.startswith("roberta.")})
    encoder, head = trained("sequence-classification", 3)
    write_model_directory(tmp_path / "adapter", encoder, tokenizer=base, head=TrainedHead(head), base=str(base))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "adapter")
    model = transformers.BertForSequenceClassification.from_pretrained(base, config=config)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    texts = texts_of([3, 9, 30])
    batch = PackedBatch.from_lists(texts, first_position=0)
    with torch.inference_mode():
        expected = head(encoder(batch), batch)
        opened = Checkpoint.open(str(tmp_path / "adapter"))
        found = opened.load_head("sequence-classification")(opened.load_encoder()(batch), batch)
    assert (outputs_of_peft(model, texts, "sequence-classification") - expected).abs().max() <= 1e-5
    assert (found - expected).abs().max() <= 1e-5


def test_an_adapter_holds_branches_and_head_and_nothing_of_the_base(base, trained, tmp_path):
    encoder, head = trained("sequence-classification", 3)
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    write_model_directory(whole, encoder, tokenizer=base, head=TrainedHead(head))
    write_model_directory(adapter, encoder, tokenizer=base, head=TrainedHead(head), base=str(base))
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
    halves = {f"roberta.{name}.lora_{half}" for name in branches(encoder) for half in "AB"}
    parts = {f"classifier.{module}.{kind}" for module in ("dense", "out_proj") for kind in ("weight", "bias")}
    assert names == {f"base_model.model.{name}.weight" for name in halves} | {
        f"base_model.model.{name}" for name in parts
    }
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == set(branches(encoder))
    assert config["modules_to_save"] == ["classifier"]
    assert not (adapter / "model.safetensors").exists()
    opened = [Checkpoint.open(str(path)) for path in (whole, adapter)]
    for one, two in zip(*(checkpoint.load_encoder().parameters() for checkpoint in opened), strict=True):
        assert torch.equal(one, two)


def test_what_peft_saves_and_what_is_written_here_have_the_same_names(base, trained, tmp_path):
    encoder, head = trained("sequence-classification", 3)
    write_model_directory(tmp_path / "ours", encoder, tokenizer=base, head=TrainedHead(head), base=str(base))
    model = transformers.XLMRobertaForSequenceClassification.from_pretrained(base, num_labels=3)
    peft.PeftModel.from_pretrained(model, tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    found = []
    for name in ("ours", "theirs"):
        with safe_open(tmp_path / name / "adapter_model.safetensors", "pt") as file:
            found.append({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_bare_encoder_and_several_heads_are_written_too(base, trained, tmp_path, texts_of):
    encoder, topic = trained("sequence-classification", 3)
    _, tags = trained("token-classification", 5)
    heads = {"topic": TrainedHead(topic, ("a", "b", "c")), "tags": TrainedHead(tags)}
    directory, texts = tmp_path / "adapter", texts_of([3, 9, 30])
    write_model_directory(directory, encoder, tokenizer=base, heads=heads, base=str(base))
    for name, head in (("topic", topic), ("tags", tags)):
        opened = Checkpoint.open(f"{directory}#{name}")
        found = outputs_of(opened.load_encoder(), opened.load_head(heads[name].kind), texts)
        assert (found - outputs_of(encoder, head, texts)).abs().max() <= 1e-5
    assert Checkpoint.open(f"{directory}#topic").config.id2label == ("a", "b", "c")
    model = peft.PeftModel.from_pretrained(transformers.XLMRobertaModel.from_pretrained(base), directory).eval()
    batch = PackedBatch.from_lists(texts[2:], first_position=2)
    with torch.inference_mode():
        theirs = model(input_ids=torch.tensor(texts[2:])).last_hidden_state[0]
        assert (theirs - encoder(batch)).abs().max() <= 1e-5


def test_the_doctor_reads_it(base, trained, tmp_path):
    encoder, head = trained("sequence-classification", 3)
    labelled = TrainedHead(head, ("a", "b", "c"))
    write_model_directory(tmp_path / "adapter", encoder, tokenizer=base, head=labelled, base=str(base))
    told = {finding.topic: finding.says for finding in diagnose(str(tmp_path / "adapter")).findings}
    assert told["adapter"] == "LoRA on 8 matrices, rank 4, 4 tensors replaced"
    assert told["base"] == str(base)


@pytest.mark.parametrize(
    ("named", "written"),
    [("org/name@abc123", ("org/name", "abc123")), ("org/name", ("org/name", None)), ("mini", ("mini", None))],
)
def test_the_base_is_named_as_peft_names_it(named, written, base, trained, tmp_path):
    encoder, _ = trained("token-classification", 5)
    write_model_directory(tmp_path / "adapter", encoder, tokenizer=base, base=named)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == written


def test_an_encoder_without_branches_is_no_adapter(base, tmp_path):
    encoder = Checkpoint.open(str(base)).load_encoder()
    with pytest.raises(CheckpointError, match="its encoder has no low-rank branches"):
        write_model_directory(tmp_path / "adapter", encoder, tokenizer=base, base=str(base))
    assert not (tmp_path / "adapter").exists()
