"""Entities against transformers' own aggregation code, fed with the same scores, and against their text."""

import unicodedata
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

from xlmr_core.tasks.entities import TagScheme, aggregate
from xlmr_core.tokenization import Tokenizer
from xlmr_core.tokenization.encoding import bounds
from xlmr_core.tokenization.units import CodePoints, token_spans
from xlmr_core.tokenization.word_starts import word_starts

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


def clear_averages(scores, starts_word):
    """Whether every word of several tokens has one best label beyond rounding, float32 there and float64 here."""
    first = np.flatnonzero(np.append(True, starts_word[1:])) if len(scores) else []
    words = [word for word in np.split(scores.astype(np.float64), first[1:]) if len(word) > 1]
    means = [np.sort(word.mean(axis=0)) for word in words]
    return all(mean[-1] - mean[-2] > 1e-6 for mean in means)


@settings(max_examples=150, deadline=None)
@given(data=tagged_records(), strategy=st.sampled_from(["none", "simple", "first", "average", "max"]))
def test_entities_equal_transformers_for_every_strategy(data, strategy):
    labels, splits, scores, offsets, starts = data
    scheme = TagScheme.of_labels(labels, ignore=("O",))
    found = aggregate(scores, splits, offsets, starts, labels, scheme, strategy)
    for record in range(len(splits) - 1):
        part = slice(splits[record], splits[record + 1])
        if strategy == "average" and not clear_averages(scores[part], starts[part]):
            continue
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


STRATEGIES = ["none", "simple", "first", "average", "max"]
CODECS = {"utf8": ("utf-8", 1), "utf16": ("utf-16-le", 2)}


def owned_places(text, spans):
    """Which characters, blanks aside, each token owns; of several tokens that hold one, the last owns it.

    A mark that no token holds belongs to the owner of the letter before it.
    """
    owner = {place: token for token, (start, end) in enumerate(spans) for place in range(start, end)}
    for place, character in enumerate(text):
        mark = unicodedata.category(character)[0] == "M" or "\u1160" <= character < "\u1200"
        if mark and place not in owner and place - 1 in owner and not text[place - 1].isspace():
            owner[place] = owner[place - 1]
    places = [[] for _ in spans]
    for place, token in sorted(owner.items()):
        if not text[place].isspace():
            places[token].append(place)
    return places


def assert_exact(texts, tokenizer, strategy, seed):
    """Tags texts at random and holds every entity against its text."""
    tokens = tokenizer.encode(texts, offsets=True)
    characters = CodePoints.of(texts)
    starts = word_starts(characters, tokens, tokenizer.special.unk)
    scores = np.random.default_rng(seed).dirichlet(np.full(len(BIO), 0.3), len(tokens.ids)).astype(np.float32)
    scheme = TagScheme.of_labels(BIO, ("O",))

    def entities(offsets):
        return aggregate(scores, tokens.splits, offsets, starts, BIO, scheme, strategy)

    places = np.arange(len(tokens.ids))
    by_token = entities(np.stack([places, places + 1], axis=1))
    found = entities(token_spans(characters, tokens, "codepoint"))
    counted = {unit: entities(token_spans(characters, tokens, unit)) for unit in CODECS}
    for record, text in enumerate(texts):
        spans = tokens.offsets[tokens.splits[record] : tokens.splits[record + 1]].tolist()
        places, token = owned_places(text, spans), int(tokens.splits[record])
        expected = []
        for name, first, end, _ in ours(by_token, record):
            # Entities whose tokens own nothing of the text are none.
            if owned := list(chain.from_iterable(places[first - token : end - token])):
                expected.append((name, owned[0], owned[-1] + 1))
        got = ours(found, record)
        assert [(name, start, end) for name, start, end, _ in got] == expected
        edges = [edge for _, start, end, _ in got for edge in (start, end)]
        assert edges == sorted(edges)
        assert all(start < end for _, start, end, _ in got)
        for unit, (codec, size) in CODECS.items():
            slices = [text.encode(codec)[start * size : end * size] for _, start, end, _ in ours(counted[unit], record)]
            assert slices == [text[start:end].encode(codec) for _, start, end, _ in got]
    return len(found.start)


@pytest.fixture(scope="module")
def small(tokenizer_json):
    return Tokenizer.load(tokenizer_json.parent)


@pytest.fixture(scope="module")
def texts_of_languages(shared_data):
    """A paragraph in each of about a hundred languages."""
    paths = [*(shared_data / "raw/udhr").glob("*.txt"), *(shared_data / "parallel/ntrex").glob("???*.txt")]
    texts = {path.stem: path.read_text(encoding="utf-8").split("\n") for path in paths if path.stem != "document_ids"}
    assert len(texts) >= 99
    return [next(line for line in lines[3:] if len(line) > 20)[:400] for lines in texts.values()]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_are_pieces_of_their_text_in_every_language(small, texts_of_languages, sample_texts, strategy):
    assert assert_exact([*texts_of_languages, *sample_texts], small, strategy, seed=0) > 1000


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text("aB, \t\u3000\u200d\u0301我爱テｶﾞกัำ㍿ﷺ½ﬁ👩🏽é한", max_size=12), min_size=1, max_size=4),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 99),
)
def test_entities_are_pieces_of_any_text(small, texts, strategy, seed):
    assert_exact(texts, small, strategy, seed)


def test_an_entity_takes_the_blanks_of_no_token(small):
    # The mask token swallows the blanks before it in some tokenizers; so do tokens that begin with a marker.
    text = "a   <mask> b"
    tokens = small.encode([text], offsets=True)
    tokens.offsets[1] = (1, 10)
    exact = token_spans(CodePoints.of([text]), tokens, "codepoint")
    assert text[slice(*exact[1])] == "<mask>"


def test_what_tokens_share_belongs_to_the_last_of_them():
    # "▁" and "日本" both begin at the first character; "▁" alone owns nothing.
    offsets, starts = np.array([[0, 1], [0, 2], [2, 3]]), np.array([True, True, True])
    scores = np.eye(3, dtype=np.float32)[[2, 1, 0]]
    scheme = TagScheme.of_labels(BARE, ("O",))
    entities = aggregate(scores, bounds(np.array([3])), offsets, starts, BARE, scheme, "simple")
    assert ours(entities, 0) == [("PER", 0, 2, 1.0)]
