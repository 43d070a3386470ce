"""From the padded tensors of a call to a packed batch and back: what every documented class does first and last.

Padding is not computed. Where a result does depend on it, the batch runs as it stands, padding and all, so that the
numbers are those of transformers; see `encode`.

Letters: B rows, L columns, T real tokens, D width, H heads, N layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xlmr_core.attention import Attention, EagerAttention, attend
from xlmr_core.batch import Grid, PackedBatch
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Embeddings, Layers
from xlmr_core.errors import ArgumentError
from xlmr_core.models.outputs import ModelOutput, Result

# Arguments of a forward pass in this order; None for what is not given.
Inputs = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]
_NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


@dataclass(frozen=True, slots=True)
class PaddedInputs:
    """Arguments of a forward pass, checked.

    Attributes:
        ids_BL: Token ids; zeros where vectors are given in their stead.
        real_BL: Which tokens are no padding, bool.
        positions_BL: Rows of the position table.
        types_BL: Rows of the token type table; None for row 0.
        words_BLD: Vectors in place of the rows of the word table; None for those rows.
        head_mask_NH: Factor of each head's attention in each layer; None for 1.
    """

    ids_BL: Tensor
    real_BL: Tensor
    positions_BL: Tensor
    types_BL: Tensor | None
    words_BLD: Tensor | None
    head_mask_NH: Tensor | None


def read_inputs(config: EncoderConfig, inputs: Inputs, head_mask: Tensor | None) -> PaddedInputs:
    """Checks the arguments against the model and each other.

    Positions that are not given are counted as fairseq counts them: tokens that are not the padding id, from
    `pad_token_id + 1`, whatever the mask says; vectors in place of ids are all counted.

    Raises:
        ArgumentError: Something does not fit; all of it at once.
    """
    input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds = inputs
    named = dict(zip(_NAMES, inputs, strict=True)) | {"head_mask": head_mask}
    given = {name: value for name, value in named.items() if value is not None}
    refuse(tensor_problems(given))
    shape, problems = _shape(config, input_ids, inputs_embeds)
    problems += _value_problems(config, given) + _head_mask_problems(config, head_mask)
    if shape is not None:
        problems += _shape_problems(given, shape)
        if position_ids is None:
            position_ids = _positions(config, input_ids, shape)
            problems += _length_problems(config, position_ids)
    refuse(problems)
    assert shape is not None
    assert position_ids is not None
    device = (inputs_embeds if input_ids is None else input_ids).device  # type: ignore[union-attr]
    everything = torch.ones(shape, dtype=torch.bool, device=device)
    return PaddedInputs(
        ids_BL=torch.zeros(shape, dtype=torch.int64, device=device) if input_ids is None else input_ids.long(),
        real_BL=everything if attention_mask is None else (attention_mask.to(device) != 0).expand(shape),
        positions_BL=position_ids.to(device).long().expand(shape),
        types_BL=None if token_type_ids is None else token_type_ids.to(device).long().expand(shape),
        words_BLD=inputs_embeds,
        head_mask_NH=None if head_mask is None else head_mask.to(device).expand(_head_shape(config)),
    )


def refuse(problems: list[str]) -> None:
    """Raises ArgumentError with every problem."""
    if problems:
        raise ArgumentError("the model cannot take this input:\n" + "\n".join(f"  {line}" for line in problems))


def tensor_problems(given: Mapping[str, object]) -> list[str]:
    """What is no tensor of real numbers."""
    problems = []
    for name, value in given.items():
        if not isinstance(value, Tensor):
            problems.append(f"{name} is a {type(value).__name__}, it must be a tensor; use torch.tensor")
        elif value.is_complex():
            problems.append(f"{name} of type {name_of(value.dtype)}, it must be real numbers")
    return problems


def name_of(dtype: torch.dtype) -> str:
    """As users type it."""
    return str(dtype).removeprefix("torch.")


def split_choices(inputs: Inputs) -> tuple[Inputs, int]:
    """Arguments with a dimension for choices, (B, choices, L) and so on, as rows (B * choices, L), and how many.

    Raises:
        ArgumentError: One of them has another shape, or none says how many choices there are.
    """
    given = {name: value for name, value in zip(_NAMES, inputs, strict=True) if value is not None}
    refuse(tensor_problems(given))
    problems = []
    for name, value in given.items():
        dimensions = "(batch, choices, length, width)" if name == "inputs_embeds" else "(batch, choices, length)"
        if value.dim() != dimensions.count(",") + 1:
            rule = f"it must be {dimensions}; add a dimension with [None] for one question"
            problems.append(f"{name} of shape {tuple(value.shape)}, {rule}")
    shapes = {name: tuple(value.shape[:2]) for name, value in given.items()}
    if not problems and len(set(shapes.values())) > 1:
        rule = "they must be the same"
        problems.append(
            f"batch and choices of {', '.join(f'{name} {shape}' for name, shape in shapes.items())}, {rule}"
        )
    refuse(problems)
    choices = next((shape[1] for shape in shapes.values()), 1)
    ids, mask, types, positions, words = (None if value is None else value.flatten(0, 1) for value in inputs)
    return (ids, mask, types, positions, words), choices


def _shape(
    config: EncoderConfig, input_ids: Tensor | None, inputs_embeds: Tensor | None
) -> tuple[tuple[int, int] | None, list[str]]:
    """Rows and columns, None where there is no telling, and what is wrong."""
    given = inputs_embeds if input_ids is None else input_ids
    if given is None or (input_ids is not None and inputs_embeds is not None):
        got = "neither" if given is None else "both"
        return None, [f"input_ids and inputs_embeds: got {got}, the model needs exactly one; pass one of them"]
    shape = tuple(given.shape)
    if given is input_ids and len(shape) != 2:
        rule = "it must be (batch, length); add a dimension with [None] for a single text"
        return None, [f"input_ids of shape {shape}, {rule}"]
    if given is inputs_embeds and (len(shape) != 3 or shape[2] != config.hidden_size):
        return None, [f"inputs_embeds of shape {shape}, it must be (batch, length, {config.hidden_size})"]
    if not shape[0] or not shape[1]:
        return None, [f"an input of shape {shape}, it must hold at least one token"]
    return (shape[0], shape[1]), []


def _shape_problems(given: Mapping[str, Tensor], shape: tuple[int, int]) -> list[str]:
    one_row = {shape, (1, shape[1])}
    allowed = dict.fromkeys(("attention_mask", "token_type_ids", "position_ids"), one_row)
    return [
        f"{name} of shape {tuple(given[name].shape)}, it must be {shape} like the input"
        for name, shapes in allowed.items()
        if name in given and tuple(given[name].shape) not in shapes
    ]


def _value_problems(config: EncoderConfig, given: Mapping[str, Tensor]) -> list[str]:
    """Types and ranges."""
    rows = f"max_position_embeddings; row {config.first_position} is the first token's"
    counts = {
        "input_ids": (config.vocab_size, "the model's vocabulary"),
        "token_type_ids": (config.type_vocab_size, "type_vocab_size"),
        "position_ids": (config.max_position_embeddings, rows),
    }
    problems = []
    for name in counts.keys() & given.keys():
        value, (count, what) = given[name], counts[name]
        if value.is_floating_point() or value.dtype == torch.bool:
            problems.append(f"{name} of type {name_of(value.dtype)}, they must be whole numbers")
        elif value.numel():
            low, high = map(int, torch.aminmax(value.long()))
            if low < 0 or high >= count:
                problems.append(f"{name} from {low} to {high}, they must be from 0 to {count - 1} ({what})")
    words = given.get("inputs_embeds")
    if words is not None and not words.is_floating_point():
        problems.append(f"inputs_embeds of type {name_of(words.dtype)}, they must be floating-point numbers")
    return sorted(problems)


def _head_shape(config: EncoderConfig) -> tuple[int, int]:
    return config.num_hidden_layers, config.num_attention_heads


def _head_mask_problems(config: EncoderConfig, head_mask: Tensor | None) -> list[str]:
    shape = _head_shape(config)
    if head_mask is None or tuple(head_mask.shape) in (shape, shape[1:]):
        return []
    return [f"head_mask of shape {tuple(head_mask.shape)}, it must be {shape[1:]} (heads) or {shape} (layers, heads)"]


def _positions(config: EncoderConfig, input_ids: Tensor | None, shape: tuple[int, int]) -> Tensor:
    first = config.first_position
    if input_ids is None or not first:
        return torch.arange(first, first + shape[1])[None]
    counted = input_ids != config.pad_token_id
    return counted.cumsum(1) * counted + config.pad_token_id


def _length_problems(config: EncoderConfig, positions: Tensor) -> list[str]:
    longest = int(positions.max()) + 1 - config.first_position
    if longest <= config.max_tokens:
        return []
    rule = f"the model has positions for {config.max_tokens}; truncate (truncation=True, max_length=...) or use "
    return [f"a sequence of {longest} tokens, {rule}`pipeline`, which reads long texts in windows"]


@dataclass(frozen=True, slots=True)
class Call:
    """One forward pass: what goes in and what is wanted.

    Attributes:
        inputs: Checked arguments.
        output_attentions: Whether attention weights are wanted.
        output_hidden_states: Whether the hidden states of all layers are wanted.
        return_dict: Whether an object is wanted, not a tuple.
    """

    inputs: PaddedInputs
    output_attentions: bool
    output_hidden_states: bool
    return_dict: bool

    @property
    def starts_with_padding(self) -> bool:
        """Whether a row begins with padding, as with padding on the left."""
        return not bool(self.inputs.real_BL[:, 0].all())

    def result(self, output: ModelOutput) -> Result:
        """The output in the form that was asked for."""
        return output if self.return_dict else output.to_tuple()


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


def encode(embeddings: Embeddings, layers: Layers, call: Call, *, whole: bool) -> Encoded:
    """Runs the encoder over the real tokens of a padded batch.

    Args:
        embeddings: Of the encoder; float weights, not prepacked.
        layers: Of the encoder.
        call: What goes in. Attention weights and head masks are had with padding computed.
        whole: Compute padding too, for results that depend on it.
    """
    inputs = call.inputs
    attention: Attention = attend
    eager = None
    if whole or call.output_attentions or inputs.head_mask_NH is not None or not bool(inputs.real_BL.any(1).all()):
        attention = eager = EagerAttention(inputs.real_BL, inputs.head_mask_NH)
    grid = Grid.of(torch.ones_like(inputs.real_BL) if eager else inputs.real_BL)
    batch = grid.batch(inputs.ids_BL, inputs.positions_BL)
    dtype = embeddings.word_embeddings.weight.dtype
    words_TD = None if inputs.words_BLD is None else grid.pack(inputs.words_BLD).to(dtype)
    types_T = None if inputs.types_BL is None else grid.pack(inputs.types_BL)
    states = []
    for hidden_TD in layers.states(embeddings(batch, words_TD, types_T), batch, attention):
        if call.output_hidden_states:
            states.append(grid.pad(hidden_TD))
    return Encoded(
        batch=batch,
        grid=grid,
        hidden_TD=hidden_TD,
        states=tuple(states) if call.output_hidden_states else None,
        attentions=tuple(eager.weights) if eager and call.output_attentions else None,
    )
