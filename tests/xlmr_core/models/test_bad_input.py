"""Calls that do not fit: one error of ours that names each argument, what was got and the rule."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import xlmr_core
from xlmr_core.errors import ArgumentError
from xlmr_core.models import PreTrainedModel

SHAPE = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 14,
    "num_labels": 3,
}
HEADS = (
    *("Model", "ForMaskedLM", "ForCausalLM", "ForSequenceClassification", "ForMultipleChoice"),
    *("ForTokenClassification", "ForQuestionAnswering"),
)


@pytest.fixture(scope="module")
def model_of() -> Callable[[str], PreTrainedModel]:
    """One tiny model of each class, 12 positions and three labels."""
    made: dict[str, PreTrainedModel] = {}

    def model(head: str) -> PreTrainedModel:
        if head not in made:
            torch.manual_seed(0)
            changes = {"num_labels": 2} if head == "ForQuestionAnswering" else {"is_decoder": "Causal" in head}
            config = xlmr_core.XLMRobertaConfig(**(SHAPE | changes))
            made[head] = getattr(xlmr_core, f"XLMRoberta{head}")(config).eval()
        made[head].config.problem_type = None
        return made[head]

    return model


def ids(*shape: int, value: int = 5) -> Tensor:
    return torch.full(shape, value)


def refusal(model: PreTrainedModel, **arguments: Any) -> str:
    with pytest.raises(ArgumentError) as caught:
        model(**arguments)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


# Arguments of every class.

ONE = {"input_ids": ids(2, 4)}
CASES = {
    "ids of one text": ({"input_ids": ids(4)}, "input_ids of shape (4,), it must be (batch, length)"),
    "ids with choices": ({"input_ids": ids(1, 2, 4)}, "input_ids of shape (1, 2, 4), it must be"),
    "float ids": ({"input_ids": ids(2, 4).float()}, "input_ids of type float32, they must be whole numbers"),
    "bool ids": ({"input_ids": ids(2, 4).bool()}, "input_ids of type bool, they must be whole numbers"),
    "complex ids": ({"input_ids": ids(2, 4).cfloat()}, "input_ids of type complex64, it must be real numbers"),
    "ids beyond": ({"input_ids": ids(2, 4, value=30)}, "input_ids from 30 to 30, they must be from 0 to 29"),
    "negative ids": ({"input_ids": torch.tensor([[3, -1]])}, "input_ids from -1 to 3, they must be from 0 to 29"),
    "a list": ({"input_ids": [[0, 5, 2]]}, "input_ids is a list, it must be a tensor"),
    "no rows": ({"input_ids": ids(0, 4)}, "an input of shape (0, 4), it must hold at least one token"),
    "no columns": ({"input_ids": ids(2, 0)}, "an input of shape (2, 0), it must hold at least one token"),
    "too long": ({"input_ids": ids(1, 13)}, "a sequence of 13 tokens, the model has positions for 12; truncate"),
    "vectors too long": ({"inputs_embeds": torch.zeros(1, 13, 8)}, "a sequence of 13 tokens, the model has positions"),
    "positions beyond": (ONE | {"position_ids": ids(2, 4, value=14)}, "position_ids from 14 to 14, they must be"),
    "negative positions": (ONE | {"position_ids": ids(2, 4, value=-1)}, "position_ids from -1 to -1, they must be"),
    "float positions": (ONE | {"position_ids": torch.ones(2, 4)}, "position_ids of type float32, they must be whole"),
    "positions of others": (ONE | {"position_ids": ids(2, 3)}, "position_ids of shape (2, 3), it must be (2, 4)"),
    "types beyond": (ONE | {"token_type_ids": ids(2, 4, value=2)}, "token_type_ids from 2 to 2, they must be from 0"),
    "types of others": (ONE | {"token_type_ids": ids(3, 4, value=0)}, "token_type_ids of shape (3, 4), it must be"),
    "mask of others": (ONE | {"attention_mask": ids(2, 5)}, "attention_mask of shape (2, 5), it must be (2, 4)"),
    "mask of pairs": (ONE | {"attention_mask": ids(2, 1, 4, 4)}, "attention_mask of shape (2, 1, 4, 4), it must be"),
    "both": (ONE | {"inputs_embeds": torch.zeros(2, 4, 8)}, "input_ids and inputs_embeds: got both, the model needs"),
    "neither": ({}, "input_ids and inputs_embeds: got neither, the model needs exactly one"),
    "width": (
        {"inputs_embeds": torch.zeros(2, 4, 7)},
        "inputs_embeds of shape (2, 4, 7), it must be (batch, length, 8)",
    ),
    "whole vectors": ({"inputs_embeds": ids(2, 4, 8)}, "inputs_embeds of type int64, they must be floating-point"),
    "heads": (ONE | {"head_mask": torch.ones(3)}, "head_mask of shape (3,), it must be (2,) (heads) or (2, 2)"),
    "a number of heads": (ONE | {"head_mask": 1.0}, "head_mask is a float, it must be a tensor"),
    "cross-attention": (ONE | {"encoder_hidden_states": torch.zeros(2, 4, 8)}, "encoder_hidden_states given, cross-"),
    "its mask": (ONE | {"encoder_attention_mask": torch.ones(2, 4)}, "encoder_attention_mask given, cross-"),
    "a cache": (ONE | {"past_key_values": ()}, "past_key_values given, cross-attention and caches are not implemented"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_argument_that_does_not_fit_is_named(model_of, case: str):
    arguments, said = CASES[case]
    assert said in refusal(model_of("Model"), **arguments)


@pytest.mark.parametrize("head", [head for head in HEADS if head != "ForMultipleChoice"])
def test_every_class_checks_its_arguments(model_of, head: str):
    wrong = {"input_ids": ids(2, 4, value=99), "attention_mask": ids(2, 5)}
    said = refusal(model_of(head), **wrong)
    assert "input_ids from 99 to 99" in said
    assert "attention_mask of shape (2, 5)" in said


def test_all_problems_are_said_at_once(model_of):
    said = refusal(
        model_of("Model"),
        input_ids=ids(2, 13, value=30),
        attention_mask=ids(2, 4),
        token_type_ids=ids(2, 13, value=7),
        head_mask=torch.ones(5),
    )
    assert len(said.splitlines()) == 6
    for what in ("input_ids", "attention_mask", "token_type_ids", "head_mask", "a sequence of 13 tokens"):
        assert said.count(what) == 1


def test_an_argument_that_is_wrong_beside_a_missing_one_is_said_too(model_of):
    said = refusal(model_of("Model"), token_type_ids=ids(1, 4, value=9))
    assert "got neither" in said
    assert "token_type_ids from 9 to 9" in said


def test_positions_given_by_the_caller_may_make_a_long_text_fit(model_of):
    assert model_of("Model")(ids(1, 20), position_ids=torch.arange(20)[None] % 12 + 2)[0].shape == (1, 20, 8)


def test_padding_does_not_count_as_length(model_of):
    """Positions are counted by ids, so that padding takes none."""
    padded = torch.cat([ids(1, 12), ids(1, 8, value=1)], 1)
    assert model_of("Model")(padded, attention_mask=(padded != 1).long())[0].shape == (1, 20, 8)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_whole_numbers_of_every_size_are_ids(model_of, dtype: torch.dtype):
    wide = ids(2, 4)
    narrow = model_of("Model")(
        wide.to(dtype), token_type_ids=torch.zeros(2, 4, dtype=dtype), position_ids=wide.to(dtype)
    )
    torch.testing.assert_close(narrow[0], model_of("Model")(wide, position_ids=wide)[0], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16])
def test_masks_of_every_type_say_the_same(model_of, dtype: torch.dtype):
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    wanted = model_of("Model")(ids(2, 4), attention_mask=mask)[0]
    assert torch.equal(model_of("Model")(ids(2, 4), attention_mask=mask.to(dtype))[0], wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_vectors_of_every_precision_are_taken(model_of, dtype: torch.dtype):
    words = model_of("Model").get_input_embeddings()(ids(2, 4)).detach().to(dtype)
    wanted = model_of("Model")(inputs_embeds=words.float())[0]
    torch.testing.assert_close(model_of("Model")(inputs_embeds=words)[0], wanted, rtol=0, atol=0)


# Labels.

LABELS = {
    "a class beyond": ("ForSequenceClassification", ids(2, value=3), "labels from 3 to 3, they must be -100"),
    "a negative class": ("ForSequenceClassification", ids(2, value=-1), "labels from -1 to -1, they must be -100"),
    "one class for two": ("ForSequenceClassification", ids(1, value=0), "labels of shape (1,), one label a row"),
    "several whole classes": ("ForSequenceClassification", ids(2, 3, value=1), "labels of shape (2, 3), one label"),
    "floats of another shape": (
        "ForSequenceClassification",
        torch.zeros(2),
        "labels of shape (2,), they must be (2, 3)",
    ),
    "a list": ("ForSequenceClassification", [0, 1], "labels is a list, it must be a tensor"),
    "tokens of others": ("ForTokenClassification", ids(2, 5, value=0), "labels of shape (2, 5), they must be (2, 4)"),
    "tokens beyond": ("ForTokenClassification", ids(2, 4, value=3), "labels from 3 to 3, they must be -100 (ignored)"),
    "float tokens": ("ForTokenClassification", torch.zeros(2, 4), "labels of type float32, they must be whole numbers"),
    "a list of tokens": ("ForTokenClassification", [[0] * 4] * 2, "labels is a list, it must be a tensor"),
    "a word beyond": ("ForMaskedLM", ids(2, 4, value=30), "labels from 30 to 30, they must be -100 (ignored)"),
    "a next word beyond": ("ForCausalLM", ids(2, 4, value=-2), "labels from -2 to -2, they must be -100 (ignored)"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_do_not_fit_are_refused(model_of, case: str):
    head, labels, said = LABELS[case]
    model = model_of(head)
    assert said in refusal(model, input_ids=ids(2, 4), labels=labels)
    # A call that failed settles nothing.
    assert model.config.problem_type is None


def test_right_labels_work_after_wrong_ones(model_of):
    model = model_of("ForSequenceClassification")
    refusal(model, input_ids=ids(2, 4), labels=ids(2, 3, value=1))
    assert model(ids(2, 4), labels=torch.ones(2, 3)).loss.isfinite()
    assert model.config.problem_type == "multi_label_classification"


def test_a_problem_that_there_is_not_is_refused(model_of):
    model = model_of("ForSequenceClassification")
    model.config.problem_type = "ranking"
    assert "problem_type 'ranking', known are regression" in refusal(model, input_ids=ids(2, 4), labels=ids(2, value=0))


def test_places_of_answers_that_do_not_fit_are_refused_together(model_of):
    said = refusal(
        model_of("ForQuestionAnswering"), input_ids=ids(2, 4), start_positions=ids(3), end_positions=torch.zeros(2)
    )
    assert "start_positions of shape (3,), it must be (2,)" in said
    assert "end_positions of type float32, they must be whole numbers" in said
    said = refusal(model_of("ForQuestionAnswering"), input_ids=ids(2, 4), start_positions=[0, 1], end_positions=ids(2))
    assert "start_positions is a list, it must be a tensor" in said


def test_question_answering_has_two_outputs():
    with pytest.raises(ArgumentError, match="num_labels 3, question answering has 2 outputs"):
        xlmr_core.XLMRobertaForQuestionAnswering(xlmr_core.XLMRobertaConfig(**SHAPE))


# Choices.

CHOICES = {
    "one text": ({"input_ids": ids(2, 4)}, "input_ids of shape (2, 4), it must be (batch, choices, length); add"),
    "vectors": (
        {"inputs_embeds": torch.zeros(2, 4, 8)},
        "inputs_embeds of shape (2, 4, 8), it must be (batch, choices",
    ),
    "nothing": ({}, "got neither"),
    "both": ({"input_ids": ids(1, 2, 4), "inputs_embeds": torch.zeros(1, 2, 4, 8)}, "got both"),
    "flat mask": (
        {"input_ids": ids(1, 2, 4), "attention_mask": ids(2, 4)},
        "attention_mask of shape (2, 4), it must be",
    ),
    "mask of others": (
        {"input_ids": ids(1, 2, 4), "attention_mask": ids(1, 3, 4)},
        "batch and choices of input_ids (1, 2), attention_mask (1, 3), they must be the same",
    ),
    "a list": ({"input_ids": [[[0, 2]]]}, "input_ids is a list, it must be a tensor"),
    "no choice": ({"input_ids": ids(1, 0, 4)}, "it must hold at least one token"),
    "a choice beyond": ({"input_ids": ids(1, 2, 4), "labels": ids(1, value=2)}, "labels from 2 to 2, they must be"),
    "two for one": ({"input_ids": ids(1, 2, 4), "labels": ids(2, value=0)}, "labels of shape (2,), one label a row"),
    "number": (
        {"input_ids": ids(1, 2, 4), "token_type_ids": torch.tensor(0)},
        "token_type_ids of shape (), it must be",
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices_that_do_not_fit_are_refused(model_of, case: str):
    arguments, said = CHOICES[case]
    assert said in refusal(model_of("ForMultipleChoice"), **arguments)


# Anything at all.

DTYPES = st.sampled_from(
    [torch.int64, torch.int64, torch.int64, torch.int32, torch.float32, torch.float32, torch.bool, torch.float64]
)
TENSOR_NAMES = ("attention_mask", "token_type_ids", "position_ids", "head_mask")
LABEL_NAMES = {"Model": (), "ForQuestionAnswering": ("start_positions", "end_positions")}


def right(head: str, name: str) -> Tensor:
    """What a class takes as that argument."""
    rows = (1, 2, 4) if head == "ForMultipleChoice" else (2, 4)
    shapes = {"inputs_embeds": (*rows, 8), "head_mask": (2, 2), "start_positions": (2,), "end_positions": (2,)}
    shapes |= {"labels": {"ForSequenceClassification": (2,), "ForMultipleChoice": (1,)}.get(head, rows)}
    chosen = torch.randint(0, {"input_ids": 30, "position_ids": 14}.get(name, 2), shapes.get(name, rows))
    return chosen.float() if name in ("inputs_embeds", "head_mask") else chosen


@st.composite
def anything(draw: st.DrawFn) -> Tensor:
    """A tensor of any shape, or one that is nearly right."""
    near = st.sampled_from([(2, 4), (1, 4), (2, 4, 8), (1, 2, 4), (1, 2, 4, 8), (2,), (2, 2), (2, 3), (1,)])
    shape = draw(near | st.lists(st.integers(0, 4), max_size=4).map(tuple))
    low, high = draw(st.sampled_from([(0, 2), (0, 3), (0, 14), (0, 30), (-2, 40), (-100, -99)]))
    return torch.randint(low, high, shape).to(draw(DTYPES))


@pytest.mark.filterwarnings("ignore:attention_mask is 0 in the first column")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_but_a_result_or_our_own_error_comes_of_any_call(model_of, data: st.DataObject):
    head = data.draw(st.sampled_from(HEADS))
    labels = LABEL_NAMES.get(head, ("labels",))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    words = data.draw(st.sampled_from(["input_ids", "inputs_embeds"]))
    names = {words, *data.draw(st.sets(st.sampled_from((*TENSOR_NAMES, *labels)), max_size=4))}
    arguments = {
        name: data.draw(st.one_of(st.just(right(head, name)), st.just(right(head, name)), anything()), label=name)
        for name in sorted(names)
    }
    try:
        result = model_of(head)(**arguments)
    except ArgumentError:
        return
    assert all(isinstance(value, Tensor) for value in result.values())
