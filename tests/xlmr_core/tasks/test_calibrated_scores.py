"""A calibration of the directory is used: scores and labels equal plain arithmetic on the raw logits."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core import pipeline
from xlmr_core.checkpoint import Checkpoint, HeadCalibration, save_calibration
from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.columns import to_list
from xlmr_core.tasks.labels import Thresholds

LABELS = ["a", "b", "c"]
SEVERAL = HeadCalibration(
    "sigmoid", 2.5, {"a": 0.35, "b": 0.6, "c": 0.5}, {"de": {"a": 0.65}, "fr": {"a": 0.2, "b": 0.2, "c": 0.2}}, 500
)
# Two float32 paths to the same number.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def texts(sample_texts):
    return [" ".join(text.split()[:20]) for text in sample_texts if text.strip()][:30]


@pytest.fixture(scope="module")
def several(make_checkpoint, tmp_path_factory):
    made = make_checkpoint(
        "XLMRobertaForSequenceClassification", labels=LABELS, problem_type="multi_label_classification"
    )
    copy = shutil.copytree(made, tmp_path_factory.mktemp("several") / "model")
    save_calibration(copy, SEVERAL)
    return copy


@pytest.fixture(scope="module")
def single(make_checkpoint, tmp_path_factory):
    made = make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS)
    copy = shutil.copytree(made, tmp_path_factory.mktemp("single") / "model")
    save_calibration(copy, HeadCalibration("softmax", 3.0))
    return copy


def columns(model, texts, languages=None, **options):
    plan = GraphPlan.resolve([Request("t", str(model), {"scores": True, **options})])
    return ModelGraph(plan)(Preprocessor(plan)(texts, None, languages)).columns


def given_labels(model, texts, languages=None, **options):
    return to_list(columns(model, texts, languages, **options)["t_labels"])


def by_hand(logits, thresholds_of, temperature=2.5):
    """Labels of each record, from its logits and the thresholds of its number."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64) / temperature))
    return [
        [label for label, score, limit in zip(LABELS, row, thresholds_of(n), strict=True) if score >= limit]
        for n, row in enumerate(scores)
    ]


def test_logits_are_divided_by_the_temperature(single, several, texts):
    logits = columns(single, texts, activation="none")["t_scores"]
    expected = torch.softmax(torch.from_numpy(logits) / 3.0, dim=-1).numpy()
    found = columns(single, texts)
    np.testing.assert_allclose(found["t_scores"], expected, atol=TOLERANCE)
    assert (found["t_label"].codes == logits.argmax(axis=1)).all()
    logits = columns(several, texts, activation="none")["t_scores"]
    expected = torch.sigmoid(torch.from_numpy(logits) / 2.5).numpy()
    np.testing.assert_allclose(columns(several, texts)["t_scores"], expected, atol=TOLERANCE)
    (answer,) = pipeline("text-classification", single)(texts[0])
    assert answer["score"] == pytest.approx(columns(single, texts[:1])["t_score"][0], abs=TOLERANCE)


def test_labels_are_given_from_their_own_thresholds_on(several, texts):
    logits = columns(several, texts, activation="none")["t_scores"]
    expected = by_hand(logits, lambda _: (0.35, 0.6, 0.5))
    assert given_labels(several, texts) == expected
    assert expected != by_hand(logits, lambda _: (0.5, 0.5, 0.5))


def test_a_record_of_a_language_has_the_thresholds_of_that_language(several, texts):
    logits = columns(several, texts, activation="none")["t_scores"]
    languages = [("de", "fr", "xx", None, "")[n % 5] for n in range(len(texts))]
    of = {"de": (0.65, 0.6, 0.5), "fr": (0.2, 0.2, 0.2)}
    expected = by_hand(logits, lambda n: of.get(languages[n], (0.35, 0.6, 0.5)))
    assert given_labels(several, texts, languages) == expected
    assert expected != given_labels(several, texts)
    # What stands beside a record changes nothing, and neither does one without tokens.
    mixed, owners = [texts[0], "", texts[1], texts[2]], ["fr", "de", "de", None]
    assert given_labels(several, mixed, owners) == [
        *given_labels(several, texts[:1], ["fr"]),
        *given_labels(several, texts[1:2], ["de"]),
        *given_labels(several, texts[2:3]),
    ]


