"""Twenty-two ways in which checkpoints of this family differ in the wild, each a point that a loader must pass.

Every point is one test, `test_01_...` to `test_22_...`; variants and refusals of each are beside this file. Logits are
those of transformers on the same directory wherever transformers gives any.
"""

import json
import pickle

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.encoder import optimise_for_inference
from xlmr_core.errors import CheckpointError, TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tokenization import Tokenizer

LABELS = ["red", "green", "blue"]
LENGTHS = [3, 9, 30]


@torch.inference_mode()
def logits_of(directory, texts, kind="sequence-classification", dtype=torch.float32):
    """Logits of our encoder and head."""
    checkpoint = Checkpoint.open(str(directory))
    encoder = optimise_for_inference(checkpoint.load_encoder(), device="cpu", dtype=dtype)
    head = optimise_for_inference(checkpoint.load_head(kind), device="cpu", dtype=dtype)
    batch = PackedBatch.from_lists(texts, first_position=checkpoint.config.first_position)
    hidden_TD = encoder(batch)
    return (head(hidden_TD) if kind == "masked-lm" else head(hidden_TD, batch)).float()


@torch.inference_mode()
def reference_of(directory, texts, auto_class=transformers.AutoModelForSequenceClassification):
    """Logits of transformers, one text at a time."""
    model = auto_class.from_pretrained(directory, dtype=torch.float32).eval()
    return torch.cat([model(torch.tensor([ids])).logits for ids in texts])


@torch.inference_mode()
def vectors_of(directory, texts):
    """Vectors of the graph."""
    plan = GraphPlan.resolve([Request("v", str(directory))])
    return np.asarray(ModelGraph(plan)(Preprocessor(plan)(texts)).columns["v"])


@pytest.fixture
def classifier(saved):
    return saved("XLMRobertaForSequenceClassification", num_labels=3)


def test_01_prefixed_and_unprefixed_names_give_the_same_logits(classifier, rewrite, texts_of):
    texts = texts_of(LENGTHS)
    expected = reference_of(classifier, texts)
    bare = {name.removeprefix("roberta."): t for name, t in load_file(classifier / "model.safetensors").items()}
    for prefix in ("", "xlm-roberta.", "camembert."):
        named = {name if name.startswith("classifier") else prefix + name: tensor for name, tensor in bare.items()}
        rewrite(classifier, lambda _, named=named: named)
        assert torch.allclose(logits_of(classifier, texts), expected, atol=1e-5)


def test_02_a_position_ids_buffer_changes_nothing(classifier, rewrite, texts_of):
    buffers = {"roberta.embeddings.position_ids": torch.arange(514)[None]}
    rewrite(classifier, lambda tensors: tensors | buffers)
    texts = texts_of(LENGTHS)
    assert torch.allclose(logits_of(classifier, texts), reference_of(classifier, texts), atol=1e-5)
    assert "roberta.embeddings.position_ids" in Checkpoint.open(str(classifier)).report.ignored


def test_03_gamma_and_beta_are_weight_and_bias(classifier, rewrite, texts_of):
    texts = texts_of(LENGTHS)
    expected = reference_of(classifier, texts)

    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    rewrite(classifier, lambda tensors: {old(name): tensor for name, tensor in tensors.items()})
    assert torch.allclose(logits_of(classifier, texts), expected, atol=1e-5)


