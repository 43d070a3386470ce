import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.ask import run_task, show, split_words
from pipelines.config import ConfigError


@pytest.fixture(scope="module")
def reader(make_checkpoint: Callable[..., Path]) -> str:
    return str(make_checkpoint("XLMRobertaForQuestionAnswering", seed=3))


def ask(task: str, model: str, words: list[str], lines: list[str], monkeypatch, capsys) -> tuple[bool, list[dict]]:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    fine = run_task([task], model, words, dtype=None, device=None, as_json=True)
    return fine, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_word_is_a_parameter_only_where_the_task_knows_its_name():
    assert split_words("fill-mask", ["top_k=3", "a=b <mask>"]) == (["a=b <mask>"], {"top_k": "3"})
    with pytest.raises(ConfigError, match="got 2 texts"):
        split_words("fill-mask", ["one", "two"])


def test_a_misspelt_parameter_is_named_and_not_taken_for_a_text():
    with pytest.raises(ConfigError, match=r"topk is no option of fill-mask, known are max_length, stride, .*top_k"):
        split_words("fill-mask", ["one <mask>", "topk=1"])
    with pytest.raises(ConfigError, match="topk is no option of question-answering"):
        split_words("question-answering", ["question=Who?", "context=Ada.", "topk=1"])
    # Alone it may be a text.
    assert split_words("fill-mask", ["topk=<mask>"]) == (["topk=<mask>"], {})


def test_one_question_is_asked_of_every_line(reader: str, monkeypatch, capsys):
    contexts, question = ["Anna liest ein Buch.", "Ada wrote the first program."], "Who?"
    fine, found = ask("question-answering", reader, [f"question={question}"], contexts, monkeypatch, capsys)
    assert fine
    for line, context in zip(found, contexts, strict=True):
        _, (alone,) = ask(
            "question-answering", reader, [f"question={question}", f"context={context}"], [], monkeypatch, capsys
        )
        assert line["answer"] == alone
        assert context[alone["start"] : alone["end"]] == alone["answer"]


def test_a_line_that_cannot_be_answered_spoils_only_itself(reader: str, monkeypatch, capsys):
    good = json.dumps({"question": "Who?", "context": "Ada wrote the first program."})
    fine, (first, second, third) = ask("question-answering", reader, [], [good, "{", good], monkeypatch, capsys)
    assert not fine
    assert first == third
    assert "answer" in first
    assert "error" in second


def test_a_table_shows_brackets_of_a_text_as_they_are():
    out = io.StringIO()
    show([{"answer": "[/b] and [red]this[/red]"}], Console(file=out))
    assert "[/b] and [red]this[/red]" in out.getvalue()


def test_a_text_gives_a_terminal_no_orders():
    out, answer = io.StringIO(), {"answer": "\x1b[2J\x9b\r\x7fÅ 世 أ", "labels": ["\x1b]0;title\x07"]}
    show([answer], Console(file=out, force_terminal=True, width=200, color_system=None))
    shown = out.getvalue()
    assert not set(shown) & {"\x1b", "\x9b", "\r", "\x7f", "\x07"}
    assert r"\x1b[2J\x9b\x0d\x7fÅ 世 أ" in shown


def test_json_holds_the_exact_text(reader: str, monkeypatch, capsys):
    context = "\x1b[2J\x9b"
    words = ["question=Who?", f"context={context}", "max_answer_len=60"]
    _, (found,) = ask("question-answering", reader, words, [], monkeypatch, capsys)
    assert found["answer"] == context[found["start"] : found["end"]]
    assert "\x1b" in found["answer"]
