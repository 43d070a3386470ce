import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

from xlmr_core.tokenization import Tokenizer
from xlmr_core.tokenization.boundaries import word_boundary
from xlmr_core.tokenization.loading import TokenizerFiles
from xlmr_core.tokenization.words import encode_words

SPLIT = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
CLEANED = [normalizers.NFKC(), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]


def rebuilt(small: Tokenizer, normalizer: object, pre_tokenizer: object) -> Tokenizer:
    library = tokenizers.Tokenizer.from_str(small._library.to_str())
    library.normalizer, library.pre_tokenizer = normalizer, pre_tokenizer
    return Tokenizer(TokenizerFiles(library, small.special, None))


# Every character that could matter; of the thousands of plain letters a sample.
CHARACTERS = [
    char
    for number, char in enumerate(map(chr, [*range(0x20000), *range(0xE0000, 0xE0080)]))
    if (kind := unicodedata.category(char)) not in ("Cs", "Cn", "Co") and (kind != "Lo" or number % 50 == 0)
]


@pytest.mark.parametrize("make", ["x{} y", "x {}y", "x {}\u0301\u0308y", "a\n{}b"])
@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer"),
    [
        (normalizers.NFKC(), SPLIT),
        (normalizers.Sequence(CLEANED), pre_tokenizers.Metaspace()),
        (None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    ],
    ids=["split", "metaspace", "bytes"],
)
def test_cutting_is_exact_beside_any_character(
    small: Tokenizer, normalizer: object, pre_tokenizer: object, make: str
) -> None:
    assert_cut_is_exact(rebuilt(small, normalizer, pre_tokenizer), make)


def test_boundaries_are_found_where_words_are(small: Tokenizer) -> None:
    for pre_tokenizer, pieces in ((SPLIT, 5), (pre_tokenizers.Metaspace(), 4)):
        boundary = rebuilt(small, normalizers.NFKC(), pre_tokenizer)._boundary
        assert boundary is not None
        assert len(boundary.split("Hello, «नमस्ते» 你好 (5)\n😂!")) == pieces


def test_cutting_is_exact_under_the_character_map_of_xlmr(ours: Tokenizer) -> None:
    for make in ("x{} y", "x {}\u0301\u0308y"):
        assert_cut_is_exact(ours, make)


def assert_cut_is_exact(tokenizer: Tokenizer, make: str) -> None:
    assert tokenizer._boundary is not None
    texts = [make.format(char) for char in CHARACTERS]
    whole = encode_words(tokenizer._library, texts, offsets=True)
    pieces = tokenizer.encode(texts, offsets=True)
    assert np.array_equal(pieces.splits, whole.splits)
    assert np.array_equal(pieces.ids, whole.ids)
    assert np.array_equal(pieces.offsets, whole.offsets)


def test_a_run_of_blanks_and_what_a_mask_token_swallows_are_never_cut_off(small: Tokenizer) -> None:
    library = tokenizers.Tokenizer.from_str(small._library.to_str())
    library.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, rstrip=True)])
    boundary = word_boundary(library)
    assert boundary is not None
    assert boundary.split("one two  three\r\nfour <mask> five six") == [
        "one",
        " two  three\r\nfour <mask> five",
        " six",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda library: setattr(library, "normalizer", normalizers.Lowercase()),
        lambda library: setattr(library, "pre_tokenizer", pre_tokenizers.Metaspace(split=False)),
        lambda library: setattr(library, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda library: setattr(library, "pre_tokenizer", pre_tokenizers.Digits()),
        lambda library: library.add_tokens(["two words"]),
    ],
    ids=["unknown normaliser", "no split", "prefix blank", "unknown splitter", "token with a blank"],
)
def test_where_no_cut_is_known_to_be_exact_texts_stay_whole(
    small: Tokenizer, change: Callable[[tokenizers.Tokenizer], None]
) -> None:
    library = tokenizers.Tokenizer.from_str(small._library.to_str())
    change(library)
    assert word_boundary(library) is None
    tokenizer = Tokenizer(TokenizerFiles(library, small.special, None))
    texts = ["here are two words", "", "1 23"]
    expected = [library.encode(text, add_special_tokens=False).ids for text in texts]
    assert tokenizer.encode(texts).ids.tolist() == [token for ids in expected for token in ids]
