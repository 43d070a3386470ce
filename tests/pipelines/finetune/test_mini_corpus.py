from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.examples.words import find_words
from pipelines.finetune.mini_corpus import (
    ENTITIES,
    MAX_HELD_OUT,
    POS,
    TEXTS,
    choose_languages,
    key,
    read_corpus,
    surface_words,
    write_out,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    sentences = [(lang, f"{lang[:3]} sentence {n}", n) for lang in ("eng_Latn", "deu_Latn") for n in range(100)]
    rows = {
        "sib200_train.parquet": [*sentences, ("eng_Latn", "one  sentence", 7), ("aka_Latn", "kasasin baako", 7)],
        "ntrex_train.parquet": [("eng_Latn", "one sentence", 3), ("ber_Latn", "mixed", 3)],
        "udhr_train.parquet": [("eng_Latn", "All human beings", "1"), ("eng_Latn", " ", "2")],
        "text_train.parquet": [("fra_Latn", f"Phrase numéro {n}", None) for n in range(8_000)],
        "pos_train.parquet": [("twi_Latn", "kasasin baako", None)],
    }
    for name, content in rows.items():
        lang, text, group = zip(*content, strict=True)
        columns: dict[str, object] = {"lang": lang, "text": text} | ({TEXTS[name]: group} if TEXTS[name] else {})
        if name.startswith("sib200"):
            columns["topic"] = ["travel"] * len(lang)
        pq.write_table(pa.table(columns), folder / name)
    tagged = [("eng_Latn", f"word {n}", ["word", str(n)], ["NOUN", "NUM"], [True, True]) for n in range(500)]
    # The same sentences as texts, with other spacing and case.
    texts = pq.read_table(folder / "text_train.parquet").to_pylist()
    texts += [{"lang": "eng_Latn", "group": None, "text": f"WORD  {n}"} for n in range(500)]
    pq.write_table(pa.Table.from_pylist(texts), folder / "text_train.parquet")
    (folder / "optional").mkdir()
    for name in POS:
        lang, text, words, tags, space_after = zip(*tagged, strict=True)
        columns = {"lang": lang, "text": text, "words": words, "upos": tags, "space_after": space_after}
        pq.write_table(pa.table(columns), folder / name)
    entities = [("eng_Latn", ["Anna", f"sleeps{n}", "."], ["B-PER", "O", "O"]) for n in range(300)]
    lang, words, tags = zip(*entities, strict=True)
    pq.write_table(pa.table({"lang": lang, "words": words, "tags": tags}), folder / ENTITIES)
    return folder


def test_texts_are_kept_once_and_codes_of_one_language_are_merged(folder):
    corpus = read_corpus(folder)
    every = [*corpus.texts.train, *corpus.texts.held_out]
    assert [row.group for row in every if row.text == "one sentence"] == ["sib200:7"]
    assert {row.language for row in every} == {"eng_Latn", "deu_Latn", "twi_Latn", "fra_Latn"}
    assert not any(row.text.strip() != row.text or not row.text for row in every)


def test_what_is_held_out_of_one_task_is_trained_on_by_none(folder):
    corpus = read_corpus(folder)
    parts = (corpus.texts, corpus.topics, corpus.pos, corpus.entities)
    held = {key(row.text) for part in parts for row in part.held_out}
    assert all(part.held_out for part in parts)
    assert not held & {key(row.text) for part in parts for row in part.train}
    # Held out as tagged sentences, they stand among the texts in capitals.
    tagged = {key(row.text) for row in corpus.pos.held_out}
    assert tagged <= {key(f"WORD {n}") for n in range(500)}


def test_a_sentence_of_the_topics_is_held_out_in_all_its_languages(folder):
    topics = read_corpus(folder).topics
    held = {row.group for row in topics.held_out}
    assert 0 < len(held) < 20
    assert not held & {row.group for row in topics.train}
    assert sum(row.language == "deu_Latn" for row in topics.held_out) == len(held)


def test_about_one_in_fifty_texts_is_held_out_up_to_a_limit_and_always_the_same(folder):
    first, second = read_corpus(folder), read_corpus(folder)
    french = [row for row in first.texts.held_out if row.language == "fra_Latn"]
    assert 80 <= len(french) <= MAX_HELD_OUT
    assert first.texts.held_out == second.texts.held_out


def test_languages_with_little_text_get_no_label(folder):
    texts = read_corpus(folder).texts.train
    assert choose_languages(texts, min_texts=5_000, min_bytes=1_000) == ("fra_Latn",)


@pytest.mark.parametrize(
    ("text", "words", "blanks", "expected"),
    [
        ("aller au bois.", ["aller", "à", "le", "bois", "."], "1010 1", ["aller", "au", "bois", "."]),
        ("nos jardins", ["em", "os", "jardins"], "011", ["n", "os", "jardins"]),
        ("as is", ["as", "is"], "11", ["as", "is"]),
    ],
)
def test_words_are_those_that_stand_in_the_text(text, words, blanks, expected):
    space_after = [blank == "1" for blank in blanks.replace(" ", "")]
    found = surface_words(text, words, [word.upper() for word in words], space_after)
    assert found is not None
    assert found[0] == expected
    assert find_words(found[0], text) is not None


def test_a_surface_word_has_the_tag_of_its_first_word():
    assert surface_words("du pain", ["de", "le", "pain"], ["ADP", "DET", "NOUN"], [False, True, True]) == (
        ["du", "pain"],
        ["ADP", "NOUN"],
    )


def test_words_of_another_text_are_refused():
    assert surface_words("one two three", ["four"], ["NUM"], [True]) is None


@pytest.mark.parametrize(
    ("words", "language", "text"),
    [
        (["He", "said", "(", "once", ")", ":", "no", "!"], "eng_Latn", "He said (once): no!"),
        (["彼", "は", "来", "た", "。"], "jpn_Jpan", "彼は来た。"),
    ],
)
def test_words_are_written_out_as_one_would(words, language, text):
    assert write_out(words, language) == text


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=6), min_size=1)
)
def test_words_are_found_again_where_they_were_written_out(words):
    assert find_words(words, write_out(words, "eng_Latn")) is not None
    assert find_words(words, write_out(words, "tha_Thai")) is not None
