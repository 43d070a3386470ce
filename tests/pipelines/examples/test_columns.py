"""Columns are found by their usual names; where that is not clear, the error lists what there is."""

from pathlib import Path

import pytest

from pipelines.examples import ExampleColumns, ReadSettings, open_examples
from xlmr_core.errors import InputError


def opened(tmp_path: Path, header: str, task: str = "sequence-classification", **columns: object):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n", encoding="utf-8")
    (file,) = open_examples([path], ReadSettings(task, columns=ExampleColumns(**columns))).files
    return file.columns.roles


def test_the_usual_names_are_found_and_reported(tmp_path: Path):
    assert opened(tmp_path, "idx,lang,sentence1,sentence2,gold_label,more") == {
        "text": ("sentence1",), "pair": ("sentence2",), "label": ("gold_label",), "language": ("lang",), "id": ("idx",)
    }  # fmt: skip


def test_choices_in_columns_of_their_own_come_in_order(tmp_path: Path):
    header = "question,choice10,choice2,choice1,label"
    assert opened(tmp_path, header, "multiple-choice")["choices"] == ("choice1", "choice2", "choice10")


def test_a_missing_column_is_refused_with_those_there_are(tmp_path: Path):
    with pytest.raises(InputError, match="no column found for label_column; its columns are: text, sense") as caught:
        opened(tmp_path, "text,sense")
    assert caught.value.code == "bad_input"
    with pytest.raises(InputError, match="no column 'body' for text_column; its columns are: text, label"):
        opened(tmp_path, "text,label", text_column="body")


def test_several_candidates_are_refused_until_one_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="several columns may be the label: label, topic; name one with label_column"):
        opened(tmp_path, "text,label,topic")
    assert opened(tmp_path, "text,label,topic", label_column="topic")["label"] == ("topic",)


def test_an_empty_name_stands_for_no_column(tmp_path: Path):
    assert "pair" not in opened(tmp_path, "premise,hypothesis,label", pair_column="")


def test_all_problems_of_all_files_come_at_once(tmp_path: Path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("nothing\n" * 3, encoding="utf-8")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "d.csv").write_text("text,text,label\n", encoding="utf-8")
    (tmp_path / "e.json").write_text('{"data": 1}', encoding="utf-8")
    (tmp_path / "f.txt").write_bytes(b"\xff\xfea\0")
    with pytest.raises(InputError) as caught:
        open_examples([tmp_path, tmp_path / "f.txt"], ReadSettings("sequence-classification"))
    lines = str(caught.value).split("\n")
    wanted = [
        "a.csv: no column found for text_column",
        "a.csv: no column found for label_column",
        "b.jsonl: none of the first 3 lines is a JSON object",
        "c.parquet cannot be read",
        "d.csv has column 'text' more than once",
        "e.json: a document without a list of records",
        "f.txt is UTF-16",
    ]
    assert [want in line for want, line in zip(wanted, lines, strict=True)] == [True] * 7


def test_what_is_no_data_is_refused(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"x")
    settings = ReadSettings("sequence-classification")
    with pytest.raises(InputError, match="the name does not say the format"):
        open_examples([tmp_path / "a.bin"], settings)
    with pytest.raises(InputError, match="no file with a known name"):
        open_examples([tmp_path], settings)
    with pytest.raises(InputError, match="no such file"):
        open_examples([tmp_path / "missing.csv"], settings)


def test_lists_of_labels_beside_the_data_are_passed_over(tmp_path: Path):
    (tmp_path / "labels.txt").write_text("x\ny\n", encoding="utf-8")
    (tmp_path / "a.tsv").write_text("text\tlabel\na\tx\n", encoding="utf-8")
    assert len(open_examples([tmp_path], ReadSettings("sequence-classification")).files) == 1
    (tmp_path / "a.tsv").write_text("Anna\tB-PER\n", encoding="utf-8")
    assert len(open_examples([tmp_path], ReadSettings("token-classification")).files) == 1
