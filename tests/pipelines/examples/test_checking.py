"""The pass before training: everything that is wrong at once, with file and line, and what the data holds."""

import json
from pathlib import Path

import pytest

from pipelines.examples import ExampleColumns, ReadSettings, check_examples, label_set, open_examples
from pipelines.examples.labels import label_order
from pipelines.examples.tags import TagCheck
from xlmr_core.errors import InputError

GOOD = {
    "sequence-classification": {"text": "a", "label": "x"},
    "token-classification": {"words": ["a", "b"], "tags": ["O", "B-X"]},
    "question-answering": {"context": "a b", "question": "q", "answers": {"text": ["b"], "answer_start": [2]}},
    "multiple-choice": {"question": "q", "choices": ["a", "b"], "label": 0},
    "rerank": {"query": "q", "documents": ["a", "b"], "scores": [1, 0]},
}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("task", "change", "code", "options"),
    [
        ("sequence-classification", {"text": None}, "null", {}),
        ("sequence-classification", {"text": 7}, "not_a_string", {}),
        ("sequence-classification", {"text": "a\ud800"}, "lone_surrogate", {}),
        ("sequence-classification", {"text": " \n"}, "empty_text", {}),
        ("sequence-classification", {"label": None}, "missing_label", {}),
        ("sequence-classification", {"label": " "}, "missing_label", {}),
        ("sequence-classification", {"label": 1}, "wrong_label_type", {}),
        ("sequence-classification", {"label": 1.5}, "wrong_label_type", {}),
        ("sequence-classification", {"label": True}, "wrong_label_type", {}),
        ("sequence-classification", {"label": ["x"]}, "wrong_label_type", {}),
        ("sequence-classification", {"label": 5}, "unknown_label", {"label_names": ("x", "y")}),
        ("sequence-classification", {"label": -1}, "missing_label", {"label_names": ("x", "y")}),
        ("token-classification", {"tags": ["O"]}, "length_mismatch", {}),
        ("token-classification", {"tags": [0, 1]}, "wrong_label_type", {}),
        ("token-classification", {"tags": [None, None]}, "missing_label", {}),
        ("token-classification", {"tags": None}, "null", {}),
        ("token-classification", {"words": "a b"}, "not_a_list", {}),
        ("token-classification", {"words": []}, "empty_text", {}),
        ("token-classification", {"words": ["a", ""]}, "empty_word", {}),
        ("token-classification", {"words": ["a", 1]}, "not_a_string", {}),
        ("question-answering", {"answers": {"text": ["c"], "answer_start": [2]}}, "answer_not_found", {}),
        ("question-answering", {"answers": {"text": ["b"], "answer_start": []}}, "bad_answers", {}),
        ("question-answering", {"answers": {"text": ["b"], "answer_start": ["2"]}}, "bad_answers", {}),
        ("question-answering", {"answers": "b"}, "bad_answers", {}),
        ("question-answering", {"answers": None}, "missing_label", {}),
        ("question-answering", {"question": ""}, "empty_text", {}),
        ("multiple-choice", {"label": 2}, "bad_choice", {}),
        ("multiple-choice", {"label": "c"}, "bad_choice", {}),
        ("multiple-choice", {"label": None}, "missing_label", {}),
        ("multiple-choice", {"choices": ["a", ""]}, "empty_text", {}),
        ("rerank", {"scores": [1]}, "length_mismatch", {}),
        ("rerank", {"scores": ["high", 0]}, "wrong_label_type", {}),
        ("rerank", {"scores": [float("nan"), 0]}, "wrong_label_type", {}),
        ("rerank", {"documents": []}, "null", {}),
        ("rerank", {"documents": ["a"] * 1001}, "too_many_texts", {}),
    ],
)
def test_a_bad_record_is_named_or_set_aside(
    tmp_path: Path, task: str, change: dict[str, object], code: str, options: dict[str, object]
):
    good = GOOD[task]
    path = write(tmp_path / "a.jsonl", good, good | change, good)
    with pytest.raises(InputError, match=rf"cannot be used \({code} 1\)") as caught:
        check_examples({"training": open_examples([path], ReadSettings(task, **options))})
    assert f"  {path}:2 {code}: " in str(caught.value)
    aside = open_examples([path], ReadSettings(task, on_error="quarantine", **options))
    summary = check_examples({"training": aside})["training"]
    assert (summary.examples, summary.rejected, len(list(aside))) == (2, {code: 1}, 2)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"text": "a", "label": "x"}\n{"text": \n', "bad_json"),
        (b'{"text": "a", "label": "x"}\n["a"]\n', "bad_json"),
        (b'{"text": "a", "label": "x"}\n{"text": "\xff", "label": "x"}\n', "undecodable"),
    ],
)
def test_a_line_that_cannot_be_parsed_spoils_only_itself(tmp_path: Path, content: bytes, code: str):
    (tmp_path / "a.jsonl").write_bytes(content)
    source = open_examples([tmp_path], ReadSettings("sequence-classification", on_error="quarantine"))
    summary = check_examples({"x": source})["x"]
    assert (summary.examples, summary.rejected) == (1, {code: 1})


