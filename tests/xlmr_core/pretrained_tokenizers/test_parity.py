"""Token ids, offsets, masks and decoded text against transformers 5.23."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

quick = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARTS = [
    " ",
    "  ",
    "\n",
    "\t",
    "\xa0",
    "\u200b",
    "\u200d",
    "\u0301",
    "\ufeff",
    "¨",
    "ﬁ",
    "Hello",
    "world,",
    "the",
    " hello",
]
SCRIPTS = [
    "नमस्ते",
    "สวัสดี",
    "你好",
    "😂",
    "👩‍👩‍👧",
    "é",
    "▁",
    "؀",
    "\u0e33",
    "<s>",
    "</s>",
    "<mask>",
    "<pad>",
    "<unk>",
    " <mask>",
]
awkward = st.lists(
    st.one_of(st.sampled_from(PARTS + SCRIPTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
    max_size=20,
).map("".join)
EVERYTHING = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}


def lines(*folders: Path) -> list[str]:
    files = [file for folder in folders for file in sorted(folder.glob("*.txt"))]
    return [line for file in files for line in file.read_text(encoding="utf-8").split("\n")]


def assert_same(ours, theirs, texts: list[str], **options) -> None:
    expected = theirs(texts, **EVERYTHING, **options)
    got = ours(texts, **EVERYTHING, **options)
    assert dict(got) == dict(expected)
    assert [one.tokens for one in got.encodings] == [one.tokens for one in expected.encodings]
    for skip in (False, True):
        assert ours.batch_decode(got["input_ids"], skip_special_tokens=skip) == theirs.batch_decode(
            expected["input_ids"], skip_special_tokens=skip
        )


@quick
@given(texts=st.lists(awkward, min_size=1, max_size=4))
@example(texts=["<s></s><mask><pad>", "a  <mask> b", "x<unk>y </s>z", "", " "])
def test_any_unicode(pair, texts):
    assert_same(*pair, texts)


@quick
@given(first=awkward, second=awkward.filter(bool))
def test_any_pair(pair, first, second):
    ours, theirs = pair
    assert dict(ours(first, second, **EVERYTHING)) == dict(theirs(first, second, **EVERYTHING))


@quick
@given(words=st.lists(awkward, min_size=1, max_size=6))
def test_any_words(small, words):
    ours, theirs = small
    got, expected = (t(words, is_split_into_words=True, **EVERYTHING) for t in (ours, theirs))
    assert dict(got) == dict(expected)
    assert got.word_ids() == expected.word_ids()


@quick
@given(text=awkward)
def test_tokens_and_strings(pair, text):
    ours, theirs = pair
    tokens = theirs.tokenize(text)
    assert ours.tokenize(text) == tokens
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)
    ids = ours.encode(text)
    for skip in (False, True):
        assert ours.convert_ids_to_tokens(ids, skip) == theirs.convert_ids_to_tokens(ids, skip)


def test_every_text_of_the_sample_corpus(pair, sample_texts):
    assert_same(*pair, sample_texts[::3])
    assert pair.ours(sample_texts)["input_ids"] == pair.theirs(sample_texts)["input_ids"]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("xlmr", 12),
        ("xlmr_slow", 24),
        ("roberta", 24),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ("xlmr", "xlmr_slow", "roberta")),
    ],
)
def test_lines_of_the_data(name, step, request, shared_data):
    """The ids of every `step`th line, or of all; masks and offsets of every 24th; strings and pairs of fewer."""
    ours, theirs = request.getfixturevalue(name)
    texts = lines(shared_data / "parallel/ntrex", shared_data / "raw/udhr")[::step]
    assert ours(texts)["input_ids"] == [one.ids for one in theirs.backend_tokenizer.encode_batch_fast(texts)]
    some = texts[:: 24 // step]
    got = ours(some, return_offsets_mapping=True, return_special_tokens_mask=True)
    expected = theirs.backend_tokenizer.encode_batch(some)
    assert got["offset_mapping"] == [one.offsets for one in expected]
    assert got["special_tokens_mask"] == [one.special_tokens_mask for one in expected]
    assert_same(ours, theirs, some[::8])
    assert dict(ours(some[::8], some[::-8])) == dict(theirs(some[::8], some[::-8]))


@quick
@given(texts=st.lists(awkward, min_size=1, max_size=4))
def test_any_unicode_with_the_real_vocabularies(xlmr, xlmr_slow, roberta, texts):
    for ours, theirs in (xlmr, xlmr_slow, roberta):
        assert_same(ours, theirs, texts)


def test_published_ids(xlmr_slow, roberta, shared_data):
    for (ours, _), name in ((xlmr_slow, "xlmr"), (roberta, "roberta")):
        file = shared_data / f"golden/{name}_tokenization.jsonl"
        cases = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        # The others of XLM-R come from a tokenizer.json without WhitespaceSplit; their note says so.
        cases = [case for case in cases if case.get("match_fast", True)]
        assert len(cases) >= 13
        assert ours([case["text"] for case in cases])["input_ids"] == [case["ids"] for case in cases]


def test_the_documents_example_of_roberta(roberta_files):
    """Both classes, as printed; the third line is what the text around them says."""
    from xlmr_core.pretrained_tokenizers import RobertaTokenizer, RobertaTokenizerFast

    for name in (RobertaTokenizer, RobertaTokenizerFast):
        tokenizer = name.from_pretrained(roberta_files)
        assert tokenizer("Hello world")["input_ids"] == [0, 31414, 232, 2]
        assert tokenizer(" Hello world")["input_ids"] == [0, 20920, 232, 2]
        assert tokenizer("Hello world", add_prefix_space=True)["input_ids"] == [0, 20920, 232, 2]
        prefixed = name.from_pretrained(roberta_files, add_prefix_space=True)
        assert prefixed("Hello world")["input_ids"] == [0, 20920, 232, 2]


def test_the_documents_example_of_a_mask(xlmr_slow):
    tokenizer = xlmr_slow.ours
    inputs = tokenizer("The capital of France is <mask>.", return_tensors="pt")
    mask_token_index = (inputs.input_ids == tokenizer.mask_token_id)[0].nonzero(as_tuple=True)[0]
    assert mask_token_index.tolist() == [6]
    assert tokenizer.decode(inputs.input_ids[0], skip_special_tokens=True) == "The capital of France is ."
    assert inputs.to("cpu").input_ids.device.type == "cpu"
