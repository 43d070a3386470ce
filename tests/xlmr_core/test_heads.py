"""Heads against transformers' classes, pooling against sentence-transformers' `Pooling`."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling

from xlmr_core.batch import Grid, PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.encoder import optimise_for_inference
from xlmr_core.heads import POOLING_MODES, PoolingSpec, pool

LENGTHS = [1, 2, 17, 64, 511, 512]
WIDTH = 6


def logits_of_reference(model, texts):
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids])).logits[0] for ids in texts]


def assert_agrees(logits, model, texts):
    """At most 1e-5 from the reference, or at most 3 times its own distance from float64."""
    join = torch.stack if logits.shape[0] == len(texts) else torch.cat
    reference = join(logits_of_reference(model, texts))
    exact = join(logits_of_reference(model.double(), texts))
    model.float()
    rounding = (reference - exact).abs().max()
    assert logits.shape == reference.shape
    assert (logits - reference).abs().max() <= 1e-5 or (logits - exact).abs().max() <= 3 * rounding


@torch.inference_mode()
def run(directory, kind, texts, prepack):
    checkpoint = Checkpoint.open(str(directory))
    encoder, head = checkpoint.load_encoder(), checkpoint.load_head(kind)
    if prepack:
        for module in (encoder, head):
            optimise_for_inference(module, device="cpu", dtype=torch.float32)
    batch = PackedBatch.from_lists(texts, first_position=2)
    hidden_TD = encoder(batch)
    return head(hidden_TD) if kind == "masked-lm" else head(hidden_TD, batch)


@pytest.mark.parametrize("prepack", [False, True])
@pytest.mark.parametrize(
    ("problem", "labels"),
    [("single_label_classification", 3), ("multi_label_classification", 16), ("regression", 1), (None, 2)],
)
def test_sequence_logits_agree(random_model, texts_of, tmp_path, problem, labels, prepack):
    model = random_model("XLMRobertaForSequenceClassification", num_labels=labels, problem_type=problem)
    model.save_pretrained(tmp_path)
    texts = texts_of(LENGTHS)
    assert_agrees(run(tmp_path, "sequence-classification", texts, prepack), model, texts)
    checkpoint = Checkpoint.open(str(tmp_path))
    assert (checkpoint.task, checkpoint.num_outputs(checkpoint.task)) == ("sequence-classification", labels)
    assert checkpoint.config.problem_type == problem


@pytest.mark.parametrize("prepack", [False, True])
def test_token_logits_agree(random_model, texts_of, tmp_path, prepack):
    model, texts = random_model("XLMRobertaForTokenClassification", num_labels=9), texts_of(LENGTHS)
    model.save_pretrained(tmp_path)
    assert_agrees(run(tmp_path, "token-classification", texts, prepack), model, texts)


@pytest.mark.parametrize("prepack", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_masked_lm_logits_agree(random_model, texts_of, tmp_path, tied, prepack):
    model = random_model("XLMRobertaForMaskedLM", tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    texts = texts_of(LENGTHS[:-2])
    assert_agrees(run(tmp_path, "masked-lm", texts, prepack), model, texts)
    checkpoint = Checkpoint.open(str(tmp_path))
    assert (checkpoint.task, checkpoint.num_outputs("masked-lm")) == ("fill-mask", 120)


@pytest.mark.parametrize("prepack", [False, True])
def test_start_and_end_logits_agree(random_model, texts_of, tmp_path, prepack):
    model = random_model("XLMRobertaForQuestionAnswering")
    model.save_pretrained(tmp_path)
    for length in LENGTHS:
        texts = texts_of([length])
        logits_T2 = run(tmp_path, "question-answering", texts, prepack)
        with torch.inference_mode():
            reference = model(input_ids=torch.tensor(texts))
        assert torch.allclose(logits_T2[:, 0], reference.start_logits[0], atol=1e-5)
        assert torch.allclose(logits_T2[:, 1], reference.end_logits[0], atol=1e-5)
    checkpoint = Checkpoint.open(str(tmp_path))
    assert (checkpoint.task, checkpoint.num_outputs("question-answering")) == ("question-answering", 2)


@pytest.mark.parametrize("prepack", [False, True])
def test_logits_of_choices_agree(random_model, texts_of, tmp_path, prepack):
    model = random_model("XLMRobertaForMultipleChoice")
    model.save_pretrained(tmp_path)
    texts = texts_of([17, 17, 17, 17])
    with torch.inference_mode():
        reference = model(input_ids=torch.tensor([texts])).logits[0]
    logits_B1 = run(tmp_path, "multiple-choice", texts, prepack)
    assert logits_B1.shape == (4, 1)
    assert torch.allclose(logits_B1[:, 0], reference, atol=1e-5)
    checkpoint = Checkpoint.open(str(tmp_path))
    assert (checkpoint.task, checkpoint.num_outputs("multiple-choice")) == ("multiple-choice", 1)


@pytest.mark.parametrize(
    ("kind", "stem", "width"), [("sparse", "sparse_linear", 1), ("multi-vector", "colbert_linear", 24)]
)
def test_the_heads_of_bge_m3_are_the_linear_layers_of_their_files(saved_m3, texts_of, kind, stem, width):
    directory, layers, model = saved_m3
    texts = texts_of([2, 9])
    with torch.inference_mode():
        hidden_TD = torch.cat([model(torch.tensor([ids])).last_hidden_state[0] for ids in texts])
        expected = layers[stem](hidden_TD)
    assert torch.allclose(run(directory, kind, texts, prepack=False), expected, atol=1e-5)
    assert Checkpoint.open(str(directory)).num_outputs(kind) == width


@pytest.fixture
def saved_m3(random_model, tmp_path):
    """A checkpoint laid out as BAAI/bge-m3, its extra layers and its encoder."""
    model = random_model("XLMRobertaModel")
    model.save_pretrained(tmp_path)
    layers = {"sparse_linear": torch.nn.Linear(48, 1), "colbert_linear": torch.nn.Linear(48, 24)}
    for name, layer in layers.items():
        torch.save(layer.state_dict(), tmp_path / f"{name}.pt")
    return tmp_path, layers, model


def test_heads_drop_nothing_outside_training(random_model, texts_of, tmp_path):
    random_model("XLMRobertaForSequenceClassification", num_labels=3).save_pretrained(tmp_path)
    head = Checkpoint.open(str(tmp_path)).load_head("sequence-classification")
    batch, hidden_TD = PackedBatch.from_lists(texts_of([9]), first_position=2), torch.randn(9, 48)
    assert torch.equal(head(hidden_TD, batch), head(hidden_TD, batch))
    assert not torch.equal(head.train()(hidden_TD, batch), head(hidden_TD, batch))


def pool_of_reference(hidden_TD, lengths, spec, prompt_length=None):
    """Sentence vectors of sentence-transformers, from the padded form of the same hidden states."""
    mask_BL = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    features = {"token_embeddings": Grid.of(mask_BL.bool()).pad(hidden_TD), "attention_mask": mask_BL}
    if prompt_length is not None:
        features["prompt_length"] = prompt_length
    return Pooling(WIDTH, pooling_mode=spec.modes, include_prompt=spec.include_prompt)(features)["sentence_embedding"]


def batch_of(lengths):
    return PackedBatch.from_lists([[0] * length for length in lengths], first_position=2)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    modes=st.lists(st.sampled_from(POOLING_MODES), min_size=1, max_size=6, unique=True),
    seed=st.integers(0, 2**31),
)
def test_pooling_agrees_for_every_mode_and_every_order_of_modes(lengths, modes, seed):
    hidden_TD = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(seed))
    spec = PoolingSpec(tuple(modes))
    pooled_BD = pool(hidden_TD, batch_of(lengths), spec.modes)
    assert torch.allclose(pooled_BD, pool_of_reference(hidden_TD, lengths, spec), atol=1e-6)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(6, 40), min_size=1, max_size=6),
    mode=st.sampled_from(POOLING_MODES),
    prompt=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_prompt_tokens_are_left_out_as_sentence_transformers_does_it(lengths, mode, prompt, seed):
    hidden_TD = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(seed))
    pooled_BD = pool(hidden_TD, batch_of(lengths), (mode,), torch.full((len(lengths),), prompt))
    expected_BD = pool_of_reference(hidden_TD, lengths, PoolingSpec((mode,), include_prompt=False), prompt)
    assert torch.allclose(pooled_BD, expected_BD, atol=1e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_a_window_that_is_all_prompt_is_its_last_token_and_disturbs_no_neighbour(mode):
    hidden_TD = torch.randn(9, WIDTH)
    pooled_BD = pool(hidden_TD, batch_of([4, 5]), (mode,), torch.tensor([7, 1]))
    assert torch.allclose(pooled_BD[0], hidden_TD[3], atol=1e-6)
    assert torch.allclose(pooled_BD[1], pool(hidden_TD[4:], batch_of([5]), (mode,), torch.tensor([1]))[0], atol=1e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_sums_run_in_float32_whatever_the_model_computes_in(mode):
    hidden_TD = torch.randn(512, WIDTH).bfloat16()
    assert torch.equal(pool(hidden_TD, batch_of([512]), (mode,)), pool(hidden_TD.float(), batch_of([512]), (mode,)))


def test_the_order_of_modes_is_the_order_of_vectors():
    hidden_TD = torch.randn(5, WIDTH)
    for modes in permutations(["cls", "mean", "max"]):
        parts = [pool(hidden_TD, batch_of([2, 3]), (mode,)) for mode in modes]
        assert torch.equal(pool(hidden_TD, batch_of([2, 3]), modes), torch.cat(parts, dim=1))


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("XLMRobertaForSequenceClassification", "sequence-classification"),
        ("XLMRobertaForMultipleChoice", "multiple-choice"),
        ("XLMRobertaForTokenClassification", "token-classification"),
        ("XLMRobertaForQuestionAnswering", "question-answering"),
    ],
)
def test_heads_drop_in_training_where_those_of_transformers_do(random_model, texts_of, tmp_path, architecture, kind):
    """With dropout of one half, the mean over many passes and its spread are the same."""
    rates = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.0}
    model = random_model(architecture, num_labels=2, **rates)
    model.save_pretrained(tmp_path)
    head = Checkpoint.open(str(tmp_path)).load_head(kind).train()
    dropouts = [part.p for part in head.modules() if isinstance(part, torch.nn.Dropout) and part.p]
    # Where the projection alone is behind the encoder nothing is dropped, behind a pooler once, in a classifier twice.
    expected = {"question-answering": 0, "multiple-choice": 1, "token-classification": 1, "sequence-classification": 2}
    assert len(dropouts) == expected[kind]
    batch = PackedBatch.from_lists(texts_of([3]), first_position=2)
    hidden = torch.randn(1, 3, 48, generator=torch.Generator().manual_seed(0))
    ours = torch.stack([head(hidden[0], batch)[0] for _ in range(4000)])
    theirs = torch.stack([reference_head(model.train(), kind, hidden)[0] for _ in range(4000)])
    spread = theirs.std(0) + 1e-6
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 0.15 * spread + 1e-5).all()
    assert ((ours.std(0) - theirs.std(0)).abs() <= 0.1 * spread).all()


def reference_head(model, kind, hidden):
    """Logits of the first row (or token) as the class of transformers makes them of hidden states."""
    match kind:
        case "sequence-classification":
            return model.classifier(hidden)
        case "multiple-choice":
            return model.classifier(model.dropout(model.roberta.pooler(hidden)))
        case "token-classification":
            return model.classifier(model.dropout(hidden))[0]
        case "question-answering":
            return model.qa_outputs(hidden)[0]