def test_04_shards_are_as_good_as_one_file(classifier, random_model, texts_of, tmp_path):
    shards = tmp_path / "shards"
    random_model("XLMRobertaForSequenceClassification", num_labels=3).save_pretrained(shards, max_shard_size="40KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    texts = texts_of(LENGTHS)
    assert torch.equal(logits_of(shards, texts), logits_of(classifier, texts))


def test_05_a_float16_file_computes_in_bfloat16_near_the_float32_reference(classifier, rewrite, texts_of):
    rewrite(classifier, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    texts = texts_of(LENGTHS)
    expected = reference_of(classifier, texts)
    assert torch.allclose(logits_of(classifier, texts), expected, atol=1e-5)
    # bfloat16 keeps 8 bits; logits here are of the size of 1.
    assert torch.allclose(logits_of(classifier, texts, dtype=torch.bfloat16), expected, atol=0.05)


def test_06_a_missing_pooler_is_no_problem_for_vectors_and_an_error_for_multiple_choice(saved, rewrite, hidden_of):
    directory = saved("XLMRobertaForMultipleChoice")
    expected = hidden_of(directory)
    rewrite(directory, lambda tensors: {k: v for k, v in tensors.items() if "pooler" not in k})
    assert torch.equal(hidden_of(directory), expected)
    with pytest.raises(CheckpointError, match=r"no multiple-choice head, pooler\.dense\.weight, .* are missing"):
        Checkpoint.open(str(directory)).load_head("multiple-choice")


def test_07_a_missing_head_is_an_error_that_names_the_key(saved):
    with pytest.raises(CheckpointError, match=r"classifier\.out_proj\.weight.* missing; choose a checkpoint"):
        Checkpoint.open(str(saved())).load_head("sequence-classification")


def test_08_a_head_nobody_asked_for_is_ignored_and_listed(classifier, rewrite, texts_of):
    rewrite(classifier, lambda tensors: tensors | {"lm_head.dense.weight": torch.zeros(48, 48)})
    texts = texts_of(LENGTHS)
    assert torch.allclose(logits_of(classifier, texts), reference_of(classifier, texts), atol=1e-5)
    assert Checkpoint.open(str(classifier)).report.ignored == ("lm_head.dense.weight",)


@pytest.mark.parametrize("form", ["absent", "stored again", "its own", "its own unsaid"])
def test_09_the_lm_head_is_tied_where_it_has_no_matrix_of_its_own(saved, rewrite, edit_json, texts_of, form):
    directory = saved("XLMRobertaForMaskedLM", tie_word_embeddings=form != "its own")
    word = load_file(directory / "model.safetensors")["roberta.embeddings.word_embeddings.weight"]
    if form == "stored again":
        rewrite(directory, lambda tensors: tensors | {"lm_head.decoder.weight": word.clone()})
    if form == "its own unsaid":
        rewrite(directory, lambda tensors: tensors | {"lm_head.decoder.weight": word.flip(0)})
    texts = texts_of(LENGTHS)
    expected = torch.cat([reference_of(directory, [ids], transformers.AutoModelForMaskedLM)[0] for ids in texts])
    assert torch.allclose(logits_of(directory, texts, "masked-lm"), expected, atol=1e-5)
    decoder = Checkpoint.open(str(directory)).load_head("masked-lm").decoder.weight
    assert torch.equal(decoder, word) == (form in ("absent", "stored again"))


@pytest.fixture
def embedder(make_checkpoint, tmp_path):
    """A checkpoint with sentence-transformers files; `embedder(pooling)` writes the pooling config."""
    directory = make_checkpoint("XLMRobertaModel")
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()

    def make(pooling):
        (directory / "1_Pooling/config.json").write_text(json.dumps(pooling))
        return directory

    return make


def test_10_old_and_new_pooling_configs_give_equal_vectors(embedder, sample_texts):
    texts = [text for text in sample_texts if text][:5]
    old = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    first = vectors_of(embedder(old), texts)
    assert np.array_equal(first, vectors_of(embedder({"pooling_mode": ["cls", "mean"]}), texts))
    assert not np.allclose(first[:, :32], vectors_of(embedder({"pooling_mode": "mean"}), texts))


def test_11_an_unknown_pooling_is_an_error_that_names_the_known_ones(embedder):
    with pytest.raises(CheckpointError, match="pooling_mode 'median', known are cls, max, mean"):
        Checkpoint.open(str(embedder({"pooling_mode": "median"})))


def test_12_a_sentencepiece_model_alone_is_a_tokenizer(saved, sample_texts):
    directory = saved()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample_texts), model_prefix=str(directory / "m"), vocab_size=3000, minloglevel=2
    )
    (directory / "m.model").rename(directory / "sentencepiece.bpe.model")
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(directory)
    tokenizer = Tokenizer.load(Checkpoint.open(str(directory)).tokenizer_directory)
    special = tokenizer.special
    # fairseq put <s>, <pad>, </s> and <unk> in front: every piece moved by one.
    assert (special.bos, special.pad, special.eos, special.unk, special.mask) == (0, 1, 2, 3, 3001)
    for text in sample_texts[:100]:
        assert [0, *tokenizer.encode([text]).ids.tolist(), 2] == theirs(text).input_ids


def test_13_a_limit_of_null_is_no_limit(saved, edit_json):
    directory = saved()
    edit_json(directory / "sentence_bert_config.json", max_seq_length=None, do_lower_case=False)
    assert Checkpoint.open(str(directory)).max_length == 512


