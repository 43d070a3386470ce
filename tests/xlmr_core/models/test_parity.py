"""Outputs, losses and gradients of the documented models against transformers on the same random weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_core.checkpoint.keys import encoder_file_names

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
ROWS, COLUMNS, VOCABULARY, WIDTH = 3, 11, 120, 32
LENGTHS = torch.tensor([11, 4, 7])
# Two float32 paths through the same weights differ by rounding; see the house rules.
TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


def padded(side, seed=0):
    """Ids and mask (B, L), padded with 1 on a side, or on none."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (ROWS, COLUMNS), generator=generator)
    mask = torch.arange(COLUMNS) < LENGTHS[:, None]
    mask = {"right": mask, "left": mask.flip(1), "none": torch.ones_like(mask)}[side]
    ids = torch.where(mask, ids, 1)
    return ids, mask


def arguments(head, side):
    """A call with labels for a head, and the mask of its real tokens."""
    ids, mask = padded(side)
    call = {"input_ids": ids, "attention_mask": mask.long()}
    match head:
        case "ForMaskedLM" | "ForCausalLM":
            call["labels"] = torch.where(mask, ids, -100)
        case "ForTokenClassification":
            call["labels"] = torch.where(mask, ids % 2, -100)
        case "ForSequenceClassification":
            call["labels"] = torch.tensor([0, 1, 1])
        case "ForQuestionAnswering":
            call |= {"start_positions": torch.tensor([1, 2, 3]), "end_positions": torch.tensor([3, 2, 30])}
        case "ForMultipleChoice":
            call = {name: value[None] for name, value in call.items()} | {"labels": torch.tensor([1])}
    return call, mask


def assert_same_output(ours, theirs, mask, *, at_padding=False):
    """Fields, shapes and values; those of tokens only where there is one."""
    # A decoder's cache, and the attention to another text that there is not.
    assert tuple(ours.keys()) == tuple(name for name in theirs if name not in ("past_key_values", "cross_attentions"))
    for name in ours.keys():  # noqa: SIM118  # it is no dict
        one, other = ours[name], theirs[name]
        pairs = [(one, other)] if isinstance(one, torch.Tensor) else zip(one, other, strict=True)
        for got, expected in pairs:
            assert got.shape == expected.shape
            far = (got - expected).abs()
            if not at_padding and far.dim() >= 2 and far.shape[:2] == mask.shape:
                far = far[mask]
            assert far.max() <= TOLERANCE, name


def gradients(model):
    """By the names of files; parameters that got none are zero."""
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        names = encoder_file_names(name)
        found |= dict(zip(names, gradient.chunk(len(names)), strict=True))
    return found


def assert_same_gradients(ours, theirs):
    got = gradients(ours)
    for name, parameter in theirs.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        other = got["lm_head.decoder.bias" if name == "lm_head.bias" else name]
        assert (other - expected).abs().max() <= GRADIENT_TOLERANCE, name
    ours.zero_grad()
    theirs.zero_grad()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("family", "side"), [("XLMRoberta", "right"), ("XLMRoberta", "left"), ("XLMRoberta", "none"), ("Roberta", "right")]
)
def test_outputs_losses_and_gradients_are_those_of_transformers(pair_of, family, head, side):
    ours, theirs = pair_of(family + head)
    call, mask = arguments(head, side)
    got, expected = (model(**call, output_hidden_states=True) for model in (ours, theirs))
    assert_same_output(got, expected, mask)
    if head != "Model":
        got.loss.backward()
        expected.loss.backward()
        assert_same_gradients(ours, theirs)


# Padding before a causal text may see nothing; here that is nothing, in transformers' eager attention everything.
@pytest.mark.parametrize(
    ("head", "side"), [(h, s) for h in HEADS for s in ("right", "left") if h + s != "ForCausalLMleft"]
)
def test_eager_attention_is_that_of_transformers_at_padding_too(pair_of, head, side):
    ours, theirs = pair_of(f"XLMRoberta{head}", attn_implementation="eager")
    call, mask = arguments(head, side)
    wanted = {"output_attentions": True, "output_hidden_states": True}
    got, expected = (model(**call, **wanted) for model in (ours, theirs))
    assert len(got.attentions) == ours.config.num_hidden_layers
    assert_same_output(got, expected, mask, at_padding=True)
    # Without asking for weights it is the same.
    assert_same_output(ours(**call), theirs(**call), mask, at_padding=True)


