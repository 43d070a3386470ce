"""What a forward pass gives behaves as transformers' `ModelOutput`."""

import pickle

import pytest
import torch
from torch.utils._pytree import tree_map
from transformers.modeling_outputs import TokenClassifierOutput as Reference

from xlmr_core.models.outputs import TokenClassifierOutput

LOGITS, STATES = torch.ones(2, 3), (torch.zeros(1), torch.ones(1))


@pytest.fixture(params=[TokenClassifierOutput, Reference])
def output(request):
    return request.param(logits=LOGITS, attentions=STATES)


def test_fields_are_had_by_name_by_key_and_by_place(output):
    assert output.logits is output["logits"] is output[0] is LOGITS
    assert output.attentions is output["attentions"] is output[1] is STATES
    assert output[:1] == (LOGITS,)
    assert output.loss is None
    assert output.get("loss") is None
    assert output.get("logits") is LOGITS


def test_a_field_that_is_not_there_is_no_key(output):
    assert list(output.keys()) == list(output) == ["logits", "attentions"]
    assert "loss" not in output
    assert len(output) == 2
    with pytest.raises(KeyError):
        output["loss"]
    with pytest.raises(IndexError):
        output[2]


def test_it_is_a_mapping_and_a_tuple(output):
    assert dict(output.items()) == {"logits": LOGITS, "attentions": STATES}
    assert output.to_tuple() == tuple(output.values()) == (LOGITS, STATES)
    assert dict(**output) == {"logits": LOGITS, "attentions": STATES}


def test_a_field_may_be_set(output):
    output.loss = torch.tensor(1.0)
    assert "loss" in output
    assert output["loss"] is output.loss


def test_it_is_a_dictionary_that_can_be_joined_mapped_and_pickled(output):
    assert isinstance(output, dict)
    output["logits"] = LOGITS * 2
    assert torch.equal(output.logits, LOGITS * 2)
    doubled = tree_map(lambda value: value * 2, output)
    assert type(doubled) is type(output)
    assert torch.equal(doubled.logits, LOGITS * 4)
    again = pickle.loads(pickle.dumps(output))
    assert torch.equal(again.logits, output.logits)
    assert again.loss is None
    # As `torch.nn.parallel` gathers what its replicas give.
    joined = type(output)((name, torch.cat([output[name]] * 2)) for name in ["logits"])
    assert joined.logits.shape == (4, 3)
    assert type(output)({"logits": LOGITS}).logits is LOGITS
