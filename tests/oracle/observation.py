"""What is written down of a model's forward and backward pass, for head masks; only torch is needed.

The oracle and our tests run this very file, on models of either, with the same inputs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Json = dict[str, Any]

# Rows 0 and 1 of a batch, columns that are tokens in either even where row 1 is padded, and the first few outputs.
PLACES = ((0, 0), (0, 5), (1, 2), (1, 4))
WIDTH = 4
# Row, head, query.
ATTENTION_PLACES = ((0, 0, 0), (0, 1, 4), (1, 2, 1), (1, 3, 4))
REAL_COLUMNS = 6
FIELDS = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")
DIGITS = 7


def call_model(model: Any, case: Json) -> tuple[Any, Tensor]:
    """The output of a case's inputs, and the gradient of the head mask: how much each head matters.

    The gradients of the model's parameters are those of this loss alone.
    """
    arguments = {name: torch.tensor(value) for name, value in case["inputs"].items()}
    head_mask = torch.tensor(case["head_mask"], requires_grad=True)
    model.zero_grad()
    output = model(**arguments, head_mask=head_mask, output_attentions=case["output_attentions"])
    loss_of(output, arguments["attention_mask"]).backward()
    assert head_mask.grad is not None
    return output, head_mask.grad


def loss_of(output: Any, attention_mask: Tensor) -> Tensor:
    """The loss; of a bare encoder the mean of the first hidden dimension over tokens, and of one of the pooler."""
    loss = getattr(output, "loss", None)
    if loss is None:
        loss = output.last_hidden_state[attention_mask != 0][:, 0].mean() + output.pooler_output[:, 1].mean()
    assert isinstance(loss, Tensor)
    return loss


def observe(output: Any, attention_mask: Tensor, gradients: Mapping[str, Tensor]) -> Json:
    """Numbers to compare: the loss, outputs and attentions at a few places, gradients summed and at a few places.

    Args:
        output: Of `call_model`.
        attention_mask: Of the inputs (B, L).
        gradients: By the names that parameters have in files, and "head_mask".
    """
    outputs = {name: _few(getattr(output, name)) for name in FIELDS if getattr(output, name, None) is not None}
    attentions = [
        [_rounded(layer[row, head, query, :REAL_COLUMNS]) for row, head, query in ATTENTION_PLACES]
        for layer in output.attentions or ()
    ]
    return {
        "loss": round(loss_of(output, attention_mask).item(), DIGITS),
        "outputs": outputs,
        "attentions": attentions,
        "gradients": {name: _summary(gradient) for name, gradient in gradients.items()},
    }


def _few(value: Tensor) -> list[Any]:
    if value.dim() == 2:
        return [_rounded(row[:REAL_COLUMNS]) for row in value]
    return [_rounded(value[row, column, :WIDTH]) for row, column in PLACES]


def _summary(gradient: Tensor) -> Json:
    """Sums in float64, and the largest entries by place: those that say most."""
    flat = gradient.detach().double().flatten()
    places = flat.abs().topk(min(WIDTH, len(flat))).indices.sort().values.tolist()
    return {
        "sum": round(flat.sum().item(), DIGITS),
        "absolute_sum": round(flat.abs().sum().item(), DIGITS),
        "largest": {str(place): round(flat[place].item(), DIGITS) for place in places},
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, DIGITS) for value in values.detach().double().tolist()]
