"""`xlmr doctor`: exit codes, a table for people, JSON for programs."""

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app


def doctor(*words):
    return CliRunner().invoke(app, ["doctor", *map(str, words)])


def test_a_sound_model_gives_0_and_a_table():
    result = doctor("mini#language")
    assert result.exit_code == 0
    for part in ("xlm-roberta", "xlmr.json", "Unigram", "244", "sound"):
        assert part in result.stdout


def test_json_is_for_programs():
    content = json.loads(doctor("mini", "--json").stdout)
    assert (content["sound"], content["is_model"]) == (True, True)
    assert {"topic": "family", "level": "fact", "says": "xlm-roberta", "source": "config.json", "settle": None} in (
        content["findings"]
    )


def test_something_wrong_gives_1_and_says_all_of_it(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForMaskedLM")
    (directory / "tokenizer.json").write_text("{")
    (directory / "xlmr.json").write_text('{"task": "\x1b[2J"}'.replace("\x1b", "\\u001b"))
    result = doctor(directory)
    assert result.exit_code == 1
    assert "errors: 2" in result.stdout
    assert "\x1b[2J" not in result.stdout


@pytest.mark.parametrize("model", ["./nowhere", "/tmp"])
def test_what_is_no_model_gives_2(model):
    assert doctor(model).exit_code == 2
