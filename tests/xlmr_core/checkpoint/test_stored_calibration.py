"""What `xlmr.json` says of temperature and thresholds: read strictly, written at once, nothing to transformers."""

import json
import math
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.checkpoint import Checkpoint, HeadCalibration, TrainedHead, save_calibration, write_model_directory
from xlmr_core.checkpoint.diagnosis import diagnose
from xlmr_core.errors import CheckpointError

QUICK = settings(max_examples=50, deadline=None)
LABELS = ("sport", "politics", "a label")
THRESHOLDS = st.dictionaries(st.sampled_from(LABELS), st.floats(0, 1))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["activation", "temperature", "thresholds", "language_thresholds", "records", "sport"])


@pytest.fixture
def directory(make_checkpoint, tmp_path):
    made = make_checkpoint(
        "XLMRobertaForSequenceClassification", labels=list(LABELS), problem_type="multi_label_classification"
    )
    return shutil.copytree(made, tmp_path / "model")


def stored(directory, calibration, **others):
    (directory / "xlmr.json").write_text(json.dumps({"calibration": calibration, **others}))


@QUICK
@given(st.floats(0.01, 100), THRESHOLDS, st.dictionaries(st.text(), THRESHOLDS, max_size=3), st.none() | st.integers(1))
def test_what_is_written_is_read_again_to_the_last_bit(temperature, thresholds, by_language, records):
    calibration = HeadCalibration("sigmoid", temperature, thresholds, by_language, records)
    said = json.loads(json.dumps(calibration.to_settings()))
    assert HeadCalibration.from_settings(said, LABELS, source="xlmr.json") == calibration


@QUICK
@given(ANY_JSON | st.dictionaries(FIELDS, ANY_JSON | st.just("sigmoid") | st.dictionaries(FIELDS, ANY_JSON)))
def test_any_json_is_read_or_refused_by_name(content):
    try:
        read = HeadCalibration.from_settings(content, LABELS, source="xlmr.json")
    except CheckpointError as error:
        refused = str(error)
        assert refused.startswith("calibration in xlmr.json: ")  # most are refused, not all
        assert len(refused) < 4_000
    else:
        assert 0.01 <= read.temperature <= 100
        given = [read.thresholds, *read.language_thresholds.values()]
        assert all(0 <= score <= 1 and label in LABELS for own in given for label, score in own.items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (5, "it is 5, it must be an object"),
        ({"activation": "tanh"}, "activation is 'tanh', it must be softmax or sigmoid"),
        ({"activation": "sigmoid", "temperature": 0}, "temperature is 0, it must be a number from 0.01 to 100"),
        ({"activation": "sigmoid", "temperature": math.nan}, "temperature is nan"),
        ({"activation": "sigmoid", "temperature": True}, "temperature is True"),
        ({"activation": "sigmoid", "temperature": 10**400}, "temperature is 1000"),
        ({"activation": "sigmoid", "thresholds": {"sports": 0.5}}, "thresholds name 'sports', the head has no such"),
        ({"activation": "sigmoid", "thresholds": {"sport": 1.5}}, "'sport' has 1.5, it must be 0 to 1"),
        ({"activation": "sigmoid", "thresholds": [0.5]}, r"thresholds is \[0.5\], it must be an object of labels"),
        ({"activation": "sigmoid", "language_thresholds": {"de": {"x": 0.5}}}, "language_thresholds of 'de' name 'x'"),
        ({"activation": "softmax", "thresholds": {"sport": 0.5}}, "thresholds are for scores by sigmoid"),
        ({"activation": "sigmoid", "records": 0}, "records is 0"),
        ({"activation": "sigmoid", "temprature": 1}, "'temprature' is unknown, known are activation, temperature"),
    ],
)
def test_what_is_wrong_is_refused_by_open_and_told_by_doctor(directory, content, said):
    stored(directory, content)
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(str(directory))
    assert any("calibration in" in finding.says for finding in diagnose(str(directory)).errors)


