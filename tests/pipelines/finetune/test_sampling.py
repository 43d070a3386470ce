import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.finetune.sampling import epoch_rows, language_probabilities

counts_of_languages = st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any)


@given(counts_of_languages, st.floats(0, 1))
def test_probabilities_sum_to_one_and_keep_the_order_of_sizes(counts, alpha):
    shares = language_probabilities(np.array(counts), alpha)
    assert shares.sum() == pytest.approx(1)
    assert (shares[np.array(counts) == 0] == 0).all()
    assert (np.diff(shares[np.argsort(counts)]) >= -1e-12).all()


def test_alpha_one_keeps_the_data_and_alpha_zero_makes_languages_equal():
    counts = np.array([900, 100, 0])
    assert language_probabilities(counts, 1.0).tolist() == pytest.approx([0.9, 0.1, 0.0])
    assert language_probabilities(counts, 0.0).tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert language_probabilities(counts, 0.5).tolist() == pytest.approx([0.75, 0.25, 0.0])


LABEL = np.repeat([0, 1, 2], [50, 7, 0 + 3])


def rows(epoch: int, seed: int = 0) -> list[int]:
    return epoch_rows(LABEL, alpha=0.5, size=30, seed=seed, epoch=epoch).tolist()


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    assert rows(3) == rows(3)
    assert rows(3) != rows(4)
    assert rows(3) != rows(3, seed=1)


def test_every_row_comes_up_before_one_of_its_language_repeats():
    seen = [row for epoch in range(40) for row in sorted(rows(epoch))]
    for language in range(3):
        counts = np.bincount(seen, minlength=60)[language == LABEL]
        assert counts.max() - counts.min() <= 1
