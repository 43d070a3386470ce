"""Gradient caching against the plain way, where all vectors of a step and their graph are in memory at once."""

import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipelines.finetune.contrastive import backward
from xlmr_core.tasks.embed_losses import info_nce

TOLERANCE = 1e-6
INPUTS, WIDTH = 6, 8


def make_model(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, WIDTH))


def step_of(sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, INPUTS, generator=generator) for size in sizes]


def loss(vectors):
    first, second = vectors[::2], vectors[1::2]
    return info_nce(first[: len(second)], second, scale=5.0)


def plain(model, parts, seeds):
    """Every micro-batch with its own chance, then one loss and one pass back."""
    vectors = []
    for part, seed in zip(parts, seeds, strict=True):
        torch.manual_seed(seed)
        vectors.append(model(part))
    value = loss(torch.cat(vectors))
    value.backward()
    return value.item(), [parameter.grad for parameter in model.parameters()]


def cached(model, parts, seeds, own=None, reduce=None):
    value = backward(
        lambda number: model(parts[number]),
        [len(part) for part in parts],
        range(len(parts)) if own is None else own,
        loss,
        seeds=seeds,
        width=WIDTH,
        reduce=reduce,
    )
    return value, [parameter.grad for parameter in model.parameters()]


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], abs=TOLERANCE)
    torch.testing.assert_close(found[1], expected[1], atol=TOLERANCE, rtol=TOLERANCE)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1), st.booleans())
def test_micro_batches_give_the_gradient_of_one_large_batch(sizes, with_dropout):
    dropout, seeds = 0.3 if with_dropout else 0.0, [7 + number for number in range(len(sizes))]
    parts = step_of(sizes)
    assert_same(cached(make_model(dropout), parts, seeds), plain(make_model(dropout), parts, seeds))


def test_one_micro_batch_is_computed_once():
    model, calls = make_model(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    parts = step_of([8])
    assert_same(cached(model, parts, [3]), plain(make_model(), parts, [3]))
    assert len(calls) == 1


def test_gradients_are_added_to_those_that_are_there():
    parts, seeds = step_of([4, 4]), [0, 1]
    once, twice = make_model(), make_model()
    cached(once, parts, seeds)
    cached(twice, parts, seeds)
    cached(twice, parts, seeds)
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(two.grad, 2 * one.grad)


@pytest.mark.parametrize(("workers", "sizes"), [(2, [4, 3, 5, 2, 6]), (3, [4, 6]), (2, [8])])
def test_several_workers_together_give_what_one_gives(workers, sizes):
    """Each sees the vectors of all others as negatives; those without a micro-batch only take part in the sum."""
    parts, seeds = step_of(sizes), list(range(len(sizes)))
    expected = plain(make_model(0.2), parts, seeds)
    found = together(workers, parts, seeds)
    gradients = [torch.stack(each).sum(0) for each in zip(*(gradient for _, gradient in found), strict=True)]
    assert_same((sum(value for value, _ in found), gradients), expected)


def together(workers, parts, seeds):
    """Threads that take turns, because chance is one for all of them; what they share goes through a barrier."""
    barrier, turn, shared, found = threading.Barrier(workers), threading.Lock(), {}, {}

    def reduce_for(rank):
        def reduce(tensor):
            shared[rank] = tensor.clone()
            turn.release()
            barrier.wait()
            turn.acquire()
            tensor.copy_(sum(shared[other] for other in range(workers)))

        return reduce

    def work(rank):
        with turn:
            model = make_model(0.2)
            value, gradients = cached(model, parts, seeds, range(rank, len(parts), workers), reduce_for(rank))
        found[rank] = (
            value,
            [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), gradients, strict=True)],
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(workers)]


def most_saved(compute):
    """Most bytes that were kept for a gradient at any one time."""
    alive, most = 0, 0

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    def pack(tensor):
        nonlocal alive, most
        size = tensor.numel() * tensor.element_size()
        alive, kept = alive + size, Kept(tensor)
        most = max(most, alive)
        weakref.finalize(kept, release, size)
        return kept

    def release(size):
        nonlocal alive
        alive -= size

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        compute()
    return most


def test_many_micro_batches_need_the_memory_of_one():
    """Beyond the vectors and the loss of them, which are of no account in an encoder."""
    deep = nn.Sequential(*(nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.Tanh()) for _ in range(60)))
    model = nn.Sequential(deep, nn.Linear(INPUTS, WIDTH))
    parts, seeds = step_of([8] * 16), list(range(16))
    of_one = most_saved(lambda: model(parts[0]).sum().backward())
    of_loss = most_saved(lambda: loss(torch.randn(128, WIDTH, requires_grad=True)).backward())
    of_all = most_saved(lambda: plain(model, parts, seeds))
    found = most_saved(lambda: cached(model, parts, seeds))
    assert found <= of_one + of_loss
    assert of_all > 15 * of_one
