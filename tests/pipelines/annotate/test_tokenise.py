from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.annotate.rows import annotated_rows, parse_tasks, tokenise_rows
from pipelines.annotate.tokenise import tokenise_usable
from xlmr_core.graph import EncodedRecords, GraphPlan, ModelGraph, Preprocessor


class Panic(BaseException):
    """As pyo3's panics are: no Exception."""


class Fragile(Preprocessor):
    """Panics at "!"."""

    def __call__(self, texts: Sequence[str], *others: Sequence[str] | None) -> EncodedRecords:
        if any("!" in text for text in texts):
            raise Panic("with words of a user")
        return super().__call__(texts, *others)


@pytest.fixture(scope="module")
def plan(tasks: list[str]) -> GraphPlan:
    return GraphPlan.resolve(parse_tasks(tasks[:1]))


@given(texts=st.lists(st.sampled_from(["good", "also good", "bad!", ""]), max_size=6))
def test_a_text_that_makes_the_tokenizer_panic_spoils_only_itself(plan: GraphPlan, texts: list[str]):
    usable, encoded, problems = tokenise_usable(Fragile(plan), texts, None)
    good = [position for position, text in enumerate(texts) if "!" not in text]
    assert usable.tolist() == good
    assert sorted(problems) == [position for position in range(len(texts)) if position not in good]
    expected = Preprocessor(plan)([texts[position] for position in good])
    assert encoded.views[0].ids.tolist() == expected.views[0].ids.tolist()
    assert encoded.views[0].splits.tolist() == expected.views[0].splits.tolist()
    for problem in problems.values():
        assert (problem.code, problem.message) == ("tokenizer_error", "the tokenizer raised Panic on this record")


def test_a_tokenizer_that_fails_at_no_text_alone_is_an_error(plan: GraphPlan):
    class Crowded(Preprocessor):
        def __call__(self, texts: Sequence[str], *others: Sequence[str] | None) -> EncodedRecords:
            if len(texts) > 1:
                raise Panic
            return super().__call__(texts, *others)

    with pytest.raises(RuntimeError, match="none alone"):
        tokenise_usable(Crowded(plan), ["a", "b"], None)


def test_rows_of_a_dataset_have_the_same_protection(plan: GraphPlan):
    rows = tokenise_rows(Fragile(plan), pa.table({"text": [None, "good", "bad!", "good"]}), "text")
    done = annotated_rows(plan, rows, ModelGraph(plan)(rows.encoded)).to_pylist()
    assert [row["status"] for row in done] == ["failed", "ok", "failed", "ok"]
    assert done[2]["error"] == "tokenizer_error: the tokenizer raised Panic on this record"
