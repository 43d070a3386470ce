"""The same records in every format are the same examples; `datasets` reads the same."""

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.examples import Example, ExampleColumns, ReadSettings, open_examples
from pipelines.examples.languages import language_of
from xlmr_core.errors import InputError

CLASSIFY = ReadSettings("sequence-classification")
Record = dict[str, str]

# Any character but halves of surrogate pairs; NUL is what csv cannot hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: text.strip()
)
RECORDS = st.lists(st.fixed_dictionaries({"text": TEXT, "label": TEXT, "lang": TEXT}), min_size=1, max_size=8)


def write_jsonl(path: Path, records: list[Record]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_json(path: Path, records: list[Record]) -> None:
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")


def write_separated(path: Path, records: list[Record]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(records)


def write_parquet(path: Path, records: list[Record]) -> None:
    pq.write_table(pa.Table.from_pylist(records), path)


def gzipped(write: Callable[[Path, list[Record]], None]) -> Callable[[Path, list[Record]], None]:
    def compressed(path: Path, records: list[Record]) -> None:
        plain = path.with_suffix("")
        write(plain, records)
        data = plain.read_bytes()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else zstandard.compress(data))

    return compressed


WRITERS = {
    "a.jsonl": write_jsonl,
    "a.jsonl.gz": gzipped(write_jsonl),
    "a.jsonl.zst": gzipped(write_jsonl),
    "a.json": write_json,
    "a.csv": write_separated,
    "a.csv.gz": gzipped(write_separated),
    "a.tsv": write_separated,
    "a.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
@given(records=RECORDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_in_a_format_is_read_back(tmp_path: Path, name: str, records: list[Record]):
    WRITERS[name](tmp_path / name, records)
    found = list(open_examples([tmp_path / name], CLASSIFY))
    assert [{"text": e.text, "label": e.gold, "lang": e.language} for e in found] == records
    assert len({example.id for example in found}) == len(records)


@given(texts=st.lists(TEXT, min_size=1, max_size=9), windows=st.booleans(), trailing=st.booleans())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_of_text_are_examples_without_gold(tmp_path: Path, texts: list[str], windows: bool, trailing: bool):
    texts = [text.replace("\n", " ").replace("\r", " ") for text in texts]
    texts = [text for text in texts if text.strip()]
    newline = "\r\n" if windows else "\n"
    path = tmp_path / "de.txt"
    path.write_bytes((newline.join(texts) + newline * trailing).encode())
    found = list(open_examples([path], ReadSettings("fill-mask"))) if texts else []
    assert [(example.text, example.gold, example.language) for example in found] == [(t, None, "de") for t in texts]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    draw = random.Random(1)
    letters = "ab \"',;\té語🙂\n"
    return [
        {"text": "x" + "".join(draw.choices(letters, k=12)), "label": draw.choice(["no", "yes"]), "id": number}
        for number in range(300)
    ]


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_the_loaders_of_datasets_read_the_same(tmp_path: Path, rows: list[dict[str, object]], format: str):
    import datasets

    path = tmp_path / f"a.{'jsonl' if format == 'json' else format}"
    table = datasets.Dataset.from_list(rows)
    {"csv": table.to_csv, "json": table.to_json, "parquet": table.to_parquet}[format](str(path))
    loaded = datasets.load_dataset(format, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    found = [{"text": e.text, "label": e.gold, "id": int(e.id)} for e in open_examples([path], CLASSIFY)]
    assert found == loaded.to_list() == rows


def test_class_labels_of_datasets_are_names(tmp_path: Path):
    import datasets

    names = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    table = datasets.Dataset.from_list([{"text": "a", "label": 1}, {"text": "b", "label": 0}], features=features)
    table.to_parquet(str(tmp_path / "a.parquet"))
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "a.parquet", tmp_path / "saved" / "train"):
        assert [(e.text, e.gold) for e in open_examples([path], CLASSIFY)] == [("a", "good"), ("b", "bad")]
    with pytest.raises(InputError, match="holds several splits; name one of the folders in it"):
        open_examples([tmp_path / "saved"], CLASSIFY)


def test_class_labels_in_lists_are_tags(tmp_path: Path):
    import datasets

    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-X"]))
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": tags})
    rows = [{"tokens": ["a", "b"], "ner_tags": [1, 0]}]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "a.parquet"))
    (example,) = open_examples([tmp_path / "a.parquet"], ReadSettings("token-classification"))
    assert example.gold.labels == ("B-X", "O")


def test_the_cache_of_datasets_is_read_by_the_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    # As `load_dataset` leaves it: owner___name/config/version/hash.
    folder = tmp_path / "owner___small/default/0.0.0/abc"
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "y"])})
    table = datasets.Dataset.from_list([{"text": "a", "label": 1}], features=features)
    table.save_to_disk(str(tmp_path / "saved"))
    folder.mkdir(parents=True)
    (tmp_path / "saved/data-00000-of-00001.arrow").rename(folder / "small-train.arrow")
    split = datasets.splits.SplitInfo("train", num_bytes=1, num_examples=1, dataset_name="small")
    info = datasets.DatasetInfo(
        features=features,
        builder_name="parquet",
        dataset_name="small",
        config_name="default",
        version="0.0.0",
        splits=datasets.SplitDict({"train": split}),
    )
    info.write_to_directory(str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    assert [(e.text, e.gold) for e in open_examples(["hub:owner/small:train"], CLASSIFY)] == [("a", "y")]
    with pytest.raises(InputError, match=r"hub:owner/large:train: .* must be in the cache"):
        open_examples(["hub:owner/large:train"], CLASSIFY)
    with pytest.raises(InputError, match="is named hub:NAME"):
        open_examples(["hub:owner/small"], CLASSIFY)


def test_sources_are_the_lines_of_the_file(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b'text,label\n\n"two\nlines",x\r\n\r\nlast,y\n')
    (tmp_path / "b.jsonl").write_text('\n{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}', encoding="utf-8")
    (tmp_path / "c.tsv").write_text('text\tlabel\n"open\tx\n\nfoo\ty\n', encoding="utf-8")
    found = list(open_examples([tmp_path], CLASSIFY))
    assert [example.source.rpartition("/")[2] for example in found] == [
        "a.csv:3", "a.csv:6", "b.jsonl:2", "b.jsonl:4", "c.tsv:2", "c.tsv:4"
    ]  # fmt: skip
    assert [example.id for example in found][::2] == ["a.csv:3", "b.jsonl:2", "c.tsv:2"]
    assert [example.text for example in found][::2] == ["two\nlines", "a", '"open']


def test_records_across_chunks_keep_text_and_line(tmp_path: Path):
    records = [{"text": f"{number}\n" + "ä" * 3000, "label": "x"} for number in range(800)]
    write_jsonl(tmp_path / "a.jsonl", records)
    write_separated(tmp_path / "b.csv", records)
    for name, line in (("a.jsonl", 800), ("b.csv", 1600)):
        found = list(open_examples([tmp_path / name], CLASSIFY))
        assert [example.text for example in found] == [record["text"] for record in records]
        assert found[-1].source.endswith(f":{line}")


def test_quotes_in_tab_separated_files_are_letters_where_they_are_left_open(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"Yes" she said\tx\n"a b"\ty\n', encoding="utf-8")
    assert [e.text for e in open_examples([path], CLASSIFY)] == ['"Yes" she said', '"a b"']
    path.write_text('text\tlabel\n"a ""b"""\tx\n"two\nlines"\ty\n', encoding="utf-8")
    assert [e.text for e in open_examples([path], CLASSIFY)] == ['a "b"', "two\nlines"]
    quoted = ReadSettings("sequence-classification", quoting=True)
    path.write_text('text\tlabel\n"Yes" she said\tx\n', encoding="utf-8")
    assert [e.text for e in open_examples([path], quoted)] == ["Yes she said"]


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("x/de.jsonl", "de"),
        ("x/et.val.jsonl", "et"),
        ("x/hau.train.jsonl.gz", "hau"),
        ("x/xquad.de.json", "de"),
        ("x/da_ddt-ud-train.iob2", "da"),
        ("x/zh_gsdsimp-ud-dev.iob2", "zh"),
        ("sib200/tur_Latn/dev.tsv", "tur_Latn"),
        ("x/zho-CN.txt", "zho-CN"),
        ("x/eng_Latn.test.parquet", "eng_Latn"),
        ("fr/train.csv", "fr"),
        ("x/id.jsonl", "id"),
        ("x/train.jsonl", ""),
        ("x/dev.tsv", ""),
        ("qa/train.json", ""),
        ("x/de.fr.txt", ""),
        ("x/data", ""),
    ],
)
def test_names_tell_languages(path: str, language: str):
    assert language_of(path) == language


