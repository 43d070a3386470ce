"""What is written is read back equal, by us and by transformers; and never half."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors import safe_open

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory, writing
from xlmr_core.checkpoint.task_heads import tie
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import MaskedLMHead, SequenceHead, TokenHead

CONFIG = EncoderConfig(
    vocab_size=120,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=130,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
)
LABELS = ("neg", "neutral", "pos")


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(CONFIG).eval()


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/tokenizer.json").write_text('{"any": "content"}')
    (tmp_path / "base/README.md").write_text("not a tokenizer file")
    return tmp_path / "base"


@pytest.fixture
def sequence_head():
    torch.manual_seed(1)
    return SequenceHead(CONFIG, 3).eval()


def assert_same(read, written):
    """Equal bit by bit. Outputs need not be: matrix kernels round by where in memory a weight begins."""
    read, written = read.state_dict(), written.state_dict()
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], written[name]) for name in written)


@torch.inference_mode()
def outputs(encoder, texts, head=None):
    batch = PackedBatch.from_lists(texts, first_position=2)
    hidden_TD = encoder(batch)
    return head(hidden_TD, batch) if head else hidden_TD


def test_a_bare_encoder_is_read_back_and_by_transformers(encoder, tokenizer, texts_of, tmp_path):
    write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer)
    texts = texts_of([9])
    expected = outputs(encoder, texts)
    assert_same(Checkpoint.open(str(tmp_path / "out")).load_encoder(), encoder)
    theirs, info = transformers.AutoModel.from_pretrained(
        tmp_path / "out", add_pooling_layer=False, output_loading_info=True
    )
    assert not any(info.values())
    with torch.inference_mode():
        hidden = theirs.eval()(torch.tensor(texts)).last_hidden_state[0]
    assert torch.allclose(hidden, expected, atol=1e-5)
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert "embeddings.word_embeddings.weight" in file.keys()  # noqa: SIM118
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_a_sequence_head_is_read_back_and_by_transformers(
    encoder, tokenizer, sequence_head, texts_of, tmp_path, problem
):
    head = TrainedHead(sequence_head, LABELS, problem, {"max_length": 64, "thresholds": [0.5]})
    write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer, head=head)
    checkpoint, texts = Checkpoint.open(str(tmp_path / "out")), texts_of([9])
    expected = outputs(encoder, texts, sequence_head)
    assert_same(checkpoint.load_encoder(), encoder)
    assert_same(checkpoint.load_head("sequence-classification"), sequence_head)
    assert (checkpoint.task, checkpoint.max_length) == ("sequence-classification", 64)
    assert (checkpoint.config.id2label, checkpoint.config.problem_type) == (LABELS, problem)
    assert checkpoint.settings["thresholds"] == [0.5]
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert theirs.config.id2label == dict(enumerate(LABELS))
    with torch.inference_mode():
        assert torch.allclose(theirs(torch.tensor(texts)).logits, expected, atol=1e-5)


def test_a_token_head_is_read_back_and_by_transformers(encoder, tokenizer, texts_of, tmp_path):
    module = TokenHead(CONFIG, 5).eval()
    write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer, head=TrainedHead(module))
    checkpoint, texts = Checkpoint.open(str(tmp_path / "out")), texts_of([9])
    expected = outputs(encoder, texts, module)
    assert_same(checkpoint.load_head("token-classification"), module)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        assert torch.allclose(theirs(torch.tensor(texts)).logits[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "kind", "make", "class_name"),
    [
        ("question-answering", "question-answering", lambda: TokenHead(CONFIG, 2), "XLMRobertaForQuestionAnswering"),
        ("multiple-choice", "multiple-choice", lambda: SequenceHead(CONFIG, 1), "XLMRobertaForMultipleChoice"),
        ("sparse-embedding", "sparse", lambda: TokenHead(CONFIG, 1), None),
        ("multi-vector-embedding", "multi-vector", lambda: TokenHead(CONFIG, 16), None),
    ],
)
def test_heads_of_every_kind_are_read_back_and_by_transformers(
    encoder, tokenizer, texts_of, tmp_path, task, kind, make, class_name
):
    module = make().eval()
    head = TrainedHead(module, settings={"max_length": 40}, task=task)
    write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer, head=head, heads={"again": head})
    texts = texts_of([9])
    expected = outputs(encoder, texts, module)
    for name in ("out", "out#again"):
        checkpoint = Checkpoint.open(str(tmp_path / name))
        assert (checkpoint.task, checkpoint.max_length) == (task, 40)
        assert_same(checkpoint.load_encoder(), encoder)
        assert_same(checkpoint.load_head(kind), module)
    if class_name is None:
        return
    theirs, info = getattr(transformers, class_name).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    with torch.inference_mode():
        if task == "multiple-choice":
            assert torch.allclose(theirs.eval()(torch.tensor([texts])).logits[0], expected[0], atol=1e-5)
        else:
            found = theirs.eval()(torch.tensor(texts))
            assert torch.allclose(torch.stack([found.start_logits[0], found.end_logits[0]], 1), expected, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_masked_lm_head_is_read_back_and_by_transformers(encoder, tokenizer, texts_of, tmp_path, tied):
    module = MaskedLMHead(CONFIG, 120).eval()
    if tied:
        module.decoder.weight = encoder.embeddings.word_embeddings.weight
    write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer, head=TrainedHead(module))
    checkpoint, texts = Checkpoint.open(str(tmp_path / "out")), texts_of([9])
    assert checkpoint.task == "fill-mask"
    assert_same(checkpoint.load_head("masked-lm"), module)
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert ("lm_head.decoder.weight" in file.keys()) is not tied  # noqa: SIM118
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert (theirs.lm_head.decoder.weight is theirs.roberta.embeddings.word_embeddings.weight) is tied
    with torch.inference_mode():
        expected = module(outputs(encoder, texts))
        assert torch.allclose(theirs.eval()(torch.tensor(texts)).logits[0], expected, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_a_causal_model_is_read_back_and_by_transformers(tokenizer, texts_of, tmp_path, tied, model_type):
    torch.manual_seed(0)
    config = replace(CONFIG, model_type=model_type)
    encoder, module = Encoder(config).eval(), MaskedLMHead(config, 120).eval()
    if tied:
        tie(module, encoder)
    # An encoder that was no decoder yet: so training of one begins.
    write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer, head=TrainedHead(module, task="causal-lm"))
    content = json.loads((tmp_path / "out/config.json").read_text())
    assert content["architectures"] == ["BertLMHeadModel" if model_type == "bert" else "XLMRobertaForCausalLM"]
    assert (content["is_decoder"], content["tie_word_embeddings"]) == (True, tied)
    checkpoint = Checkpoint.open(str(tmp_path / "out"))
    assert checkpoint.task == "causal-lm"
    decoder = checkpoint.load_encoder()
    head = checkpoint.load_head("masked-lm", decoder)
    assert (head.decoder.weight is decoder.embeddings.word_embeddings.weight) is tied
    (text,) = texts_of([9])
    batch = PackedBatch.from_lists([text], first_position=config.first_position)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    with torch.inference_mode():
        found = head(decoder(batch))
        assert torch.allclose(theirs.eval()(torch.tensor([text])).logits[0], found, atol=1e-5)
        # A token does not see those behind it.
        shorter = PackedBatch.from_lists([text[:4]], first_position=config.first_position)
        assert torch.allclose(head(decoder(shorter)), found[:4], atol=1e-5)
    write_model_directory(tmp_path / "again", decoder, tokenizer=tokenizer, head=TrainedHead(head, task="causal-lm"))
    assert_same(Checkpoint.open(str(tmp_path / "again")).load_encoder(), encoder)


def test_a_causal_model_has_no_other_heads(encoder, tokenizer, sequence_head, tmp_path):
    causal = TrainedHead(MaskedLMHead(CONFIG, 120), task="causal-lm")
    rule = "an encoder for causal-lm sees one side of a text and has that head alone"
    for heads in ({"head": causal, "heads": {"topic": TrainedHead(sequence_head)}}, {"heads": {"next": causal}}):
        with pytest.raises(CheckpointError, match=rule):
            write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer, **heads)
    decoder = Encoder(replace(CONFIG, is_decoder=True))
    with pytest.raises(CheckpointError, match=rule):
        write_model_directory(tmp_path / "out", decoder, tokenizer=tokenizer, head=TrainedHead(sequence_head))


def test_a_module_that_does_not_serve_its_task_is_refused(encoder, tokenizer, sequence_head, tmp_path):
    head = TrainedHead(sequence_head, task="question-answering")
    with pytest.raises(CheckpointError, match="is for question-answering, a SequenceHead does not serve that"):
        write_model_directory(tmp_path / "out", encoder, tokenizer=tokenizer, head=head)


def test_several_heads_share_one_encoder(encoder, tokenizer, sequence_head, tmp_path):
    heads = {
        "topic": TrainedHead(sequence_head, LABELS, "single_label_classification", {"max_length": 32}),
        "names": TrainedHead(TokenHead(CONFIG, 2).eval(), ("O", "PER")),
        "embedding": TrainedHead(None, settings={"pooling": ["mean"], "normalize": True}),
    }
    out = tmp_path / "out"
    write_model_directory(out, encoder, tokenizer=tokenizer, heads=heads, settings={"max_length": 100})
    opened = {name: Checkpoint.open(f"{out}#{name}") for name in heads}
    assert len({checkpoint.encoder_sha256() for checkpoint in opened.values()}) == 1
    assert {name: checkpoint.task for name, checkpoint in opened.items()} == {
        "topic": "sequence-classification",
        "names": "token-classification",
        "embedding": "embedding",
    }
    assert [opened[name].max_length for name in heads] == [32, 100, 100]
    assert (opened["topic"].config.id2label, opened["names"].config.id2label) == (LABELS, ("O", "PER"))
    assert opened["embedding"].embedding.pooling.modes == ("mean",)
    assert opened["topic"].embedding is None
    assert_same(opened["topic"].load_encoder(), encoder)
    assert_same(opened["topic"].load_head("sequence-classification"), sequence_head)
    assert Checkpoint.open(str(out)).task is None
    with pytest.raises(CheckpointError, match="names the head 'sentiment', it has embedding, names, topic"):
        Checkpoint.open(f"{out}#sentiment")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_file(encoder, tokenizer, texts_of, tmp_path, dtype):
    write_model_directory(tmp_path / "whole", encoder, tokenizer=tokenizer)
    write_model_directory(tmp_path / "half", encoder, tokenizer=tokenizer, dtype=dtype)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    read = Checkpoint.open(str(tmp_path / "half")).load_encoder()
    assert torch.allclose(outputs(read, texts_of([9])), outputs(encoder, texts_of([9])), atol=0.05)


def test_a_failed_write_leaves_nothing(encoder, tokenizer, tmp_path, monkeypatch):
    def break_off(*args):
        raise OSError("disk full")

    monkeypatch.setattr(writing, "_sync", break_off)
    with pytest.raises(OSError, match="disk full"):
        write_model_directory(tmp_path / "deep/out", encoder, tokenizer=tokenizer)
    assert not list((tmp_path / "deep").iterdir())


def test_nothing_is_ever_overwritten_and_all_problems_are_named(encoder, sequence_head, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").touch()
    heads = {
        "a/b": TrainedHead(sequence_head, ("one", "two")),
        "empty": TrainedHead(None),
    }
    with pytest.raises(CheckpointError) as error:
        write_model_directory(tmp_path / "out", encoder, tokenizer=tmp_path, heads=heads)
    for part in (
        "exists and is not empty",
        "no tokenizer files",
        "must be a plain file name",
        "has 2 labels, it must have 3",
        "head 'empty' has neither weights nor pooling",
    ):
        assert part in str(error.value)


def test_what_was_read_is_written_again_with_all_its_config_keys(saved, edit_json, tokenizer, tmp_path):
    directory = saved("XLMRobertaForSequenceClassification", num_labels=3)
    edit_json(directory / "config.json", custom="kept", torch_dtype="float16", model_type="camembert")
    checkpoint = Checkpoint.open(str(directory))
    head = TrainedHead(checkpoint.load_head("sequence-classification"), LABELS, "single_label_classification")
    write_model_directory(tmp_path / "out", checkpoint.load_encoder(), tokenizer=tokenizer, head=head)
    again = Checkpoint.open(str(tmp_path / "out"))
    assert again.config.extra["custom"] == "kept"
    assert (again.config.extra["dtype"], "torch_dtype" in again.config.extra) == ("float32", False)
    assert again.encoder_sha256() == checkpoint.encoder_sha256()
    assert again.head_sha256("sequence-classification") == checkpoint.head_sha256("sequence-classification")
