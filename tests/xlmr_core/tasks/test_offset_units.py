"""Answers and masks in bytes of UTF-8 and in units of UTF-16: the same places as in code points."""

import pytest

from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.tasks.columns import to_list

CODECS = {"utf8": ("utf-8", 1), "utf16": ("utf-16-le", 2)}


def found_in_every_unit(directory, texts, questions, **options):
    """What is found in each text, by unit; one plan."""
    requests = [Request(unit, str(directory), {**options, "offsets": unit}) for unit in ("codepoint", *CODECS)]
    plan = GraphPlan.resolve(requests, pairs=questions is not None)
    assert [annotation["offsets"] for annotation in plan.fingerprint()["annotations"]] == ["codepoint", *CODECS]
    columns = ModelGraph(plan)(Preprocessor(plan)(texts, questions)).columns
    return {name.split("_")[0]: to_list(column) for name, column in columns.items()}


def assert_same_places(texts, found):
    """Everything but the spans is equal, and a span cuts the same characters out of the encoded text."""
    compared = 0
    for unit, (codec, size) in CODECS.items():
        for text, ours, theirs in zip(texts, found[unit], found["codepoint"], strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert one | {"start": 0, "end": 0} == other | {"start": 0, "end": 0}
                cut = text.encode(codec)[one["start"] * size : one["end"] * size]
                assert cut == text[other["start"] : other["end"]].encode(codec)
                compared += bool(cut)
    assert compared > 100


@pytest.mark.parametrize("options", [{}, {"align_to_words": False}], ids=["words", "tokens"])
def test_answers_count_what_was_asked_for(make_checkpoint, sample_texts, options):
    # Equal answers in other letters are joined, whatever is counted.
    texts = [f"\U0001f419 {text} {text.upper()}" for text in sample_texts if text.strip()][::7]
    reader = make_checkpoint("XLMRobertaForQuestionAnswering", seed=5)
    options |= {"task": "question-answering", "top_k": 4}
    assert_same_places(texts, found_in_every_unit(reader, texts, [["Wer? 谁?"]] * len(texts), **options))


def test_masks_count_what_was_asked_for(make_checkpoint, sample_texts):
    texts = [f"\U0001f419 {text[:20]} <mask> {text[20:30]}" for text in sample_texts if text.strip()]
    masked = make_checkpoint("XLMRobertaForMaskedLM", seed=3)
    assert_same_places(texts, found_in_every_unit(masked, texts, None, task="fill-mask"))
