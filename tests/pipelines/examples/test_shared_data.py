"""Published data of every task reads without a problem, and its words stand where they are said to."""

import csv
import json
from pathlib import Path

import pytest

from pipelines.examples import ExampleSummary, ReadSettings, WordLabels, check_examples, open_examples

CLASSIFY, TAG = "sequence-classification", "token-classification"


def summarise(folder: Path, task: str, **options: object) -> ExampleSummary:
    return check_examples({"training": open_examples([folder], ReadSettings(task, **options))})["training"]


@pytest.mark.parametrize(
    ("folder", "task", "examples", "languages", "labels"),
    [
        ("seqcls/afrisenti", CLASSIFY, 4798, 6, 3),
        ("seqcls/sib200", CLASSIFY, 14_400, 18, 7),
        ("seqcls/wisesight", CLASSIFY, 1000, 1, 4),
        ("nli/farstail", CLASSIFY, 1200, 1, 3),
        ("nli/jnli", CLASSIFY, 800, 1, 3),
        ("nli/klue", CLASSIFY, 900, 1, 3),
        ("ner/uner", TAG, 4300, 6, 7),
        ("ner/thai_ner", TAG, 400, 1, 19),
        ("ner/hiner", TAG, 500, 1, 7),
        ("ner/europeana", TAG, 3, 3, 7),
        ("pos/ud", TAG, 3000, 25, 17),
        ("qa/xquad", "question-answering", 2254, 7, 0),
        ("mc/xcopa", "multiple-choice", 1100, 11, 0),
        ("mc/jcommonsenseqa", "multiple-choice", 300, 1, 0),
    ],
)
def test_published_data_reads_whole(
    shared_data: Path, folder: str, task: str, examples: int, languages: int, labels: int
):
    summary = summarise(shared_data / folder, task)
    assert (summary.examples, len(summary.languages), len(summary.labels)) == (examples, languages, labels)
    assert (summary.rejected, "" in summary.languages) == ({}, False)


def test_words_of_universal_ner_stand_in_the_original_texts(shared_data: Path):
    words = 0
    for path in sorted((shared_data / "ner/uner").iterdir()):
        lines = path.read_text(encoding="utf-8").split("\n")
        texts = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
        forms = iter([line.split("\t")[1] for line in lines if line[:1].isdigit()])
        for example, text in zip(open_examples([path], ReadSettings(TAG)), texts, strict=True):
            assert example.text == text
            for start, end in example.gold.spans:
                assert text[start:end] == next(forms)
                words += 1
        assert next(forms, None) is None
    assert words == 71_242


@pytest.mark.parametrize("folder", ["ner/hiner", "ner/thai_ner", "ner/europeana"])
def test_words_of_joined_texts_stand_where_it_is_said(shared_data: Path, folder: str):
    for path in sorted((shared_data / folder).iterdir()):
        lines = path.read_text(encoding="utf-8").split("\n")
        forms = [line.rsplit("\t" if "\t" in line else " ", 1)[0] for line in lines if line]
        examples = open_examples([path], ReadSettings(TAG))
        found = [example.text[start:end] for example in examples for start, end in example.gold.spans]
        assert found == forms


def test_quoted_texts_of_sib_200_are_those_of_the_csv_module(shared_data: Path):
    for path in sorted((shared_data / "seqcls/sib200").glob("*/*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        found = open_examples([path], ReadSettings(CLASSIFY))
        assert [(e.text, e.gold, e.id) for e in found] == [(r["text"], r["category"], r["index_id"]) for r in rows]


def conllu_blocks(path: Path) -> list[tuple[str | None, list[tuple[str, bool]]]]:
    """Text comment, if any, and of every syntactic word its form and whether it is part of a multi-word token."""
    blocks = []
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        lines = block.split("\n")
        text = next((line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")), None)
        fields = [line.split("\t") for line in lines if not line.startswith("#")]
        ranges = [tuple(map(int, row[0].split("-"))) for row in fields if "-" in row[0]]
        words = [(int(row[0]), row[1]) for row in fields if row[0].isdigit()]
        blocks.append((text, [(form, any(a <= n <= b for a, b in ranges)) for n, form in words]))
    return blocks


def test_texts_of_universal_dependencies_are_what_their_comments_say(shared_data: Path):
    compared = several = 0
    for path in sorted((shared_data / "pos/ud").glob("*.conllu")):
        examples = list(open_examples([path], ReadSettings(TAG)))
        for example, (text, words) in zip(examples, conllu_blocks(path), strict=True):
            assert text is None or example.text == text, example.source
            assert isinstance(example.gold, WordLabels)
            for (start, end), (form, in_token) in zip(example.gold.spans, words, strict=True):
                assert in_token or example.text[start:end] == form
                several += in_token
            compared += 1
    assert (compared, several > 1000) == (3000, True)


def test_texts_made_of_surface_tokens_are_what_the_comments_say(shared_data: Path, tmp_path: Path):
    compared, odd = 0, []
    for path in sorted((shared_data / "pos/ud").glob("*.conllu")):
        lines = path.read_text(encoding="utf-8").split("\n")
        without = tmp_path / path.name
        without.write_text("\n".join(line for line in lines if not line.startswith("#")), encoding="utf-8")
        for example, (text, _) in zip(open_examples([without], ReadSettings(TAG)), conllu_blocks(path), strict=True):
            if text is not None:
                compared += 1
                odd += [(example.text, text)] * (example.text != text)
    # One file has no comments; one Finnish sentence has two blanks that its words know nothing of.
    assert (compared, len(odd)) == (2880, 1)
    assert odd[0][0].split() == odd[0][1].split()


def test_answers_of_xquad_are_the_published_ones(shared_data: Path):
    for path in sorted((shared_data / "qa/xquad").glob("*.json")):
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        published = [
            [answer["text"] for answer in question["answers"]]
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        examples = open_examples([path], ReadSettings("question-answering"))
        found = [[example.text[start:end] for start, end in example.gold] for example in examples]
        assert found == published