def test_broken_csv_is_named_by_line(tmp_path: Path):
    (tmp_path / "a.csv").write_text('text,label\na,x\nb\nc,"y\n', encoding="utf-8")
    source = open_examples([tmp_path], ReadSettings("sequence-classification"))
    with pytest.raises(InputError) as caught:
        check_examples({"x": source})
    assert "a.csv:3 bad_csv: 1 fields, the header has 2" in str(caught.value)
    assert "a.csv:4 bad_csv: a quote opens a field that nothing closes" in str(caught.value)


def test_aligned_files_of_different_lengths_are_refused(tmp_path: Path):
    for name, lines in (("en.txt", "a\nb\n"), ("de.txt", "c\n")):
        (tmp_path / name).write_text(lines, encoding="utf-8")
    source = open_examples([tmp_path / "en.txt", tmp_path / "de.txt"], ReadSettings("embedding", format="parallel"))
    with pytest.raises(InputError, match=r"en.txt:2 not_aligned: .*de.txt has no such line"):
        check_examples({"x": source})


def test_many_problems_show_some_of_each_kind_and_all_counts(tmp_path: Path):
    bad = [{"text": None, "label": "x"}] * 500 + [{"text": "a", "label": None}] * 3
    path = write(tmp_path / "a.jsonl", *bad, GOOD["sequence-classification"])
    with pytest.raises(InputError) as caught:
        check_examples({"training": open_examples([path], ReadSettings("sequence-classification"))})
    text = str(caught.value)
    assert "503 records cannot be used (missing_label 3, null 500)" in text
    assert (text.count(" null: "), text.count(" missing_label: ")) == (10, 3)


def test_no_text_of_the_data_is_in_an_error(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"text": "secret\ud800", "label": {"secret": 1}}, {"text": "secret", "label": 9})
    with pytest.raises(InputError) as caught:
        check_examples({"training": open_examples([path], ReadSettings("sequence-classification"))})
    assert "secret" not in str(caught.value)


def test_labels_that_training_does_not_have_are_refused(tmp_path: Path):
    train = write(tmp_path / "train.jsonl", {"text": "a", "label": "x"})
    dev = write(tmp_path / "dev.jsonl", {"text": "a", "label": "x"}, {"text": "a", "label": "X"})
    settings = ReadSettings("sequence-classification", on_error="quarantine")
    with pytest.raises(InputError, match="validation: labels X 1, training has x 1; correct them"):
        check_examples({"training": open_examples([train], settings), "validation": open_examples([dev], settings)})


def test_data_sets_without_a_single_example_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"text": "", "label": "x"})
    source = open_examples([path], ReadSettings("sequence-classification", on_error="quarantine"))
    with pytest.raises(InputError, match="training: holds no example that can be used"):
        check_examples({"training": source})