def test_all_that_is_wrong_is_said_at_once(directory):
    stored(directory, {"activation": "sigmoid", "temperature": -1, "thresholds": {"x": 2}})
    with pytest.raises(CheckpointError, match=r"temperature is -1.*thresholds name 'x'.*'x' has 2.*run xlmr calibrate"):
        Checkpoint.open(str(directory))


def test_labels_that_do_not_fit_the_head_leave_no_thresholds(directory):
    config = json.loads((directory / "config.json").read_text())
    config["id2label"] = {"0": "sport"}
    (directory / "config.json").write_text(json.dumps(config))
    Checkpoint.open(str(directory))
    stored(directory, {"activation": "sigmoid"})
    with pytest.raises(CheckpointError, match="id2label has 1 names, the head has 3 outputs"):
        Checkpoint.open(str(directory))


def test_doctor_tells_what_was_fitted(directory):
    by_language = {"de": {"sport": 0.25}}
    save_calibration(directory, HeadCalibration("sigmoid", 1.7, dict.fromkeys(LABELS, 0.4), by_language, 1204))
    (said,) = [finding.says for finding in diagnose(str(directory)).findings if finding.topic == "calibration"]
    for part in ("temperature 1.7 before sigmoid", "3 labels from 0.400", "1 languages", "1,204 records"):
        assert part in said


def test_everything_else_stays_as_it_is(directory):
    import transformers

    def logits():
        model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
        with torch.no_grad():
            return model(torch.tensor([[0, 5, 6, 2]])).logits

    before = logits()
    (directory / "xlmr.json").write_text(json.dumps({"max_length": 32, "note": "Köln"}))
    (directory / "xlmr.json").chmod(0o640)
    file = save_calibration(directory, HeadCalibration("sigmoid", 2.0))
    assert json.loads(file.read_text()) == {
        "max_length": 32,
        "note": "Köln",
        "calibration": {"activation": "sigmoid", "temperature": 2.0},
    }
    assert file.stat().st_mode & 0o777 == 0o640
    assert Checkpoint.open(str(directory)).calibration == HeadCalibration("sigmoid", 2.0)
    torch.testing.assert_close(logits(), before, rtol=0, atol=0)
    save_calibration(directory, None)
    assert json.loads(file.read_text()) == {"max_length": 32, "note": "Köln"}


def test_a_write_that_fails_leaves_the_file_as_it_was(directory, monkeypatch):
    stored(directory, {"activation": "sigmoid", "temperature": 3.0}, max_length=32)
    before = (directory / "xlmr.json").read_bytes(), sorted(path.name for path in directory.iterdir())

    def fail(*_):
        raise OSError("no space left on device")

    for action in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, action, fail)
            with pytest.raises(OSError, match="no space"):
                save_calibration(directory, HeadCalibration("sigmoid", 2.0))
        assert ((directory / "xlmr.json").read_bytes(), sorted(path.name for path in directory.iterdir())) == before


def test_each_of_several_heads_has_its_own(directory, tmp_path):
    checkpoint = Checkpoint.open(str(directory))
    settings = {"calibration": HeadCalibration("softmax", 2.5).to_settings()}
    heads = {
        name: TrainedHead(checkpoint.load_head("sequence-classification"), ("a", "b", "c"), settings=own)
        for name, own in {"one": settings, "two": {}}.items()
    }
    write_model_directory(tmp_path / "both", checkpoint.load_encoder(), tokenizer=directory, heads=heads)
    one, two = (Checkpoint.open(f"{tmp_path / 'both'}#{name}") for name in heads)
    assert one.calibration == HeadCalibration("softmax", 2.5)
    assert two.calibration is None
    save_calibration(two.heads.directory, HeadCalibration("softmax", 0.5))
    assert Checkpoint.open(two.spec).calibration == HeadCalibration("softmax", 0.5)
    assert Checkpoint.open(one.spec).calibration == one.calibration