def test_an_option_and_a_column_come_before_the_name(tmp_path: Path):
    (tmp_path / "de.csv").write_text("text,label,lang\na,x,fr\nb,y,\n", encoding="utf-8")
    languages = {
        given: [e.language for e in open_examples([tmp_path], ReadSettings("sequence-classification", language=given))]
        for given in (None, "it")
    }
    assert languages == {None: ["fr", "de"], "it": ["it", "it"]}


def test_aligned_files_are_pairs(tmp_path: Path):
    (tmp_path / "en.txt").write_text("one\n\nthree\n", encoding="utf-8")
    (tmp_path / "de.txt").write_text("eins\r\n\r\ndrei", encoding="utf-8")
    paired = ReadSettings("embedding", format="parallel")
    first, second = open_examples([tmp_path / "en.txt", tmp_path / "de.txt"], paired)
    assert first == Example("one", ("eins",), (1.0,), "en-de", "en.txt:1", f"{tmp_path}/en.txt:1")
    assert (second.text, second.second, second.source[-4:]) == ("three", ("drei",), "xt:3")
    with pytest.raises(InputError, match="two by two"):
        open_examples([tmp_path / "en.txt"], paired)


def one(tmp_path: Path, task: str, record: dict[str, object], **options: object) -> Example:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    (example,) = open_examples([path], ReadSettings(task, **options))
    return example


