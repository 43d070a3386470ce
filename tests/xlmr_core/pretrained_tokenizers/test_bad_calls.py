"""One clear error each, and nothing is disturbed by it."""

import logging
import threading

import numpy as np
import pytest

from xlmr_core.errors import ArgumentError, InputError, XLMRError
from xlmr_core.pretrained_tokenizers import RobertaTokenizer, RobertaTokenizerFast


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((["a", None],), {}, r"text 1 is unusable \(null\)"),
        ((["a", 5],), {}, r"text 1 is unusable \(not_a_string\)"),
        ((["a", "b\ud800"],), {}, r"text 1 is unusable \(lone_surrogate\)"),
        ((["a", "b"], ["c", "\udfff"]), {}, r"text 1 is unusable \(lone_surrogate\)"),
        (("\ud800",), {}, r"text 0 is unusable \(lone_surrogate\)"),
        (([("a", "b"), ("a",)],), {}, "text 1 is a tuple of 1, a pair has 2"),
        ((["a", ["b", None]],), {"is_split_into_words": True}, "text 0 is unusable|list of words"),
        (([["a"], ["b", "\ud800"]],), {"is_split_into_words": True}, r"text 1 is unusable \(lone_surrogate\)"),
        ((5,), {}, "text is a int"),
        ((np.array(["a"]),), {}, r"text is a ndarray.*tolist"),
        (("a", 5), {}, "text_pair is a int"),
        ((["a", "b"], ["c"]), {}, "text_pair has 1 texts, text has 2"),
        ((["a"], "b"), {}, "text_pair is one text, text is a batch"),
        (("a", ["b"]), {}, "text_pair is a list, text is one text"),
        (("a b",), {"is_split_into_words": True}, "text is a string, is_split_into_words=True"),
        ((), {}, "text is None and so is text_target"),
        (("a",), {"foo": 1, "bar": 2}, "unknown argument bar, foo; known are text"),
        (
            ("a",),
            {"padding": "longst", "stride": -1, "max_length": 0},
            r"(?s)padding 'longst'.*max_length 0.*stride -1",
        ),
        (("a",), {"truncation": 1}, "truncation 1, it must be"),
        (("a",), {"padding_side": "up", "return_tensors": "tf"}, r"(?s)padding_side 'up'.*return_tensors 'tf'"),
        (("a",), {"return_length": "yes"}, "return_length 'yes'"),
        (("a",), {"truncation": True, "max_length": 1}, "max_length 1, the special tokens alone are 2"),
        (("a", "b"), {"truncation": True, "max_length": 3}, "max_length 3, the special tokens alone are 4"),
        (("a",), {"truncation": True, "max_length": 8, "stride": 6}, "stride 6, it must be smaller than the 6 tokens"),
        (
            ("a",),
            {"truncation": True, "padding": True, "max_length": 9, "pad_to_multiple_of": 4},
            "max_length 9.* multiple",
        ),
        ((["a", "a a a"],), {"truncation": "only_second", "max_length": 4}, "text 1 cannot be cut"),
        ((["a", "a b c"], ["b", "a b c d e f"]), {"truncation": "only_first", "max_length": 8}, "text 1 cannot be cut"),
        ((["a", "a a"],), {"return_tensors": "pt"}, "input_ids makes no tensor.*padding=True"),
    ],
)
def test_is_refused(pair, arguments, options, said):
    before = dict(pair.ours("hello the world"))
    with pytest.raises(XLMRError, match=said) as caught:
        pair.ours(*arguments, **options)
    assert isinstance(caught.value, (ArgumentError, InputError))
    assert dict(pair.ours("hello the world")) == before


def test_a_stride_that_leaves_nothing_of_a_row_names_it(pair):
    """The library panics at it."""
    with pytest.raises(InputError, match=r"text 1 cannot be cut to max_length 14 .* stride 6"):
        pair.ours(
            ["a", "a b c d e f g h i j k l m n"],
            ["b", "a b c d"],
            truncation="only_first",
            max_length=14,
            stride=6,
            return_overflowing_tokens=True,
        )


def test_no_padding_token(byte_files):
    tokenizer = RobertaTokenizer.from_pretrained(byte_files)
    tokenizer.pad_token = None
    with pytest.raises(ArgumentError, match="the tokenizer has none"):
        tokenizer(["a", "b"], padding=True)


def test_a_prefix_blank_is_for_byte_pairs_only(small):
    with pytest.raises(ArgumentError, match="unknown argument add_prefix_space"):
        small.ours("a", add_prefix_space=True)


def test_words_get_their_blank(byte_files):
    """The slow class adds it, the fast one must have been made so, as the documents say of each."""
    slow = RobertaTokenizer.from_pretrained(byte_files)
    fast = RobertaTokenizerFast.from_pretrained(byte_files)
    words = ["the", "world"]
    assert slow(words, is_split_into_words=True)["input_ids"] == slow(" the world")["input_ids"]
    with pytest.raises(ArgumentError, match="add_prefix_space=True"):
        fast(words, is_split_into_words=True)
    fast = RobertaTokenizerFast.from_pretrained(byte_files, add_prefix_space=True)
    assert fast(words, is_split_into_words=True)["input_ids"] == slow(" the world")["input_ids"]


def test_blanks_belong_to_offsets_when_asked_for(byte_files):
    import transformers

    for trim in (True, False):
        ours = RobertaTokenizerFast.from_pretrained(byte_files, trim_offsets=trim)
        theirs = transformers.RobertaTokenizerFast.from_pretrained(byte_files, trim_offsets=trim)
        text = "hello the  world"
        assert (
            ours(text, return_offsets_mapping=True)["offset_mapping"]
            == theirs(text, return_offsets_mapping=True)["offset_mapping"]
        )
        assert ours.trim_offsets is trim


def test_a_long_text_is_told_of_once_and_without_its_words(byte_files, caplog):
    tokenizer = RobertaTokenizer.from_pretrained(byte_files, model_max_length=8)
    with caplog.at_level(logging.WARNING):
        tokenizer("secret words that are long")
        tokenizer("secret words that are long")
        tokenizer("secret words that are long", truncation=True)
    (record,) = caplog.records
    assert "the model takes 8" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_threads_with_different_settings_do_not_disturb_each_other(pair):
    ours = pair.ours
    texts = ["hello the world in the water"] * 20
    options = [
        {},
        {"truncation": True, "max_length": 6},
        {"padding": "max_length", "max_length": 40},
        {"truncation": True, "max_length": 9, "stride": 2, "return_overflowing_tokens": True},
        {"padding": True, "padding_side": "left", "pad_to_multiple_of": 16},
    ]
    expected = [dict(ours(texts, **one)) for one in options]
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for _ in range(15):
                if dict(ours(texts, **options[number])) != expected[number]:
                    wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number % len(options),)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
