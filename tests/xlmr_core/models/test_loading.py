"""Files of the documented classes: opened by transformers and sentence-transformers, and theirs by ours."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import xlmr_core
from xlmr_core.errors import CheckpointError

HEADS = (
    *("Model", "ForMaskedLM", "ForCausalLM", "ForSequenceClassification", "ForMultipleChoice"),
    *("ForTokenClassification", "ForQuestionAnswering"),
)
CLASSES = [family + head for family in ("XLMRoberta", "Roberta") for head in HEADS]
IDS = torch.tensor([[0, 5, 80, 33, 2], [0, 7, 2, 1, 1]])
MASK = (IDS != 1).long()
MASKED_LM = "XLMRobertaForMaskedLM"
CLASSIFIER = "XLMRobertaForSequenceClassification"
DECODER, WORDS = "lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"

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


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    mine, wanted = one.state_dict(), other.state_dict()
    assert mine.keys() == wanted.keys()
    different = [name for name in mine if not torch.equal(mine[name], wanted[name])]
    assert not different


def logits(model: nn.Module) -> Tensor:
    """What it says of two texts, zeros at padding."""
    choices = "MultipleChoice" in type(model).__name__
    ids, mask = (IDS[None], MASK[None]) if choices else (IDS, MASK)
    with torch.no_grad():
        result: Tensor = model(ids, attention_mask=mask, return_dict=True).to_tuple()[0]
    return result * MASK.view(2, 5, *(1,) * (result.dim() - 2)) if result.shape[:2] == IDS.shape else result


def assert_same(one: nn.Module, other: nn.Module) -> None:
    assert_same_weights(one, other)
    torch.testing.assert_close(logits(one), logits(other), rtol=0, atol=1e-5)


# Both ways.


@pytest.mark.parametrize("name", CLASSES)
def test_transformers_opens_what_we_write_and_we_what_it_writes(pair_of, name: str, tmp_path: Path):
    one, other = pair_of(name, num_hidden_layers=1)
    one.save_pretrained(tmp_path / "ours")
    read, told = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values()), told
    assert_same(one, read.eval())
    other.save_pretrained(tmp_path / "theirs")
    assert_same(open_ours(name, tmp_path / "theirs"), other)
    assert_same_weights(open_ours(name, tmp_path / "ours"), one)


@pytest.mark.parametrize("name", [MASKED_LM, CLASSIFIER])
def test_we_write_the_very_tensors_that_transformers_writes(pair_of, name: str, tmp_path: Path):
    one, other = pair_of(name)
    one.save_pretrained(tmp_path / "ours")
    other.save_pretrained(tmp_path / "theirs")
    mine, wanted = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert mine.keys() == wanted.keys()
    assert all(torch.equal(mine[key], wanted[key]) for key in mine)


def test_a_model_without_pooler_is_written_and_read(pair_of, tmp_path: Path):
    config = pair_of("XLMRobertaModel")[0].config
    xlmr_core.XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    assert open_ours("XLMRobertaModel", tmp_path, add_pooling_layer=False).pooler is None
    read = transformers.XLMRobertaModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert_same(open_ours("XLMRobertaModel", tmp_path, add_pooling_layer=False), read.eval())


# Forms of files.


def test_shards_are_read(pair_of, tmp_path: Path):
    other = pair_of(MASKED_LM)[1]
    other.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same(open_ours(MASKED_LM, tmp_path), other)


def test_a_directory_of_shards_that_is_written_over_holds_the_new_weights(pair_of, tmp_path: Path):
    pair_of(MASKED_LM)[1].save_pretrained(tmp_path, max_shard_size="20KB")
    model = open_ours(MASKED_LM, tmp_path)
    nn.init.ones_(model.lm_head.dense.weight)
    model.save_pretrained(tmp_path)
    assert_same(open_theirs(MASKED_LM, tmp_path), model)
    assert_same_weights(open_ours(MASKED_LM, tmp_path), model)


def test_pickled_tensors_are_read(pair_of, tmp_path: Path):
    other = pair_of(MASKED_LM)[1]
    other.config.save_pretrained(tmp_path)
    torch.save(other.state_dict(), tmp_path / "pytorch_model.bin")
    assert_same(open_ours(MASKED_LM, tmp_path), other)


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("roberta."): tensor for name, tensor in tensors.items()}


def with_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"roberta.{name}": tensor for name, tensor in tensors.items()}


def with_old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    old = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in tensors}
    return {old[name].replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in tensors.items()}


def with_buffers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"roberta.embeddings.position_ids": torch.arange(40)[None]}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (CLASSIFIER, without_prefix),
        ("XLMRobertaModel", with_prefix),
        (CLASSIFIER, with_old_names),
        (CLASSIFIER, with_buffers),
    ],
    ids=["no prefix", "prefix", "gamma and beta", "position_ids"],
)
def test_names_of_older_files_are_understood(pair_of, theirs, name: str, change: Change):
    directory = theirs(name)
    rewrite(directory, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(open_ours(name, directory), pair_of(name)[1])


def test_an_encoder_is_read_out_of_a_model_with_a_head(pair_of, theirs):
    directory = theirs(MASKED_LM)
    mine = open_ours("XLMRobertaModel", directory, add_pooling_layer=False)
    assert_same_weights(mine, pair_of(MASKED_LM)[1].roberta)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wanted", ["auto", torch.bfloat16, "bfloat16", "float32"])
def test_types_are_those_of_transformers(pair_of, tmp_path: Path, stored: torch.dtype, wanted: object):
    pair_of(CLASSIFIER)[1].to(stored).save_pretrained(tmp_path)
    mine, other = open_ours(CLASSIFIER, tmp_path, dtype=wanted), open_theirs(CLASSIFIER, tmp_path, dtype=wanted)
    assert mine.dtype == other.dtype == mine.config.dtype == other.config.dtype
    assert_same_weights(mine, other)
    assert mine.dtype == open_ours(CLASSIFIER, tmp_path, torch_dtype=wanted).dtype


def test_weights_are_float32_where_nothing_is_asked_for(pair_of, tmp_path: Path):
    """As documented for 4.56.2; transformers 5 takes the stored type."""
    pair_of(CLASSIFIER)[1].to(torch.float16).save_pretrained(tmp_path)
    assert open_ours(CLASSIFIER, tmp_path).dtype == torch.float32
    assert_same_weights(open_ours(CLASSIFIER, tmp_path), open_theirs(CLASSIFIER, tmp_path, dtype=torch.float32))


def test_half_precision_is_written_as_it_is(pair_of, tmp_path: Path):
    pair_of(CLASSIFIER)[0].to(torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert open_theirs(CLASSIFIER, tmp_path).dtype == torch.bfloat16


# sentence-transformers.


def test_sentence_transformers_directories_go_both_ways(make_checkpoint, tmp_path: Path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    base = make_checkpoint("XLMRobertaModel")
    encoder = Transformer(str(base))
    SentenceTransformer(modules=[encoder, Pooling(32)], device="cpu").save(str(tmp_path / "theirs"))
    model = open_ours("XLMRobertaModel", tmp_path / "theirs")
    assert_same_weights(model, transformers.XLMRobertaModel.from_pretrained(base))
    shutil.copytree(tmp_path / "theirs", tmp_path / "ours")
    (tmp_path / "ours/model.safetensors").unlink()
    nn.init.normal_(model.encoder.layer[0].output.dense.weight)
    model.save_pretrained(tmp_path / "ours")
    assert (tmp_path / "ours/modules.json").is_file()
    read = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    inner = next(part for part in read.modules() if isinstance(part, transformers.XLMRobertaModel))
    assert_same_weights(model, inner)


# The projection to the vocabulary.


@pytest.mark.parametrize("stated", [True, False])
def test_a_projection_of_its_own_is_kept_whatever_the_config_says(pair_of, theirs, stated: bool):
    directory = theirs(MASKED_LM, tie_word_embeddings=False)
    # Both biases are there and differ: transformers computes with the projection's.
    rewrite(directory, lambda tensors: tensors | {"lm_head.decoder.bias": torch.randn(120)})
    edit_config(directory, tie_word_embeddings=stated)
    mine, other = open_ours(MASKED_LM, directory), open_theirs(MASKED_LM, directory)
    torch.testing.assert_close(logits(mine), logits(other), rtol=0, atol=1e-5)
    assert torch.equal(mine.state_dict()[DECODER], other.state_dict()[DECODER])
    assert mine.lm_head.decoder.weight is not mine.get_input_embeddings().weight
    # The config says what is the case, so that nothing is tied when the model is written and read again.
    assert mine.config.tie_word_embeddings is False
    mine.save_pretrained(directory)
    torch.testing.assert_close(logits(open_theirs(MASKED_LM, directory)), logits(mine), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stated", [True, False])
def test_a_projection_that_equals_the_word_table_is_tied_where_the_config_says_so(theirs, stated: bool):
    directory = theirs(MASKED_LM)
    rewrite(
        directory, lambda tensors: tensors | {DECODER: tensors[WORDS], "lm_head.decoder.bias": tensors["lm_head.bias"]}
    )
    edit_config(directory, tie_word_embeddings=stated)
    mine, other = open_ours(MASKED_LM, directory), open_theirs(MASKED_LM, directory)
    assert_same(mine, other)
    for model in (mine, other):
        assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == stated
    # Two tables have two memories.
    before = mine.get_output_embeddings().weight.clone()
    with torch.no_grad():
        mine.get_input_embeddings().weight.add_(1)
    assert torch.equal(mine.get_output_embeddings().weight, before) != stated


def test_an_untied_projection_that_is_nowhere_is_initialised_as_in_transformers(theirs):
    directory = theirs(MASKED_LM)
    edit_config(directory, tie_word_embeddings=False)
    _, told = transformers.XLMRobertaForMaskedLM.from_pretrained(directory, output_loading_info=True)
    # The bias under its usual name is the projection's in 4.56.2; this version starts it anew.
    assert told["missing_keys"] == {DECODER, "lm_head.decoder.bias"}
    with pytest.warns(UserWarning, match=rf"does not hold {DECODER}: initialised"):
        mine = open_ours(MASKED_LM, directory)
    assert not torch.equal(mine.lm_head.decoder.weight, mine.get_input_embeddings().weight)


# Training.


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_an_opened_model_trains_and_its_file_stays(pair_of, tmp_path: Path, file: str):
    other = pair_of(CLASSIFIER)[1]
    other.save_pretrained(tmp_path)
    if file.endswith(".bin"):
        (tmp_path / "model.safetensors").unlink()
        torch.save(other.state_dict(), tmp_path / file)
    before = (tmp_path / file).read_bytes()
    model = open_ours(CLASSIFIER, tmp_path)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    model.train()(IDS, MASK, labels=torch.tensor([0, 1])).loss.backward()
    optimiser.step()
    unmoved = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, start[name])}
    assert not {name for name in unmoved if not name.endswith("key.bias")}
    assert (tmp_path / file).read_bytes() == before
    model.save_pretrained(tmp_path)
    assert_same_weights(open_ours(CLASSIFIER, tmp_path), model)
    assert_same_weights(open_theirs(CLASSIFIER, tmp_path), model)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_state_dict_of_the_callers_is_written_in_the_place_of_the_models(pair_of, tmp_path: Path):
    one, _ = pair_of(CLASSIFIER)
    averaged = {name: tensor * 0.5 for name, tensor in one.state_dict().items()}
    one.save_pretrained(tmp_path, state_dict=averaged)
    read = open_theirs(CLASSIFIER, tmp_path).state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in averaged.items())


def test_state_dicts_of_both_are_one(pair_of):
    one, other = pair_of(MASKED_LM)
    other.load_state_dict(one.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*lm_head\.dense\.weight"):
        one.load_state_dict({name: t for name, t in other.state_dict().items() if name != "lm_head.dense.weight"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*classifier"):
        one.load_state_dict(other.state_dict() | {"classifier.weight": torch.zeros(1)})


def test_a_path_that_is_a_file_is_not_written_to(pair_of, tmp_path: Path):
    (tmp_path / "model").touch()
    with pytest.raises(CheckpointError, match="is a file, it must be a directory"):
        pair_of(CLASSIFIER)[0].save_pretrained(tmp_path / "model")


def test_the_embedded_model_opens():
    model = xlmr_core.AutoModel.from_pretrained("mini", add_pooling_layer=False)
    assert model(torch.tensor([[0, 5, 2]])).last_hidden_state.shape == (1, 3, model.config.hidden_size)


def test_where_and_how_to_fetch_is_no_setting_of_a_model(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b"])
    how = {"revision": "main", "low_cpu_mem_usage": True, "use_safetensors": True, "trust_remote_code": False}
    for opener in (xlmr_core.XLMRobertaForSequenceClassification, xlmr_core.AutoModelForSequenceClassification):
        model = opener.from_pretrained(directory, **how)
        assert not vars(model.config).keys() & how.keys()
    with pytest.raises(CheckpointError, match=r"'nobody/nothing' cannot be had.*--revision abc"):
        xlmr_core.AutoModel.from_pretrained("nobody/nothing", revision="abc")
