import copy
import pickle

import pytest
import torch

from xlmr_core.errors import ArgumentError
from xlmr_core.pretrained_tokenizers import BatchEncoding, CharSpan, TokenSpan

TEXTS = ["hello the world <mask> é", "a"]
PAIRS = ["in the water", "words of a storm"]


@pytest.fixture
def both(pair):
    return tuple(tokenizer(TEXTS, PAIRS, padding=True) for tokenizer in pair)


def test_every_method_says_what_transformers_says(both):
    ours, theirs = both
    assert ours.n_sequences == theirs.n_sequences == 2
    assert ours.is_fast
    for row in range(len(TEXTS)):
        for method in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(ours, method)(row) == getattr(theirs, method)(row)
        for token in range(len(ours["input_ids"][row])):
            for method in ("token_to_sequence", "token_to_word", "token_to_chars"):
                assert getattr(ours, method)(row, token) == getattr(theirs, method)(row, token)
        words = {word for word in ours.word_ids(row) if word is not None}
        for sequence, text in enumerate((TEXTS[row], PAIRS[row])):
            for word in words:
                assert ours.word_to_tokens(row, word, sequence) == theirs.word_to_tokens(row, word, sequence)
                if ours.word_to_tokens(row, word, sequence) is not None:
                    assert ours.word_to_chars(row, word, sequence) == theirs.word_to_chars(row, word, sequence)
            for char in range(len(text) + 1):
                for method in ("char_to_token", "char_to_word"):
                    assert getattr(ours, method)(row, char, sequence) == getattr(theirs, method)(row, char, sequence)


def test_a_single_text_needs_no_row(pair):
    ours, theirs = (tokenizer(TEXTS[0]) for tokenizer in pair)
    assert ours.token_to_chars(1) == theirs.token_to_chars(1)
    assert isinstance(ours.token_to_chars(1), CharSpan)
    assert isinstance(ours.word_to_tokens(0), TokenSpan)
    assert ours.token_to_chars(0) is None
    assert ours.char_to_token(1) == theirs.char_to_token(1)
    assert ours.word_to_chars(0) == theirs.word_to_chars(0)
    assert ours.word_to_chars(99) is None


def test_places_below_zero_count_from_the_end(pair):
    """transformers raises AttributeError for them."""
    encoding = pair.ours(TEXTS[0])
    last = len(encoding["input_ids"]) - 2
    assert encoding.token_to_chars(-2) == encoding.token_to_chars(last)
    assert encoding.token_to_word(0, -2) == encoding.token_to_word(last)
    assert encoding.word_to_tokens(-1) == encoding.word_to_tokens(max(w for w in encoding.word_ids() if w is not None))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda e: e.tokens(7), "row 7, the batch has 2"),
        (lambda e: e.token_to_chars(0, 99), "token 99, the row has"),
        (lambda e: e.char_to_token(0, -1), "character -1"),
        (lambda e: BatchEncoding({"input_ids": [1]}).tokens(), "did not come from a tokenizer"),
        (lambda e: e.to(torch.float16), "token ids keep their type"),
    ],
)
def test_what_is_not_there_is_named(both, ask, said):
    with pytest.raises(ArgumentError, match=said):
        ask(both[0])


def test_it_is_a_dictionary_with_attributes(pair):
    encoding = pair.ours(TEXTS, return_tensors="pt", padding=True)
    assert list(encoding) == ["input_ids", "attention_mask"]
    assert encoding.input_ids is encoding["input_ids"]
    assert {**encoding}.keys() == {"input_ids", "attention_mask"}
    assert encoding[0].ids == encoding.input_ids[0].tolist()
    assert "labels" not in encoding
    with pytest.raises(AttributeError, match="no 'labels'; it holds input_ids, attention_mask"):
        _ = encoding.labels
    with pytest.raises(KeyError):
        _ = encoding["labels"]


def test_values_from_elsewhere_can_be_sliced_and_made_tensors():
    encoding = BatchEncoding({"input_ids": [[1, 2], [3, 4]]})
    assert encoding[:1] == {"input_ids": [[1, 2]]}
    assert encoding.convert_to_tensors("pt").input_ids.shape == (2, 2)
    assert BatchEncoding({"input_ids": [1, 2]}, tensor_type="np", prepend_batch_axis=True).input_ids.shape == (1, 2)


def test_copies_and_pickles_are_equal(pair):
    encoding = pair.ours(TEXTS)
    for again in (copy.copy(encoding), copy.deepcopy(encoding), pickle.loads(pickle.dumps(encoding))):
        assert dict(again) == dict(encoding)
        assert again.tokens(1) == encoding.tokens(1)


def test_tensors_move(pair):
    encoding = pair.ours("hello", return_tensors="pt")
    assert encoding.to("meta") is encoding
    assert encoding.input_ids.device.type == "meta"
