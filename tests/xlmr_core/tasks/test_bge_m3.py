"""Sparse and multi-vector embeddings against bge-m3's heads as FlagEmbedding 1.3 computes them, written out.

Its definitions are in `finetune/embedder/encoder_only/m3/modeling.py` and `inference/embedder/encoder_only/m3.py`.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks import multi_vector, sparse
from xlmr_core.tasks.columns import to_list
from xlmr_core.tokenization.windows import widest_window

# Two float32 paths through the same weights.
TOLERANCE = 1e-5
WIDTH = 8


class Reference:
    """The encoder of a directory with a random sparse and a random ColBERT head, saved there as bge-m3 has them."""

    def __init__(self, directory: Path, width: int = WIDTH) -> None:
        import transformers

        self.directory = directory
        self.encoder = transformers.AutoModel.from_pretrained(directory, add_pooling_layer=False).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        torch.manual_seed(1)
        size = self.encoder.config.hidden_size
        self.sparse_linear, self.colbert_linear = nn.Linear(size, 1), nn.Linear(size, width)
        for name in ("sparse_linear", "colbert_linear"):
            torch.save(getattr(self, name).state_dict(), directory / f"{name}.pt")

    def hidden(self, ids: list[int]) -> Tensor:
        """Hidden states of one window, `<s>` and `</s>` included."""
        with torch.no_grad():
            return self.encoder(torch.tensor([ids])).last_hidden_state[0]

    def token_weights(self, ids: list[int]) -> list[float]:
        """What `_sparse_embedding` gives for every token."""
        with torch.no_grad():
            return torch.relu(self.sparse_linear(self.hidden(ids)))[:, 0].tolist()

    def lexical_weights(self, windows: list[list[int]]) -> dict[int, float]:
        """`_process_token_weights`: the largest weight of each token, if positive, without four special tokens."""
        special = {0, 1, 2, 3}
        found: dict[int, float] = {}
        for ids in windows:
            for token, weight in zip(ids, self.token_weights(ids), strict=True):
                if token not in special and weight > found.get(token, 0):
                    found[token] = weight
        return found

    def vectors(self, ids: list[int]) -> Tensor:
        """`_colbert_embedding` with `normalize_embeddings`: every token but the first, the last one included."""
        with torch.no_grad():
            return nn.functional.normalize(self.colbert_linear(self.hidden(ids)[1:]), dim=-1)


@pytest.fixture(scope="module")
def bge(make_checkpoint):
    return Reference(make_checkpoint("XLMRobertaModel"))


@pytest.fixture(scope="module")
def texts(sample_texts):
    """Short and long ones, special tokens spelled out (<pad> shifts positions in transformers), unknown letters."""
    chosen = [text for text in sample_texts if text.strip()][::12]
    return [*chosen, "the the the </s> the <unk> <s> \U0001f9ff \U0001f9ff the", "a"]


def annotate(bge, texts, **options):
    plan = GraphPlan.resolve([Request("v", str(bge.directory), options)])
    encoded = Preprocessor(plan)(texts)
    return to_list(ModelGraph(plan)(encoded).columns["v"]), encoded.views[0]


def ids_of(view, record):
    return view.ids[view.splits[record] : view.splits[record + 1]].tolist()


def windows_of(count, *, room, stride):
    """Where windows over so many tokens start and end."""
    windows = [(0, min(room, count))]
    while windows[-1][1] < count:
        start = windows[-1][0] + room - stride
        windows.append((start, min(start + room, count)))
    return windows


@pytest.mark.parametrize(("max_length", "stride"), [(64, 0), (12, 3)])
def test_sparse_vectors_hold_the_largest_weight_of_each_token(bge, texts, max_length, stride):
    found, view = annotate(bge, texts, task="sparse-embedding", max_length=max_length, stride=stride)
    longest = 0
    for record, entries in enumerate(found):
        ids = ids_of(view, record)
        windows = windows_of(len(ids), room=max_length - 2, stride=stride)
        expected = bge.lexical_weights([[0, *ids[start:end], 2] for start, end in windows])
        assert [entry["token"] for entry in entries] == sorted(expected)
        weights = [expected[token] for token in sorted(expected)]
        np.testing.assert_allclose([entry["weight"] for entry in entries], weights, atol=TOLERANCE)
        assert all(entry["weight"] > 0 for entry in entries)
        longest = max(longest, len(windows))
    assert longest > 1
    assert sum(map(len, found)) > 100


@pytest.mark.parametrize(("max_length", "stride"), [(64, 16), (12, 3)])
def test_multi_vectors_are_those_of_all_tokens_but_the_first(bge, texts, max_length, stride):
    found, view = annotate(bge, texts, task="multi-vector-embedding", max_length=max_length, stride=stride)
    for record, vectors in enumerate(found):
        ids = ids_of(view, record)
        windows = np.array(windows_of(len(ids), room=max_length - 2, stride=stride))
        of_window = [bge.vectors([0, *ids[start:end], 2]) for start, end in windows.tolist()]
        zero = np.zeros(len(windows), np.int64)
        window, token = widest_window(zero, windows[:, 0], windows[:, 1], np.array([len(ids)]))
        expected = [of_window[w][t - windows[w, 0]] for w, t in zip(window.tolist(), token.tolist(), strict=True)]
        np.testing.assert_allclose(vectors, torch.stack([*expected, of_window[-1][-1]]), atol=TOLERANCE)


def test_fewer_dimensions_are_normalised_again(bge):
    (vectors,), _ = annotate(bge, ["Hello world"], task="multi-vector-embedding", dimensions=3)
    (whole,), _ = annotate(bge, ["Hello world"], task="multi-vector-embedding")
    assert np.array(vectors).shape == (len(whole), 3)
    expected = nn.functional.normalize(torch.tensor(whole)[:, :3], dim=1)
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)
    with pytest.raises(TaskError, match="dimensions=9, the head gives 8 values"):
        annotate(bge, ["a"], task="multi-vector-embedding", dimensions=9)


def test_both_heads_read_one_pass_and_empty_records_have_neither(bge):
    requests = [
        Request(kind[:5], str(bge.directory), {"task": f"{kind}-embedding"}) for kind in ("sparse", "multi-vector")
    ]
    plan = GraphPlan.resolve(requests)
    encoded = Preprocessor(plan)(["", "Hello", " "])
    graph = ModelGraph(plan)
    assert len(plan.views) == len(graph.forward(encoded).windows) == 1
    result = graph(encoded)
    assert result.status.tolist() == ["empty", "ok", "empty"]
    assert [len(to_list(column)) for column in result.columns.values()] == [1, 1]


def test_a_sparse_head_of_several_outputs_is_refused(make_checkpoint):
    directory = make_checkpoint("XLMRobertaModel")
    torch.save(nn.Linear(32, 2).state_dict(), directory / "sparse_linear.pt")
    with pytest.raises(TaskError, match="sparse head has 2 outputs, it must have one"):
        sparse.Sparse.bind(Checkpoint.open(str(directory)), sparse.SparseOptions())


def test_scores_equal_flag_embedding(bge):
    texts = ["Hello world, hello", "The world said hello", "我爱北京"]
    weights, _ = annotate(bge, texts, task="sparse-embedding")
    as_dicts = [{entry["token"]: entry["weight"] for entry in entries} for entries in weights]
    vectors = [torch.tensor(found) for found in annotate(bge, texts, task="multi-vector-embedding")[0]]
    scores = multi_vector.max_sim(vectors, vectors)
    for i, first in enumerate(as_dicts):
        for j, second in enumerate(as_dicts):
            # compute_lexical_matching_score, and colbert_score: the best match of each query token, over their number.
            expected = sum(weight * second[token] for token, weight in first.items() if token in second)
            assert sparse.lexical_score(weights[i], weights[j]) == pytest.approx(expected)
            best = [max(float(q @ p) for p in vectors[j]) for q in vectors[i]]
            assert scores[i, j].item() == pytest.approx(sum(best) / len(best), abs=1e-5)


@pytest.fixture(scope="module")
def batch(bge, texts):
    sequences = [bge.tokenizer(text)["input_ids"][:40] for text in texts[:5]]
    return PackedBatch.from_lists(sequences, first_position=2), sequences


def test_training_reads_the_same_vectors(bge, batch):
    packed, sequences = batch
    hidden = torch.cat([bge.hidden(ids) for ids in sequences])
    special = Preprocessor(GraphPlan.resolve([Request("v", str(bge.directory), {"task": "sparse-embedding"})])).plan
    weights = torch.relu(bge.sparse_linear(hidden))
    dense = sparse.vocabulary_weights(weights, packed, special.views[0].special, bge.encoder.config.vocab_size)
    for row, ids in zip(dense, sequences, strict=True):
        expected = bge.lexical_weights([ids])
        assert {token: row[token].item() for token in row.nonzero()[:, 0].tolist()} == pytest.approx(expected, abs=1e-5)
    dense.sum().backward()
    assert bge.sparse_linear.weight.grad.abs().sum() > 0
    raw = nn.functional.normalize(bge.colbert_linear(hidden), dim=1)
    for found, ids in zip(multi_vector.text_vectors(raw, packed), sequences, strict=True):
        torch.testing.assert_close(found, bge.vectors(ids), atol=TOLERANCE, rtol=0)


def test_losses_equal_a_written_out_softmax():
    generator = torch.Generator().manual_seed(0)
    queries, passages = (torch.rand(count, 6, generator=generator) for count in (3, 5))
    sizes = [2, 3, 1, 4, 2]
    vectors = [nn.functional.normalize(torch.randn(size, 4, generator=generator), dim=1) for size in sizes]
    for found, scores in (
        (sparse.loss(queries, passages, temperature=0.5), queries @ passages.T / 0.5),
        (multi_vector.loss(vectors[:3], vectors, temperature=0.1), multi_vector.max_sim(vectors[:3], vectors) / 0.1),
    ):
        expected = [
            float(-torch.log(torch.exp(row[i]) / torch.exp(row).sum())) for i, row in enumerate(scores.double())
        ]
        assert found.item() == pytest.approx(np.mean(expected), abs=1e-5)
