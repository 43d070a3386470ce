import numpy as np
import torch

from pipelines.finetune.batches import Batches, TrainingBatch


def same(a: TrainingBatch, b: TrainingBatch) -> bool:
    return (
        a.packed.lengths == b.packed.lengths
        and torch.equal(a.packed.ids, b.packed.ids)
        and torch.equal(a.label, b.label)
        and torch.equal(a.pairs, b.pairs)
    )


def fresh(batches: Batches) -> Batches:
    return Batches(batches.texts, batches.special, batches.settings, starts_word=np.arange(64) % 2 == 0, pivot_label=2)


def test_batch_n_depends_on_n_alone(batches):
    assert all(same(batches(n), fresh(batches)(n)) for n in (0, 17, 5))
    assert not same(batches(0), batches(1))


def test_batches_keep_the_budget_and_lie_sorted_by_length(batches):
    for n in range(30):
        lengths = batches(n).packed.lengths
        assert sum(lengths) <= batches.settings.max_tokens
        assert list(lengths) == sorted(lengths)
        assert max(lengths) <= batches.settings.max_joined_length


def test_labels_are_those_of_the_tokens(batches):
    """Each toy language has tokens of its own, so the right label can be read off."""
    for n in range(30):
        batch = batches(n)
        for ids, label in zip(batch.packed.ids.split(list(batch.packed.lengths)), batch.label.tolist(), strict=True):
            content = ids[(ids >= 5) & (ids < 59)]
            assert (ids[0], ids[-1]) == (0, 2)
            assert label == -100 or set(((content - 5) // 18).tolist()) <= {label}


def test_pairs_are_translations_of_each_other(batches):
    found = 0
    for n in range(30):
        batch = batches(n)
        sequences = batch.packed.ids.split(list(batch.packed.lengths))
        for first, second in batch.pairs.tolist():
            kept = (sequences[first] < 59) & (sequences[second] < 59)
            assert torch.equal((sequences[first][kept] - 5) % 18, (sequences[second][kept] - 5) % 18)
            found += 1
    assert found > 30


def test_the_pivot_as_a_partner_does_not_count_as_a_label(batches):
    labels = torch.cat([batches(n).label for n in range(30)])
    assert (labels == -100).any()
    assert set(labels.tolist()) == {-100, 0, 1, 2}


def test_some_texts_are_fragments_and_some_are_joined(batches):
    whole = set(batches.texts.lengths.tolist())
    lengths = {length - 2 for n in range(30) for length in batches(n).packed.lengths}
    assert min(lengths) < min(whole)
    assert max(lengths) > max(whole)
