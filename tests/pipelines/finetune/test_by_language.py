"""Loss and tokens of languages: equal to loops over single targets, however a step is cut."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.finetune.by_language import OTHERS, WIDTH, language_sums, languages_of, row_languages, whole_loss
from xlmr_core.tasks.weighting import mean_loss, weighted_cross_entropy

NAMES = ("de", "", "sw")
# Of each record: its language, and the tokens of its sequences.
RECORDS = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(2, 5), min_size=1, max_size=3)), min_size=1, max_size=8
)

# The first example of a process may be slow.
relaxed = settings(deadline=None, max_examples=50)


def batch(records, per, seed=0):
    """Targets of three labels for every record, sequence or token; some are ignored."""
    lengths = [length for _, of_record in records for length in of_record]
    rows = {"record": len(records), "window": len(lengths), "token": sum(lengths)}[per]
    targets = np.random.default_rng(seed).choice([-100, 0, 1, 2], rows)
    return SimpleNamespace(
        packed=SimpleNamespace(lengths=lengths),
        targets=torch.from_numpy(targets),
        splits=torch.from_numpy(np.cumsum([0, *(len(of_record) for _, of_record in records)])),
        language=np.array([language for language, _ in records], dtype=np.int16),
    )


def expected_languages(records, per):
    match per:
        case "record":
            return [language for language, _ in records]
        case "window":
            return [language for language, of_record in records for _ in of_record]
        case "token":
            return [language for language, of_record in records for length in of_record for _ in range(length)]


@relaxed
@given(RECORDS, st.sampled_from(["record", "window", "token"]))
def test_every_row_of_targets_has_its_records_language(records, per):
    assert row_languages(batch(records, per)).tolist() == expected_languages(records, per)


@relaxed
@given(RECORDS, st.sampled_from(["record", "window", "token"]), st.booleans())
def test_sums_are_those_of_a_loop(records, per, known_only):
    some = batch(records, per)
    logits = torch.randn(len(some.targets), 3, generator=torch.Generator().manual_seed(1))
    loss, counts = weighted_cross_entropy(logits, some.targets, torch.tensor([1.0, 2.0, 0.5]))
    chosen = some.targets != -100 if known_only else slice(None)
    sums = language_sums(some, loss[chosen], counts[chosen], 3)
    expected = np.zeros((3, WIDTH))
    for language, value, count in zip(expected_languages(records, per), loss.tolist(), counts.tolist(), strict=True):
        expected[language, :2] += value, count
    for language, of_record in records:
        expected[language, 2] += sum(of_record)
    np.testing.assert_allclose(sums, expected, rtol=1e-12)
    found = whole_loss(sums)
    assert math.isnan(found) if not counts.any() else found == pytest.approx(float(mean_loss(loss, counts)), rel=1e-5)


@relaxed
@given(st.lists(RECORDS, min_size=1, max_size=3))
def test_sums_of_micro_batches_are_those_of_the_step(parts):
    whole = batch([record for part in parts for record in part], "window", seed=4)
    loss = torch.rand(len(whole.targets))
    counts = (whole.targets != -100).float()
    at, summed = 0, torch.zeros(3, WIDTH, dtype=torch.float64)
    for part in parts:
        some = batch(part, "window")
        rows = slice(at, at + len(some.targets))
        some.targets = whole.targets[rows]
        summed += language_sums(some, loss[rows], counts[rows], 3)
        at = rows.stop
    torch.testing.assert_close(summed, language_sums(whole, loss, counts, 3))


def test_the_languages_with_most_tokens_are_named_and_the_others_counted():
    sums = torch.tensor([[2.0, 4, 10], [3.0, 3, 30], [1.0, 1, 5], [5.0, 0, 7], [0.0, 0, 0]], dtype=torch.float64)
    found = languages_of(sums, ("de", "", "sw", "xx", "yy"), most=2)
    assert found == {
        "(none)": {"loss": 1.0, "tokens": 30.0},
        "de": {"loss": 0.5, "tokens": 10.0},
        OTHERS: {"loss": 6.0, "tokens": 12.0, "languages": 2.0},
    }
    every = languages_of(sums, ("de", "", "sw", "xx", "yy"), most=None)
    assert list(every) == ["(none)", "de", "xx", "sw"]
    assert math.isnan(every["xx"]["loss"])
