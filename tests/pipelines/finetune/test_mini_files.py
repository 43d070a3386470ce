from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.examples import ReadSettings, check_examples, open_examples
from pipelines.finetune.mini_corpus import Corpus, Part, Tagged, Text, Topic
from pipelines.finetune.mini_files import (
    MAX_FRAGMENT_WORDS,
    draw,
    fragment,
    read_tagged,
    read_topics,
    shorten,
    translations,
    vary,
    write_files,
)

WORDS = ["Anna", "lebt", "in", "Köln", "."]


def texts(language: str, count: int) -> list[Text]:
    return [Text(language, f"{language} says number {n} of all", f"g:{n}") for n in range(count)]


@pytest.fixture
def files(tmp_path):
    tagged = [Tagged("deu_Latn", "Anna lebt in Köln.", WORDS, ["B-PER", "O", "O", "B-LOC", "O"])]
    topics = [Topic("deu_Latn", "Der Zug fährt.", "travel", "1"), Topic("eng_Latn", "He plays.", "sports", "2")]
    rows = [*texts("eng_Latn", 30), *texts("deu_Latn", 20), *texts("xxx_Latn", 5)]
    held = [Text("eng_Latn", "held out", None), Text("xxx_Latn", "held out too", None)]
    corpus = Corpus(Part(rows, held), Part(topics, topics), Part(tagged, tagged), Part(tagged, tagged))
    write_files(corpus, ("deu_Latn", "eng_Latn"), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("masked", "fill-mask"),
        ("translations", "fill-mask"),
        ("translations", "embedding"),
        ("language", "sequence-classification"),
        ("topic", "sequence-classification"),
        ("pos", "token-classification"),
        ("entities", "token-classification"),
    ],
)
def test_every_file_is_read_without_naming_a_column(files, name, task):
    source = open_examples([files / f"{name}.parquet"], ReadSettings(task))
    summary = check_examples({"training": source})["training"]
    assert summary.examples == pq.read_metadata(files / f"{name}.parquet").num_rows
    assert not summary.rejected
    assert "" not in summary.languages or name == "language"
    if name in ("masked", "language"):
        assert all("xxx" not in example.text for example in source)


def test_words_stand_where_they_are_in_the_text(files):
    (example,) = open_examples([files / "entities.parquet"], ReadSettings("token-classification"))
    assert example.text == "Anna lebt in Köln."
    assert [example.text[first:last] for first, last in example.gold.spans] == WORDS


def test_translations_are_of_the_same_group_and_another_language(files):
    found = pq.read_table(files / "translations.parquet").to_pylist()
    assert len(found) > 10
    for row in found:
        assert row["text"].split()[3] == row["translation"].split()[3]
        assert row["text"].split()[0] != row["translation"].split()[0]


def test_held_out_rows_are_read_back(files):
    assert read_topics(files / "held_out/topic.parquet")[0].label == "travel"
    assert read_tagged(files / "held_out/pos.parquet")[0].words == WORDS
    assert pq.read_table(files / "held_out/language.parquet").to_pylist() == [{"text": "held out", "label": "eng_Latn"}]


def test_the_same_seed_writes_the_same_files(files, tmp_path):
    rows = [*texts("eng_Latn", 30), *texts("deu_Latn", 20)]
    first, second = (list(vary(rows, np.random.default_rng(3))) for _ in range(2))
    assert first == second
    assert list(translations(rows, np.random.default_rng(3))) == list(translations(rows, np.random.default_rng(3)))


def test_rows_of_a_language_are_drawn_all_once_before_one_repeats():
    drawn = draw([*texts("eng_Latn", 30), *texts("deu_Latn", 4)], (10, 20), np.random.default_rng(0))
    counts = Counter(row.language for row in drawn)
    assert counts == {"eng_Latn": 20, "deu_Latn": 10}
    german = Counter(row.text for row in drawn if row.language == "deu_Latn")
    assert set(german.values()) == {2, 3}


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1).map(" ".join), st.integers(0, 99))
def test_a_fragment_is_a_part_of_its_text_and_short(text, seed):
    text = " ".join(text.split()) or "x"
    found = fragment(text, np.random.default_rng(seed))
    assert found
    assert found in text
    assert len(found.split()) <= 3 * MAX_FRAGMENT_WORDS


@given(st.text(max_size=300), st.integers(1, 100))
def test_a_shortened_text_is_the_beginning(text, limit):
    found = shorten(text, limit)
    assert text.startswith(found)
    assert len(found) <= limit


def test_a_text_without_blanks_is_cut_into_fragments_of_characters():
    found = {len(fragment("東京都に住んでいます" * 5, np.random.default_rng(n))) for n in range(50)}
    assert max(found) <= 3 * MAX_FRAGMENT_WORDS
