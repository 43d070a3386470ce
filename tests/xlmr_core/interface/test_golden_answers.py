"""`pipeline(...)` against what transformers 4.56.2 answered, call by call, on the same checkpoints (tests/golden)."""

import json
from collections import defaultdict

import pytest

from xlmr_core import pipeline
from xlmr_core.errors import TaskError
from xlmr_core.tokenization import Tokenizer


def asked(cases):
    """The cases by checkpoint and parameters, so that each graph is made once."""
    together = defaultdict(list)
    for case in cases:
        together[case["checkpoint"], json.dumps(case["parameters"], sort_keys=True)].append(case)
    return [(checkpoint, json.loads(parameters), found) for (checkpoint, parameters), found in together.items()]


def test_questions_are_answered_as_by_the_old_pipeline(golden, oracles, assert_same):
    loaded = {
        name: pipeline("question-answering", oracles[name]) for name in golden["checkpoints"] if "answers" in name
    }
    compared = 0
    for checkpoint, parameters, cases in asked(golden["question_answering"]):
        # That limit had no effect there.
        parameters.pop("max_question_len", None)
        questions = [case["question"] for case in cases]
        contexts = [golden["contexts"][case["context"]] for case in cases]
        found = loaded[checkpoint](question=questions, context=contexts, **parameters)
        # Of a list of one the answer comes bare, there as here.
        for one, case in zip([found] if len(cases) == 1 else found, cases, strict=True):
            answers = case["answers"]
            assert_same(one, answers[0] if len(answers) == 1 else answers)
            compared += 1
    assert compared == len(golden["question_answering"]) > 20


def test_masks_are_filled_as_by_the_old_pipeline(golden, oracles, assert_same):
    loaded = pipeline("fill-mask", oracles["words"])
    vocabulary = Tokenizer.load(oracles["words"])
    compared = 0
    for _, parameters, cases in asked(golden["fill_mask"]):
        targets = parameters.get("targets", [])
        if any(vocabulary.token_id(one) is None for one in ([targets] if isinstance(targets, str) else targets)):
            # The old pipeline takes the first piece of such a target; here it is refused.
            with pytest.raises(TaskError, match="a mask stands for one"):
                loaded(cases[0]["text"], **parameters)
            continue
        for case in cases:
            assert_same(loaded(case["text"], **parameters), case["returns"])
            compared += 1
    assert compared > 20


def test_labels_are_chosen_as_by_the_old_pipeline(golden, oracles, assert_same):
    loaded = {name: pipeline("zero-shot-classification", oracles[name]) for name in oracles if "inference" in name}
    compared = 0
    for checkpoint, parameters, cases in asked(golden["zero_shot_classification"]):
        tokenizer = Tokenizer.load(oracles[checkpoint])
        hypotheses = [parameters["hypothesis_template"].format(label) for label in parameters["candidate_labels"]]
        room = 64 - 4 - max(tokenizer.encode(hypotheses).lengths)
        for case in cases:
            texts = case["text"] if isinstance(case["text"], list) else [case["text"]]
            expected = case["returns"] if isinstance(case["returns"], list) else [case["returns"]]
            # The old pipeline cuts longer ones; here they are read in windows.
            for text, answer in zip(texts, expected, strict=True):
                if tokenizer.encode([text]).lengths[0] <= room:
                    assert_same(loaded[checkpoint](text, **parameters), answer)
                    compared += 1
    assert compared > 8
