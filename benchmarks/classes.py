"""`XLMRobertaModel` on padded batches, ours against transformers': the same tensors in, the same tensors out.

Taking the padding out before the encoder and putting it back behind it is part of our time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import transformers
from torch import Tensor

import xlmr_core
from benchmarks.checkpoints import BASE, random_model
from benchmarks.measure import Row, cores, ratios, take_turns

NAME = "classes"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        shape: Of the encoder.
        lengths: Tokens of each row; half of the batch is padding.
        rounds: Turns of each contestant.
    """

    shape: dict[str, int]
    lengths: tuple[int, ...]
    rounds: int


FULL = Size(BASE, lengths=(256, 200, 150, 120, 100, 90, 64, 44), rounds=7)
QUICK = Size(
    {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
    lengths=(64, 44, 16, 4),
    rounds=3,
)


def run(size: Size, say: Callable[[str], None]) -> list[Row]:
    """Time of a forward pass of both, and how far their hidden states are apart."""
    torch.set_num_threads(cores())
    directory = random_model("XLMRobertaModel", size.shape)
    theirs = transformers.XLMRobertaModel.from_pretrained(directory).eval()
    ours = xlmr_core.XLMRobertaModel.from_pretrained(directory)
    mask = torch.arange(max(size.lengths)) < torch.tensor(size.lengths)[:, None]
    generator = torch.Generator().manual_seed(0)
    ids = torch.where(mask, torch.randint(5, theirs.config.vocab_size, mask.shape, generator=generator), 1)

    def forward(model: torch.nn.Module) -> Tensor:
        with torch.inference_mode():
            hidden: Tensor = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return hidden

    models = {"transformers": theirs, "ours": ours}
    apart = (forward(theirs) - forward(ours)).abs()[mask].max()
    peer, own = take_turns({name: partial(forward, model) for name, model in models.items()}, size.rounds, say).values()
    padding = 100 * (1 - mask.float().mean())
    batch = f"{len(size.lengths)} rows of {max(size.lengths)} tokens, {padding:.0f} % padding"
    return [
        Row.of(NAME, f"transformers XLMRobertaModel float32, {batch}", peer, "s"),
        Row.of(NAME, "our XLMRobertaModel float32", own, "s"),
        Row.of(NAME, "transformers / ours", ratios(peer, own), "x", goal=1.8),
        Row(NAME, "largest difference of a hidden state", float(apart), "", goal=1e-4, at_most=True),
    ]