def test_14_a_tokenizer_without_a_limit_leaves_that_of_the_positions(saved, edit_json):
    directory = saved()
    edit_json(directory / "tokenizer_config.json", model_max_length=1000000000000000019884624838656)
    assert Checkpoint.open(str(directory)).max_length == 512


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        ({"2": "c", "0": "a", "1": "b"}, ("a", "b", "c")),
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, "pass labels= as the model card says"),
        (..., "pass labels= as the model card says"),
        ({"0": "a", "1": "b"}, "has 2 names, the head has 3 outputs; pass labels="),
        ({"0": "a", "2": "c"}, CheckpointError),
    ],
)
def test_15_labels_have_string_keys_and_whatever_is_odd_about_them_is_said(classifier, edit_json, id2label, expected):
    edit_json(classifier / "config.json", id2label=id2label, label2id=...)
    if expected is CheckpointError:
        with pytest.raises(CheckpointError, match=r"id2label has the ids \[0, 2\]"):
            Checkpoint.open(str(classifier))
        return
    checkpoint = Checkpoint.open(str(classifier))
    if isinstance(expected, tuple):
        assert (checkpoint.config.id2label, checkpoint.report.warnings) == (expected, ())
    else:
        assert expected in checkpoint.report.warnings[0]


def test_16_the_embedding_table_says_how_many_tokens_there_are(make_checkpoint, edit_json, rewrite, sample_texts):
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS)
    size = Tokenizer.load(directory).vocab_size
    edit_json(directory / "config.json", vocab_size=size - 100)
    assert Checkpoint.open(str(directory)).config.vocab_size == size
    GraphPlan.resolve([Request("c", str(directory))])
    word = "roberta.embeddings.word_embeddings.weight"
    rewrite(directory, lambda tensors: tensors | {word: tensors[word][: size - 1].clone()})
    with pytest.raises(TaskError, match=rf"gives ids up to {size - 1}, the embedding table has {size - 1} rows"):
        GraphPlan.resolve([Request("c", str(directory))])