@pytest.mark.parametrize(
    ("task", "record", "options", "expected"),
    [
        ("sequence-classification", {"premise": "a", "hypothesis": "b", "label": "n"}, {}, ("a", ("b",), "n")),
        (
            "sequence-classification",
            {"text": "a", "labels": ["x", "y", "x"]},
            {"problem_type": "multi_label_classification"},
            ("a", (), ("x", "y")),
        ),
        (
            "sequence-classification",
            {"text": "a", "labels": ""},
            {"problem_type": "multi_label_classification"},
            ("a", (), ()),
        ),
        (
            "sequence-classification",
            {"sentence1": "a", "sentence2": "b", "score": 2.5},
            {"problem_type": "regression"},
            ("a", ("b",), 2.5),
        ),
        ("sequence-classification", {"text": "a", "label": 1}, {"label_names": ("n", "y")}, ("a", (), "y")),
        (
            "token-classification",
            {"text": "Anna in Ulm", "entities": [{"start": 8, "end": 11, "label": "LOC"}, [0, 4, "PER"]]},
            {},
            ("Anna in Ulm", (), ((0, 4, "PER"), (8, 11, "LOC"))),
        ),
        (
            "question-answering",
            {"context": "a b", "question": "q", "answers": {"text": ["b", "b"], "answer_start": [2, 2]}},
            {},
            ("a b", ("q",), ((2, 3),)),
        ),
        (
            "question-answering",
            {"context": "a b", "question": "q", "answers": {"text": [], "answer_start": []}},
            {},
            ("a b", ("q",), ()),
        ),
        (
            "multiple-choice",
            {"premise": "p.", "choice1": "a", "choice2": "b", "question": "cause", "label": 1},
            {},
            ("p. What was the cause?", ("a", "b"), 1),
        ),
        (
            "multiple-choice",
            {"question": "q", "choices": {"label": ["A", "B"], "text": ["a", "b"]}, "answerKey": "B"},
            {},
            ("q", ("a", "b"), 1),
        ),
        ("multiple-choice", {"question": "q", "options": ["a", "b"], "answer": "A"}, {}, ("q", ("a", "b"), 0)),
        (
            "multiple-choice",
            {"question": "q", "option1": "a", "option2": "b", "answer": "2"},
            {"first_choice": 1},
            ("q", ("a", "b"), 1),
        ),
        ("rerank", {"query": "q", "documents": ["a", "b"], "scores": [1, 0]}, {}, ("q", ("a", "b"), (1.0, 0.0))),
        (
            "rerank",
            {"query": "q", "positive_passages": [{"text": "a"}], "negative_passages": [{"text": "b"}, {"text": "c"}]},
            {},
            ("q", ("a", "b", "c"), (1.0, 0.0, 0.0)),
        ),
        ("similarity", {"sentence1": "a", "sentence2": "b", "score": 0.5}, {}, ("a", ("b",), (0.5,))),
        ("embedding", {"anchor": "a", "positive": "b", "negative": "c"}, {}, ("a", ("b", "c"), (1.0, 0.0))),
    ],
)
def test_each_task_reads_the_usual_columns(
    tmp_path: Path, task: str, record: dict[str, object], options: dict[str, object], expected: tuple[object, ...]
):
    example = one(tmp_path, task, record, **options)
    assert (example.text, example.second, example.gold) == expected


