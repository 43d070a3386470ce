import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.annotate.commit import Commit
from pipelines.annotate.rows import parse_tasks
from pipelines.annotate.schema import data_schema
from pipelines.annotate.statistics import (
    _MOST_LANGUAGES,
    LENGTH_EDGES,
    SCORE_EDGES,
    Totals,
    add_counts,
    count_shard,
    histogram,
)
from xlmr_core.graph import GraphPlan

LANGUAGES = ["de", "en_US", "zho-Hans", "a user's words", "", None]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.just("id"),
            "status": st.sampled_from(["ok", "truncated", "empty"]),
            "n_tokens": st.integers(0, 2_000_000),
            "n_tokens_used": st.just(0),
            "n_windows": st.integers(0, 3),
            "topic_label": st.sampled_from(["a", "b", "c", None, "some words of a text"]),
            "topic_score": st.none() | st.floats(width=32),
            "names_entities": st.none()
            | st.lists(
                st.fixed_dictionaries(
                    {
                        "label": st.sampled_from(["X", "Y", "some words of a text"]),
                        "start": st.just(0),
                        "end": st.just(1),
                        "score": st.floats(0, 1, width=32),
                    }
                ),
                max_size=3,
            ),
            "vector": st.just([0.5] * 32),
            "lang": st.sampled_from(LANGUAGES),
        }
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def plan(tasks: list[str]) -> GraphPlan:
    return GraphPlan.resolve(parse_tasks(tasks))


def table(plan: GraphPlan, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, data_schema(plan, pa.string(), pa.schema([("lang", pa.string())]), "f"))


@settings(max_examples=40)
@given(ROWS, st.lists(st.integers(0, 30)), st.lists(st.sampled_from(LANGUAGES), max_size=5))
def test_counts_of_shards_add_up_to_those_of_the_whole(
    plan: GraphPlan, rows: list[dict[str, Any]], cuts: list[int], aside: list[str | None]
):
    set_aside = pa.table({"lang": pa.array(aside, pa.string())})
    whole = count_shard(plan, table(plan, rows), set_aside)
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts: dict[str, Any] = {}
    add_counts(parts, count_shard(plan, table(plan, []), set_aside))
    for start, stop in pairwise(bounds):
        # By way of JSON, as commit records go.
        add_counts(parts, json.loads(json.dumps(count_shard(plan, table(plan, rows[start:stop])))))
    assert parts == whole
    assert "words" not in json.dumps(whole)
    assert sum(whole["lengths"].values()) == len(rows)
    assert sum(entry.get("rows", 0) for entry in whole["languages"]["lang"].values()) == len(rows)
    assert sum(entry.get("quarantined", 0) for entry in whole["languages"]["lang"].values()) == len(aside)
    scores = whole["columns"]["topic_score"]
    given_scores = [row["topic_score"] for row in rows if row["topic_score"] is not None]
    assert sum(scores["scores"].values()) + scores["not_finite"] == len(given_scores)
    labels = whole["columns"]["topic_label"]
    assert labels["labels"].keys() <= set("abc")
    assert labels["others"] == sum(row["topic_label"] == "some words of a text" for row in rows)


@given(st.lists(st.floats(allow_nan=False)), st.sampled_from([LENGTH_EDGES, SCORE_EDGES]))
def test_every_value_is_in_the_bin_whose_edges_hold_it(values: list[float], edges: np.ndarray):
    open_edges = [-np.inf, *edges, np.inf]
    expected: dict[str, int] = {}
    for value in values:
        key = next(k for k in range(len(edges) + 1) if value <= open_edges[k + 1])
        assert open_edges[key] < value or value == -np.inf
        expected[str(key)] = expected.get(str(key), 0) + 1
    assert histogram(np.array(values), edges) == expected