def test_padding_is_not_computed(pair_of):
    ours, _ = pair_of("XLMRobertaForTokenClassification")
    call, mask = arguments("ForTokenClassification", "right")
    assert not ours(**call).logits[~mask].any()
    seen = []
    ours.roberta.encoder.layer[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    ours(**call)
    assert seen == [int(mask.sum())]


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"])
def test_gradients_of_packed_and_padded_batches_are_the_same(pair_of, head):
    ours, _ = pair_of(f"XLMRoberta{head}")
    call, _ = arguments(head, "right")
    found = []
    for implementation in ("sdpa", "eager"):
        ours.config.attn_implementation = implementation
        ours(**call).loss.backward()
        found.append({name: value.clone() for name, value in gradients(ours).items()})
        ours.zero_grad()
    for name, packed in found[0].items():
        assert (packed - found[1][name]).abs().max() <= TOLERANCE, name


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice", "Model"])
def test_padding_in_the_first_column_is_warned_of(pair_of, head):
    ours, _ = pair_of(f"XLMRoberta{head}")
    call, _ = arguments(head, "left")
    with pytest.warns(UserWarning, match="attention_mask is 0 in the first column"):
        ours(**call)


@pytest.mark.parametrize("head", HEADS)
def test_vectors_types_and_positions_may_be_given(pair_of, head):
    ours, theirs = pair_of(f"XLMRoberta{head}")
    call, mask = arguments(head, "right")
    shape = call["input_ids"].shape
    generator = torch.Generator().manual_seed(1)
    call["token_type_ids"] = torch.randint(0, 2, shape, generator=generator)
    call["position_ids"] = torch.randint(2, 40, shape, generator=generator)
    assert_same_output(ours(**call), theirs(**call), mask)
    del call["position_ids"]
    del call["input_ids"]
    call["inputs_embeds"] = torch.randn(*shape, WIDTH, generator=generator)
    assert_same_output(ours(**call), theirs(**call), mask)


@pytest.mark.parametrize(
    ("count", "problem", "labels"),
    [
        (1, None, torch.tensor([0.5, -1.0, 2.0])),
        (1, None, torch.tensor([[0.5], [-1.0], [2.0]])),
        (3, None, torch.tensor([2, 0, 1])),
        (3, None, torch.tensor([[2], [0], [-100]])),
        (3, None, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])),
        (3, "regression", torch.randn(3, 3, generator=torch.Generator().manual_seed(0))),
        (3, "multi_label_classification", torch.tensor([[1.0, 0.0, 1.0]] * 3)),
        (2, "single_label_classification", torch.tensor([1, 1, 0])),
    ],
)
def test_every_problem_type_has_the_loss_of_transformers(pair_of, count, problem, labels):
    ours, theirs = pair_of("XLMRobertaForSequenceClassification", num_labels=count, problem_type=problem)
    ids, mask = padded("right")
    call = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}
    assert_same_output(ours(**call), theirs(**call), mask)
    assert ours.config.problem_type == theirs.config.problem_type


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM", "ForTokenClassification"])
def test_labels_at_padding_count_as_in_transformers(pair_of, head):
    ours, theirs = pair_of(f"XLMRoberta{head}")
    ids, mask = padded("right")
    call = {"input_ids": ids, "attention_mask": mask.long(), "labels": ids % 2}
    assert_same_output(ours(**call), theirs(**call), mask)


def test_a_causal_model_reads_both_sides_unless_it_is_a_decoder(pair_of):
    with pytest.warns(UserWarning, match="is_decoder is False"):
        ours, theirs = pair_of("RobertaForCausalLM", is_decoder=False)
    call, mask = arguments("ForCausalLM", "right")
    assert_same_output(ours(**call), theirs(**call), mask)


def test_a_model_without_a_pooler_has_no_pooled_output(pair_of):
    ours, _ = pair_of("XLMRobertaModel")
    bare = type(ours)(ours.config, add_pooling_layer=False).eval()
    ids, _ = padded("none")
    assert tuple(bare(ids).keys()) == ("last_hidden_state",)
    assert "pooler.dense.weight" not in bare.state_dict()


@pytest.mark.parametrize("head", HEADS)
def test_a_tuple_has_the_fields_in_the_order_of_transformers(pair_of, head):
    ours, theirs = pair_of(f"XLMRoberta{head}", use_cache=False)
    call, _ = arguments(head, "none")
    wanted = {"output_hidden_states": True, "return_dict": False}
    got, expected = ours(**call, **wanted), theirs(**call, **wanted)
    assert isinstance(got, tuple)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert type(one) is type(other)
        assert isinstance(one, tuple) or (one - other).abs().max() <= TOLERANCE


@given(mask=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4), fill=st.booleans())
@settings(max_examples=40, deadline=None)
def test_holes_in_the_mask_are_no_tokens(pair_of, mask, fill):
    """Padding may lie anywhere and need not be the padding id; positions count ids, not the mask."""
    real = torch.tensor(mask)
    real[:, 2] = True
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCABULARY, real.shape, generator=generator)
    ids = torch.where(real, ids, 1) if fill else ids
    ours, theirs = pair_of("XLMRobertaForTokenClassification")
    call = {"input_ids": ids, "attention_mask": real.long()}
    with torch.no_grad():
        assert_same_output(ours(**call), theirs(**call), real)


def test_bfloat16_is_as_close_as_transformers_is_to_itself(pair_of):
    ours, theirs = pair_of("XLMRobertaModel")
    ids, mask = padded("right")
    with torch.no_grad():
        exact = theirs(ids, mask.long()).last_hidden_state[mask]
        rounded = theirs.bfloat16()(ids, mask.long()).last_hidden_state[mask].float()
        got = ours.bfloat16()(ids, mask.long()).last_hidden_state[mask].float()
    assert (got - exact).abs().max() <= 2 * (rounded - exact).abs().max()


def test_dropout_works_in_training_only(pair_of):
    ours, _ = pair_of("XLMRobertaModel", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    ids, mask = padded("right")
    assert torch.equal(ours(ids, mask)[0], ours(ids, mask)[0])
    ours.train()
    assert not torch.equal(ours(ids, mask)[0], ours(ids, mask)[0])
    assert not torch.equal(ours(ids, mask, output_attentions=True)[0], ours(ids, mask, output_attentions=True)[0])
