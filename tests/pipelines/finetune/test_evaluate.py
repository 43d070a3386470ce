import numpy as np
import pytest

from pipelines.finetune.evaluate import embed, first_words, predict_labels, report_labels, retrieval_accuracy


def test_the_report_counts_by_label():
    report = report_labels(["a", "a", "a", "b"], ["a", "b", "b", "b"])
    assert report.accuracy == 0.5
    assert report.by_label == {"a": pytest.approx(1 / 3), "b": 1.0}
    assert report.macro_accuracy == pytest.approx(2 / 3)
    assert report.confusions == [("a", "b", 2)]


def test_a_translation_is_found_where_it_is_the_nearest():
    targets = np.eye(4, dtype=np.float32)
    assert retrieval_accuracy(targets, targets) == 1.0
    assert retrieval_accuracy(targets[[1, 0, 2, 3]], targets) == 0.5


def test_first_words_of_scripts_with_and_without_spaces():
    assert first_words("one two three", 2) == "one two"
    assert first_words("今天天气很好我们去公园吧然后回家吃饭", 2) == "今天天气很好我们"


def test_labels_and_vectors_come_from_the_graph_and_empty_texts_have_no_label(make_checkpoint):
    labeller = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=["x", "y"]))
    assert set(predict_labels(labeller, ["hello", "guten Tag"])) <= {"x", "y"}
    assert predict_labels(labeller, ["hello", "", "guten Tag"])[1] == ""


def test_vectors_have_unit_length_when_the_model_says_so(make_checkpoint):
    directory = make_checkpoint("XLMRobertaModel")
    (directory / "xlmr.json").write_text('{"task": "embedding", "pooling": ["mean"], "normalize": true}')
    vectors = embed(str(directory), ["hello", "guten Tag"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-6)
