from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.finetune.mini_corpus import FILES, MAX_HELD_OUT, choose_labels, number_groups, read_corpus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = {
        "sib200_train.parquet": [("eng_Latn", "one  sentence", 7), ("aka_Latn", "kasasin baako", 7)],
        "ntrex_train.parquet": [("eng_Latn", "one sentence", 3), ("ber_Latn", "mixed", 3)],
        "udhr_train.parquet": [("eng_Latn", "All human beings", "1"), ("eng_Latn", " ", "2")],
        "text_train.parquet": [("deu_Latn", f"Satz Nummer {n}", None) for n in range(12_000)],
        "pos_train.parquet": [("twi_Latn", "kasasin baako", None)],
    }
    for name, content in rows.items():
        lang, text, group = zip(*content, strict=True)
        columns = {"lang": lang, "text": text} | ({FILES[name]: group} if FILES[name] else {})
        pq.write_table(pa.table(columns), tmp_path / name)
    return tmp_path


def test_texts_are_kept_once_and_codes_of_one_language_are_merged(folder):
    corpus = read_corpus(folder)
    assert corpus.counts() == {"eng_Latn": 2, "twi_Latn": 1, "deu_Latn": 12_000}
    assert corpus.texts[0] == "one sentence"
    assert corpus.groups[:3] == ["sib200:7", "sib200:7", "udhr:1"]


def test_about_one_in_fifty_is_held_out_up_to_a_limit_and_always_the_same(folder):
    first, second = read_corpus(folder), read_corpus(folder)
    assert 50 < first.held_out.sum() <= MAX_HELD_OUT + 2
    assert (first.held_out == second.held_out).all()


def test_languages_with_little_text_get_no_label(folder):
    corpus = read_corpus(folder)
    assert choose_labels(corpus, min_texts=100, min_bytes=1000) == ("deu_Latn",)
    assert choose_labels(corpus, min_texts=1, min_bytes=20) == ("deu_Latn", "eng_Latn")


def test_groups_are_numbered_in_order_of_appearance():
    assert number_groups(["b", None, "a", "b"]).tolist() == [0, -1, 1, 0]