def test_words_stand_in_the_text_that_is_given(tmp_path: Path):
    record = {"tokens": ["Ja", ",", "da"], "tags": ["X", "Y", "X"], "text": "Ja,  da"}
    assert one(tmp_path, "token-classification", record).gold.spans == ((0, 2), (2, 3), (5, 7))
    joined = one(tmp_path, "token-classification", record | {"text": "Nein"})
    assert (joined.text, joined.gold.spans) == ("Ja , da", ((0, 2), (3, 4), (5, 7)))
    assert one(tmp_path, "token-classification", record | {"text": None}, word_gap="").text == "Ja,da"


def squad(tmp_path: Path, indent: int | None) -> Path:
    answers = [{"text": "Ulm", "answer_start": 5}]
    qas = [
        {"id": "1", "question": "wo?", "answers": answers},
        {"id": "2", "question": "wer?", "answers": [], "is_impossible": True},
    ]
    document = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "Aus. Ulm", "qas": qas}]}]}
    path = tmp_path / "squad.de.json"
    path.write_text(json.dumps(document, indent=indent), encoding="utf-8")
    return path


@pytest.mark.parametrize("indent", [None, 2])
def test_squad_documents_are_questions(tmp_path: Path, indent: int | None):
    path = squad(tmp_path, indent)
    first, second = open_examples([path], ReadSettings("question-answering"))
    assert (first.text, first.second, first.gold, first.id, first.language) == (
        "Aus. Ulm",
        ("wo?",),
        ((5, 8),),
        "1",
        "de",
    )
    assert (second.gold, second.source) == ((), f"{path}:data[0].paragraphs[0].qas[1]")


def test_columns_of_nested_objects_are_named_with_a_dot(tmp_path: Path):
    columns = ExampleColumns(text_column="doc.body", label_column="doc.kind")
    record = {"doc": {"body": "a", "kind": "x"}}
    example = one(tmp_path, "sequence-classification", record, columns=columns)
    assert (example.text, example.gold) == ("a", "x")


def test_an_option_comes_before_the_name_of_a_file(tmp_path: Path):
    (tmp_path / "data").write_text('{"text": "a", "label": "x"}\n', encoding="utf-8")
    (example,) = open_examples([tmp_path / "data"], ReadSettings("sequence-classification", format="jsonl"))
    assert (example.text, example.gold) == ("a", "x")
    (line,) = open_examples([tmp_path / "data"], ReadSettings("fill-mask", format="text"))
    assert line.text == '{"text": "a", "label": "x"}'


def test_compressed_sentences_are_read(tmp_path: Path):
    (tmp_path / "de.conll.gz").write_bytes(gzip.compress(b"Anna B-PER\n"))
    (example,) = open_examples([tmp_path], ReadSettings("token-classification"))
    assert (example.gold.labels, example.language) == (("B-PER",), "de")


def test_a_missing_column_of_one_record_is_its_own_problem(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a", "label": "x"}, {"text": "b"}, 7]', encoding="utf-8")
    first, second, third = open_examples([path], CLASSIFY).records()
    assert isinstance(first, Example)
    assert (second.problem.code, second.source) == ("missing_label", f"{path}:[1]")
    assert (third.problem.code, third.source) == ("bad_json", f"{path}:[2]")
