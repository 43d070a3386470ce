"""Sentence vectors from sentence-transformers directories equal those of sentence-transformers."""

import json
import pickle

import pytest
import sentence_transformers
import torch
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import LayerNorm

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint, EmbeddingSpec, layout
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import PoolingSpec, pool

OLD_TYPES = "sentence_transformers.models."


@pytest.fixture
def sentence_model(saved, tmp_path):
    """Makes `sentence_model(*modules, pooling=...)`: a directory saved by sentence-transformers, and its model."""

    def make(*after_pooling, pooling="mean"):
        directory = saved()
        transformer = sentence_transformers.base.modules.Transformer(str(directory))
        pooled = sentence_transformers.sentence_transformer.modules.Pooling(48, pooling_mode=pooling)
        model = sentence_transformers.SentenceTransformer(modules=[transformer, pooled, *after_pooling], device="cpu")
        model.save(str(tmp_path / "sentences"), create_model_card=False)
        return tmp_path / "sentences", model

    return make


@torch.inference_mode()
def vectors_of(directory, texts):
    checkpoint = Checkpoint.open(str(directory))
    spec, batch = checkpoint.embedding, PackedBatch.from_lists(texts, first_position=2)
    pooled_BD = pool(checkpoint.load_encoder()(batch), batch, spec.pooling.modes)
    vectors_BD = checkpoint.load_embedding_modules()(pooled_BD)
    assert vectors_BD.shape[1] == checkpoint.embedding_width(spec)
    return torch.nn.functional.normalize(vectors_BD, dim=1) if spec.normalize else vectors_BD


@torch.inference_mode()
def reference_of(model, texts):
    vectors = []
    for ids in texts:
        features = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        vectors.append(model(features)["sentence_embedding"][0])
    return torch.stack(vectors)


def old_modules(directory):
    """Rewrites modules.json as versions before 5.4 did."""
    listed = json.loads((directory / "modules.json").read_text())
    listed = [entry | {"type": OLD_TYPES + entry["type"].rpartition(".")[2]} for entry in listed]
    (directory / "modules.json").write_text(json.dumps(listed))


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "weightedmean", ["mean", "cls"]])
@pytest.mark.parametrize("old_types", [False, True])
def test_pooling_and_normalize_agree(sentence_model, texts_of, pooling, old_types):
    directory, model = sentence_model(Normalize(), pooling=pooling)
    if old_types:
        old_modules(directory)
    texts = texts_of([2, 9, 40])
    assert Checkpoint.open(str(directory)).task == "embedding"
    assert torch.allclose(vectors_of(directory, texts), reference_of(model, texts), atol=1e-5)


@pytest.mark.parametrize("activation", [torch.nn.Identity, torch.nn.Tanh, torch.nn.GELU, torch.nn.ReLU])
def test_dense_and_norm_agree(sentence_model, texts_of, activation):
    modules = [
        Dense(48, 20, activation_function=activation()),
        LayerNorm(20),
        Normalize(),
        Dense(20, 20, bias=False, activation_function=activation(), use_residual=True),
        Dense(20, 8, activation_function=activation(), use_residual=True),
    ]
    directory, model = sentence_model(*modules)
    texts = texts_of([2, 9, 40])
    assert torch.allclose(vectors_of(directory, texts), reference_of(model, texts), atol=1e-5)
    assert not Checkpoint.open(str(directory)).embedding.normalize


OLD = {
    "word_embedding_dimension": 48,
    "pooling_mode_cls_token": True,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, {"embedding_dimension": 48, "pooling_mode": ["cls", "mean"], "include_prompt": True}),
        (OLD | {"pooling_mode_cls_token": False}, {"pooling_mode": "mean"}),
        ({"word_embedding_dimension": 48}, {"pooling_mode": ["mean"]}),
        (OLD | {"include_prompt": False}, {"pooling_mode": ["cls", "mean"], "include_prompt": False}),
    ],
)
def test_old_and_new_pooling_configs_mean_the_same(sentence_model, texts_of, old, new):
    directory, _ = sentence_model()
    found = []
    for config in (old, new):
        (directory / "1_Pooling/config.json").write_text(json.dumps(config))
        found.append((Checkpoint.open(str(directory)).embedding, vectors_of(directory, texts_of([3, 20]))))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("pooling", ["median", ["mean", "median"], [], 7])
