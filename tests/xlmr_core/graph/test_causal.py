"""A causal language model is opened and looked at, and refused where it would annotate."""

import pytest

from xlmr_core.checkpoint.diagnosis import diagnose
from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, Request


@pytest.fixture(scope="module")
def causal(make_checkpoint):
    return make_checkpoint("XLMRobertaForCausalLM", is_decoder=True)


@pytest.mark.parametrize("options", [{}, {"task": "fill-mask"}, {"task": "embedding"}, {"task": "causal-lm"}])
def test_a_causal_language_model_does_not_annotate(causal, options):
    with pytest.raises(TaskError, match=r"a causal language model \(is_decoder true in config.json\), tasks read"):
        GraphPlan.resolve([Request("text", str(causal), options)])


def test_a_model_that_sees_both_sides_is_not_annotated_with_as_a_causal_one(make_checkpoint):
    directory = make_checkpoint("XLMRobertaForMaskedLM")
    with pytest.raises(TaskError, match="task='causal-lm'; pass task= one of sequence-classification"):
        GraphPlan.resolve([Request("text", str(directory), {"task": "causal-lm"})])


def test_the_doctor_says_what_a_causal_language_model_is(causal):
    found = [finding.says for finding in diagnose(str(causal)).findings]
    assert any("masked-lm, 3005 outputs; serves causal-lm" in says for says in found), found
