"""Changing the vocabulary of a documented model: sizes, kept rows, ties and biases are those of transformers."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

import xlmr_core
from xlmr_core.errors import ArgumentError
from xlmr_core.models import PreTrainedModel

NAMES = ("XLMRobertaModel", "XLMRobertaForMaskedLM", "RobertaForCausalLM")
WITH_HEAD = NAMES[1:]
WORDS = "embeddings.word_embeddings.weight"


def words(model: nn.Module) -> torch.Tensor:
    return model.get_input_embeddings().weight


def give_biases(one: PreTrainedModel, other: transformers.PreTrainedModel) -> None:
    """Biases of the projection that are not zero, the same in both."""
    bias = torch.randn(one.config.vocab_size)
    with torch.no_grad():
        one.lm_head.decoder.bias.copy_(bias)
        other.lm_head.decoder.bias.copy_(bias)
        other.lm_head.bias.copy_(bias)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("count", "multiple"), [(130, None), (90, None), (None, 64), (130, 8), (120, None), (90, 50)])
@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_kept_rows_are_those_of_transformers(
    pair_of, name: str, count: int | None, multiple: int | None, tied: bool
):
    one, other = pair_of(name, num_hidden_layers=1, tie_word_embeddings=tied)
    mine = one.resize_token_embeddings(count, multiple)
    wanted = other.resize_token_embeddings(count, multiple)
    assert mine is one.get_input_embeddings()
    assert (mine.num_embeddings, mine.padding_idx) == (wanted.num_embeddings, wanted.padding_idx)
    assert one.config.vocab_size == other.config.vocab_size == len(words(one)) == len(words(other))
    kept = min(120, len(words(one)))
    assert torch.equal(words(one)[:kept], words(other)[:kept])


@pytest.mark.parametrize("name", NAMES)
def test_rows_added_about_the_mean_are_as_near_to_it_as_those_of_transformers(pair_of, name: str):
    one, other = pair_of(name, num_hidden_layers=1)
    center = words(one).detach().mean(0)
    for model in (one, other):
        model.resize_token_embeddings(2120)
    mine, wanted = (words(model).detach()[120:] - center for model in (one, other))
    assert mine.std() > 0
    torch.testing.assert_close(mine.std(0), wanted.std(0), rtol=0.15, atol=0)
    torch.testing.assert_close(mine.T.cov(), wanted.T.cov(), rtol=0, atol=0.3 * float(wanted.var()))


@pytest.mark.parametrize("name", NAMES)
def test_rows_added_without_the_mean_are_fresh(pair_of, name: str):
    one, other = pair_of(name, num_hidden_layers=1)
    for model in (one, other):
        model.resize_token_embeddings(2120, mean_resizing=False)
    mine, wanted = (words(model).detach()[120:] for model in (one, other))
    assert mine.mean().abs() < 0.01
    assert mine.std() == pytest.approx(float(wanted.std()), rel=0.02)


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "fresh"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("count", [90, 130])
@pytest.mark.parametrize("name", WITH_HEAD)
def test_the_projection_follows_as_in_transformers(pair_of, name: str, count: int, tied: bool, mean: bool):
    one, other = pair_of(name, num_hidden_layers=1, tie_word_embeddings=tied)
    give_biases(one, other)
    if not tied:
        for model in (one, other):
            nn.init.ones_(model.lm_head.decoder.weight)
    for model in (one, other):
        model.resize_token_embeddings(count, mean_resizing=mean)
    mine, wanted = one.get_output_embeddings(), other.get_output_embeddings()
    assert (mine.weight is words(one)) == (wanted.weight is words(other)) == tied
    assert mine.out_features == wanted.out_features == count
    assert mine.weight.shape == wanted.weight.shape
    torch.testing.assert_close(mine.bias, wanted.bias, rtol=0, atol=1e-6)
    if not tied:
        assert torch.equal(mine.weight[:90], wanted.weight[:90])


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("count", [90, 130])
@pytest.mark.parametrize("name", NAMES)
def test_old_tokens_mean_what_they_meant(pair_of, name: str, count: int, tied: bool):
    one, other = pair_of(name, num_hidden_layers=1, tie_word_embeddings=tied)
    ids = torch.tensor([[0, 5, 80, 2], [0, 89, 2, 1]])
    mask = (ids != 1).long()
    before = one(ids, mask)[0]
    one.resize_token_embeddings(count)
    other.resize_token_embeddings(count)
    after, wanted = one(ids, mask)[0], other(ids, mask)[0]
    assert after.shape == wanted.shape
    kept = slice(None) if name.endswith("Model") else slice(min(count, 120))
    torch.testing.assert_close(after[..., kept], before[..., kept], rtol=0, atol=1e-5)
    torch.testing.assert_close(after[mask.bool()][:, kept], wanted[mask.bool()][:, kept], rtol=0, atol=1e-5)


def test_new_tokens_are_read_and_removed_ones_refused(pair_of):
    one, _ = pair_of("XLMRobertaForMaskedLM", num_hidden_layers=1)
    with pytest.raises(ArgumentError, match="from 0 to 119"):
        one(torch.tensor([[0, 125, 2]]))
    one.resize_token_embeddings(130)
    assert one(torch.tensor([[0, 125, 2]]), labels=torch.tensor([[-100, 129, -100]])).logits.shape == (1, 3, 130)
    one.resize_token_embeddings(100)
    with pytest.raises(ArgumentError, match="from 0 to 99"):
        one(torch.tensor([[0, 100, 2]]))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_size_changes_nothing(pair_of, name: str):
    one, _ = pair_of(name, num_hidden_layers=1)
    before = one.get_input_embeddings()
    assert one.resize_token_embeddings() is before
    assert one.resize_token_embeddings(120) is before
    assert one.resize_token_embeddings(pad_to_multiple_of=8) is before


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", NAMES)
def test_a_resized_model_is_written_and_read_by_both(pair_of, name: str, tied: bool, tmp_path: Path):
    one, _ = pair_of(name, num_hidden_layers=1, tie_word_embeddings=tied)
    one.resize_token_embeddings(133)
    one.save_pretrained(tmp_path)
    again = getattr(xlmr_core, name).from_pretrained(tmp_path)
    theirs, told = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    ids = torch.tensor([[0, 5, 132, 2]])
    assert torch.equal(again(ids)[0], one(ids)[0])
    torch.testing.assert_close(theirs(ids)[0], one(ids)[0], rtol=0, atol=1e-5)


def test_a_resized_model_trains_its_new_rows(pair_of):
    one, _ = pair_of("XLMRobertaForMaskedLM", num_hidden_layers=1)
    one.resize_token_embeddings(130)
    one(torch.tensor([[0, 125, 2]]), labels=torch.tensor([[-100, 126, -100]])).loss.backward()
    assert words(one).grad[125].abs().sum() > 0
    assert one.lm_head.decoder.bias.grad[126] != 0


def test_frozen_embeddings_stay_frozen(pair_of):
    one, _ = pair_of("XLMRobertaModel", num_hidden_layers=1)
    words(one).requires_grad_(False)
    assert not one.resize_token_embeddings(130).weight.requires_grad


@pytest.mark.parametrize(("mean", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_rows_are_added_in_the_type_of_the_model(pair_of, mean: bool, dtype: torch.dtype):
    one, _ = pair_of("XLMRobertaForMaskedLM", num_hidden_layers=1)
    one.to(dtype).resize_token_embeddings(130, mean_resizing=mean)
    assert {parameter.dtype for parameter in one.parameters()} == {dtype}
    assert words(one).isfinite().all()


@pytest.mark.parametrize("name", ["new_num_tokens", "pad_to_multiple_of"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "9"])
def test_a_size_that_is_none_is_refused(pair_of, name: str, value: object):
    one, _ = pair_of("XLMRobertaModel", num_hidden_layers=1)
    with pytest.raises(ArgumentError, match=rf"{name} {value!r}, it must be a whole number from 1"):
        one.resize_token_embeddings(**{name: value})
    assert one.config.vocab_size == 120


def test_a_vocabulary_without_the_padding_id_is_refused(pair_of):
    one, _ = pair_of("XLMRobertaModel", num_hidden_layers=1)
    with pytest.raises(ArgumentError, match="new_num_tokens 1, it must be above pad_token_id 1"):
        one.resize_token_embeddings(1)


# Tables.


@pytest.mark.parametrize("name", ["XLMRobertaModel", "XLMRobertaForMaskedLM", "XLMRobertaForTokenClassification"])
def test_another_table_takes_the_place_of_the_old(pair_of, name: str):
    one, other = pair_of(name, num_hidden_layers=1)
    for model in (one, other):
        table = nn.Embedding(120, 32, padding_idx=1)
        table.weight.data.copy_(torch.linspace(-1, 1, 120 * 32).view(120, 32))
        model.set_input_embeddings(table)
        assert model.get_input_embeddings() is table
        model.tie_weights()
    ids = torch.tensor([[0, 5, 80, 2]])
    torch.testing.assert_close(one(ids)[0], other(ids)[0], rtol=0, atol=1e-5)
    saved = one.state_dict()
    assert torch.equal(saved[WORDS if name.endswith("Model") else f"roberta.{WORDS}"], words(other))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_the_output_embeddings_that_transformers_has(pair_of, name: str):
    one, other = pair_of(name, num_hidden_layers=1)
    mine, wanted = one.get_output_embeddings(), other.get_output_embeddings()
    assert (mine is None) == (wanted is None)
    if mine is not None:
        assert mine.weight is words(one)
        assert torch.equal(mine.weight, wanted.weight)


def test_weights_are_tied_where_the_configuration_says_so(pair_of):
    one, _ = pair_of("XLMRobertaForMaskedLM", num_hidden_layers=1, tie_word_embeddings=False)
    bias = one.lm_head.decoder.bias
    one.tie_weights()
    assert one.lm_head.decoder.weight is not words(one)
    one.config.tie_word_embeddings = True
    one.tie_weights()
    assert one.lm_head.decoder.weight is words(one)
    # An optimiser that was made before still has it.
    assert one.lm_head.decoder.bias is bias


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_counted_as_in_transformers(pair_of, name: str):
    one, other = pair_of(name, num_hidden_layers=1)
    for model in (one, other):
        model.get_input_embeddings().weight.requires_grad_(False)
    assert one.num_parameters() == other.num_parameters()
    assert one.num_parameters(only_trainable=True) == other.num_parameters(only_trainable=True)
    # Theirs counts a table that is shared with a head as the head's where the head comes first.
    if name != "XLMRobertaForMaskedLM":
        assert one.num_parameters(exclude_embeddings=True) == other.num_parameters(exclude_embeddings=True)
