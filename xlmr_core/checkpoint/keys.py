"""Parameter names: ours and those of Hugging Face files, translated both ways by one table.

Encoders have the same names, but query, key and value are one matrix here and three in every file, stacked by rows. For
heads a table maps a module of ours to the module a file holds in its place.
"""

import re
from collections.abc import Iterable
from typing import Literal

from xlmr_core.errors import CheckpointError

HeadKind = Literal[
    "sequence-classification",
    "token-classification",
    "masked-lm",
    "question-answering",
    "multiple-choice",
    "sparse",
    "multi-vector",
]

_HEADS: dict[HeadKind, dict[str, tuple[str, ...]]] = {
    "sequence-classification": {"dense": ("classifier.dense",), "out_proj": ("classifier.out_proj",)},
    "token-classification": {"classifier": ("classifier",)},
    "masked-lm": {"dense": ("lm_head.dense",), "layer_norm": ("lm_head.layer_norm",), "decoder": ("lm_head.decoder",)},
    "question-answering": {"classifier": ("qa_outputs",)},
    "multiple-choice": {"dense": ("pooler.dense",), "out_proj": ("classifier",)},
    "sparse": {"classifier": ("sparse_linear",)},
    "multi-vector": {"classifier": ("colbert_linear",)},
}
# BERT's encoder has the names of RoBERTa's; its heads differ. The modules are the same.
_BERT_HEADS = _HEADS | {
    "sequence-classification": _HEADS["multiple-choice"],
    "masked-lm": {
        "dense": ("cls.predictions.transform.dense",),
        "layer_norm": ("cls.predictions.transform.LayerNorm",),
        "decoder": ("cls.predictions.decoder",),
    },
}
# Where the outputs are counted: rows of this parameter's weight.
LAST_MODULE: dict[HeadKind, str] = {
    "sequence-classification": "out_proj",
    "token-classification": "classifier",
    "masked-lm": "decoder",
    "question-answering": "classifier",
    "multiple-choice": "out_proj",
    "sparse": "classifier",
    "multi-vector": "classifier",
}

PREFIXES = ("", "roberta.", "xlm-roberta.", "camembert.", "bert.", "transformer.", "model.", "encoder.model.")
_ENCODER_ROOTS = ("embeddings.", "encoder.layer.")
# Buffers that old versions of transformers saved; they hold no knowledge.
_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids)$")


def encoder_file_names(name: str) -> tuple[str, ...]:
    """Names in a file, without prefix, whose tensors make up the encoder parameter `name`."""
    before, fused, kind = name.partition(".qkv.")
    return tuple(f"{before}.{part}.{kind}" for part in ("query", "key", "value")) if fused else (name,)


def head_file_names(head: HeadKind, name: str, model_type: str = "xlm-roberta") -> tuple[str, ...]:
    """Names in a file, without prefix, whose tensors make up the parameter `name` of a task head."""
    module, _, kind = name.rpartition(".")
    return tuple(f"{stem}.{kind}" for stem in _head_table(head, model_type)[module])


def all_head_file_names(head: HeadKind, model_type: str = "xlm-roberta") -> tuple[str, ...]:
    """Names in a file of everything a task head needs; every module of a head has a weight and a bias."""
    stems = (stem for stems in _head_table(head, model_type).values() for stem in stems)
    return tuple(f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias"))


def decoder_file_names(model_type: str = "xlm-roberta") -> tuple[str, str, str]:
    """Names of a masked-LM head's projection: its matrix, its bias, and the name most files give that bias."""
    (decoder,) = _head_table("masked-lm", model_type)["decoder"]
    return f"{decoder}.weight", f"{decoder}.bias", f"{decoder.rpartition('.')[0]}.bias"


def _head_table(head: HeadKind, model_type: str) -> dict[str, tuple[str, ...]]:
    return (_BERT_HEADS if model_type == "bert" else _HEADS)[head]


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
