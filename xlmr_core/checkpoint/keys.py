"""Parameter names: ours and those of Hugging Face files, translated both ways by one table.

A row maps a module of ours to the modules a file holds in its place. Several of them are stacked by rows:
query, key and value are one matrix here and three in every file.
"""

import re
from collections.abc import Iterable
from typing import Literal

from xlmr_core.errors import CheckpointError

HeadKind = Literal["sequence-classification", "token-classification"]

_OUTSIDE = {
    "embeddings.word": ("embeddings.word_embeddings",),
    "embeddings.position": ("embeddings.position_embeddings",),
    "embeddings.token_type": ("embeddings.token_type_embeddings",),
    "embeddings.norm": ("embeddings.LayerNorm",),
}
_LAYER = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
    "output_norm": ("output.LayerNorm",),
}
_HEADS: dict[HeadKind, dict[str, tuple[str, ...]]] = {
    "sequence-classification": {"dense": ("classifier.dense",), "out_proj": ("classifier.out_proj",)},
    "token-classification": {"classifier": ("classifier",)},
}
# Where the labels are counted: rows of this parameter.
LABEL_ROWS: dict[HeadKind, str] = {
    "sequence-classification": "classifier.out_proj.weight",
    "token-classification": "classifier.weight",
}

PREFIXES = ("", "roberta.", "xlm-roberta.", "camembert.", "transformer.", "model.", "encoder.model.")
_ENCODER_ROOTS = ("embeddings.", "encoder.layer.")
# Buffers that old versions of transformers saved; they hold no knowledge.
_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids)$")


def encoder_file_names(name: str) -> tuple[str, ...]:
    """Names in a file, without prefix, whose tensors make up the encoder parameter `name`."""
    module, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"layers\.(\d+)\.(\w+)", module)
    if layer is None:
        return tuple(f"{stem}.{kind}" for stem in _OUTSIDE[module])
    return tuple(f"encoder.layer.{layer[1]}.{stem}.{kind}" for stem in _LAYER[layer[2]])


def head_file_names(head: HeadKind, name: str) -> tuple[str, ...]:
    """Names in a file whose tensors make up the parameter `name` of a task head; heads carry no prefix."""
    module, _, kind = name.rpartition(".")
    return tuple(f"{stem}.{kind}" for stem in _HEADS[head][module])


def modern_name(name: str) -> str | None:
    """The present name of a stored tensor, None for a buffer to drop.

    TensorFlow-era files call a LayerNorm's weight `gamma` and its bias `beta`.
    """
    if _BUFFERS.search(name):
        return None
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def find_prefix(names: Iterable[str], *, source: str) -> str:
    """The prefix under which most encoder parameters lie.

    Raises:
        CheckpointError: None of the names belongs to an encoder of this family.
    """
    names = list(names)
    counts = {prefix: sum(is_encoder_name(name, prefix) for name in names) for prefix in PREFIXES}
    best = max(PREFIXES, key=lambda prefix: counts[prefix])
    if not counts[best]:
        rule = "there must be embeddings.word_embeddings.weight or the like; convert it"
        raise CheckpointError(
            f"{source} holds no XLM-R encoder (first names: {', '.join(names[:3]) or 'none'}), {rule}"
        )
    return best


def is_encoder_name(name: str, prefix: str) -> bool:
    """Whether a stored name lies inside the encoder."""
    return name.startswith(tuple(prefix + root for root in _ENCODER_ROOTS))
