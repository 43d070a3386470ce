"""`XLMRobertaConfig` and `RobertaConfig` beside those of transformers, `AutoConfig` and the choice of classes."""

import inspect
import json
import warnings
from pathlib import Path

import pytest
import torch
import transformers

import xlmr_core
from xlmr_core.errors import ArgumentError, CheckpointError
from xlmr_core.models import PreTrainedModel

FAMILIES = ("XLMRoberta", "Roberta")
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
DOCUMENTED = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size"),
    *("initializer_range", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id", "use_cache"),
    *("classifier_dropout", "is_decoder", "add_cross_attention", "tie_word_embeddings", "output_hidden_states"),
    *("output_attentions", "return_dict", "num_labels", "id2label", "problem_type", "architectures", "dtype"),
)
SETTINGS = [
    {},
    {"num_labels": 5},
    {"num_labels": 1, "problem_type": "regression"},
    {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}},
    {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}},
    {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}, "num_labels": 3},
    {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}, "num_labels": 5},
    {"label2id": {"a": 0, "b": 1, "c": 2}, "num_labels": 3},
    {"hidden_size": 64, "num_attention_heads": 4, "layer_norm_eps": 1e-5, "type_vocab_size": 1},
    {"bos_token_id": None, "eos_token_id": None, "classifier_dropout": 0.0},
    {"is_decoder": True, "tie_word_embeddings": False, "use_cache": False},
    {"output_hidden_states": True, "return_dict": False, "problem_type": "multi_label_classification"},
    {"output_attentions": True},
    {"dtype": "bfloat16"},
    {"dtype": torch.float16, "architectures": ["XLMRobertaModel"]},
    {"torch_dtype": "float16"},
]


def ours(family: str, **settings: object) -> xlmr_core.XLMRobertaConfig:
    return getattr(xlmr_core, f"{family}Config")(**settings)


def theirs(family: str, **settings: object) -> transformers.PreTrainedConfig:
    return getattr(transformers, f"{family}Config")(**settings)


