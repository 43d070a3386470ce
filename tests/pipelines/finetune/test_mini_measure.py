import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.finetune.mini_measure import (
    SHORT,
    first_words,
    held_out_topics,
    held_out_words,
    language_sentences,
    measure,
    ntrex_label,
    treebanks,
    uner,
)

LINES = {
    "eng": ["Good morning to you all.", "The train was late."],
    "deu": ["Guten Morgen euch allen.", "Der Zug kam zu spät."],
}
TREEBANK = """# text = Au bois.
1-2	Au	_	_	_	_	_	_	_	_
1	À	à	ADP	_	_	0	root	_	_
2	le	le	DET	_	_	1	det	_	_
3	bois	bois	NOUN	_	_	1	obl	_	SpaceAfter=No
4	.	.	PUNCT	_	_	1	punct	_	_

"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What `mini prepare` wrote, and texts that nothing was trained on, both tiny."""
    files, data = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("data")
    (files / "held_out").mkdir()
    rows = {
        "language": {"text": ["Bonjour à tous."], "label": ["fra_Latn"]},
        "topic": {"text": ["The team won."], "label": ["sports"], "language": ["eng_Latn"], "group": ["1"]},
        "pos": {"text": ["a b"], "words": [["a", "b"]], "tags": [["DET", "NOUN"]], "language": ["eng_Latn"]},
        "entities": {"text": ["Rome."], "words": [["Rome", "."]], "tags": [["B-LOC", "O"]], "language": ["ita_Latn"]},
    }
    for name, columns in rows.items():
        pq.write_table(pa.table(columns), files / f"held_out/{name}.parquet")
    for folder in ("parallel/ntrex", "seqcls/sib200/eng_Latn", "pos/ud", "ner/uner"):
        (data / folder).mkdir(parents=True)
    for name, lines in LINES.items():
        (data / f"parallel/ntrex/{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    dev = 'index_id\tcategory\ttext\n1\ttravel\tThe "train" leaves.\n'
    (data / "seqcls/sib200/eng_Latn/dev.tsv").write_text(dev, encoding="utf-8")
    (data / "pos/ud/fr_gsd-ud-test.conllu").write_text(TREEBANK, encoding="utf-8")
    (data / "ner/uner/en_ewt-ud-dev.iob2").write_text("1\tRome\tB-LOC\t-\t-\n\n", encoding="utf-8")
    (data / "ner/uner/en_ewt-ud-train.iob2").write_text("1\tParis\tB-LOC\t-\t-\n\n", encoding="utf-8")
    return files, data


def test_everything_is_measured_and_kept(folders, tmp_path):
    files, data = folders
    found = measure("mini", files, data)
    assert found.language["ntrex"].keys() == {"eng_Latn", "deu_Latn"}
    assert found.language["ntrex"]["deu_Latn"] == pytest.approx(found.language["ntrex"]["deu_Latn"] | {"total": 2.0})
    assert sum(count for _, _, count in found.language_codes["ntrex"]) == 4
    assert set(found.short) == set(SHORT)
    assert found.retrieval.keys() == {"deu"}
    found.save(tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["retrieval"]["deu"]["total"] == 2.0


def test_sets_are_read_as_they_are(folders):
    files, data = folders
    sets = language_sentences(files, data)
    assert sets["held_out"] == [("fra_Latn", "Bonjour à tous.")]
    assert sets["sib200"] == [("eng_Latn", 'The "train" leaves.')]
    assert [example.gold for example in held_out_topics(files)] == ["sports"]
    (example,) = held_out_words(files, "entities")
    assert example.gold.spans == ((0, 4), (4, 5))


def test_a_surface_word_of_a_treebank_counts_once(folders):
    (example,) = treebanks(folders[1])
    assert example.gold.labels == ("ADP", "NOUN", "PUNCT")
    assert [example.text[first:last] for first, last in example.gold.spans] == ["Au", "bois", "."]


def test_training_splits_of_entities_are_not_measured(folders):
    assert [example.text for example in uner(folders[1])] == ["Rome"]


def test_files_of_ntrex_have_labels_with_a_script():
    assert (ntrex_label("rus"), ntrex_label("fas"), ntrex_label("fra")) == ("rus_Cyrl", "pes_Arab", "fra_Latn")


def test_first_words_are_characters_where_there_are_no_blanks():
    assert first_words("one two three", 2) == "one two"
    assert first_words("東京都に住んでいますそして", 2) == "東京都に住んでい"
