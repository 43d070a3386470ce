"""The sample corpus is what its README says it is."""

import gzip
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pipelines.sample import sample_path

Row = dict[str, str]

# The first word of a letter's Unicode name says its script; Japanese mixes three.
LETTER_NAMES = {
    "Arab": {"ARABIC"},
    "Armn": {"ARMENIAN"},
    "Beng": {"BENGALI"},
    "Cyrl": {"CYRILLIC"},
    "Deva": {"DEVANAGARI"},
    "Ethi": {"ETHIOPIC"},
    "Geor": {"GEORGIAN"},
    "Grek": {"GREEK"},
    "Hang": {"HANGUL"},
    "Hans": {"CJK"},
    "Hant": {"CJK"},
    "Hebr": {"HEBREW"},
    "Jpan": {"HIRAGANA", "KATAKANA", "CJK"},
    "Khmr": {"KHMER"},
    "Knda": {"KANNADA"},
    "Laoo": {"LAO"},
    "Latn": {"LATIN"},
    "Mymr": {"MYANMAR"},
    "Taml": {"TAMIL"},
    "Telu": {"TELUGU"},
    "Thai": {"THAI"},
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [json.loads(line) for line in sample_path().read_text(encoding="utf-8").splitlines()]


def of_kind(rows: list[Row], *kinds: str) -> list[Row]:
    return [row for row in rows if row["kind"] in kinds]


def script(row: Row) -> str:
    return row["language"].partition("_")[2]


def letter_names(text: str) -> Counter[str]:
    return Counter(unicodedata.name(c).split()[0] for c in text if unicodedata.category(c).startswith("L"))


def test_the_file_is_small_utf8_with_one_object_a_line() -> None:
    raw = sample_path().read_bytes()
    assert len(raw) < 1_000_000
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    # str.splitlines breaks at more characters than "\n"; both ways of reading must agree.
    assert len(raw.decode("utf-8").splitlines()) == raw.count(b"\n")


def test_every_row_has_the_documented_columns(rows: list[Row]) -> None:
    for row in rows:
        assert list(row) == ["id", "language", "kind", "url", "text"]
        assert all(type(value) is str for value in row.values())
        assert re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", row["language"])
        assert row["kind"] in {"short", "long", "hard"}
        assert row["url"].startswith("https://example.org/")


def test_ids_urls_and_texts_are_unique(rows: list[Row]) -> None:
    for column in ("id", "url", "text"):
        assert len({row[column] for row in rows}) == len(rows), column


def test_there_are_enough_texts_languages_and_kinds(rows: list[Row]) -> None:
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) >= 640
    assert kinds["long"] >= 20
    assert kinds["hard"] >= 40
    assert len({row["language"][:3] for row in of_kind(rows, "short", "long")}) >= 32
    assert len({row["language"] for row in of_kind(rows, "long")}) >= 8


def test_the_readme_states_the_true_counts(rows: list[Row]) -> None:
    readme = sample_path().with_name("README.md").read_text(encoding="utf-8")
    languages = {row["language"][:3] for row in rows} - {"zxx"}
    scripts = {script(row) for row in rows} - {"Zyyy"}
    assert f"{len(rows)} texts, {len(languages)} languages, {len(scripts)} scripts" in readme
    for kind, count in Counter(row["kind"] for row in rows).items():
        assert f"{count} `{kind}`" in readme


def test_the_declared_script_is_the_one_most_letters_have(rows: list[Row]) -> None:
    scripts = set()
    for row in of_kind(rows, "short", "long"):
        names = letter_names(row["text"])
        expected = LETTER_NAMES[script(row)]
        assert 2 * sum(names[name] for name in expected) > names.total(), row["id"]
        scripts.add(script(row))
    assert len(scripts) >= 13


def test_simplified_and_traditional_chinese_do_not_mix(rows: list[Row]) -> None:
    letters = {
        name: set("".join(row["text"] for row in rows if row["language"] == name)) for name in ("zho_Hans", "zho_Hant")
    }
    assert not letters["zho_Hans"] & set("這們說為來時會對請個")
    assert not letters["zho_Hant"] & set("这们说为来时会对请个")


def test_the_hard_texts_contain_what_breaks_pipelines(rows: list[Row]) -> None:
    texts = [row["text"] for row in of_kind(rows, "hard")]
    everything = "".join(texts)
    assert texts.count("") == 1
    assert sum(bool(text) and text.isspace() for text in texts) == 1
    for name, found in {
        "ZWJ sequence": "\u200d",
        "emoji modifier": "\U0001f3fd",
        "bidirectional isolate": "\u2067",
        "byte order mark": "\ufeff",
        "line separator": "\u2028",
        "zero-width space": "\u200b",
        "full-width letter": "Ａ",
        "half-width katakana": "ﾊ",
        "ligature": "ﬁ",
        "conjoining jamo": "\u1112\u1161\u11ab",
    }.items():
        assert found in everything, name
    assert any(unicodedata.normalize("NFC", text) != text for text in texts)
    assert any(len(letter_names(text)) >= 5 for text in texts)


def test_only_the_long_texts_need_windows(rows: list[Row], shared_data: Path) -> None:
    packed = shared_data / "tokenizers/xlmr/tokenizer.reconstructed.json.gz"
    tokenizer = Tokenizer.from_str(gzip.decompress(packed.read_bytes()).decode("utf-8"))
    encodings = tokenizer.encode_batch([row["text"] for row in rows], add_special_tokens=False)
    for row, encoding in zip(rows, encodings, strict=True):
        assert len(encoding) > 600 if row["kind"] == "long" else len(encoding) < 200, row["id"]
