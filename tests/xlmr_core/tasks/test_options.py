from dataclasses import dataclass
from typing import Literal

import pytest

from xlmr_core.errors import TaskError
from xlmr_core.tasks.options import parse_options


@dataclass(frozen=True)
class Options:
    labels: tuple[str, ...] | None = None
    merge: Literal["mean", "max"] = "mean"
    threshold: float = 0.5
    max_length: int | None = None
    scores: bool = False
    activation: Literal["sigmoid", "none"] | None = None
    pooling: tuple[Literal["mean", "cls"], ...] | None = None


def test_every_kind_of_value_is_read():
    raw = {"labels": "a|b c", "merge": "max", "threshold": "0.25", "max_length": "128", "scores": "true"}
    assert parse_options(Options, raw, where="task t") == Options(("a", "b c"), "max", 0.25, 128, True)


def test_all_problems_are_reported_at_once_with_a_way_out():
    with pytest.raises(TaskError) as error:
        parse_options(Options, {"merg": "max", "threshold": "high", "scores": "maybe"}, where="task t")
    message = str(error.value)
    assert "did you mean 'merge'" in message
    assert "threshold='high', it must be a number" in message
    assert "scores='maybe', it must be true or false" in message


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        ({"activation": "foo"}, "activation='foo', it must be one of sigmoid, none"),
        ({"activation": 3}, "activation=3, it must be a text"),
        ({"pooling": "mean|foo"}, "it must be one of mean, cls"),
        ({"pooling": ["mean", "foo"]}, "it must be one of mean, cls"),
        ({"pooling": ["mean", 3]}, "it must be a list of texts"),
    ],
)
def test_one_of_several_words_is_checked_where_it_may_be_left_out(raw, match):
    with pytest.raises(TaskError, match=match):
        parse_options(Options, raw, where="task t")
    assert parse_options(Options, {"activation": "none", "pooling": ["cls"]}, where="task t").pooling == ("cls",)