@pytest.fixture
def saved_bert(tokenizer_json, tmp_path):
    """Makes `saved_bert(class_name)`: BERT's encoder with an XLM-R tokenizer, as multilingual-e5-small is saved."""

    def make(class_name, **changes):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=Tokenizer.load(tokenizer_json.parent).vocab_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.3,
            **changes,
        )
        model = getattr(transformers, class_name)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(tmp_path / class_name)
        (tmp_path / class_name / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
        return tmp_path / class_name

    return make


@pytest.mark.parametrize(
    ("class_name", "kind", "changes"),
    [
        ("BertForSequenceClassification", "sequence-classification", {"num_labels": 3}),
        ("BertForTokenClassification", "token-classification", {"num_labels": 5}),
        ("BertForMaskedLM", "masked-lm", {"hidden_act": "relu"}),
        ("BertForMaskedLM", "masked-lm", {"tie_word_embeddings": False}),
    ],
)
def test_17_a_bert_model_with_an_xlmr_tokenizer_runs_from_position_0(saved_bert, texts_of, class_name, kind, changes):
    directory, texts = saved_bert(class_name, **changes), texts_of([3, 9, 64], vocab_size=2000)
    expected = [reference_of(directory, [ids], getattr(transformers, class_name)) for ids in texts]
    expected = torch.cat([one if kind == "sequence-classification" else one[0] for one in expected])
    assert torch.allclose(logits_of(directory, texts, kind), expected, atol=1e-5)
    checkpoint = Checkpoint.open(str(directory))
    assert (checkpoint.report.prefix, checkpoint.max_length, checkpoint.report.warnings[1:]) == ("bert.", 64, ())


def test_17_its_vectors_are_those_of_transformers_for_texts_and_all(saved_bert, edit_json, sample_texts):
    directory = saved_bert("BertModel")
    edit_json(directory / "xlmr.json", task="embedding", pooling="mean", normalize=True)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    model = transformers.BertModel.from_pretrained(directory).eval()
    texts = [text for text in sample_texts if 0 < len(tokenizer(text).input_ids) <= 64 and text.strip()][:20]
    with torch.inference_mode():
        hidden = [model(torch.tensor([tokenizer(text).input_ids])).last_hidden_state[0] for text in texts]
    expected = torch.nn.functional.normalize(torch.stack([one.mean(0) for one in hidden]), dim=1)
    assert np.allclose(vectors_of(directory, texts), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
def test_17_bert_with_its_own_tokenizer_is_refused_by_name(saved_bert, form):
    directory = saved_bert("BertModel")
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    if form == "tokenizer.json":
        transformers.BertTokenizerFast(str(directory / "vocab.txt")).save_pretrained(directory)
    with pytest.raises(CheckpointError, match=r"BERT model .* with a WordPiece tokenizer"):
        Checkpoint.open(str(directory))


def test_17_it_is_written_as_what_it_is(saved_bert, texts_of, tmp_path):
    for class_name, kind, task in (
        ("BertForSequenceClassification", "sequence-classification", None),
        ("BertForMaskedLM", "masked-lm", "fill-mask"),
    ):
        directory, texts = saved_bert(class_name), texts_of(LENGTHS)
        checkpoint, out = Checkpoint.open(str(directory)), tmp_path / f"out-{class_name}"
        head = TrainedHead(checkpoint.load_head(kind), task=task)
        write_model_directory(out, checkpoint.load_encoder(), tokenizer=directory, head=head)
        info = getattr(transformers, class_name).from_pretrained(out, output_loading_info=True)[1]
        assert not any(info.values())
        assert torch.equal(logits_of(out, texts, kind), logits_of(directory, texts, kind))
        assert Checkpoint.open(str(out)).encoder_sha256() == checkpoint.encoder_sha256()


class Payload:
    """Would create a file if anyone ever unpickled it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("file", ["pytorch_model.bin", "sparse_linear.pt"])
def test_18_pickled_code_is_refused_and_never_runs(saved, tmp_path, file):
    directory, trap = saved(), tmp_path / "trap"
    if file == "pytorch_model.bin":
        (directory / "model.safetensors").unlink()
    (directory / file).write_bytes(pickle.dumps({"weight": Payload(trap)}, protocol=2))
    with pytest.raises(CheckpointError, match=rf"{file} holds pickled objects.*ask its author for safetensors"):
        Checkpoint.open(str(directory)).load_head("sparse")
    assert not trap.exists()


def test_19_without_architectures_the_caller_says_what_it_is_for(make_checkpoint, edit_json):
    directory = make_checkpoint("XLMRobertaForTokenClassification", labels=LABELS)
    edit_json(directory / "config.json", architectures=...)
    with pytest.raises(TaskError, match="does not say what it is for; pass task="):
        GraphPlan.resolve([Request("t", str(directory))])
    plan = GraphPlan.resolve([Request("t", str(directory), {"task": "token-classification"})])
    assert plan.annotations[0].task.labels == tuple(LABELS)


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_20_either_name_of_the_files_type_is_only_a_remark(classifier, edit_json, texts_of, key):
    expected = logits_of(classifier, texts_of(LENGTHS))
    edit_json(classifier / "config.json", **({"dtype": ..., "torch_dtype": ...} | {key: "float16"}))
    assert torch.equal(logits_of(classifier, texts_of(LENGTHS)), expected)


@pytest.mark.parametrize(("tokens", "windows"), [(510, 1), (511, 1), (512, 1), (513, 2)])
def test_21_a_text_of_exactly_so_many_tokens(make_checkpoint, edit_json, tokens, windows):
    directory = make_checkpoint(
        "XLMRobertaForSequenceClassification", labels=LABELS, max_position_embeddings=514, initializer_range=0.1
    )
    edit_json(directory / "tokenizer_config.json", model_max_length=512)
    tokenizer = Tokenizer.load(directory)
    word = next(w for w in ("a", "de", "la", "en", "і") if len(tokenizer.encode([w, f"{w} {w}"]).ids) == 3)
    text = " ".join([word] * (tokens - 2))
    plan = GraphPlan.resolve([Request("c", str(directory), {"scores": "true", "activation": "none"})])
    result = ModelGraph(plan)(Preprocessor(plan)([text]))
    assert (result.n_tokens.tolist(), result.n_windows.tolist()) == ([tokens], [windows])
    if windows == 1:
        ids = [0, *tokenizer.encode([text]).ids.tolist(), 2]
        assert np.allclose(result.columns["c_scores"], reference_of(directory, [ids]).numpy(), atol=1e-5)


GOLDEN = {
    "Hello world!": [35378, 8999, 38],
    "你好，世界": [6, 124084, 4, 3221],
    "नमस्ते दुनिया": [68700, 97883, 29405],
    "مرحبا بالعالم": [665, 193478, 258, 1705, 77796],
    "Bonjour le monde": [84602, 95, 11146],
}


def test_22_ids_are_those_that_the_authors_of_xlmr_printed(shared_data, tmp_path):
    """Source: README of XLM-R in fairseq."""
    model = shared_data / "tokenizers/xlmr/sentencepiece.reconstructed.model"
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model.read_bytes())
    tokenizer = Tokenizer.load(tmp_path)
    assert {text: tokenizer.encode([text]).ids.tolist() for text in GOLDEN} == GOLDEN
