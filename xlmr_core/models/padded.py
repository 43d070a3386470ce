"""From the padded tensors of a call to a packed batch and back: what every documented class does first and last.

Padding is not computed. Where a result does depend on it, the batch runs as it stands, padding and all, so that the
numbers are those of transformers; see `encode`.

Letters: B rows, L columns, T real tokens, D width, H heads, N layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from xlmr_core.attention import Attention, EagerAttention, attend
from xlmr_core.batch import Grid, PackedBatch
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class PaddedInputs:
    """Arguments of a forward pass, checked.

    Attributes:
        ids_BL: Token ids; zeros where vectors are given in their stead.
        real_BL: Which tokens are no padding, bool.
        positions_BL: Rows of the position table.
        types_BL: Rows of the token type table; None for row 0.
        words_BLD: Vectors in place of the rows of the word table; None for those rows.
    """

    ids_BL: Tensor
    real_BL: Tensor
    positions_BL: Tensor
    types_BL: Tensor | None
    words_BLD: Tensor | None


def read_inputs(
    config: EncoderConfig,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> PaddedInputs:
    """Checks the arguments against the model and each other.

    Positions that are not given are counted as fairseq counts them: tokens that are not the padding id, from
    `pad_token_id + 1`, whatever the mask says; vectors in place of ids are all counted.

    Raises:
        ArgumentError: Something does not fit; all of it at once.
    """
    problems: list[str] = []
    shape = _shape(config, input_ids, inputs_embeds)
    device = (input_ids if input_ids is not None else inputs_embeds).device  # type: ignore[union-attr]
    if attention_mask is not None and tuple(attention_mask.shape) != shape:
        problems.append(f"attention_mask of shape {tuple(attention_mask.shape)}, it must be {shape} like the input")
    if input_ids is not None:
        problems += _ids_problems("input_ids", input_ids, config.vocab_size, "the model's vocabulary")
    if token_type_ids is not None:
        problems += _shape_problems("token_type_ids", token_type_ids, shape)
        problems += _ids_problems("token_type_ids", token_type_ids, config.type_vocab_size, "type_vocab_size")
    if position_ids is not None:
        problems += _shape_problems("position_ids", position_ids, shape)
        rule = f"max_position_embeddings (row {config.first_position} is the first token's)"
        problems += _ids_problems("position_ids", position_ids, config.max_position_embeddings, rule)
    if problems:
        raise ArgumentError("the model cannot take this input:\n" + "\n".join(f"  {line}" for line in problems))
    if position_ids is None:
        position_ids = _positions(config, input_ids, shape, device)
    everything = torch.ones(shape, dtype=torch.bool, device=device)
    return PaddedInputs(
        ids_BL=torch.zeros(shape, dtype=torch.int64, device=device) if input_ids is None else input_ids,
        real_BL=everything if attention_mask is None else attention_mask.to(device) != 0,
        positions_BL=position_ids.expand(shape),
        types_BL=None if token_type_ids is None else token_type_ids.expand(shape),
        words_BLD=inputs_embeds,
    )


def _shape(config: EncoderConfig, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> tuple[int, int]:
    """Rows and columns."""
    if (input_ids is None) == (inputs_embeds is None):
        got = "neither" if input_ids is None else "both"
        raise ArgumentError(f"input_ids and inputs_embeds: got {got}, the model needs exactly one; pass one of them")
    if inputs_embeds is not None and (inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != config.hidden_size):
        rule = f"it must be (batch, length, {config.hidden_size})"
        raise ArgumentError(f"inputs_embeds of shape {tuple(inputs_embeds.shape)}, {rule}")
    if input_ids is not None and input_ids.dim() != 2:
        rule = "it must be (batch, length); add a dimension with [None] for a single text"
        raise ArgumentError(f"input_ids of shape {tuple(input_ids.shape)}, {rule}")
    given = input_ids if input_ids is not None else inputs_embeds
    assert given is not None
    if not given.shape[0] or not given.shape[1]:
        raise ArgumentError(f"an input of shape {tuple(given.shape)}, it must hold at least one token")
    return given.shape[0], given.shape[1]


def _shape_problems(name: str, value: Tensor, shape: tuple[int, int]) -> list[str]:
    fits = value.dim() == 2 and value.shape[1] == shape[1] and value.shape[0] in (1, shape[0])
    return [] if fits else [f"{name} of shape {tuple(value.shape)}, it must be {shape} like the input"]


def _ids_problems(name: str, value: Tensor, count: int, what: str) -> list[str]:
    if value.dtype.is_floating_point or value.dtype == torch.bool:
        return [f"{name} of type {str(value.dtype).removeprefix('torch.')}, they must be whole numbers"]
    low, high = torch.aminmax(value)
    if low < 0 or high >= count:
        return [f"{name} from {int(low)} to {int(high)}, they must be from 0 to {count - 1} ({what})"]
    return []


def _positions(config: EncoderConfig, input_ids: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    first = config.first_position
    if input_ids is None or not first:
        positions = torch.arange(first, first + shape[1], device=device)[None]
    else:
        counted = input_ids != config.pad_token_id
        positions = counted.cumsum(1) * counted + config.pad_token_id
    longest = int(positions.max()) + 1 - first
    if longest > config.max_tokens:
        rule = f"the model has positions for {config.max_tokens}; truncate (truncation=True, max_length=...) or use "
        raise ArgumentError(f"a sequence of {longest} tokens, {rule}`pipeline`, which reads long texts in windows")
    return positions


@dataclass(frozen=True, slots=True)
class Call:
    """One forward pass: what goes in and what is wanted.

    Attributes:
        inputs: Checked arguments.
        head_mask_NH: Factor of each head's attention in each layer; None for 1.
        output_attentions: Whether attention weights are wanted.
        output_hidden_states: Whether the hidden states of all layers are wanted.
        return_dict: Whether an object is wanted, not a tuple.
    """

    inputs: PaddedInputs
    head_mask_NH: Tensor | None
    output_attentions: bool
    output_hidden_states: bool
    return_dict: bool

    @property
    def starts_with_padding(self) -> bool:
        """Whether a row begins with padding, as with padding on the left."""
        return not bool(self.inputs.real_BL[:, 0].all())


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder made of a call.

    Attributes:
        batch: The tokens that were computed.
        grid: Where they lie in the padded batch.
        hidden_TD: Of the last layer.
        states: Of the embeddings and each layer, padded; None unless asked for.
        attentions: Weights of each layer (B, H, L, L); None unless asked for.
    """

    batch: PackedBatch
    grid: Grid
    hidden_TD: Tensor
    states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


