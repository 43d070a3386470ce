"""The comparisons of `mini` at a tiny size; langid and lingua are in the extra `bench` only."""

import json

import pytest

from pipelines.finetune.mini_corpus import Tagged, Topic

pytest.importorskip("langid")
pytest.importorskip("lingua")

from benchmarks import baselines, languages

SENTENCES = [
    (["Anna", "sleeps", "."], ["B-PER", "O", "O"]),
    (["Berlin", "is", "big", "."], ["B-LOC", "O", "O", "O"]),
    (["Maria", "sings", "."], ["B-PER", "O", "O"]),
]


def tagged(rows):
    return [Tagged("eng_Latn", " ".join(words), words, tags) for words, tags in rows]


def test_topics_are_learnt_language_by_language():
    rows = [Topic("eng_Latn", f"the team won game {n}", "sports", str(n)) for n in range(6)]
    rows += [Topic("eng_Latn", f"the train to Rome leaves {n}", "travel", str(n)) for n in range(5)]
    held = [
        Topic("eng_Latn", "our train to Rome", "travel", "x"),
        Topic("eng_Latn", "a game of our team", "sports", "y"),
    ]
    found = baselines.topics(rows, held)
    assert found["majority"]["eng_Latn"]["accuracy"] == 0.5
    assert found["n-grams"]["eng_Latn"]["accuracy"] == 1.0


def test_the_most_frequent_tag_of_a_word_is_said_and_a_regression_knows_more():
    found = baselines.tags(
        tagged(SENTENCES * 5), tagged([(["Berlin", "sleeps", "."], ["B-LOC", "O", "O"])]), entities=True
    )
    assert found["majority"]["eng_Latn"]["micro_f1"] == 1.0
    assert found["n-grams"]["eng_Latn"]["micro_f1"] == 1.0
    unseen = tagged([(["Marina", "sleeps", "."], ["B-PER", "O", "O"])])
    found = baselines.tags(tagged(SENTENCES * 5), unseen, entities=True)
    assert found["majority"]["eng_Latn"]["micro_f1"] == 0.0
    assert found["n-grams"]["eng_Latn"]["micro_f1"] == 1.0


def test_words_have_features_of_themselves_and_their_neighbours():
    first, second = baselines.word_features(["Köln", "liegt"])
    assert {"w=Köln", "l=köln", "shape=Xx", "p2=kö", "s2=ln", "1=liegt", "-1=<s>", "first=True"} <= set(first)
    assert "-1=köln" in second


def test_transfer_is_learnt_in_english_only(tmp_path):
    for language, splits in {"eng_Latn": ("train", "dev"), "fra_Latn": ("dev",)}.items():
        (tmp_path / language).mkdir()
        for split in splits:
            rows = [
                "index_id\tcategory\ttext",
                '1\tsports\tthe team "won',
                "2\ttravel\tle train de Rome",
                "3\tsports\tteam",
            ]
            (tmp_path / language / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = baselines.transfer(tmp_path)
    assert found["n-grams"]["fra_Latn"]["accuracy"] == 1.0
    assert found["majority"]["fra_Latn"]["accuracy"] == pytest.approx(2 / 3)


def test_a_tool_is_asked_about_its_own_languages_only(monkeypatch):
    rows = [("deu_Latn", "Guten Morgen, wie geht es Ihnen heute?"), ("ace_Latn", "x"), ("nob_Latn", "God morgen")]
    monkeypatch.setitem(languages.TOOLS, "langid", lambda texts: ["de"] * len(texts))
    assert languages.right_by_label("langid", rows) == {"deu_Latn": [1, 1], "nob_Latn": [0, 1]}
    json.dumps(dict(languages.CODES))


def test_every_code_of_the_tools_has_a_label():
    """But for languages that `mini` does not know."""
    codes = set(languages.CODES.values())
    tools = {code for name in languages.TOOLS for code in languages.codes_of(name)}
    assert tools - codes == {"an", "vo", "wa"}
    assert codes <= tools
