"""Where words start, against one character after the other in plain Python."""

import unicodedata

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.tokenization.encoding import Encodings, bounds
from xlmr_core.tokenization.units import CodePoints
from xlmr_core.tokenization.word_starts import word_starts

UNK = 3
# Scripts without spaces and with them, marks, joiners, punctuation of both, blanks of many kinds, emoji.
ALPHABET = "aZé1'_., \t\n\u00a0\u202f\u3000\u1680\u200d\u0301한국我爱𠀀のテーｶﾞーกัำທ່ខ្មမြန་བོꦧᬩꆈㄅ，。「」１Ａ👩🏽क्ष"
UNSPACED_NAMES = ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
UNSPACED_NAMES += ("JAVANESE", "BALINESE", "YI ", "BOPOMOFO")


def characters(texts: list[str], *, ids: list[int] | None = None) -> Encodings:
    """Every character of every text is a token."""
    spans = [(i, i + 1) for text in texts for i in range(len(text))]
    numbers = np.array(ids or [7] * len(spans), dtype=np.int32)
    return Encodings(numbers, bounds(np.array([*map(len, texts)])), np.array(spans, np.int32).reshape(-1, 2))


def words(text: str) -> list[str]:
    """The text cut where words start, without blanks."""
    starts = np.flatnonzero(word_starts(CodePoints.of([text]), characters([text]), UNK)).tolist()
    return [word for a, b in zip(starts, [*starts[1:], None], strict=True) if (word := text[a:b].strip())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我爱北京。", ["我", "爱", "北", "京", "。"]),
        ("ABC公司2020年，IBM的", ["ABC", "公", "司", "2020", "年", "，", "IBM", "的"]),
        ("テキストとカタカナー", ["テキスト", "と", "カタカナー"]),
        ("ｶﾀｶﾅｰです", ["ｶﾀｶﾅｰ", "で", "す"]),
        ("ฉันไป", ["ฉั", "น", "ไ", "ป"]),
        ("བོད་སྐད", ["བོད", "་", "སྐད"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("ភាសាខ្មែរ", ["ភា", "សា", "ខ្", "មែ", "រ"]),
        ("ꦧꦱꦗꦮ ꆈꌠꉙ", ["ꦧꦱꦗꦮ", "ꆈꌠꉙ"]),
    ],
    ids=["Chinese", "mixed", "Japanese", "halfwidth", "Thai", "Tibetan", "Burmese", "Khmer", "Javanese and Yi"],
)
def test_a_sentence_without_spaces_is_many_words(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    "text", ["don't e-mail a.b@c.de, 1,000.5%", "한국어를 배워요.", "l’été… “ça”", "नमस्ते दुनिया।", "Приве́т,мир"]
)
def test_scripts_with_spaces_keep_their_words(text):
    assert words(text) == text.split()


def test_an_unknown_token_starts_a_word():
    starts = word_starts(CodePoints.of(["abc"]), characters(["abc"], ids=[7, 7, UNK]), UNK)
    assert starts.tolist() == [True, False, True]


def test_a_token_that_only_holds_a_boundary_starts_no_word():
    # The token "スと" begins inside the katakana word.
    tokens = Encodings(np.full(3, 7), np.array([0, 3]), np.array([[0, 3], [3, 5], [5, 6]]))
    assert word_starts(CodePoints.of(["テキストと我"]), tokens, UNK).tolist() == [True, False, True]


def plain_starts(text: str) -> list[bool]:
    # A mark at the very beginning leans on nothing; behind a space the library treats it as Unicode says.
    boundaries = {match.start() - 1 for match in regex.finditer(r"(?V1w)\b", " " + text)}
    starts = []
    for place, character in enumerate(text):
        left = right = place
        while left > 0 and not text[left - 1].isspace():
            left -= 1
        while right < len(text) and not text[right].isspace():
            right += 1
        names = [unicodedata.name(c, "") for c in text[left:right]]
        # The voicing marks alone belong to no script.
        unspaced = any(name.startswith(UNSPACED_NAMES) and "VOICED" not in name for name in names)
        by_space = place == 0 or text[place - 1].isspace() or character.isspace()
        starts.append(by_space or (unspaced and place in boundaries))
    return starts


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(ALPHABET, max_size=12), min_size=1, max_size=4))
def test_words_start_where_a_plain_loop_finds_them(texts):
    found = word_starts(CodePoints.of(texts), characters(texts), UNK).tolist()
    assert found == [start for text in texts for start in plain_starts(text)]


@given(st.lists(st.text(), max_size=4))
def test_any_text_is_cut(texts):
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    starts = word_starts(CodePoints.of(texts), characters(texts), UNK)
    assert len(starts) == sum(map(len, texts))
    assert all(starts[bounds(np.array([*map(len, texts)], np.int64))[:-1][[bool(t) for t in texts]]])
