"""Drawn segmentations have SentencePiece's probabilities.

How far two samples are apart is half the sum of the differences of their shares. With 8,000 draws and up to 18
segmentations, two samples of one distribution are less than 0.027 apart on average and, by McDiarmid's inequality,
farther than 0.07 less than once in 10^6 runs; the library's own way of drawing was up to 0.4 apart.
"""

from collections import Counter

import pytest
import sentencepiece

from xlmr_core.errors import ArgumentError
from xlmr_core.pretrained_tokenizers import XLMRobertaTokenizer

DRAWS = 8_000
FAR = 0.07


def distance(first: Counter, second: Counter) -> float:
    return sum(abs(first[key] / first.total() - second[key] / second.total()) for key in first | second) / 2


def drawn(toy, text: str, **kwargs) -> Counter:
    tokenizer = XLMRobertaTokenizer(str(toy), sp_model_kwargs={"enable_sampling": True, **kwargs})
    return Counter(map(tuple, tokenizer([text] * DRAWS, add_special_tokens=False)["input_ids"]))


def reference(toy, text: str, **kwargs) -> Counter:
    model = sentencepiece.SentencePieceProcessor(model_file=str(toy), enable_sampling=True, **kwargs)
    # Piece 0 is unknown, which is 3 in XLM-R; all others are shifted by one.
    return Counter(tuple(piece + 1 if piece else 3 for piece in model.encode(text)) for _ in range(DRAWS))


@pytest.mark.parametrize("text", ["This is", "a  é lo"])
@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.1},
        {"nbest_size": -1, "alpha": 0.5},
        {"nbest_size": -1, "alpha": 0.0},
        {"nbest_size": 4, "alpha": 0.1},
        {"nbest_size": 64, "alpha": 0.5},
        {"nbest_size": 3, "alpha": 0.0},
        {"nbest_size": 8, "alpha": 2.0},
    ],
)
def test_the_distribution_is_that_of_sentencepiece(toy, text, options):
    assert distance(drawn(toy, text, **options), reference(toy, text, **options)) < FAR


def test_the_distance_tells_distributions_apart(toy):
    assert distance(drawn(toy, "This is", alpha=0.1), reference(toy, "This is", alpha=0.5)) > 3 * FAR


@pytest.mark.parametrize(
    "options", [None, {}, {"enable_sampling": False, "alpha": 0.1}, {"enable_sampling": True, "nbest_size": 1}]
)
def test_nothing_is_drawn_unless_asked_for(toy, options):
    tokenizer = XLMRobertaTokenizer(str(toy), sp_model_kwargs=options)
    assert set(map(tuple, tokenizer(["This is a test"] * 50)["input_ids"])) == {(0, 286, 47, 11, 171, 383, 2)}


def test_drawn_tokens_keep_offsets_special_tokens_and_limits(toy):
    tokenizer = XLMRobertaTokenizer(str(toy), sp_model_kwargs={"enable_sampling": True})
    text = "This is <mask> a longer test"
    encoding = tokenizer([text] * 20, return_offsets_mapping=True, truncation=True, max_length=12, padding="max_length")
    assert len(set(map(tuple, encoding["input_ids"]))) > 1
    for row, ids in enumerate(encoding["input_ids"]):
        assert (ids[0], len(ids)) == (0, 12)
        for (start, end), token in zip(encoding["offset_mapping"][row], encoding.tokens(row), strict=True):
            assert token in ("<s>", "</s>", "<pad>", "<mask>", "▁") or text[start:end] == token.lstrip("▁")


def test_a_saved_tokenizer_draws_again_and_holds_the_true_scores(toy, tmp_path):
    tokenizer = XLMRobertaTokenizer(str(toy), sp_model_kwargs={"enable_sampling": True, "alpha": 0.1})
    tokenizer.save_pretrained(tmp_path)
    again = XLMRobertaTokenizer.from_pretrained(tmp_path)
    assert again.sp_model_kwargs == {"enable_sampling": True, "alpha": 0.1}
    plain = XLMRobertaTokenizer.from_pretrained(tmp_path, sp_model_kwargs={})
    assert plain.encode("This is a test") == [0, 286, 47, 11, 171, 383, 2]


def test_wrong_options_are_all_named(toy):
    wrong = {"enable_sampling": 1, "alpha": -1, "nbest_size": 2.5, "model_file": "x"}
    with pytest.raises(ArgumentError, match=r"(?s)model_file.*enable_sampling 1.*nbest_size 2\.5.*alpha -1"):
        XLMRobertaTokenizer(str(toy), sp_model_kwargs=wrong)
