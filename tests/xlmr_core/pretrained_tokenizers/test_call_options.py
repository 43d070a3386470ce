"""Every option of a call against transformers, alone and together."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmr_core.errors import XLMRError

FIRST = ["hello the world", "a", "the the the hello in the water and a storm of words that goes on and on", ""]
SECOND = ["in the hell", "the longer second text of these, hello hello hello hello", "a", "or"]


def outcome(tokenizer, *texts, **options):
    """What a call answers, or that it refuses."""
    try:
        got = tokenizer(*texts, **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library panics; ours must not
        if tokenizer.__module__.startswith("xlmr_core") and not isinstance(error, XLMRError):
            raise
        return "refused"
    return {
        key: (value.dtype, value.tolist()) if isinstance(value, (torch.Tensor, np.ndarray)) else value
        for key, value in got.items()
    }


def assert_same(pair, *texts, **options):
    expected, got = outcome(pair.theirs, *texts, **options), outcome(pair.ours, *texts, **options)
    assert got == expected, options
    return got


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "truncation", [None, False, True, "longest_first", "only_first", "only_second", "do_not_truncate"]
)
@pytest.mark.parametrize("padding", [False, True, "longest", "max_length", "do_not_pad"])
def test_padding_truncation_pairs_and_overflow(pair, padding, truncation, side):
    answered = 0
    for max_length, stride, overflow in itertools.product([None, 5, 12], [0, 2], [False, True]):
        # transformers warns of a max_length that means nothing, and tests turn warnings into errors.
        if padding is True and max_length is not None and truncation in (None, False, "do_not_truncate"):
            continue
        # The library panics when a stride does not fit; that is a test of its own.
        if stride and truncation not in (None, False, "do_not_truncate") and max_length == 5:
            continue
        for texts in ([FIRST], [FIRST, SECOND], [FIRST[2]], [FIRST[2], SECOND[1]]):
            result = assert_same(
                pair,
                *texts,
                padding=padding,
                truncation=truncation,
                max_length=max_length,
                stride=stride,
                return_overflowing_tokens=overflow,
                add_special_tokens=max_length != 12 or overflow,
                padding_side=side,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
                return_length=True,
            )
            answered += result != "refused"
    assert answered >= 16


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_side_that_is_cut(pair, side, monkeypatch):
    for tokenizer in pair:
        monkeypatch.setattr(tokenizer, "truncation_side", side)
    for texts in ([FIRST], [FIRST, SECOND]):
        assert_same(pair, *texts, truncation=True, max_length=9, stride=1, return_overflowing_tokens=True)


@pytest.mark.parametrize("tensors", ["pt", "np", None])
@pytest.mark.parametrize("texts", [[FIRST], [FIRST, SECOND], [FIRST[0]], [FIRST[0], SECOND[0]], [""], [["", ""]]])
def test_tensors(pair, tensors, texts):
    got = assert_same(
        pair, *texts, return_tensors=tensors, padding=True, return_offsets_mapping=True, return_length=True
    )
    assert got != "refused"
    if tensors == "np" and len(texts[0]) == len(FIRST):
        # transformers makes an array of arrays of that, which no model takes.
        assert outcome(pair.ours, *texts, return_tensors=tensors) == "refused"
    else:
        assert_same(pair, *texts, return_tensors=tensors)


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("padding", [True, "max_length", False])
def test_multiples(pair, multiple, padding):
    for truncation, max_length in ((True, 8), (True, 9), (False, None)):
        assert_same(
            pair,
            FIRST,
            SECOND,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            pad_to_multiple_of=multiple,
        )


@pytest.mark.parametrize("asked", list(itertools.product([None, True, False], repeat=2)))
def test_what_is_returned(pair, asked):
    types, mask = asked
    assert_same(pair, FIRST, return_token_type_ids=types, return_attention_mask=mask)


def test_words(small):
    for words in (["hello", "the world", ""], [["hello", "world"], ["a"]]):
        assert_same(small, words, is_split_into_words=True)
    assert_same(small, [["hello"], ["a"]], [["the", "world"], ["b"]], is_split_into_words=True)
    assert_same(small, ["hello", "a"], ["the", "world"], is_split_into_words=True)


def test_pairs_in_one_list(pair):
    pairs = list(zip(FIRST, SECOND, strict=True))
    assert_same(pair, pairs)
    assert dict(pair.ours.batch_encode_plus(pairs)) == dict(pair.ours(FIRST, SECOND))


def test_targets(pair):
    assert_same(pair, FIRST[0], text_target=SECOND[0])
    assert_same(pair, text_target=SECOND)


def test_special_tokens_as_text(pair):
    assert_same(pair, ["a </s> b<mask>"], split_special_tokens=True)


def test_the_other_names_of_a_call(pair):
    ours, theirs = pair
    assert ours.encode(FIRST[0], SECOND[0]) == theirs.encode(FIRST[0], SECOND[0])
    assert torch.equal(ours.encode(FIRST[0], return_tensors="pt"), theirs.encode(FIRST[0], return_tensors="pt"))
    assert dict(ours.encode_plus(FIRST[0], SECOND[0], max_length=6)) == dict(theirs(FIRST[0], SECOND[0], max_length=6))
    assert ours.tokenize(FIRST[0], SECOND[0], add_special_tokens=True) == theirs.tokenize(
        FIRST[0], SECOND[0], add_special_tokens=True
    )


texts = st.lists(st.sampled_from(["hello", "the", "a", "water", "é", "<mask>"]), max_size=12).map(" ".join)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    max_length=st.integers(6, 20),
    truncation=st.sampled_from([True, "only_first", "only_second"]),
    padding=st.sampled_from([True, False, "max_length"]),
    overflow=st.booleans(),
)
def test_any_pairs(pair, batch, max_length, truncation, padding, overflow):
    first, second = (list(column) for column in zip(*batch, strict=True))
    assert_same(
        pair,
        first,
        second,
        max_length=max_length,
        truncation=truncation,
        padding=padding,
        return_overflowing_tokens=overflow,
    )


def test_a_second_text_that_is_empty_is_one(pair):
    """transformers takes it for none where the text is not in a list."""
    assert pair.ours("a", "")["input_ids"] == pair.ours(["a"], [""])["input_ids"][0]


def test_no_texts_give_no_rows(pair):
    assert dict(pair.ours([])) == {"input_ids": [], "attention_mask": []}
    assert pair.ours([], return_tensors="pt").input_ids.dtype == torch.int64


class TestPad:
    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("tensors", ["pt", "np", None])
    @pytest.mark.parametrize(
        "options",
        [{}, {"padding": "max_length", "max_length": 60}, {"pad_to_multiple_of": 8}, {"padding": False}],
    )
    def test_as_transformers_does(self, pair, side, tensors, options):
        if tensors and options.get("padding", True) is False:
            return
        results = []
        for tokenizer in pair:
            encoded = [tokenizer(text, return_special_tokens_mask=True) for text in FIRST]
            got = tokenizer.pad(encoded, padding_side=side, return_tensors=tensors, **options)
            results.append({key: value if tensors is None else value.tolist() for key, value in got.items()})
        assert results[0] == results[1]

    def test_a_mask_that_is_there_is_filled_even_if_none_is_asked_for(self, pair):
        """transformers leaves it shorter than the ids."""
        got = pair.ours.pad([pair.ours(text) for text in FIRST], return_attention_mask=False, return_tensors="pt")
        assert got.attention_mask.shape == got.input_ids.shape

    def test_one_encoding_and_tensors(self, pair):
        for make in (lambda t: t("hello"), lambda t: t(FIRST), lambda t: dict(t(FIRST))):
            got, expected = (t.pad(make(t), padding="max_length", max_length=40) for t in pair)
            assert dict(got) == dict(expected)
        got, expected = (
            t.pad([{"input_ids": torch.tensor([0, 5, 2])}, {"input_ids": torch.tensor([0, 2])}]) for t in pair
        )
        assert torch.equal(got.input_ids, expected.input_ids)
        assert torch.equal(got.attention_mask, expected.attention_mask)


def test_numbers_beside_the_ids_have_the_types_of_the_reference(pair):
    rows = [{**pair.theirs(text), "labels": 0.5} for text in FIRST]
    got, expected = (tokenizer.pad(rows, return_tensors="pt") for tokenizer in (pair.ours, pair.theirs))
    assert got["labels"].dtype == expected["labels"].dtype == torch.float32


def test_batches_are_decoded_with_options_by_place(pair):
    rows = pair.theirs(FIRST)["input_ids"]
    assert pair.ours.batch_decode(rows, True) == pair.theirs.batch_decode(rows, True)
