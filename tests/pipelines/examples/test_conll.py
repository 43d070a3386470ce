"""CoNLL and its relatives: sentences, comments, separators, and where words stand in the text."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.examples import Example, ExampleColumns, ReadSettings, check_examples, open_examples
from pipelines.examples.example import Notices, Rejected
from pipelines.examples.words import find_words, join_words

TAGGING = ReadSettings("token-classification")


def read(path: Path, content: str | bytes, **options: object) -> list[Example | Rejected]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(open_examples([path], ReadSettings("token-classification", **options)).records())


def tagged(record: Example | Rejected) -> list[tuple[str, str]]:
    assert isinstance(record, Example)
    return [
        (record.text[start:end], label)
        for (start, end), label in zip(record.gold.spans, record.gold.labels, strict=True)
    ]


WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6).filter(
    lambda word: word.strip() and not word.startswith("#") and word != "-DOCSTART-"
)
SENTENCE = st.lists(st.tuples(WORD, st.sampled_from(["O", "B-X", "I-X"])), min_size=1, max_size=6)


@given(st.lists(SENTENCE, min_size=1, max_size=5), st.sampled_from(["\t", " "]), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tagged_sentences_are_read_back(
    tmp_path: Path, sentences: list[list[tuple[str, str]]], separator: str, newline: str
):
    blocks = [newline.join(separator.join(pair) for pair in sentence) for sentence in sentences]
    found = read(tmp_path / "a.bio", (newline * 2).join(blocks))
    assert [tagged(record) for record in found] == sentences


def test_comments_documents_and_blank_tokens_are_told_apart(tmp_path: Path):
    content = "-DOCSTART- -X- O O\n\n# a comment\nAnna NNP I-NP B-PER\n#tag NN I-NP O\n\n\n\nUlm NNP I-NP B-LOC"
    first, second = read(tmp_path / "a.conll", content)
    assert tagged(first) == [("Anna", "B-PER"), ("#tag", "O")]
    assert (tagged(second), second.source[-2:]) == ([("Ulm", "B-LOC")], ":9")
    (thai,) = read(tmp_path / "a.conll", "ก\tO\n \tO\n#\tB-X\n", word_gap="")
    assert (thai.text, tagged(thai)) == ("ก #", [("ก", "O"), (" ", "O"), ("#", "B-X")])


def test_columns_are_chosen_by_index(tmp_path: Path):
    (chunks,) = read(tmp_path / "a.conll", "Anna NNP I-NP B-PER\n", tag_index=-2)
    assert tagged(chunks) == [("Anna", "I-NP")]
    (lemma,) = read(tmp_path / "a.conll", "1 Annas Anna B\n", token_index=2, tag_index=3)
    assert tagged(lemma) == [("Anna", "B")]
    (wrong,) = read(tmp_path / "a.conll", "Anna NNP\n", tag_index=3)
    assert wrong.problem.code == "bad_conll"


def test_counted_tokens_and_their_text(tmp_path: Path):
    content = "# sent_id = s1\n# text = Ja, da.\n1\tJa\tO\t-\tx\n2\t,\tO\t-\tx\n3\tda\tB-X\t-\tx\n4\t.\tO\t-\tx\n"
    (example,) = read(tmp_path / "de_x-ud-dev.iob2", content)
    assert (example.text, example.id, example.language) == ("Ja, da.", "s1", "de")
    assert example.gold.spans == ((0, 2), (2, 3), (4, 6), (6, 7))
    path = tmp_path / "b.iob2"
    path.write_text(content.replace("Ja, da.", "Nein"), encoding="utf-8")
    summary = check_examples({"x": open_examples([path], TAGGING)})["x"]
    assert summary.notices == {"words_not_in_text": 1}


def test_a_file_of_one_column_is_no_tagged_text(tmp_path: Path):
    (wrong,) = read(tmp_path / "a.bio", "Anna\nUlm\n")
    assert (wrong.problem.code, wrong.source[-2:]) == ("bad_conll", ":1")


def test_a_broken_line_spoils_its_sentence_only(tmp_path: Path):
    good, bad, last = read(tmp_path / "a.bio", b"a O\n\nb O\n\xff O\n\nc O\n")
    assert (bad.problem.code, bad.source[-2:]) == ("undecodable", ":4")
    assert tagged(good) + tagged(last) == [("a", "O"), ("c", "O")]


CONLLU = """\
# newdoc
# sent_id = 7
# text = «Vámonos al mar»
1\t«\t«\tPUNCT\t_\t_\t2\tpunct\t_\tSpaceAfter=No
2-3\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
2\tVamos\tir\tVERB\tvm\t_\t0\troot\t_\t_
3\tnos\tnosotros\tPRON\t_\t_\t2\tobj\t_\t_
3.1\tél\tél\tPRON\t_\t_\t_\t_\t2:nsubj\t_
4-5\tal\t_\t_\t_\t_\t_\t_\t_\t_
4\ta\ta\tADP\t_\t_\t6\tcase\t_\t_
5\tel\tel\tDET\t_\t_\t6\tdet\t_\tSpaceAfter=No
6\tmar\tmar\tNOUN\t_\t_\t2\tobl\t_\tGloss=sea|SpaceAfter=No
7\t»\t»\tPUNCT\t_\t_\t2\tpunct\t_\t_
"""


def test_words_of_conllu_have_the_spans_of_their_surface_tokens(tmp_path: Path):
    (example,) = read(tmp_path / "a.conllu", CONLLU)
    assert (example.text, example.id) == ("«Vámonos al mar»", "7")
    assert tagged(example) == [
        ("«", "PUNCT"), ("Vámonos", "VERB"), ("Vámonos", "PRON"), ("al", "ADP"), ("al", "DET"), ("mar", "NOUN"),
        ("»", "PUNCT"),
    ]  # fmt: skip
    (other,) = read(tmp_path / "a.conllu", CONLLU, columns=ExampleColumns(tags_column="xpos"))
    assert other.gold.labels == (None, "vm", None, None, None, None, None)


def test_conllu_is_known_by_its_first_line(tmp_path: Path):
    assert read(tmp_path / "a.conll", CONLLU)[0].text == "«Vámonos al mar»"
    (path,) = tmp_path.glob("a.conll")
    (text,) = open_examples([path], ReadSettings("fill-mask"))
    assert (text.text, text.gold) == ("«Vámonos al mar»", None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("6\tmar", "8\tmar"),
        ("4-5\tal", "5-6\tal"),
        ("4-5\tal", "3-5\tal"),
        ("6\tmar\tmar", "6\tmar"),
        ("7\t»\t»\tPUNCT\t_\t_\t2\tpunct\t_\t_\n", "7-8\t»\t_\t_\t_\t_\t_\t_\t_\t_\n"),
    ],
)
def test_sentences_that_contradict_themselves_are_rejected(tmp_path: Path, before: str, after: str):
    assert before in CONLLU
    bad, good = read(tmp_path / "a.conllu", CONLLU.replace(before, after) + "\n" + CONLLU)
    assert bad.problem.code == "bad_conll"
    assert isinstance(good, Example)


def test_endless_sentences_are_rejected_and_bounded(tmp_path: Path):
    long, short = read(tmp_path / "a.bio", "a O\n" * 100_001 + "\nb O\n")
    assert long.problem.code == "sentence_too_long"
    assert tagged(short) == [("b", "O")]


@given(st.lists(st.tuples(WORD, st.sampled_from(["", " ", "  ", "\u3000"])), min_size=1, max_size=8))
def test_joined_words_stand_where_it_is_said(pairs: list[tuple[str, str]]):
    words, gaps = zip(*pairs, strict=True)
    text, spans = join_words(words, gaps)
    assert [text[start:end] for start, end in spans] == list(words)
    assert find_words(words, text) == spans
    assert find_words(words, text + "x") is None


def test_notices_keep_the_first_places():
    notices = Notices()
    for number in range(30):
        notices.add("x", f"a:{number}")
    assert (notices.counts["x"], len(notices.places["x"])) == (30, 20)
