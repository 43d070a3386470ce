"""Workers' counts join: any batches, any workers, any order give the very same result."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics import (
    Accuracy,
    Calibration,
    Classification,
    EntityScores,
    MultiLabel,
    Perplexity,
    QuestionAnswering,
    Ranking,
    Regression,
    over_languages,
)
from xlmr_core.metrics.means import Mean, exact_sum

QUICK = settings(max_examples=25, deadline=None)

LABEL = st.sampled_from(["a", "b", "c"])
SPANS = st.lists(st.tuples(st.integers(0, 2), st.integers(3, 5), LABEL), max_size=3)
TAGS = st.lists(st.sampled_from(["O", "B-a", "I-a", "E-b", "S-b"]), min_size=3, max_size=3)
NUMBER = st.floats(-1e6, 1e6, width=32)
WORDS = st.lists(st.sampled_from(["the", "cat", "sat"]), max_size=3).map(" ".join)
# An empty accumulator, one record of it, and how records are added.
KINDS = {
    "accuracy": (Accuracy, (st.integers(0, 3), st.integers(0, 3)), "add"),
    "classification": (Classification, (LABEL, LABEL), "add"),
    "multi label": (MultiLabel, (st.sets(LABEL), st.sets(LABEL)), "add"),
    "entities": (EntityScores, (SPANS, SPANS), "add"),
    "tags": (EntityScores, (TAGS, TAGS), "add_tags"),
    "regression": (Regression, (NUMBER, NUMBER), "add"),
    "sampled regression": (lambda: Regression(sample=3), (NUMBER, NUMBER), "add"),
    "answers": (
        lambda: QuestionAnswering("squad_v2"),
        (st.lists(WORDS, max_size=2), WORDS, st.sampled_from([-1.0, 0.0, 0.1, 0.7])),
        "add",
    ),
    "ranking": (Ranking, (st.dictionaries(st.integers(0, 3), st.floats(-1, 5)), st.permutations(range(4))), "add"),
    "perplexity": (Perplexity, (st.floats(0, 1e3),), "add"),
    "perplexity of texts": (
        Perplexity,
        (st.floats(0, 1e3), st.integers(1, 9), st.text("aö語", min_size=1)),
        "add_texts",
    ),
    "calibration": (lambda: Calibration(3), (st.floats(0, 1), st.booleans()), "add"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_merging_is_associative_and_commutative_to_the_last_bit(kind):
    empty, columns, method = KINDS[kind]

    def counted(rows):
        accumulator = empty()
        if rows:
            getattr(accumulator, method)(*zip(*rows, strict=True))
        return accumulator

    @QUICK
    @given(st.lists(st.tuples(*columns), max_size=14), st.data())
    def check(rows, data):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=2)))
        one, two, three = (counted(rows[start:end]) for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True))
        before = repr(one.result())
        # By representation, in which nan equals nan and nothing is rounded.
        expected = repr(counted(rows).result())
        assert repr(one.merge(two).merge(three).result()) == expected
        assert repr(one.merge(two.merge(three)).result()) == expected
        assert repr(three.merge(one).merge(two).result()) == expected
        assert repr(one.merge(empty()).result()) == before
        # Neither side was changed, and a merged one goes on counting.
        assert repr(one.result()) == before
        whole = one.merge(two)
        if rows[cuts[1] :]:
            getattr(whole, method)(*zip(*data.draw(st.permutations(rows[cuts[1] :])), strict=True))
        assert repr(whole.result()) == expected

    check()


@QUICK
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, max_value=1e200, min_value=-1e200)))
def test_sums_are_exact(values):
    assert exact_sum(values) == sum(map(Fraction, values))


def test_a_mean_loses_nothing_where_large_values_cancel():
    mean = Mean()
    mean.add([1e16, 1.0, -1e16, 1.0])
    assert mean.value == 0.5
    assert math.isnan(Mean().value)
    with pytest.raises(ArgumentError, match="2 of 3 values are nan or infinite"):
        mean.add([math.nan, 1.0, math.inf])


def test_perplexity_is_the_exponential_of_the_mean_over_tokens():
    perplexity = Perplexity()
    perplexity.add(-np.log([[0.5, 0.25], [0.125, 0.5]]))
    assert perplexity.result()["perplexity"] == pytest.approx((2 * 4 * 8 * 2) ** (1 / 4))
    assert perplexity.result()["tokens"] == 4
    assert math.isnan(Perplexity().result()["perplexity"])
    hopeless = Perplexity()
    hopeless.add([1e4])
    assert hopeless.result()["perplexity"] == math.inf


def test_what_a_text_costs_is_also_shared_out_over_its_characters_and_bytes():
    perplexity = Perplexity()
    perplexity.add_texts([8 * math.log(2), 4 * math.log(2)], [3, 1], ["Öl", "語"])
    result = perplexity.result()
    assert result["perplexity"] == pytest.approx(2 ** (12 / 4))
    assert (result["bits_per_character"], result["bits_per_byte"]) == pytest.approx((12 / 3, 12 / 6))
    tokens = Perplexity()
    tokens.add([1.0])
    assert "bits_per_byte" not in tokens.result()
    with pytest.raises(ArgumentError, match=r"\(1,\) sums, 2 counts and 1 texts, must be as many"):
        perplexity.add_texts([1.0], [1, 1], ["a"])


@QUICK
@given(st.dictionaries(st.sampled_from(["de", "en", "sw", "th"]), st.floats(0, 1), min_size=1))
def test_a_table_over_languages_says_how_even_they_are(values):
    spread = over_languages({language: {"f1": value} for language, value in values.items()})["f1"]
    numbers = list(values.values())
    assert spread.mean == pytest.approx(np.mean(numbers))
    assert spread.std == pytest.approx(np.std(numbers))
    assert (spread.min, spread.max) == (min(numbers), max(numbers))
    assert values[spread.min_language] == spread.min
    assert values[spread.max_language] == spread.max
    assert spread.languages == len(values)


def test_languages_without_a_value_do_not_count():
    table = over_languages({"de": {"f1": 0.5}, "sw": {"f1": math.nan, "map": math.nan}, "th": {}})
    assert table.keys() == {"f1"}
    assert (table["f1"].mean, table["f1"].languages, table["f1"].min_language) == (0.5, 1, "de")
    assert over_languages({}) == {}


def test_metrics_need_numpy_only():
    heavy = ["torch", "sklearn", "scipy", "seqeval", "tokenizers", "ray"]
    code = f"import sys, xlmr_core.metrics; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
