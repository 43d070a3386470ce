"""`evaluation.html`: names and labels stay text, nothing is fetched or run, and it fits in light and dark."""

import re

import numpy as np
import pytest

from pipelines.evaluate.page import render
from pipelines.evaluate.results import Evaluation, Result
from pipelines.evaluate.scores import Scores
from pipelines.examples import ExampleSummary
from xlmr_core.metrics import Classification, EntityScores, Perplexity

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=//x.example/i.png onerror=alert(2)>",
    "&amp;\x00\x1b[31m\ud800",
    "א\u202eב",
]


def evaluation(scores, names=("first",), *, task="sequence-classification", unknown=None):
    languages = dict.fromkeys(sorted({name for of in scores for name in of.by_language}), 40)
    summary = ExampleSummary(40 * len(languages), {"null": 2}, {}, {}, {}, {}, {}, languages, ())
    results = [Result(name, name, found, unknown or {}) for name, found in zip(names, scores, strict=True)]
    return Evaluation(task, summary, tuple(results))


def classified(labels, languages, seed):
    rng, scores = np.random.default_rng(seed), Scores(shown=("accuracy", "macro_f1"), unread={"model_error": 3})
    for language in languages:
        counts = scores.by_language[language] = Classification()
        gold = [labels[k] for k in rng.integers(0, len(labels), 40)]
        counts.add(gold, [label if rng.random() < 0.8 else labels[0] for label in gold])
    return scores


def hostile():
    labels, languages = [*HOSTILE, "w" * 300, ""], [*HOSTILE, "語" * 60, ""]
    scores = [classified(labels, languages, seed) for seed in range(5)]
    return evaluation(scores, [*HOSTILE, "m" * 200], unknown={HOSTILE[0]: 2})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "evaluation.html"
    path.write_text(render(hostile()), encoding="utf-8")
    return path


def test_hostile_names_stay_text_and_nothing_is_referred_to():
    page = render(hostile())
    assert not re.search("<(script|img|a|link|iframe)[ >]", page)
    assert not re.search(r' (src|href|style|on\w+)="?', re.sub(r"<(title|desc)>.*?</\1>|>[^<]*<", "><", page))
    assert not re.search("[\x00\x1b\ud800]", page)
    page.encode()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fetches_nothing_runs_nothing_and_fits(browser, page, width, theme):
    browser.open(page, width=width, theme=theme)
    assert [request["request"]["url"] for request in browser.of("Network.requestWillBeSent")] == [page.as_uri()]
    assert browser.of("Log.entryAdded") == []
    assert browser.of("Runtime.consoleAPICalled") == []
    fits = "document.documentElement.scrollWidth == document.documentElement.clientWidth"
    assert browser.evaluate(f"{fits} && innerWidth") == width


def test_what_is_shown_is_what_was_counted():
    scores = [classified(["a", "b"], ["de", "fr"], seed) for seed in (0, 1)]
    page = render(evaluation(scores, ("one", "two")))
    for found in scores:
        assert f"{found.measures()['de']['accuracy']:.3f}" in page
    assert "two − one" in page
    assert "Confusions, one" in page
    assert "3 records count as wrong, the model cannot read them: model_error" in page
    assert "2 records were left out, they cannot be used: null" in page
    confusions = scores[0].confusions()
    assert f"b as a: {confusions['b', 'a']:,}" in page


def test_one_language_many_labels_and_no_labels_have_a_page():
    many = evaluation([classified([f"l{n}" for n in range(100)], ["de"], 0)])
    assert "by language" not in render(many)
    assert "Most frequent confusions" in render(many)
    assert 'class="matrix"' not in render(many)
    texts = Scores({"de": Perplexity(), "fr": Perplexity()}, shown=("bits_per_character", "perplexity"))
    texts.by_language["de"].add_texts([5.0], [3], ["abc"])
    page = render(evaluation([texts], task="fill-mask"))
    assert "Lower is better" in page
    assert "Confusions" not in page
    entities = Scores({"de": EntityScores(), "fr": EntityScores()}, shown=("micro_f1", "macro_f1"))
    entities.by_language["de"].add([[(0, 1, "PER")]], [[(0, 1, "PER")]])
    page = render(evaluation([entities], task="token-classification"))
    assert "PER" in page
    assert "Confusions" not in page