def encode(encoder: Encoder, call: Call, *, whole: bool) -> Encoded:
    """Runs the encoder over the real tokens of a padded batch.

    Args:
        encoder: Float weights, not prepacked.
        call: What goes in. Attention weights and head masks are had with padding computed.
        whole: Compute padding too, for results that depend on it.
    """
    inputs = call.inputs
    attention: Attention = attend
    eager = None
    if whole or call.output_attentions or call.head_mask_NH is not None or not bool(inputs.real_BL.any(1).all()):
        attention = eager = EagerAttention(inputs.real_BL, call.head_mask_NH)
    grid = Grid.of(torch.ones_like(inputs.real_BL) if eager else inputs.real_BL)
    batch = grid.batch(inputs.ids_BL, inputs.positions_BL)
    words_TD = None if inputs.words_BLD is None else grid.pack(inputs.words_BLD)
    types_T = None if inputs.types_BL is None else grid.pack(inputs.types_BL)
    states = []
    for hidden_TD in encoder.states(encoder.embeddings(batch, words_TD, types_T), batch, attention):
        if call.output_hidden_states:
            states.append(grid.pad(hidden_TD))
    return Encoded(
        batch=batch,
        grid=grid,
        hidden_TD=hidden_TD,
        states=tuple(states) if call.output_hidden_states else None,
        attentions=tuple(eager.weights) if eager and call.output_attentions else None,
    )


def read_head_mask(config: EncoderConfig, head_mask: Tensor | None) -> Tensor | None:
    """A head mask (H,) or (N, H) as (N, H).

    Raises:
        ArgumentError: It has another shape.
    """
    if head_mask is None:
        return None
    shape = (config.num_hidden_layers, config.num_attention_heads)
    if tuple(head_mask.shape) not in (shape, shape[1:]):
        rule = f"it must be {shape[1:]} (heads) or {shape} (layers, heads)"
        raise ArgumentError(f"head_mask of shape {tuple(head_mask.shape)}, {rule}")
    return head_mask.expand(shape)