def test_a_record_without_language_is_noted_or_refused(tmp_path: Path):
    path = write(
        tmp_path / "a.jsonl", {"text": "a", "label": "x", "lang": "de"}, {"text": "b", "label": "x", "lang": ""}
    )
    summary = check_examples({"x": open_examples([path], ReadSettings("sequence-classification"))})["x"]
    assert (summary.notices, summary.languages) == ({"no_language": 1}, {"": 1, "de": 1})
    named = ReadSettings("sequence-classification", columns=ExampleColumns(language_column="lang"))
    with pytest.raises(InputError, match=r"a.jsonl:2 no_language"):
        check_examples({"x": open_examples([path], named)})


def test_repeated_ids_are_counted_by_file_and_language(tmp_path: Path):
    rows = [("1", "de"), ("1", "fr"), ("2", "de"), ("1", "de"), ("2", "de")]
    records = [{"text": "a", "label": "x", "id": id, "lang": language} for id, language in rows]
    paths = [write(tmp_path / "a.jsonl", *records), write(tmp_path / "b.jsonl", *records[:2])]
    summary = check_examples({"x": open_examples(paths, ReadSettings("sequence-classification"))})["x"]
    assert summary.notices == {"duplicate_id": 2}
    assert summary.first_notices["duplicate_id"] == [f"{paths[0]}:4", f"{paths[0]}:5"]


def test_repaired_and_dropped_answers_are_counted(tmp_path: Path):
    answers = [{"text": ["b", "zz"], "answer_start": [0, 1]}, {"text": ["b"], "answer_start": [2]}]
    records = [{"context": "a b", "question": "q", "answers": answer} for answer in answers]
    path = write(tmp_path / "a.jsonl", *records)
    summary = check_examples({"x": open_examples([path], ReadSettings("question-answering"))})["x"]
    assert summary.notices == {"answer_dropped": 1, "answer_repaired": 1}


def test_the_summary_goes_to_the_terminal_and_to_json(tmp_path: Path):
    rows = [("b", "fr"), ("a", "de"), ("b", "de"), ("b", "de")]
    path = write(tmp_path / "a.jsonl", *({"text": "t", "label": label, "lang": lang} for label, lang in rows))
    source = open_examples([path], ReadSettings("sequence-classification"))
    summary = check_examples({"training": source})["training"]
    assert summary.label_set == label_set(source) == ("a", "b")
    assert summary.labels_by_language == {"de": {"a": 1, "b": 2}, "fr": {"b": 1}}
    stored = json.loads(json.dumps(summary.as_dict()))
    assert stored["labels"] == {"a": 1, "b": 3}
    assert stored["files"][0]["columns"] == {"text": "text", "label": "label", "language": "lang"}
    assert "columns: text=text, label=label, language=lang" in summary.lines()
    assert "labels: a 1, b 3" in summary.lines()


def test_a_stream_fails_where_a_file_changed_after_it_was_opened(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", GOOD["sequence-classification"])
    source = open_examples([path], ReadSettings("sequence-classification"))
    write(path, GOOD["sequence-classification"], GOOD["sequence-classification"])
    with pytest.raises(InputError, match="changed after it was planned"):
        list(source)


def test_tags_come_with_o_first_then_type_by_type():
    assert label_order(["I-PER", "B-PER", "O", "I-LOC", "B-LOC"]) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert label_order(["S-X", "E-X", "I-X", "B-X"]) == ("B-X", "I-X", "E-X", "S-X")
    assert label_order(["VERB", "ADJ"]) == ("ADJ", "VERB")
    assert label_order(["O", "AB", "A"]) == ("A", "AB", "O")
    assert label_order(["B-movie", "A-list"]) == ("A-list", "B-movie")


@pytest.mark.parametrize(
    ("tags", "broken"),
    [
        ("O B-X I-X O", 0),
        ("I-X I-X B-X I-X O I-Y", 0),  # IOB1
        ("B-X O B-X O I-X", 1),
        ("B-X I-Y O B-Y", 1),
        ("B-X E-X O S-Y", 0),
        ("B-X O E-X", 2),
        ("B-X I-X", 0),
        ("B-X I-X O S-X", 1),
        ("U-X B-X L-X I-X", 2),
        ("NOUN VERB", 0),
        ("O O", 0),
    ],
)
def test_tags_that_no_scheme_allows_are_counted(tags: str, broken: int):
    check = TagCheck()
    check.add(tags.split())
    assert check.broken == broken