def test_unknown_pooling_is_refused(sentence_model, pooling):
    directory, _ = sentence_model()
    (directory / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": pooling}))
    with pytest.raises(CheckpointError, match="known are cls, max, mean"):
        Checkpoint.open(str(directory))


def test_unknown_modules_and_activations_are_refused_together_and_never_imported(sentence_model, edit_json):
    directory, _ = sentence_model(Dense(48, 8), Dense(8, 8))
    edit_json(directory / "2_Dense/config.json", activation_function="evil.package.Run", in_features="48")
    edit_json(directory / "3_Dense/config.json", module_input_name="token_embeddings")
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(str(directory))
    for part in ("activation_function 'Run'", "in_features '48'", "token_embeddings"):
        assert part in str(error.value)
    listed = json.loads((directory / "modules.json").read_text())
    listed[2]["type"], listed[3]["path"] = "custom.WordWeights", "../../elsewhere"
    (directory / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(str(directory))
    assert "custom.WordWeights" in str(error.value)
    assert "must lie inside the model directory" in str(error.value)


def test_dense_weights_that_do_not_fit_are_refused(sentence_model, edit_json):
    directory, _ = sentence_model(Dense(48, 8))
    edit_json(directory / "2_Dense/config.json", out_features=9)
    with pytest.raises(CheckpointError, match=r"linear\.weight has the shape \(8, 48\)"):
        Checkpoint.open(str(directory)).load_embedding_modules()


def test_a_pooling_that_does_not_fit_the_dense_layer_is_refused(sentence_model):
    checkpoint = Checkpoint.open(str(sentence_model(Dense(48, 8))[0]))
    spec = EmbeddingSpec(PoolingSpec(("cls", "mean")), checkpoint.embedding.modules)
    with pytest.raises(CheckpointError, match="pools to 96 values, its Dense module takes 48"):
        checkpoint.embedding_width(spec)


def test_prompts_are_read(sentence_model, edit_json):
    directory, _ = sentence_model()
    prompts = {"query": "query: ", "document": None}
    path = directory / "config_sentence_transformers.json"
    edit_json(path, prompts=prompts, default_prompt_name="query", truncate_dim=16)
    spec = Checkpoint.open(str(directory)).embedding
    assert (spec.prompts, spec.default_prompt_name, spec.truncate_dim) == (prompts | {"document": ""}, "query", 16)
    edit_json(path, default_prompt_name="passage")
    with pytest.raises(CheckpointError, match="default_prompt_name 'passage', the prompts are query, document"):
        Checkpoint.open(str(directory))


def test_how_vectors_are_compared_is_read(sentence_model, edit_json):
    directory, model = sentence_model()
    assert Checkpoint.open(str(directory)).embedding.similarity == model.similarity_fn_name == "cosine"
    path = directory / "config_sentence_transformers.json"
    edit_json(path, similarity_fn_name=None)
    assert Checkpoint.open(str(directory)).embedding.similarity is None
    edit_json(path, similarity_fn_name="hamming")
    with pytest.raises(CheckpointError, match="similarity_fn_name 'hamming', known are cosine, dot"):
        Checkpoint.open(str(directory))


@pytest.mark.parametrize("name", layout.SENTENCE_LIMITS)
def test_the_limit_is_read_under_every_name_it_ever_had(saved, edit_json, name):
    directory = saved()
    edit_json(directory / name, max_seq_length=77, do_lower_case=False)
    assert Checkpoint.open(str(directory)).max_length == 77


def test_the_transformer_may_have_a_folder_of_its_own(sentence_model, texts_of):
    directory, model = sentence_model()
    (directory / "0_Transformer").mkdir()
    for path in list(directory.iterdir()):
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(directory / "0_Transformer" / path.name)
    listed = json.loads((directory / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (directory / "modules.json").write_text(json.dumps(listed))
    assert Checkpoint.open(str(directory)).tokenizer_directory == directory / "0_Transformer"
    assert torch.allclose(vectors_of(directory, texts_of([5])), reference_of(model, texts_of([5])), atol=1e-5)


def test_lower_casing_is_refused_rather_than_forgotten(sentence_model, edit_json):
    directory, _ = sentence_model()
    edit_json(directory / "sentence_bert_config.json", do_lower_case=True)
    with pytest.raises(CheckpointError, match="do_lower_case"):
        Checkpoint.open(str(directory))


def test_without_pooling_nothing_is_guessed(saved):
    assert Checkpoint.open(str(saved())).embedding is None


def test_our_own_settings_say_it_in_one_file(saved, edit_json):
    directory = saved()
    edit_json(directory / "xlmr.json", task="embedding", pooling=["cls"], normalize=True, prompts={"q": "q: "})
    spec = Checkpoint.open(str(directory)).embedding
    assert spec == EmbeddingSpec(PoolingSpec(("cls",)), normalize=True, prompts={"q": "q: "})
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_the_hash_follows_pooling_and_dense(sentence_model, edit_json):
    directory, _ = sentence_model(Dense(48, 8))

    def digest():
        return Checkpoint.open(str(directory)).head_sha256("embedding")

    first = digest()
    edit_json(directory / "2_Dense/config.json", activation_function="torch.nn.modules.linear.Identity")
    second = digest()
    (directory / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    assert len({first, second, digest()}) == 3
