"""Packing, planning and padding hold for any lengths."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

from xlmr_core.batch import Grid, PackedBatch, plan_batches

lengths = st.lists(st.integers(1, 512), max_size=60).map(lambda values: np.array(values, dtype=np.int32))
budgets = st.integers(1, 4096)


@given(lengths, budgets)
def test_a_plan_holds_every_sequence_once(lengths, budget):
    batches = plan_batches(lengths, budget)
    chosen = np.concatenate(batches) if batches else np.zeros(0, dtype=int)
    assert sorted(chosen.tolist()) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)


@given(lengths, budgets)
def test_a_batch_keeps_to_the_budget_unless_it_is_one_long_sequence(lengths, budget):
    for batch in plan_batches(lengths, budget):
        assert lengths[batch].sum() <= budget or len(batch) == 1


@given(lengths, budgets)
def test_a_plan_runs_from_long_to_short_and_wastes_no_room(lengths, budget):
    batches = plan_batches(lengths, budget)
    order = np.concatenate([lengths[batch] for batch in batches]) if batches else lengths
    assert (np.diff(order) <= 0).all()
    for batch, following in pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > budget


def test_equal_lengths_keep_the_order_they_came_in():
    assert [batch.tolist() for batch in plan_batches(np.array([3, 5, 3, 3]), 8)] == [[1, 0], [2, 3]]


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=20), min_size=1, max_size=8), st.integers(0, 3))
def test_a_pack_gives_back_each_sequence_with_its_own_positions(sequences, pad_token_id):
    batch = PackedBatch.from_lists(sequences, first_position=pad_token_id + 1)
    bounds = batch.cu_seqlens.tolist()
    for number, sequence in enumerate(sequences):
        own = slice(bounds[number], bounds[number + 1])
        assert batch.ids[own].tolist() == sequence
        assert batch.positions[own].tolist() == list(range(pad_token_id + 1, pad_token_id + 1 + len(sequence)))
        assert (batch.sequence_of_token[own] == number).all()
    assert batch.lengths == tuple(map(len, sequences))
    assert batch.max_length == max(map(len, sequences))
    assert batch.starts.tolist() == bounds[:-1]
    assert (batch.ids.dtype, batch.positions.dtype, batch.cu_seqlens.dtype) == (torch.int64, torch.int64, torch.int32)


@st.composite
def padded(draw):
    """Ids and a mask with at least one real token a row, padded on either side."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    width, left = max(sizes) + draw(st.integers(0, 3)), draw(st.booleans())
    column = torch.arange(width)
    size_B1 = torch.tensor(sizes)[:, None]
    mask_BL = ((column >= width - size_B1) if left else (column < size_B1)).long()
    ids_BL = torch.randint(3, 90, mask_BL.shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return torch.where(mask_BL == 1, ids_BL, 1), mask_BL


@given(padded())
def test_packing_and_padding_are_inverse(ids_and_mask):
    ids_BL, mask_BL = ids_and_mask
    grid = Grid.of(mask_BL.bool())
    assert torch.equal(grid.pad(grid.pack(ids_BL)), ids_BL * mask_BL)


@given(padded())
def test_a_packed_grid_is_the_batch_of_its_rows(ids_and_mask):
    ids_BL, mask_BL = ids_and_mask
    positions_BL = XLMRobertaEmbeddings.create_position_ids_from_input_ids(ids_BL, padding_idx=1)
    packed = Grid.of(mask_BL.bool()).batch(ids_BL, positions_BL)
    rows = [row[real.bool()].tolist() for row, real in zip(ids_BL, mask_BL, strict=True)]
    expected = PackedBatch.from_lists(rows, first_position=2)
    assert packed.lengths == expected.lengths
    for name in ("ids", "positions", "cu_seqlens"):
        assert torch.equal(getattr(packed, name), getattr(expected, name))


parts = st.tuples(st.lists(st.integers(0, 99), max_size=9), st.lists(st.integers(0, 99), max_size=9)).filter(any)


@given(st.lists(parts, min_size=1, max_size=8), st.integers(0, 3))
def test_positions_start_again_at_a_second_part(pairs, first_position):
    packed = PackedBatch.from_numpy(
        np.array([token for pair in pairs for part in pair for token in part]),
        np.array([sum(map(len, pair)) for pair in pairs]),
        first_position=first_position,
        first_parts=np.array([len(first) for first, _ in pairs], dtype=np.int32),
    )
    expected = [first_position + place for pair in pairs for part in pair for place in range(len(part))]
    assert packed.positions.tolist() == expected
    assert packed.positions.dtype == torch.int64
    # Attention reaches over both parts.
    assert packed.lengths == tuple(len(first) + len(second) for first, second in pairs)


def test_a_first_part_longer_than_its_sequence_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError):
        PackedBatch.from_numpy(np.arange(3), np.array([3]), first_position=2, first_parts=np.array([4]))


def test_padding_keeps_further_dimensions():
    grid = Grid.of(torch.tensor([[1, 1, 0], [1, 0, 0]]).bool())
    assert grid.pad(torch.ones(3, 4)).sum(dim=(1, 2)).tolist() == [8.0, 4.0]


def test_an_empty_sequence_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError):
        PackedBatch.from_lists([[0, 2], []], first_position=2)
