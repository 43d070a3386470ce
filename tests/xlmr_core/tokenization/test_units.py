"""Spans in code points, UTF-8 bytes and UTF-16 units against slices of the encoded text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.tokenization import Tokenizer
from xlmr_core.tokenization.encoding import Encodings, bounds
from xlmr_core.tokenization.units import CodePoints, token_spans

CODECS = {"utf8": ("utf-8", 1), "utf16": ("utf-16-le", 2)}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), texts=st.lists(st.text("a é\t\u3000我𠀀👩\u0301", max_size=10), min_size=1, max_size=4))
def test_every_unit_slices_the_same_text_without_blanks(data, texts):
    spans = [
        data.draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted), max_size=4))
        for text in texts
    ]
    flat = np.array([span for of_text in spans for span in of_text], np.int32).reshape(-1, 2)
    encodings = Encodings(np.zeros(len(flat), np.int32), bounds(np.array([*map(len, spans)], np.int64)), flat)
    texts_of_token = [text for text, of_text in zip(texts, spans, strict=True) for _ in of_text]
    characters = CodePoints.of(texts)
    exact = token_spans(characters, encodings, "codepoint")
    for text, (start, end), (first, last) in zip(texts_of_token, exact.tolist(), flat.tolist(), strict=True):
        stripped = text[first:last].strip()
        assert first <= start <= end
        assert text[start:end].startswith(stripped)
        # Marks behind it may be put back, nothing else.
        assert text[start:end].removeprefix(stripped).strip("\u0301") == ""
    for unit, (codec, size) in CODECS.items():
        counted = token_spans(characters, encodings, unit)
        for text, (start, end), (first, last) in zip(texts_of_token, counted.tolist(), exact.tolist(), strict=True):
            assert text.encode(codec)[start * size : end * size] == text[first:last].encode(codec)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("e\u0301te\u0301 cafe\u0301 now", ["e\u0301te\u0301", "cafe\u0301", "now"]),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af x", ["\u1112\u1161\u11ab\u1100\u1173\u11af", "x"]),
        ("plain text", ["plain", "text"]),
    ],
)
def test_marks_that_the_tokenizer_composed_stay_with_their_letter(text, words, tokenizer_json):
    tokenizer = Tokenizer.load(tokenizer_json.parent)
    encodings = tokenizer.encode([text], offsets=True)
    spans = token_spans(CodePoints.of([text]), encodings, "codepoint")
    ends = [text.index(word) + len(word) for word in words]
    assert set(ends) <= {end for _, end in spans.tolist()}
