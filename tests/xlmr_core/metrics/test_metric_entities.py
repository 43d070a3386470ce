"""Entities against seqeval: default and strict mode, any tag sequences, well formed or not."""

import re
import time
import warnings
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import scheme as schemes
from seqeval.metrics import accuracy_score, classification_report
from seqeval.metrics import sequence_labeling as lenient
from seqeval.metrics import v1 as strictly

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics import EntityScores
from xlmr_core.metrics.entities import spans_of_tags

QUICK = settings(max_examples=60, deadline=None)
EXACT = {"rel": 1e-12, "abs": 1e-12}
PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOE1": "IE", "IOE2": "IE", "IOBES": "BIES", "BILOU": "BILU"}


def tags_of(prefixes: str) -> st.SearchStrategy[str]:
    named = st.builds("{}-{}".format, st.sampled_from(prefixes), st.sampled_from(["PER", "LOC", "X-Y"]))
    # Few types and few tags outside: most neighbours have something to do with each other.
    return st.one_of(named, named, st.sampled_from(["O", *prefixes]))


@QUICK
@given(st.lists(tags_of("BIES"), max_size=12))
def test_the_default_mode_reads_any_sequence_as_seqeval_does(tags):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [(start, end + 1, name) for name, start, end in lenient.get_entities(tags)]
    assert spans_of_tags(tags) == expected


@pytest.mark.parametrize("name", PREFIXES)
def test_strict_mode_reads_any_sequence_as_seqeval_does(name):
    @QUICK
    @given(st.lists(tags_of(PREFIXES[name]), max_size=12))
    def check(tags):
        if name == "IOB1" and any(one[0] == other[0] == "B" and one[1:] != other[1:] for one, other in pairwise(tags)):
            return  # What seqeval loses; see the next test.
        expected = schemes.Tokens(tags, getattr(schemes, name)).entities
        assert spans_of_tags(tags, name) == [(entity.start, entity.end, entity.tag) for entity in expected]

    check()


def test_a_single_b_before_another_type_is_an_entity_of_iob1():
    tags = ["I-PER", "B-PER", "B-LOC"]
    assert spans_of_tags(tags, "IOB1") == [(0, 1, "PER"), (1, 2, "PER")]
    assert len(schemes.Tokens(tags, schemes.IOB1).entities) == 1


def test_bare_types_and_bilou_tags_are_read_without_a_scheme():
    assert spans_of_tags(["ORG", "ORG", "O", "PER", "LOC"]) == [(0, 2, "ORG"), (3, 4, "PER"), (4, 5, "LOC")]
    assert spans_of_tags(["U-PER", "U-PER", "B-LOC", "M-LOC", "L-LOC"]) == [(0, 1, "PER"), (1, 2, "PER"), (2, 5, "LOC")]
    assert spans_of_tags(["B_PER", "I_PER"]) == [(0, 2, "PER")]


def test_tags_that_a_scheme_does_not_have_are_refused_together():
    with pytest.raises(ArgumentError, match=re.escape("tags PER, S-LOC, IOB2 has O, B-, I-")):
        spans_of_tags(["S-LOC", "PER", "B-LOC"], "IOB2")


@pytest.mark.parametrize("name", ["IOE1", "IOE2", "IOBES"])
def test_an_entity_that_never_ends_takes_linear_time(name):
    tags = [f"{PREFIXES[name][0]}-X", *["I-X"] * 50_000, "I-Y"]
    begin = time.process_time()
    spans_of_tags(tags, name)
    assert time.process_time() - begin < 1


PAIRS = st.lists(st.lists(st.tuples(tags_of("BI"), tags_of("BI")), max_size=8), min_size=1, max_size=4)


@pytest.mark.parametrize("strict", [False, True])
def test_scores_equal_seqeval(strict):
    scheme = schemes.IOB2 if strict else None
    by_average = (strictly if strict else lenient).precision_recall_fscore_support

    @settings(QUICK, max_examples=30)
    @given(PAIRS)
    def check(records):
        gold, predicted = ([[pair[side] for pair in record] for record in records] for side in (0, 1))
        scores = EntityScores()
        scores.add_tags(gold, predicted, "IOB2" if strict else None)
        result = scores.result()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not scores.hits.gold and not scores.hits.predicted:
                # Nothing to average: seqeval divides by zero, or warns and says 0.
                assert result["micro_f1"] == result["macro_f1"] == result["weighted_f1"] == 0
                return
            for average in ("micro", "macro", "weighted"):
                expected = by_average(gold, predicted, average=average, **({"scheme": scheme} if strict else {}))
                for measure, value in zip(("precision", "recall", "f1"), expected, strict=False):
                    assert result[f"{average}_{measure}"] == pytest.approx(value, **EXACT)
            table = classification_report(
                gold, predicted, output_dict=True, mode="strict" if strict else None, scheme=scheme
            )
        for name, of_type in scores.by_type().items():
            assert of_type == pytest.approx({key.replace("-score", ""): of for key, of in table[name].items()}, **EXACT)
        if any(gold):
            assert result["tag_accuracy"] == pytest.approx(accuracy_score(gold, predicted), **EXACT)

    check()


def test_spans_count_as_their_tags_do():
    gold, predicted = ["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "I-PER", "O", "B-ORG"]
    by_tags, by_spans = EntityScores(), EntityScores()
    by_tags.add_tags([gold], [predicted])
    by_spans.add([[(0, 2, "PER"), (3, 4, "LOC")]], [[(0, 2, "PER"), (3, 4, "ORG"), (3, 4, "ORG")]])
    assert by_spans.hits == by_tags.hits
    assert by_spans.result()["micro_f1"] == 0.5


def test_equal_bounds_in_another_record_are_another_entity():
    scores = EntityScores()
    scores.add([[(0, 2, "PER")], []], [[], [(0, 2, "PER")]])
    assert scores.result()["micro_f1"] == 0


def test_records_of_different_lengths_are_refused():
    with pytest.raises(ArgumentError, match=re.escape("records [1] have more or fewer")):
        EntityScores().add_tags([["O"], ["O"]], [["O"], ["O", "O"]])
