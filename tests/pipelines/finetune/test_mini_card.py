import re
from pathlib import Path

import pytest

import pipelines.finetune.mini_card
from pipelines.finetune.mini_card import render

TOLD = {"eng_Latn": {"accuracy": 1.0, "total": 1.0}, "deu_Latn": {"accuracy": 0.5, "total": 2.0}}
PAIRS = [["deu_Latn", "deu_Latn", 1], ["deu_Latn", "eng_Latn", 1], ["eng_Latn", "eng_Latn", 1]]
FIGURES = {
    "language": dict.fromkeys(("held_out", "ntrex", "sib200"), TOLD),
    "language_codes": dict.fromkeys(("held_out", "ntrex", "sib200"), PAIRS),
    "short": {"1": 0.5},
    "topic": {"held_out": {"eng_Latn": {"accuracy": 0.75}}, "sib200": {"eng_Latn": {"accuracy": 0.5}}},
    "pos": {"held_out": {"eng_Latn": {"accuracy": 0.9}}},
    "entities": {"held_out": {"eng_Latn": {"micro_f1": 0.6}, "deu_Latn": {"micro_f1": 0.4}}},
    "retrieval": {"deu": {"forward": 0.25, "backward": 0.125}},
}
BASELINES = {
    "language": {
        "codes": {"eng_Latn": "en", "deu_Latn": "de"},
        "tools": {"langid": {"held_out": {"deu_Latn": [0, 2]}}},
    },
    "topic": {"majority": {"eng_Latn": {"accuracy": 0.25}}, "n-grams": {"eng_Latn": {"accuracy": 0.5}}},
    "transfer": {
        "majority": {"eng_Latn": {"accuracy": 0.25}, "fra_Latn": {"accuracy": 0.25}},
        "n-grams": {"eng_Latn": {"accuracy": 0.7}, "fra_Latn": {"accuracy": 0.4}},
    },
}
TRANSFER = {"results": [{"languages": {"eng_Latn": {"accuracy": 0.8}, "fra_Latn": {"accuracy": 0.6}}}]}
RUNS = {"pretrain_steps": "10", "pretrain_rate": "1", "pretrain_tokens": "5", "heads_steps": "2", "heads_rate": "1"}


@pytest.fixture(scope="module")
def words() -> str:
    return (Path(pipelines.finetune.mini_card.__file__).parent / "mini_card.md").read_text(encoding="utf-8")


def test_the_card_has_a_figure_for_every_place(words):
    card = render(words, FIGURES, BASELINES, FIGURES, TRANSFER, RUNS)
    assert not re.search(r"\{\w+\}", card)
    assert (
        "| held-out part of the training files (same sources as in training) | 3 | 2 | 66.7 % | 75.0 % | 66.7 % |"
        in card
    )
    assert "deu_Latn as eng_Latn 1 of 2" in card


def test_a_tool_is_compared_on_its_own_languages_only(words):
    card = render("{tools}", FIGURES, BASELINES, {}, {}, {})
    assert "| held_out | langid | 1 | 2 | 0.0 % | 50.0 % |" in card


def test_heads_stand_beside_their_baselines():
    card = render("{heads}", FIGURES, BASELINES, {}, {}, {})
    assert "| `topic` | held-out sentences of SIB-200 | 1 | right | 75.0 % | 25.0 % | 50.0 % |" in card
    assert "| 2 | F1 | 50.0 % |  |  |" in card


def test_transfer_is_the_mean_of_the_other_languages():
    card = render("{transfer}", FIGURES, BASELINES, {}, TRANSFER, {})
    assert "| mini, fine-tuned | 80.0 % | 60.0 % | 1 |" in card
    assert "| n-gram regression | 70.0 % | 40.0 % | 1 |" in card


def test_a_card_without_comparisons_is_a_card(words):
    assert not re.search(r"\{\w+\}", render(words, FIGURES, {}, {}, {}, RUNS))