def differing(one: object, other: object, names: tuple[str, ...] = DOCUMENTED) -> dict[str, tuple[object, object]]:
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The configuration of a model with named labels, written by transformers."""
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    theirs("XLMRoberta", **TINY, **labels, trained_for="news").save_pretrained(tmp_path)
    return tmp_path


# Attributes.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_settings_and_defaults_are_those_of_transformers(family: str, settings: dict[str, object]):
    assert not differing(ours(family, **settings), theirs(family, **settings))


@pytest.mark.parametrize("settings", [s for s in SETTINGS if "id2label" not in s or "label2id" in s], ids=str)
def test_label_ids_are_those_of_transformers(settings: dict[str, object]):
    assert ours("XLMRoberta", **settings).label2id == theirs("XLMRoberta", **settings).label2id


def test_ids_of_named_labels_are_known_even_where_transformers_leaves_them_open():
    names = {0: "no", 1: "yes"}
    assert theirs("XLMRoberta", id2label=names).label2id is None
    assert ours("XLMRoberta", id2label=names).label2id == {"no": 0, "yes": 1}


@pytest.mark.parametrize("start", [{}, {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_new_number_of_labels_keeps_names_as_many(start: dict[str, object], count: int):
    one, other = ours("XLMRoberta", **start), theirs("XLMRoberta", **start)
    one.num_labels = other.num_labels = count
    assert not differing(one, other, ("num_labels", "id2label", "label2id"))


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "3"])
def test_an_impossible_number_of_labels_is_refused(count: object):
    with pytest.raises(ArgumentError, match=r"num_labels .*, it must be a whole number from 1"):
        ours("XLMRoberta", num_labels=count)


@pytest.mark.parametrize("name", ["id2label", "label2id"])
def test_labels_that_are_no_map_are_refused(name: str):
    with pytest.raises(ArgumentError, match=f"{name} 'positive'.*they must map"):
        ours("XLMRoberta", **({"id2label": {0: "a"}} | {name: "positive"}))


def test_parameters_may_be_given_by_place():
    assert ours("Roberta").vocab_size == 50265
    assert xlmr_core.XLMRobertaConfig(100, 32).hidden_size == 32
    assert xlmr_core.RobertaConfig(100, 32).hidden_size == 32


def test_an_unknown_setting_is_refused_by_name():
    with pytest.raises(ArgumentError, match=r"XLMRobertaConfig got hiden_size, n_heads, it is no setting"):
        ours("XLMRoberta", hiden_size=32, n_heads=2)


@pytest.mark.parametrize("given", ["float33", 32, "auto"])
def test_an_unknown_type_of_weights_is_refused(given: object):
    with pytest.raises(ArgumentError, match=r"dtype .*, it must be a type of torch or its name"):
        ours("XLMRoberta", dtype=given)


def test_an_unknown_attention_is_refused():
    with pytest.raises(ArgumentError, match="attn_implementation 'flex', it must be one of"):
        ours("XLMRoberta", attn_implementation="flex")


def test_configurations_are_equal_when_their_settings_are():
    assert ours("XLMRoberta") == ours("XLMRoberta")
    assert ours("XLMRoberta") != ours("XLMRoberta", num_labels=3)
    assert ours("XLMRoberta", vocab_size=50265) != ours("Roberta")


def test_two_configurations_share_nothing():
    names = ["XLMRobertaModel"]
    one = ours("XLMRoberta", architectures=names)
    one.architectures.append("another")
    one.id2label[0] = "changed"
    assert names == ["XLMRobertaModel"]
    assert ours("XLMRoberta").id2label[0] == "LABEL_0"


# Files.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [s for s in SETTINGS if "output_attentions" not in s], ids=str)
def test_transformers_reads_what_we_write_and_the_other_way_round(family: str, settings: dict, tmp_path: Path):
    mine, other = ours(family, **settings), theirs(family, **settings)
    mine.save_pretrained(tmp_path / "ours")
    other.save_pretrained(tmp_path / "theirs")
    read = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert type(read) is type(other)
    assert not differing(read, other)
    for folder in ("ours", "theirs"):
        again = xlmr_core.AutoConfig.from_pretrained(tmp_path / folder)
        assert type(again) is type(mine)
        assert not differing(again, mine)
        assert again.label2id == mine.label2id


def test_a_configuration_reads_back_equal(tmp_path: Path):
    config = ours("XLMRoberta", id2label={0: "nein", 1: "はい"}, dtype="bfloat16", bos_token_id=None)
    config.save_pretrained(tmp_path)
    read = xlmr_core.XLMRobertaConfig.from_pretrained(tmp_path)
    assert read.name_or_path == str(tmp_path)
    read.name_or_path = ""
    assert read == config
    assert xlmr_core.XLMRobertaConfig.from_json_file(tmp_path / "config.json") == config
    assert xlmr_core.XLMRobertaConfig.from_dict(config.to_dict()) == config


def test_unknown_keys_of_a_file_are_kept_and_written_again(saved: Path, tmp_path: Path):
    config = xlmr_core.XLMRobertaConfig.from_pretrained(saved)
    assert config.trained_for == "news"
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["trained_for"] == "news"


def test_an_unknown_override_is_refused_by_name(saved: Path):
    with pytest.raises(ArgumentError, match="got num_label, it is no setting"):
        xlmr_core.XLMRobertaConfig.from_pretrained(saved, num_label=3)


@pytest.mark.parametrize(
    "overrides",
    [
        {"num_labels": 3},
        {"num_labels": 5},
        {"id2label": {0: "x", 1: "y"}, "label2id": {"x": 0, "y": 1}},
        {"problem_type": "multi_label_classification"},
        {"hidden_dropout_prob": 0.0, "output_hidden_states": True},
    ],
    ids=str,
)
def test_overrides_of_a_file_do_what_they_do_in_transformers(saved: Path, overrides: dict[str, object]):
    mine = xlmr_core.XLMRobertaConfig.from_pretrained(saved, **overrides)
    other = transformers.XLMRobertaConfig.from_pretrained(saved, **overrides)
    assert not differing(mine, other, (*DOCUMENTED, "label2id"))


def test_new_names_bring_their_ids_where_transformers_keeps_the_old(saved: Path):
    names = {0: "x", 1: "y"}
    assert transformers.XLMRobertaConfig.from_pretrained(saved, id2label=names).label2id == {"a": 0, "b": 1, "c": 2}
    assert xlmr_core.XLMRobertaConfig.from_pretrained(saved, id2label=names).label2id == {"x": 0, "y": 1}


def test_a_path_that_is_a_file_is_not_written_to(tmp_path: Path):
    (tmp_path / "model").touch()
    with pytest.raises(CheckpointError, match="is a file, it must be a directory"):
        ours("XLMRoberta").save_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), ("{", "is not valid JSON"), ("[]", "it must be an object")],
    ids=["none", "broken", "list"],
)
def test_a_configuration_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: str | None, said: str):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    for reader in (xlmr_core.XLMRobertaConfig, xlmr_core.AutoConfig):
        with pytest.raises(CheckpointError, match=said):
            reader.from_pretrained(tmp_path)


# Values are checked when a model is built.


def test_all_values_that_no_model_can_have_are_named_at_once():
    config = ours("XLMRoberta", **(TINY | {"hidden_size": 0, "hidden_act": "swish", "hidden_dropout_prob": 2}))
    config.position_embedding_type = "relative_key"
    config.add_cross_attention = True
    config.pad_token_id = None
    config.problem_type = "ranking"
    with pytest.raises(ArgumentError) as caught:
        xlmr_core.XLMRobertaModel(config)
    for name in (
        *("hidden_size 0", "hidden_act 'swish'", "hidden_dropout_prob 2", "'relative_key'", "add_cross_attention True"),
        *("pad_token_id None", "problem_type 'ranking'"),
    ):
        assert name in str(caught.value)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ArgumentError, match="hidden_size 16, num_attention_heads 3 must divide it"):
        xlmr_core.XLMRobertaModel(ours("XLMRoberta", **(TINY | {"num_attention_heads": 3})))


def test_a_head_without_outputs_is_refused():
    with pytest.raises(ArgumentError, match="id2label is empty"):
        xlmr_core.XLMRobertaForSequenceClassification(ours("XLMRoberta", **TINY, id2label={}))


@pytest.mark.parametrize("config", [None, {"hidden_size": 16}, "models/xlmr", transformers.XLMRobertaConfig()])
def test_what_is_no_configuration_builds_no_model(config: object):
    with pytest.raises(ArgumentError, match=r"it must be a XLMRobertaConfig; use XLMRobertaModel.from_pretrained"):
        xlmr_core.XLMRobertaModel(config)


# What is changed later counts.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"return_dict": False},
        {"output_attentions": True, "output_hidden_states": True, "return_dict": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification", "ForQuestionAnswering"])
def test_outputs_asked_for_by_the_configuration_of_a_built_model(pair_of, head: str, changes: dict[str, bool]):
    one, other = pair_of(f"XLMRoberta{head}", num_hidden_layers=2, attn_implementation="eager")
    for name, value in changes.items():
        setattr(one.config, name, value)
        setattr(other.config, name, value)
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    mine, wanted = one(ids), other(ids)
    assert isinstance(mine, tuple) == isinstance(wanted, tuple)
    if not isinstance(mine, tuple):
        # Where attentions are asked for, this version of theirs has empty cross attentions, also in the tuple.
        assert tuple(mine.keys()) == tuple(name for name, value in wanted.items() if len(value))
        mine, wanted = mine.to_tuple(), wanted.to_tuple()
    wanted = tuple(value for value in wanted if len(value))
    assert len(mine) == len(wanted)
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-5)


def test_what_a_call_asks_for_goes_before_the_configuration(pair_of):
    one, _ = pair_of("XLMRobertaModel", num_hidden_layers=1)
    one.config.return_dict, one.config.output_hidden_states = False, True
    output = one(torch.tensor([[0, 5, 2]]), return_dict=True, output_hidden_states=False)
    assert tuple(output.keys()) == ("last_hidden_state", "pooler_output")


# Auto classes.

KINDS = {
    "AutoModel": "Model",
    "AutoModelForMaskedLM": "ForMaskedLM",
    "AutoModelForCausalLM": "ForCausalLM",
    "AutoModelForSequenceClassification": "ForSequenceClassification",
    "AutoModelForMultipleChoice": "ForMultipleChoice",
    "AutoModelForTokenClassification": "ForTokenClassification",
    "AutoModelForQuestionAnswering": "ForQuestionAnswering",
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("auto", KINDS)
def test_an_auto_class_makes_the_class_of_its_kind(auto: str, family: str, tmp_path: Path):
    chooser, name = getattr(xlmr_core, auto), family + KINDS[auto]
    model = chooser.from_config(ours(family, **TINY, is_decoder="Causal" in auto))
    assert type(model) is getattr(xlmr_core, name)
    model.save_pretrained(tmp_path)
    assert type(chooser.from_pretrained(tmp_path)) is type(model)
    assert type(chooser.from_pretrained(tmp_path, config=model.config)) is type(model)
    assert type(chooser.from_pretrained(tmp_path, hidden_dropout_prob=0.0)) is type(model)


@pytest.mark.parametrize("auto", ["AutoConfig", *KINDS])
def test_an_auto_class_is_no_model_itself(auto: str):
    with pytest.raises(ArgumentError, match=rf"{auto}\(\) makes nothing.*{auto}.from_pretrained"):
        getattr(xlmr_core, auto)()


def test_camembert_is_opened_by_the_classes_of_roberta(tmp_path: Path):
    transformers.CamembertModel(transformers.CamembertConfig(**TINY)).save_pretrained(tmp_path)
    assert type(xlmr_core.AutoConfig.from_pretrained(tmp_path)) is xlmr_core.RobertaConfig
    model = xlmr_core.AutoModel.from_pretrained(tmp_path)
    assert isinstance(model, PreTrainedModel)
    assert type(model) is xlmr_core.RobertaModel


def test_another_family_is_refused(tmp_path: Path):
    transformers.BertConfig().save_pretrained(tmp_path)
    for auto in (xlmr_core.AutoConfig, xlmr_core.AutoModel, xlmr_core.AutoModelForMaskedLM):
        with pytest.raises(CheckpointError, match="has model_type 'bert', the classes here are for"):
            auto.from_pretrained(tmp_path)
    for reader in (xlmr_core.XLMRobertaConfig, xlmr_core.XLMRobertaModel):
        with pytest.raises(CheckpointError, match="has model_type 'bert', XLMRobertaConfig is for 'xlm-roberta'"):
            reader.from_pretrained(tmp_path)


def test_a_file_without_model_type_is_opened_by_the_class_that_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    assert xlmr_core.RobertaConfig.from_pretrained(tmp_path).hidden_size == 16
    with pytest.raises(CheckpointError, match="has model_type 'None'"):
        xlmr_core.AutoConfig.from_pretrained(tmp_path)


def test_reading_and_writing_say_nothing(saved: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xlmr_core.AutoConfig.from_pretrained(saved, num_labels=4).save_pretrained(saved)


def test_signatures_show_the_parameters_and_their_defaults():
    xlmr, roberta = (inspect.signature(getattr(xlmr_core, f"{name}Config")).parameters for name in FAMILIES)
    assert list(xlmr) == list(roberta)
    assert {name for name in xlmr if xlmr[name].default != roberta[name].default} == {"vocab_size"}
    assert roberta["vocab_size"].default == xlmr_core.RobertaConfig().vocab_size == 50265
