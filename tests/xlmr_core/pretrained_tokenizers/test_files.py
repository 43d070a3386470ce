"""Reading and writing, in both directions with transformers; which class a directory asks for; signatures."""

import inspect
import json
import pickle
import shutil
from pathlib import Path

import pytest
import transformers

from xlmr_core.errors import ArgumentError, CheckpointError
from xlmr_core.pretrained_tokenizers import (
    AutoTokenizer,
    RobertaTokenizer,
    RobertaTokenizerFast,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
)

TEXTS = ["hello the world <mask>!", " in  the\twater", "é 你好 😂", "", "<new> token<s>"]
TOKENS = "bos_token eos_token sep_token cls_token unk_token pad_token mask_token"
WANTED = {"return_offsets_mapping": True, "return_special_tokens_mask": True}


def arguments(function) -> dict:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "kwargs")
    }


@pytest.mark.parametrize(
    ("cls", "first", "last"),
    [
        (XLMRobertaTokenizer, {"vocab_file": inspect.Parameter.empty}, {"sp_model_kwargs": None}),
        (XLMRobertaTokenizerFast, {"vocab_file": None, "tokenizer_file": None}, {}),
        (
            RobertaTokenizer,
            {"vocab_file": inspect.Parameter.empty, "merges_file": inspect.Parameter.empty, "errors": "replace"},
            {"add_prefix_space": False},
        ),
        (
            RobertaTokenizerFast,
            {"vocab_file": None, "merges_file": None, "tokenizer_file": None, "errors": "replace"},
            {"add_prefix_space": False, "trim_offsets": True},
        ),
    ],
)
def test_constructors_have_the_documented_signatures(cls, first, last):
    tokens = dict(zip(TOKENS.split(), ["<s>", "</s>", "</s>", "<s>", "<unk>", "<pad>", "<mask>"], strict=True))
    assert list(arguments(cls).items()) == list({**first, **tokens, **last}.items())


@pytest.mark.parametrize("name", ["build_inputs_with_special_tokens", "create_token_type_ids_from_sequences"])
def test_methods_have_the_documented_signatures(name):
    assert arguments(getattr(RobertaTokenizer, name)) == {"token_ids_0": inspect.Parameter.empty, "token_ids_1": None}


def test_a_saved_tokenizer_is_the_same_here_and_in_transformers(pair, tmp_path):
    ours = pair.ours
    ours.save_pretrained(tmp_path)
    for again in (
        AutoTokenizer.from_pretrained(tmp_path),
        type(ours).from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    ):
        assert dict(again(TEXTS, **WANTED)) == dict(ours(TEXTS, **WANTED))
        assert again.special_tokens_map == ours.special_tokens_map
        assert again.all_special_ids == ours.all_special_ids
        assert (again.model_max_length, len(again)) == (64, len(ours))


def test_what_transformers_saved_is_the_same_here(pair, tmp_path):
    pair.theirs.save_pretrained(tmp_path)
    ours = AutoTokenizer.from_pretrained(tmp_path)
    assert dict(ours(TEXTS, **WANTED)) == dict(pair.theirs(TEXTS, **WANTED))
    assert ours.model_max_length == 64


def test_added_tokens_and_settings_survive(byte_files, tmp_path):
    tokenizer = RobertaTokenizer.from_pretrained(
        byte_files, add_prefix_space=True, errors="ignore", trim_offsets=False, padding_side="left"
    )
    assert tokenizer.add_tokens(["<new>", "hello"]) == 1
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]}) == 1
    tokenizer.save_pretrained(tmp_path)
    again = RobertaTokenizerFast.from_pretrained(tmp_path)
    assert (again.add_prefix_space, again.errors, again.trim_offsets, again.padding_side) == (
        True,
        "ignore",
        False,
        "left",
    )
    assert again.additional_special_tokens == ["<extra>"]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["hello <new> world<extra>", "a"]:
        assert dict(again(text, **WANTED)) == dict(tokenizer(text, **WANTED)) == dict(theirs(text, **WANTED))


@pytest.mark.parametrize("name", [pytest.param("xlmr", marks=pytest.mark.slow), "roberta", "toy_pair"])
def test_real_tokenizers_written_here_are_read_by_transformers(name, request, tmp_path):
    ours = request.getfixturevalue(name).ours
    ours.save_pretrained(tmp_path)
    assert dict(transformers.AutoTokenizer.from_pretrained(tmp_path)(TEXTS, **WANTED)) == dict(ours(TEXTS, **WANTED))


