"""What a forward pass gives: fields by name, by key, by place in the tuple of those that are there.

Names and order of the fields are those of transformers' `modeling_outputs`.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from torch.utils._pytree import register_pytree_node

States = tuple[Tensor, ...]


class ModelOutput(OrderedDict[str, Any]):
    """Fields of a subclass that is a dataclass; those that are None are left out of keys, length and tuple.

    It is a dictionary, as in transformers, so that what joins or maps dictionaries of tensors (`DataParallel`,
    `torch.utils._pytree`) treats it as one.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output.keys())),
            lambda values, keys: cls(**dict(zip(keys, values, strict=True))),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        )

    def __post_init__(self) -> None:
        """Takes the fields; the first may be pairs of names and values, as of any dictionary."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        first, *others = (getattr(self, name) for name in names)
        if first is not None and not isinstance(first, Tensor) and all(other is None for other in others):
            setattr(self, names[0], None)
            for name, value in first.items() if isinstance(first, Mapping) else first:
                self[name] = value
            return
        for name, value in zip(names, (first, *others), strict=True):
            if value is not None:
                super().__setitem__(name, value)

    def to_tuple(self) -> tuple[Any, ...]:
        """What `return_dict=False` gives."""
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None and name in {field.name for field in fields(self)}:  # type: ignore[arg-type]
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


Result = ModelOutput | tuple[Any, ...]


@dataclass(eq=False)
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """Of a bare encoder.

    Attributes:
        last_hidden_state: Of the last layer (B, L, D); zeros at padding.
        pooler_output: `<s>` through the pooler (B, D).
        hidden_states: Of the embeddings and of each layer, each (B, L, D).
        past_key_values: Never there.
        attentions: Weights of each layer (B, H, L, L).
        cross_attentions: Never there.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: States | None = None
    past_key_values: None = None
    attentions: States | None = None
    cross_attentions: None = None


@dataclass(eq=False)
class _WithLogits(ModelOutput):
    """Of a model with a head.

    Attributes:
        loss: A scalar, where labels were given.
        logits: Scores before softmax or sigmoid.
        hidden_states: Of the embeddings and of each layer, each (B, L, D).
        attentions: Weights of each layer (B, H, L, L).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: States | None = None
    attentions: States | None = None


@dataclass(eq=False)
class MaskedLMOutput(_WithLogits):
    """Logits (B, L, V)."""


@dataclass(eq=False)
class SequenceClassifierOutput(_WithLogits):
    """Logits (B, C)."""


@dataclass(eq=False)
class MultipleChoiceModelOutput(_WithLogits):
    """Logits (B, choices)."""


@dataclass(eq=False)
class TokenClassifierOutput(_WithLogits):
    """Logits (B, L, C)."""


@dataclass(eq=False)
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """Logits (B, L, V); `past_key_values` and `cross_attentions` are never there."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: None = None
    hidden_states: States | None = None
    attentions: States | None = None
    cross_attentions: None = None


@dataclass(eq=False)
class QuestionAnsweringModelOutput(ModelOutput):
    """Start and end logits, each (B, L)."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    hidden_states: States | None = None
    attentions: States | None = None
