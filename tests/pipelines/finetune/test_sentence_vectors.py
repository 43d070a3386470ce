"""Training sentence vectors against sentence-transformers: its vectors, its losses, its optimiser steps."""

import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipelines.examples import Example
from pipelines.finetune import contrastive
from pipelines.finetune.sentence_vectors import SentenceVectors, Teacher, embedding_settings, text_number
from pipelines.finetune.steps import Stream, StreamSettings
from pipelines.finetune.vector_loss import VectorLoss
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.errors import InputError, TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request

# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STEPS, RECORDS = 20, 8
INFO_NCE = VectorLoss()
PROMPTS = {"query_prompt": "sucht: ", "prompt": "ein Satz: "}


@pytest.fixture(scope="module")
def texts(sample_texts):
    return list(dict.fromkeys(" ".join(text.split()[:6])[:40] for text in sample_texts if len(text.split()) > 4))


@pytest.fixture(scope="module")
def make_start(make_checkpoint, tmp_path_factory):
    """Writes a model directory that is to be trained: `make_start(loss, normalize=False, query_prompt=...)`."""

    def make(loss=INFO_NCE, *, seed=0, dropout=False, include_prompt=True, **options):
        base = Checkpoint.open(str(make_checkpoint("XLMRobertaModel", seed=seed, **({} if dropout else NO_DROPOUT))))
        said = dict(embedding_settings(base, loss, **options)) | {"include_prompt": include_prompt}
        directory = tmp_path_factory.mktemp("start") / "model"
        head = TrainedHead(None, settings=said, task="embedding")
        write_model_directory(directory, base.load_encoder(), tokenizer=base.tokenizer_directory, head=head)
        return directory

    return make


def example(text, second, gold, number=0):
    return Example(text, tuple(second), tuple(gold), "xx", str(number), f"train.jsonl:{number + 1}")


