"""What a forward pass gives: fields by name, by key, by place in the tuple of those that are there.

Names and order of the fields are those of transformers' `modeling_outputs`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

States = tuple[Tensor, ...]


@dataclass
class ModelOutput:
    """Fields that are None are left out of the tuple, the keys and the length."""

    def keys(self) -> tuple[str, ...]:
        """Names of the fields that are there."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)

    def values(self) -> tuple[Any, ...]:
        """Those fields."""
        return tuple(getattr(self, name) for name in self.keys())

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Both."""
        return tuple(zip(self.keys(), self.values(), strict=True))

    def to_tuple(self) -> tuple[Any, ...]:
        """What `return_dict=False` gives."""
        return self.values()

    def get(self, key: str, default: Any = None) -> Any:
        """A field, or the default where it is not there."""
        return self[key] if key in self.keys() else default

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.values()[key]
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __len__(self) -> int:
        return len(self.keys())


Result = ModelOutput | tuple[Any, ...]


@dataclass
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


@dataclass
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


@dataclass
class MaskedLMOutput(_WithLogits):
    """Logits (B, L, V)."""


@dataclass
class SequenceClassifierOutput(_WithLogits):
    """Logits (B, C)."""


@dataclass
class MultipleChoiceModelOutput(_WithLogits):
    """Logits (B, choices)."""


@dataclass
class TokenClassifierOutput(_WithLogits):
    """Logits (B, L, C)."""


@dataclass
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """Logits (B, L, V); `past_key_values` and `cross_attentions` are never there."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: None = None
    hidden_states: States | None = None
    attentions: States | None = None
    cross_attentions: None = None


@dataclass
class QuestionAnsweringModelOutput(ModelOutput):
    """Start and end logits, each (B, L)."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    hidden_states: States | None = None
    attentions: States | None = None