def test_what_is_typed_wins_over_the_directory(several, single, texts):
    logits = columns(several, texts, activation="none")["t_scores"]
    languages = ["fr"] * len(texts)
    typed = given_labels(several, texts, languages, threshold="0.45")
    assert typed == by_hand(logits, lambda _: (0.45, 0.45, 0.45))
    # Thresholds were fitted to scores at a temperature; at another one they mean nothing.
    off = given_labels(several, texts, languages, temperature="1")
    assert off == by_hand(logits, lambda _: (0.5, 0.5, 0.5), temperature=1.0)
    both = given_labels(several, texts, temperature="2.5")
    assert both == given_labels(several, texts)
    # Labels under other names are the same outputs.
    renamed = given_labels(several, texts, labels="x|y|z")
    assert [["abc"["xyz".index(label)] for label in row] for row in renamed] == given_labels(several, texts)
    plain = torch.sigmoid(torch.from_numpy(columns(single, texts, activation="none")["t_scores"]))
    other = columns(single, texts, activation="sigmoid")["t_scores"]
    np.testing.assert_allclose(other, plain.numpy(), atol=TOLERANCE)


def test_noisy_or_merges_calibrated_scores(several, texts):
    plan = GraphPlan.resolve([Request("t", str(several), {"scores": True, "merge": "noisy_or", "max_length": 16})])
    graph, encoded = ModelGraph(plan), Preprocessor(plan)([texts[0]])
    outputs = graph.forward(encoded)
    assert len(outputs.raw["t"]) > 1
    none = 1 - 1 / (1 + np.exp(-outputs.raw["t"].astype(np.float64) / 2.5))
    found = graph.decode(encoded, outputs).columns["t_scores"]
    np.testing.assert_allclose(found, 1 - none.prod(axis=0, keepdims=True), atol=TOLERANCE)


def test_temperatures_that_mean_nothing_are_refused(several, single):
    for model, options, said in (
        (single, {"temperature": "0"}, "temperature=0, it must be from 0.01 to 100"),
        (single, {"temperature": "nan"}, "temperature=nan, it must be from"),
        (single, {"temperature": "2", "activation": "none"}, "temperature=2, it is for scores by softmax or sigmoid"),
        (several, {"temperature": "101", "threshold": "2"}, "threshold=2, .*temperature=101"),
    ):
        with pytest.raises(TaskError, match=said):
            GraphPlan.resolve([Request("t", str(model), options)])


def test_a_fingerprint_tells_calibrations_apart_and_is_the_old_one_without(several, make_checkpoint, tmp_path):
    def facts(directory, **options):
        (entry,) = GraphPlan.resolve([Request("t", str(directory), options)]).fingerprint()["annotations"]
        assert json.loads(json.dumps(entry)) == entry
        return entry

    calibrated = facts(several)
    assert calibrated["temperature"] == 2.5
    assert calibrated["threshold"] == {
        "labels": [0.35, 0.6, 0.5],
        "languages": {"de": [0.65, 0.6, 0.5], "fr": [0.2, 0.2, 0.2]},
    }
    off = facts(several, temperature="1")
    assert "temperature" not in off
    assert off["threshold"] == 0.5
    copy = shutil.copytree(several, tmp_path / "copy")
    save_calibration(copy, None)
    assert facts(copy) == off
    save_calibration(copy, HeadCalibration("sigmoid", 2.5))
    assert facts(copy) not in (off, calibrated)


def test_a_head_for_one_label_knows_no_language(single):
    checkpoint = Checkpoint.open(str(single))
    assert checkpoint.calibration == HeadCalibration("softmax", 3.0)
    (annotation,) = GraphPlan.resolve([Request("t", str(single))]).annotations
    assert not annotation.task.reading.language


VECTORS = st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32))


@settings(max_examples=50, deadline=None)
@given(VECTORS, st.dictionaries(st.text(max_size=3), VECTORS, max_size=3), st.data())
def test_each_record_gets_the_row_of_its_language(of_label, of_language, data):
    known = st.sampled_from([*of_language, "none of them"])
    languages = data.draw(st.lists(st.none() | st.text(max_size=3) | known, max_size=10))
    found = Thresholds(of_label, of_language).of_records(languages)
    rows = np.broadcast_to(found, (len(languages), 2)).tolist()
    assert rows == [list(of_language.get(language, of_label)) for language in languages]
    assert Thresholds(of_label, of_language).of_records(None).tolist() == [list(of_label)]