@pytest.fixture(scope="module")
def pairs(texts):
    """Texts with one that fits and, in turn, no to two hard negatives."""
    count = STEPS * RECORDS
    lines = texts * (count * 4 // len(texts) + 1)
    return [
        example(lines[4 * n], lines[4 * n + 1 : 4 * n + 2 + n % 3], [1.0] + [0.0] * (n % 3), n) for n in range(count)
    ]


class Trained:
    """A model with what it learns from."""

    def __init__(self, directory, examples, loss=INFO_NCE, *, max_tokens=4096, teacher=None):
        has_pairs = bool(examples[0].second)
        self.objective = SentenceVectors.of(str(directory), loss, pairs=has_pairs, teacher=teacher)
        self.data, self.refused = self.objective.training_set(examples)
        checkpoint = Checkpoint.open(str(directory))
        self.encoder = checkpoint.load_encoder().train()
        self.head = checkpoint.load_embedding_modules()
        cut = StreamSettings(RECORDS, max_tokens=max_tokens, shuffle=False)
        first = self.encoder.config.first_position
        self.stream = Stream(self.data, cut, first_position=first, goal="task")

    def accumulate(self, step, **workers):
        return contrastive.accumulate(self.objective, self.encoder, self.head, self.stream, step, **workers)

    def losses(self, steps, **options):
        optimiser = torch.optim.AdamW(self.encoder.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.0)
        found = []
        for step in range(steps):
            found.append(self.accumulate(step, **options)[0])
            optimiser.step()
            optimiser.zero_grad()
        return found

    def gradients(self):
        return [parameter.grad for parameter in self.encoder.parameters() if parameter.grad is not None]


def sentence_transformer(directory, settings):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformer = Transformer(str(directory))
        modules = [transformer, Pooling(32, pooling_mode="mean"), *([Normalize()] if settings["normalize"] else [])]
        return SentenceTransformer(modules=modules, device="cpu")


def their_losses(directory, batches, make_loss, *, normalize=True):
    """Losses of a plain loop over sentence-transformers' model; batches are columns of texts, and labels."""
    model = sentence_transformer(directory, {"normalize": normalize}).train()
    loss = make_loss(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.0)
    found = []
    for columns, labels in batches:
        features = [model.preprocess(column) for column in columns]
        value = loss(features, labels)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(value.item())
    return found


def in_steps(examples):
    return [examples[first : first + RECORDS] for first in range(0, len(examples), RECORDS)]


def test_twenty_steps_equal_those_of_sentence_transformers(make_start, texts):
    """With hard negatives and several micro-batches here, in one batch there."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    lines = iter(texts * (STEPS * RECORDS * 3 // len(texts) + 1))
    examples = [example(next(lines), [next(lines), next(lines)], [1.0, 0.0], n) for n in range(STEPS * RECORDS)]
    directory = make_start()
    trained = Trained(directory, examples, max_tokens=200)
    assert len(trained.stream.parts(0)) > 1
    batches = [
        ([[e.text for e in some], [e.second[0] for e in some], [e.second[1] for e in some]], torch.tensor([]))
        for some in in_steps(examples)
    ]
    expected = their_losses(directory, batches, MultipleNegativesRankingLoss)
    np.testing.assert_allclose(trained.losses(STEPS), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["cosent", "cosine_mse"])
def test_graded_pairs_are_learnt_as_sentence_transformers_does_it(make_start, texts, name):
    from sentence_transformers.sentence_transformer import losses

    loss, make = VectorLoss(name), {"cosent": losses.CoSENTLoss, "cosine_mse": losses.CosineSimilarityLoss}[name]
    examples = [example(texts[n], [texts[n + 40]], [n % 5 / 4], n) for n in range(5 * RECORDS)]
    batches = [
        ([[e.text for e in some], [e.second[0] for e in some]], torch.tensor([e.gold[0] for e in some]))
        for some in in_steps(examples)
    ]
    directory = make_start(loss)
    expected = their_losses(directory, batches, make)
    found = Trained(directory, examples, loss, max_tokens=100).losses(5)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_margins_are_learnt_as_sentence_transformers_does_it(make_start, texts):
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss

    loss = VectorLoss("margin_mse")
    examples = [example(texts[n], texts[n + 40 : n + 42], [n % 5 / 4, n % 3 / 4], n) for n in range(5 * RECORDS)]
    batches = [
        ([[e.text for e in some], *zip(*(e.second for e in some), strict=True)], torch.tensor([e.gold for e in some]))
        for some in in_steps(examples)
    ]
    directory = make_start(loss)
    expected = their_losses(directory, [([list(c) for c in b], y) for b, y in batches], MarginMSELoss, normalize=False)
    found = Trained(directory, examples, loss).losses(5)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


def test_a_teacher_is_learnt_from_as_sentence_transformers_does_it(make_start, texts):
    """The teacher's vector of a text is wanted for the text and for its translation; cut ones too."""
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MSELoss

    loss = VectorLoss("teacher_mse", dimensions=(32, 8), weights=(1.0, 0.5))
    teacher = make_start(seed=4)
    examples = [example(texts[n], [texts[n + 40]], [1.0], n) for n in range(5 * RECORDS)]
    vectors = Teacher(str(teacher))([e.text for e in examples])
    batches = [
        ([[e.text for e in some], [e.second[0] for e in some]], torch.from_numpy(vectors[first : first + RECORDS]))
        for first, some in zip(range(0, len(examples), RECORDS), in_steps(examples), strict=True)
    ]
    directory = make_start(loss)
    expected = their_losses(
        directory, batches, lambda model: MatryoshkaLoss(model, MSELoss(model), (32, 8), (1.0, 0.5)), normalize=False
    )
    trained = Trained(directory, examples, loss, teacher=str(teacher), max_tokens=100)
    np.testing.assert_allclose(trained.losses(5), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_texts_alone_can_be_learnt_from_a_teacher(make_start, texts):
    examples = [example(text, [], [], n) for n, text in enumerate(texts[:RECORDS])]
    loss, teacher = VectorLoss("teacher_mse"), make_start(seed=4)
    losses = Trained(make_start(loss), examples, loss, teacher=str(teacher)).losses(6)
    assert losses[-1] < losses[0]
    with pytest.raises(TaskError, match="the records have no second texts; name their column"):
        SentenceVectors.of(str(teacher), VectorLoss(), pairs=False)


def test_a_teachers_vectors_are_those_of_annotate(make_start, texts):
    directory = str(make_start(seed=4, normalize=False))
    plan = GraphPlan.resolve([Request("v", directory)])
    expected = ModelGraph(plan)(Preprocessor(plan)([texts[0], texts[1]])).columns["v"]
    found = Teacher(directory)([texts[0], " ", texts[1]])
    np.testing.assert_allclose(found[[0, 2]], expected, atol=TOLERANCE)
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize(
    "options", [{}, PROMPTS, {"query_prompt": "sucht: "}, {"pooling": ["cls"]}, {"normalize": False}]
)
def test_vectors_in_training_are_those_of_annotate(make_start, texts, options, include_prompt):
    directory = make_start(include_prompt=include_prompt, **options)
    long = " ".join(texts[:30])
    examples = [example(texts[n], [texts[n + 9], long], [1.0, 0.0]) for n in range(4)]
    trained = Trained(directory, examples)
    (part, _), *_ = trained.stream.parts(0)
    batch = trained.stream.build(part, 1.0, 0)
    with torch.no_grad():
        found = trained.objective.vectors(trained.encoder.eval(), trained.head, batch).numpy()
    ours = [options.get("query_prompt"), options.get("prompt")]
    for name, number, prompt in [("text", 0, ours[0]), ("second", 1, ours[1]), ("long", 2, ours[1])]:
        said = {} if prompt is None else {"prompt": prompt}
        plan = GraphPlan.resolve([Request("v", str(directory), said)], on_long="truncate")
        wanted = [(e.text, *e.second)[number] for e in examples]
        expected = ModelGraph(plan)(Preprocessor(plan)(wanted)).columns["v"]
        # A step's records lie by falling size.
        order = np.argsort(-trained.data.tokens, kind="stable")
        np.testing.assert_allclose(found[number::3], expected[order], atol=TOLERANCE, err_msg=name)


def test_micro_batches_and_dropout_do_not_change_what_a_step_says(make_start, pairs):
    """Cut small and computed twice, or all in one graph: the same loss and the same gradient."""
    directory, loss = make_start(dropout=True), VectorLoss(symmetric=True, dimensions=(32, 16))
    trained, plain = (Trained(directory, pairs[:RECORDS], loss, max_tokens=100) for _ in range(2))
    value, tokens = trained.accumulate(0, seed=3)
    parts = [part for part, _ in plain.stream.parts(0)]
    assert len(parts) > 3
    vectors = []
    for number, part in enumerate(parts):
        torch.manual_seed(3 * 1_000_003 + number)
        vectors.append(plain.objective.vectors(plain.encoder, plain.head, plain.stream.build(part, 1.0, 0)))
    expected = plain.objective.step_loss(parts, torch.device("cpu"))(torch.cat(vectors))
    expected.backward()
    assert value == pytest.approx(expected.item(), abs=1e-6)
    assert tokens == len(trained.data.ids)
    torch.testing.assert_close(trained.gradients(), plain.gradients(), atol=1e-6, rtol=1e-6)


def test_products_in_bfloat16_leave_the_loss_in_float32(make_start, pairs):
    """The encoder's rounding moves the loss a little; pooled vectors and what is between them are as exact as ever."""
    exact, rounded = (Trained(make_start(), pairs[:RECORDS], max_tokens=100) for _ in range(2))
    expected, found = exact.accumulate(0)[0], rounded.accumulate(0, bfloat16=True)[0]
    assert found == pytest.approx(expected, rel=0.05)
    assert found != expected
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in rounded.gradients())


def test_two_workers_learn_from_all_vectors_as_one_does(make_start, pairs):
    directory, loss = make_start(), VectorLoss(symmetric=True)
    alone, *both = (Trained(directory, pairs[:RECORDS], loss, max_tokens=150) for _ in range(3))
    value, tokens = alone.accumulate(0)
    barrier, shared, found = threading.Barrier(2), {}, {}

    def work(rank):
        def reduce(tensor):
            shared[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(shared[0] + shared[1])

        found[rank] = both[rank].accumulate(0, rank=rank, workers=2, reduce=reduce)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0][0] + found[1][0] == pytest.approx(value, rel=1e-6)
    assert found[0][1] + found[1][1] == tokens
    sums = [one + two for one, two in zip(both[0].gradients(), both[1].gradients(), strict=True)]
    torch.testing.assert_close(sums, alone.gradients(), atol=1e-6, rtol=1e-6)


def test_texts_that_mean_the_same_are_no_negatives(make_start, texts):
    """The same second text twice, the same text twice, a hard negative that another record calls fitting."""
    a, b, c, d, e, f = texts[:6]
    examples = [example(a, [b], [1.0]), example(c, [b, d], [1.0, 0.0]), example(a, [e, b, f], [1.0, 0.0, 1.0])]
    trained = Trained(make_start(), examples)
    order = np.argsort(-trained.data.tokens, kind="stable")
    step = trained.data.take(order)
    vectors = torch.randn(len(step.lengths), 32, generator=torch.Generator().manual_seed(0))
    found = trained.objective.step_loss([step], torch.device("cpu"))(vectors)
    rows = {r: range(first, last) for r, (first, last) in zip(order.tolist(), pairwise(step.records), strict=True)}
    pairs = [(rows[0][0], rows[0][1]), (rows[1][0], rows[1][1]), (rows[2][0], rows[2][1]), (rows[2][0], rows[2][3])]
    wrong = {0: [rows[1][2]], 1: [rows[2][1], rows[2][3], rows[1][2]], 2: [rows[1][1], rows[1][2], rows[2][2]]}
    wrong[3] = wrong[2]
    expected = 0.0
    for number, (text, fits) in enumerate(pairs):
        scores = torch.nn.functional.cosine_similarity(vectors[text], vectors[[fits, *wrong[number]]]) * 20
        expected += (scores.logsumexp(0) - scores[0]).item() / 4
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_the_set_holds_a_gold_value_and_a_number_for_each_text(make_start, texts):
    examples = [example(texts[0], [texts[1], texts[2]], [1.0, 0.0]), example(texts[2] + " ", [texts[0]], [1.0])]
    data = Trained(make_start(), examples).data
    assert data.records.tolist() == [0, 3, 5]
    assert data.targets[[1, 2, 4], 0].tolist() == [1.0, 0.0, 1.0]
    assert np.isnan(data.targets[[0, 3], 0]).all()
    numbers = data.targets[:, 1].astype(np.int64)
    assert numbers.tolist() == [text_number(texts[n]) for n in (0, 1, 2, 2, 0)]
    assert len(set(numbers.tolist())) == 3
    assert numbers.max() < 2**53


def test_examples_that_cannot_be_read_are_named_and_left_out(make_start, texts):
    examples = [example(texts[0], [texts[1]], [1.0]), example(texts[0], [" "], [1.0]), example(" ", [texts[0]], [1.0])]
    trained = Trained(make_start(), examples)
    assert len(trained.data) == 1
    assert {number: error.code for number, error in trained.refused.items()} == {1: "empty_pair"}
    with pytest.raises(InputError, match="no usable example"):
        Trained(make_start(), examples[1:])


@pytest.mark.parametrize(
    ("name", "gold", "message"),
    [
        ("info_nce", (0.5,), "train.jsonl:8: loss=info_nce takes 1"),
        ("info_nce", (0.0,), "train.jsonl:8: no second text fits"),
        ("cosine_mse", (1.5,), "train.jsonl:8: loss=cosine_mse takes cosines, from -1 to 1"),
        ("margin_mse", (1.0,), "train.jsonl:8: loss=margin_mse compares second texts"),
    ],
)
def test_gold_values_that_a_loss_has_no_use_for_are_named_with_their_places(make_start, texts, name, gold, message):
    bad = [example(texts[0], [texts[1]], gold, number) for number in (7, *range(10, 40))]
    with pytest.raises(TaskError, match=message) as error:
        Trained(make_start(), bad, VectorLoss(name))
    assert str(error.value).endswith("and 11 more")


def test_settings_that_do_not_fit_are_refused_all_at_once(make_start):
    loss = VectorLoss("cosent", scale=0.0, symmetric=True, dimensions=(64, 8), weights=(1.0,))
    with pytest.raises(TaskError) as error:
        loss.check(32, 16)
    for part in [
        "scale=0.0",
        "symmetric=true",
        "1 to the 32 values",
        "dimension_weights=[1.0]",
        "loss=cosent",
        "16 values",
    ]:
        assert part in str(error.value)
    with pytest.raises(TaskError, match="it needs a teacher"):
        VectorLoss("teacher_mse").check(32)
    VectorLoss("info_nce", symmetric=True, dimensions=(32, 8)).check(32)


def test_what_a_trained_model_says_of_its_vectors(make_start, make_checkpoint):
    fresh = embedding_settings(None, VectorLoss(), **PROMPTS)
    assert fresh["pooling"] == ["mean"]
    assert fresh["normalize"]
    assert fresh["prompts"] == {"query": "sucht: ", "document": "ein Satz: "}
    assert not embedding_settings(None, VectorLoss("teacher_mse"))["normalize"]
    base = Checkpoint.open(str(make_start(pooling=["cls"], normalize=False, query_prompt="frage: ")))
    kept = embedding_settings(base, VectorLoss(), prompt="ein Satz: ")
    assert (kept["pooling"], kept["normalize"]) == (["cls"], False)
    assert kept["prompts"] == {"query": "frage: ", "document": "ein Satz: "}


def test_a_trained_model_finds_what_it_was_shown(make_start, pairs):
    """The smallest check that all of it learns: a batch is learnt by heart."""
    trained = Trained(make_start(), pairs[:RECORDS])
    losses = trained.losses(16)
    assert losses[-1] < 0.3 * losses[0]
