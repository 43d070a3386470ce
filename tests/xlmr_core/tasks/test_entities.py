"""Entities against transformers' own aggregation code, fed with the same scores."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

from xlmr_core.tasks.entities import TagScheme, aggregate

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
IOB1 = ("O", "I-PER", "I-LOC", "B-LOC")
BARE = ("O", "PER", "LOC")


def reference(scores_NC, offsets, starts_word, labels, strategy):
    """What transformers makes of the same tokens of one text."""
    pipeline = object.__new__(TokenClassificationPipeline)
    pipeline.model = SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(labels))))
    pipeline.tokenizer = SimpleNamespace(convert_tokens_to_string=" ".join)
    tokens = [
        {
            "word": "x",
            "scores": scores,
            "start": int(start),
            "end": int(end),
            "index": i,
            "is_subword": not starts,
        }
        for i, (scores, (start, end), starts) in enumerate(zip(scores_NC, offsets, starts_word, strict=True))
    ]
    found = pipeline.aggregate(tokens, AggregationStrategy(strategy)) if tokens else []
    found = [(e.get("entity_group", e.get("entity")), e["start"], e["end"], float(e["score"])) for e in found]
    return [entity for entity in found if entity[0] != "O"]


def ours(entities, record):
    rows = range(entities.splits[record], entities.splits[record + 1])
    return [
        (entities.names[entities.codes[i]], entities.start[i], entities.end[i], float(entities.score[i])) for i in rows
    ]


@st.composite
def tagged_records(draw):
    labels = draw(st.sampled_from([BIO, IOB1, BARE]))
    sizes = draw(st.lists(st.integers(0, 8), min_size=1, max_size=5))
    total = sum(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few distinct values make ties likely, and ties are where implementations part.
    logits = rng.integers(0, 3, (total, len(labels))).astype(np.float32)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    starts = rng.random(total) < 0.5
    splits = np.concatenate([[0], np.cumsum(sizes)])
    ends = np.cumsum(rng.integers(1, 4, total))
    offsets = np.stack([ends - 1, ends], axis=1) if total else np.zeros((0, 2), int)
    return labels, splits, scores, offsets, starts


@settings(max_examples=150, deadline=None)
@given(data=tagged_records(), strategy=st.sampled_from(["none", "simple", "first", "average", "max"]))
def test_entities_equal_transformers_for_every_strategy(data, strategy):
    labels, splits, scores, offsets, starts = data
    scheme = TagScheme.of_labels(labels, ignore=("O",))
    found = aggregate(scores, splits, offsets, starts, labels, scheme, strategy)
    for record in range(len(splits) - 1):
        part = slice(splits[record], splits[record + 1])
        expected = reference(scores[part], offsets[part], starts[part], labels, strategy)
        got = ours(found, record)
        assert [e[:3] for e in got] == [e[:3] for e in expected]
        np.testing.assert_allclose([e[3] for e in got], [e[3] for e in expected], rtol=0, atol=1e-6)


def tag(labels, path, ignore=("O",)):
    """Entities as (type, first token, last token) when the model is certain of `path`."""
    scores = np.eye(len(labels), dtype=np.float32)[[labels.index(label) for label in path]]
    offsets = np.stack([np.arange(len(path)), np.arange(len(path)) + 1], axis=1)
    scheme = TagScheme.of_labels(labels, ignore)
    entities = aggregate(scores, np.array([0, len(path)]), offsets, np.ones(len(path), bool), labels, scheme, "simple")
    return [(name, start, end - 1) for name, start, end, _ in ours(entities, 0)]


@pytest.mark.parametrize(
    ("labels", "path", "expected"),
    [
        (
            ("O", "B-P", "I-P", "E-P", "S-P"),
            ["B-P", "I-P", "E-P", "S-P", "S-P"],
            [("P", 0, 2), ("P", 3, 3), ("P", 4, 4)],
        ),
        (
            ("O", "B-P", "I-P", "L-P", "U-P"),
            ["U-P", "B-P", "L-P", "O", "U-P"],
            [("P", 0, 0), ("P", 1, 2), ("P", 4, 4)],
        ),
        (("O", "I-P", "B-P"), ["I-P", "I-P", "B-P"], [("P", 0, 1), ("P", 2, 2)]),
        (("O", "B_P", "I_P"), ["B_P", "I_P", "O"], [("P", 0, 1)]),
        (("O", "PER"), ["PER", "PER", "O", "PER"], [("PER", 0, 1), ("PER", 3, 3)]),
    ],
    ids=["BIOES", "BILOU", "IOB1", "underscore", "bare"],
)
def test_tag_schemes_give_the_entities_their_definition_gives(labels, path, expected):
    assert tag(labels, path) == expected


def test_the_outside_label_may_have_any_name():
    # oliverguhr/fullstop-punctuation-multilang-large marks "no punctuation" with "0".
    assert tag(("0", ".", ","), ["0", ".", "0", ","], ignore=("0",)) == [(".", 1, 1), (",", 3, 3)]


def test_an_entity_never_crosses_records():
    scores = np.eye(3, dtype=np.float32)[[1, 1, 1, 1]]
    offsets = np.array([[0, 1], [1, 2], [0, 1], [1, 2]])
    scheme = TagScheme.of_labels(BARE, ("O",))
    entities = aggregate(scores, np.array([0, 2, 2, 4]), offsets, np.ones(4, bool), BARE, scheme, "simple")
    assert entities.splits.tolist() == [0, 1, 1, 2]
