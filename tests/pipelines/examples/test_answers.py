"""Answers that are not where the data says."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pipelines.examples.answers import place_answer


@given(st.text(max_size=20), st.text(min_size=1, max_size=8), st.text(max_size=20))
def test_an_answer_at_its_place_is_left_there(before: str, answer: str, behind: str):
    at = len(before)
    assert place_answer(before + answer + behind, answer, at) == ((at, at + len(answer)), False)


def test_a_place_counted_in_utf16_or_bytes_is_repaired():
    context = "🙂🙂🙂 Ulm an der Donau"
    for start in (7, 13):
        assert place_answer(context, "Ulm", start) == ((4, 7), True)


def test_blanks_around_an_answer_are_none_of_it():
    assert place_answer("in Ulm.", " Ulm ", 3) == ((3, 6), True)


def test_other_normal_forms_case_and_blanks_are_seen_through():
    context = unicodedata.normalize("NFD", "Der  Fluß Blaü\u00ad, ﬁn")
    start, end = place_answer(context, unicodedata.normalize("NFC", "fluss blaü"), 2)[0]
    assert context[start:end] == unicodedata.normalize("NFD", "Fluß Blaü")
    start, end = place_answer(context, "FIN", 15)[0]
    assert context[start:end] == "ﬁn"


def test_what_is_there_twice_is_not_guessed():
    assert place_answer("Ulm, Ulm", "Ulm", 2) == (None, False)
    far = "Ulm" + "." * 300 + "Ulm"
    assert place_answer(far, "Ulm", 10) == ((0, 3), True)


def test_the_nearest_of_several_is_taken_where_it_is_clear():
    assert place_answer("Ulm" + "." * 20 + "Ulm", "Ulm", 21) == ((23, 26), True)


def test_places_inside_of_words_and_numbers_count_only_where_there_are_no_others():
    assert place_answer("in 2015 a 1 in start art", "1", 4) == ((10, 11), True)
    assert place_answer("in start art", "art", 4) == ((9, 12), True)
    assert place_answer("in starts", "start", 4) == ((3, 8), True)


def test_what_is_not_there_is_not_found():
    assert place_answer("Ulm", "Bonn", 0) == (None, False)
    assert place_answer("Ulm", " ", 9) == (None, False)
    assert place_answer("Ulm", "Ulm", -1) == ((0, 3), True)
