"""The prepacked linear layer computes what the plain one does."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import linear

from xlmr_core.linear import Linear, activate

REFERENCE = {
    None: lambda x: x,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


@pytest.fixture(autouse=True)
def a_processor_that_gains(monkeypatch):
    """The reordered path works with AVX2 too; it is only not taken there."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def test_a_processor_that_gains_nothing_keeps_its_plain_weights(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    layer = Linear(8, 8)
    layer.prepack()
    assert layer.weight.shape == (8, 8)


@pytest.mark.parametrize("activation", REFERENCE)
def test_activations_are_the_ones_their_names_say(activation):
    x = torch.linspace(-6, 6, 101)
    assert torch.equal(activate(x, activation), REFERENCE[activation](x))


@pytest.mark.parametrize("rows", [1, 7, 130])
@pytest.mark.parametrize("activation", REFERENCE)
def test_prepacking_changes_rounding_only(activation, rows):
    torch.manual_seed(0)
    layer, x = Linear(96, 40, activation), torch.randn(rows, 96)
    expected = REFERENCE[activation](linear(x.double(), layer.weight.double(), layer.bias.double()))
    with torch.inference_mode():
        plain = layer(x)
        layer.prepack()
        packed = layer(x)
    assert (plain - expected).abs().max() < 5e-6
    assert (packed - expected).abs().max() < 5e-6


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 1, 4), (0,)])
def test_any_leading_shape_is_kept_packed_and_not(shape):
    layer, x = Linear(16, 8), torch.randn(*shape, 16)
    with torch.inference_mode():
        before = layer(x)
        layer.prepack()
        assert layer(x).shape == before.shape == (*shape, 8)
        assert torch.allclose(layer(x), before, atol=1e-6)


def test_prepacking_twice_is_once_and_leaves_no_second_copy():
    layer, x = Linear(64, 64, "gelu"), torch.randn(3, 64)
    with torch.inference_mode():
        layer.prepack()
        once = layer(x)
        layer.prepack()
        assert torch.equal(layer(x), once)
    if layer._packed is not None:
        assert layer.weight.numel() == 0


def test_what_cannot_be_prepacked_works_as_it_was():
    layer = Linear(8, 8, "silu")
    layer.prepack()
    assert layer.weight.numel() == 64
    half = Linear(8, 8).double()
    half.prepack()
    assert half(torch.randn(2, 8).double()).dtype == torch.float64


def test_bfloat16_is_within_its_own_precision():
    torch.manual_seed(0)
    layer, x = Linear(256, 64, "gelu"), torch.randn(20, 256)
    expected = layer(x)
    layer.bfloat16()
    with torch.inference_mode():
        layer.prepack()
        assert (layer(x.bfloat16()).float() - expected).abs().max() < 0.03