@pytest.mark.parametrize("name", [pytest.param("xlmr_slow", marks=pytest.mark.slow), "roberta", "toy_pair"])
def test_real_tokenizers_written_by_transformers_are_read_here(name, request, tmp_path):
    ours, theirs = request.getfixturevalue(name)
    theirs.save_pretrained(tmp_path)
    assert dict(AutoTokenizer.from_pretrained(tmp_path)(TEXTS, **WANTED)) == dict(ours(TEXTS, **WANTED))


def test_vocabulary_files_are_written(byte_files, tmp_path, pair):
    written = RobertaTokenizer.from_pretrained(byte_files).save_vocabulary(str(tmp_path), "some")
    assert written == (str(tmp_path / "some-vocab.json"), str(tmp_path / "some-merges.txt"))
    again = RobertaTokenizer(*written)
    assert again(TEXTS)["input_ids"] == RobertaTokenizer.from_pretrained(byte_files)(TEXTS)["input_ids"]
    with pytest.raises(ArgumentError, match="is no directory"):
        pair.ours.save_vocabulary(str(tmp_path / "nowhere"))


def test_the_sentencepiece_model_is_copied(toy, tmp_path):
    tokenizer = XLMRobertaTokenizer(str(toy))
    (copied,) = tokenizer.save_vocabulary(str(tmp_path))
    assert copied == str(tmp_path / "sentencepiece.bpe.model")
    assert Path(copied).read_bytes() == toy.read_bytes()
    # Onto itself, too.
    assert XLMRobertaTokenizer.from_pretrained(tmp_path).save_vocabulary(str(tmp_path)) == (copied,)
    assert sorted(path.rpartition("/")[2] for path in tokenizer.save_pretrained(tmp_path, legacy_format=True)) == [
        "sentencepiece.bpe.model",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_without_a_sentencepiece_model_there_is_none_to_copy(small, tmp_path):
    with pytest.raises(ArgumentError, match="json alone"):
        small.ours.save_vocabulary(str(tmp_path))


def test_a_file_of_a_tokenizer_can_be_named(byte_files, tokenizer_json, toy):
    assert RobertaTokenizer.from_pretrained(byte_files / "vocab.json").encode("hello")
    assert XLMRobertaTokenizer.from_pretrained(tokenizer_json).encode("hello")
    assert XLMRobertaTokenizer.from_pretrained(toy).encode("This is a test") == [0, 286, 47, 11, 171, 383, 2]


def test_tokens_that_old_tokenizers_kept_beside_the_vocabulary(byte_files, tmp_path):
    """As transformers 4 wrote them: added_tokens.json and special_tokens_map.json."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(byte_files / name, tmp_path)
    size = len(json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8")))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": size, "<other>": size + 1}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<other>"]}))
    ours, theirs = RobertaTokenizer.from_pretrained(tmp_path), transformers.RobertaTokenizer.from_pretrained(tmp_path)
    text = "hello <new> the<other>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.decode(ours.encode(text), skip_special_tokens=True) == "hello <new> the"
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": size + 7}))
    with pytest.raises(CheckpointError, match=r"do not get their ids '<new>'"):
        RobertaTokenizer.from_pretrained(tmp_path)


class TestAutoTokenizer:
    @pytest.mark.parametrize(
        ("written", "fast", "expected"),
        [
            ({"tokenizer_class": "XLMRobertaTokenizer"}, True, XLMRobertaTokenizerFast),
            ({"tokenizer_class": "XLMRobertaTokenizerFast"}, False, XLMRobertaTokenizer),
            ({"tokenizer_class": "RobertaTokenizer"}, True, RobertaTokenizerFast),
            ({"tokenizer_class": "PreTrainedTokenizerFast"}, True, XLMRobertaTokenizerFast),
            ({}, True, XLMRobertaTokenizerFast),
        ],
    )
    def test_the_directory_names_the_class(self, tokenizer_json, tmp_path, written, fast, expected):
        shutil.copy(tokenizer_json, tmp_path)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(written))
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, use_fast=fast)
        assert type(tokenizer) is expected
        assert tokenizer.is_fast is fast

    def test_the_model_type_or_the_files_do(self, tokenizer_json, byte_files, tmp_path):
        assert type(AutoTokenizer.from_pretrained(byte_files)) is RobertaTokenizerFast
        shutil.copy(tokenizer_json, tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
        assert type(AutoTokenizer.from_pretrained(tmp_path)) is RobertaTokenizerFast

    def test_mini_is_one(self):
        tokenizer = AutoTokenizer.from_pretrained("mini")
        assert tokenizer.decode(tokenizer("Hello, my dog").input_ids, skip_special_tokens=True) == "Hello, my dog"

    @pytest.mark.parametrize(
        ("name", "content"),
        [("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}), ("config.json", {"model_type": "bert"})],
    )
    def test_another_family_is_refused_by_name(self, tokenizer_json, tmp_path, name, content):
        shutil.copy(tokenizer_json, tmp_path)
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=next(iter(content.values()))):
            AutoTokenizer.from_pretrained(tmp_path)

    def test_it_cannot_be_made(self):
        with pytest.raises(ArgumentError, match="from_pretrained"):
            AutoTokenizer()


def test_of_a_hub_repository_no_weights_are_fetched(byte_files, tmp_path, monkeypatch):
    asked = {}

    def snapshot(repository, *, revision, allow_patterns):
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    shutil.copytree(byte_files, tmp_path / "inner")
    monkeypatch.setattr("xlmr_core.checkpoint.location.snapshot_download", snapshot)
    tokenizer = RobertaTokenizer.from_pretrained("org/name", revision="v2", subfolder="inner")
    assert tokenizer.name_or_path == "org/name"
    assert (asked["repository"], asked["revision"]) == ("org/name", "v2")
    assert "merges.txt" in asked["patterns"]
    assert not [pattern for pattern in asked["patterns"] if pattern.startswith(("model", "pytorch_model"))]
    # As the documents call it.
    AutoTokenizer.from_pretrained("roberta-base", subfolder="inner")
    assert asked["repository"] == "FacebookAI/roberta-base"


class TestBadFiles:
    def test_an_empty_directory(self, tmp_path):
        for cls in (AutoTokenizer, XLMRobertaTokenizer, RobertaTokenizerFast):
            with pytest.raises(CheckpointError, match="not found, it must hold"):
                cls.from_pretrained(tmp_path)

    def test_no_directory(self):
        with pytest.raises(CheckpointError, match="no directory"):
            XLMRobertaTokenizer.from_pretrained("/nowhere/at all")

    def test_files_that_are_missing_or_none(self, byte_files, tmp_path):
        with pytest.raises(CheckpointError, match=r"gone\.model is no file"):
            XLMRobertaTokenizer(str(tmp_path / "gone.model"))
        with pytest.raises(ArgumentError, match="without vocab_file and merges_file"):
            RobertaTokenizer(str(byte_files / "vocab.json"), None)
        with pytest.raises(ArgumentError, match="without vocab_file"):
            XLMRobertaTokenizerFast()
        (tmp_path / "broken.model").write_bytes(b"\xff" * 40)
        with pytest.raises(CheckpointError, match=r"broken\.model"):
            XLMRobertaTokenizer(str(tmp_path / "broken.model"))

    def test_files_of_the_other_class(self, byte_files, toy, tmp_path):
        with pytest.raises(CheckpointError, match="AutoTokenizer"):
            XLMRobertaTokenizer.from_pretrained(byte_files)
        shutil.copy(toy, tmp_path / "sentencepiece.bpe.model")
        with pytest.raises(CheckpointError, match="AutoTokenizer"):
            RobertaTokenizer.from_pretrained(tmp_path)

    def test_another_frame(self, tokenizer_json, tmp_path):
        content = json.loads(tokenizer_json.read_text(encoding="utf-8"))
        bos, first, eos, _, second, _ = content["post_processor"]["pair"]
        content["post_processor"]["pair"] = [bos, first, eos, second, eos]
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(CheckpointError, match="frame"):
            XLMRobertaTokenizerFast.from_pretrained(tmp_path)

    def test_unknown_and_wrong_arguments_are_all_named(self, byte_files):
        wrong = {"padding_side": "up", "foo": 1, "model_max_length": "x"}
        with pytest.raises(ArgumentError, match=r"(?s)foo.*model_max_length 'x'.*padding_side 'up'"):
            RobertaTokenizer.from_pretrained(byte_files, **wrong)
        with pytest.raises(ArgumentError, match=r"(?s)errors 'nonsense'.*add_prefix_space 1"):
            RobertaTokenizer.from_pretrained(byte_files, errors="nonsense", add_prefix_space=1)


def test_a_pickled_tokenizer_is_the_same(pair):
    again = pickle.loads(pickle.dumps(pair.ours))
    assert dict(again(TEXTS, **WANTED)) == dict(pair.ours(TEXTS, **WANTED))
    assert repr(again) == repr(pair.ours)