def test_limits_of_windows_and_twentieths_are_edges():
    assert {64, 128, 512, 8192} <= set(LENGTH_EDGES)
    assert {0.05, 0.5, 1.0, -1.0} <= set(SCORE_EDGES.round(12))
    assert (np.diff(LENGTH_EDGES) > 0).all()
    assert (np.diff(SCORE_EDGES) > 0).all()
    assert ((SCORE_EDGES > 0) & (SCORE_EDGES <= 1)).sum() == 20


def test_a_score_of_zero_counts_among_the_small_ones(plan: GraphPlan):
    row = {"id": "i", "status": "ok", "n_tokens": 3, "n_tokens_used": 3, "n_windows": 1, "topic_score": 0.0}
    counts = count_shard(plan, table(plan, [row]))["columns"]["topic_score"]
    (key,) = counts["scores"]
    assert SCORE_EDGES[int(key) - 1] == 0


def test_kept_bytes_that_are_no_text_and_other_types_are_no_language(plan: GraphPlan):
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    row = {"id": "i", "status": "ok", "n_tokens": 3, "n_tokens_used": 3, "n_windows": 1}
    for column, expected in (
        (broken, {"?"}),
        (pa.array([7]), {""}),
        (pa.array(["de"], pa.large_string()), {"de"}),
        (pa.array(["de"]).dictionary_encode(), {"de"}),
    ):
        data = table(plan, [row]).drop_columns(["lang"]).append_column("meta.Lang", column)
        assert set(count_shard(plan, data)["languages"]["meta.Lang"]) == expected


def test_a_language_head_tells_the_language_and_one_of_moods_does_not(make_checkpoint: Callable[..., Path]):
    row = {"id": "i", "status": "ok", "n_tokens": 3, "n_tokens_used": 3, "n_windows": 1}
    codes = make_checkpoint("XLMRobertaForSequenceClassification", labels=["de", "en", "fr"])
    moods = make_checkpoint("XLMRobertaForSequenceClassification", labels=["neg", "neu", "pos"])
    for task, label, expected in (
        (f"lang={codes}", "lang_label", ["lang_label"]),
        (f"mood={moods}", "mood_label", []),
        (f"language={moods}", "language_label", ["language_label"]),
    ):
        plan = GraphPlan.resolve(parse_tasks([task]))
        data = pa.Table.from_pylist([row | {label: "de"}], data_schema(plan, pa.string(), pa.schema([]), "f"))
        counts = count_shard(plan, data, pa.table({"row": [1, 2]}))
        assert list(counts.get("languages", {})) == expected
        for found in counts.get("languages", {}).values():
            assert found[""] == {"quarantined": 2}


def test_totals_stay_small_whatever_the_languages():
    totals = Totals()
    for shard in range(10):
        codes = {f"{chr(97 + shard)}a-{number:04d}": {"rows": 1} for number in range(400)}
        stats = {"counts": {"languages": {"lang": codes}}, "lease": "a", "ended": 1e9, "busy_s": 1, "encoder_tokens": 1}
        totals.add(Commit(shard, 400, 400, 0, {"ok": 400}, 0, "0", "0", (), "", stats))
    languages = totals.counts["languages"]["lang"]
    assert len(languages) <= _MOST_LANGUAGES + 1
    assert sum(entry["rows"] for entry in languages.values()) == 4_000


def test_labels_of_zero_shot_are_counted_by_name(make_checkpoint: Callable[..., Path]):
    nli = make_checkpoint("XLMRobertaForSequenceClassification", labels=["contradiction", "neutral", "entailment"])
    plan = GraphPlan.resolve(parse_tasks([f"about={nli},task=zero-shot-classification,candidate_labels=sport|garden"]))
    row = {"id": "i", "status": "ok", "n_tokens": 3, "n_tokens_used": 3, "n_windows": 1, "about_label": "garden"}
    schema = data_schema(plan, pa.string(), pa.schema([]), "f")
    assert json.loads(schema.metadata[b"xlmr.annotations"])["about"]["labels"] == ["sport", "garden"]
    counts = count_shard(plan, pa.Table.from_pylist([row], schema))["columns"]["about_label"]
    assert counts == {"labels": {"garden": 1}, "others": 0}
