"""Shape and conventions of an encoder, checked: what every other room of the core builds on.

Source of names and defaults: the XLM-RoBERTa documentation of transformers 4.56.2. The defaults are BERT's
by that documentation; a real checkpoint always carries its own `config.json`. The documented classes have settings
that users change (`xlmr_core.models.configuration`); a model is built from what those come to here.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from xlmr_core.errors import CheckpointError

Activation = Literal["gelu", "gelu_new", "relu", "silu", "tanh"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

# model_type values that are this architecture under another name. BERT's encoder is the same too, but for where its
# positions begin; it runs here when it was trained with XLM-R's tokenizer, as multilingual-e5-small was.
MODEL_TYPES = ("xlm-roberta", "roberta", "camembert", "bert")
MAX_CONFIG_BYTES = 16 * 1024 * 1024

_RANGES = {
    "vocab_size": (1, 2**31),
    "hidden_size": (1, 2**31),
    "num_hidden_layers": (0, 4097),
    "num_attention_heads": (1, 2**31),
    "intermediate_size": (1, 2**31),
    "max_position_embeddings": (1, 2**31),
    "type_vocab_size": (1, 2**31),
    "pad_token_id": (0, 2**31),
}


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Shape and conventions of an XLM-R encoder and its label set.

    Attributes:
        vocab_size: Rows of the word embedding table, V.
        hidden_size: Width of the encoder, D.
        num_hidden_layers: Number of encoder layers.
        num_attention_heads: Attention heads, H; must divide `hidden_size`.
        intermediate_size: Width of the feed-forward layer, F.
        hidden_act: Activation of the feed-forward layer.
        hidden_dropout_prob: Dropout of embeddings and sub-layer outputs; training only.
        attention_probs_dropout_prob: Dropout of attention probabilities; training only.
        max_position_embeddings: Rows of the position table. Those before `first_position` are never used.
        type_vocab_size: Rows of the token type table; only row 0 is ever used, as XLM-R's tokenizer gives no types.
        initializer_range: Standard deviation of fresh weights.
        layer_norm_eps: Epsilon of every LayerNorm.
        pad_token_id: Padding id of the file. Nothing here is padded; it says where positions begin.
        bos_token_id: Id of `<s>`.
        eos_token_id: Id of `</s>`.
        position_embedding_type: Only "absolute" is implemented.
        is_decoder: Whether a token sees only itself and those before it.
        classifier_dropout: Dropout of task heads; None means `hidden_dropout_prob`.
        id2label: Label names in the order of the head's outputs; empty when the file names none.
        problem_type: What a sequence classification head predicts; None when the file does not say.
        architectures: Class names the file was saved from.
        model_type: The file's own name of the architecture.
        extra: Every other key of the file, kept so that writing a checkpoint loses nothing.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 1
    bos_token_id: int = 0
    eos_token_id: int = 2
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    classifier_dropout: float | None = None
    id2label: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    architectures: tuple[str, ...] = ()
    model_type: str = "xlm-roberta"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first_position(self) -> int:
        """Row of the position table for the first token: `pad_token_id + 1` (fairseq `make_positions`), 0 in BERT."""
        return 0 if self.model_type == "bert" else self.pad_token_id + 1

    @property
    def max_tokens(self) -> int:
        """Longest usable sequence, special tokens included: 514 position rows carry 512 tokens."""
        return self.max_position_embeddings - self.first_position

    @classmethod
    def from_file(cls, path: Path) -> "EncoderConfig":
        """Reads a Hugging Face `config.json`.

        Raises:
            CheckpointError: The file is absent, no JSON object, or describes another architecture.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist, a model directory needs it; check the path")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, a config has at most {MAX_CONFIG_BYTES}")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(
                f"{path} is not valid JSON ({error}); download or save the checkpoint again"
            ) from None
        if not isinstance(raw, dict):
            raise CheckpointError(f"{path} holds a {type(raw).__name__}, it must be a JSON object")
        return cls.from_dict(raw, source=str(path))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, source: str = "config") -> "EncoderConfig":
        """Builds a config from the keys of a `config.json`; all problems are reported at once.

        Raises:
            CheckpointError: Unknown architecture, wrong types or sizes that contradict each other.
        """
        known = {f.name for f in fields(cls)} - {"extra"}
        values = {key: raw[key] for key in known & raw.keys() if raw[key] is not None}
        problems = []
        if "id2label" in values:
            values["id2label"], complaint = _labels(values["id2label"])
            problems += [complaint] if complaint else []
        if not isinstance(values.get("architectures", []), list | tuple):
            problems.append(f"architectures {values.pop('architectures')!r}, it must be a list of class names")
        values["architectures"] = tuple(map(str, values.get("architectures", ())))
        values["extra"] = {key: value for key, value in raw.items() if key not in known and key != "label2id"}
        config = cls(**values)
        problems += config._problems()
        if problems:
            raise CheckpointError(f"{source} cannot be used:\n" + "\n".join(f"  {line}" for line in problems))
        return config

    def _problems(self) -> list[str]:
        """All rules this config breaks, one line each."""
        problems = []
        if self.model_type not in MODEL_TYPES:
            rule = f"this encoder runs {', '.join(MODEL_TYPES)}; convert the checkpoint or choose another"
            problems.append(f"model_type {self.model_type!r}, {rule}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
                problems.append(f"{name} {value!r}, it must be a whole number from {low} to {high - 1}")
        if not isinstance(self.layer_norm_eps, int | float) or not 0 < self.layer_norm_eps < 1:
            problems.append(f"layer_norm_eps {self.layer_norm_eps!r}, it must be between 0 and 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = 0 if name == "classifier_dropout" and self.classifier_dropout is None else getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                problems.append(f"{name} {value!r}, it must be from 0 to 1")
        if not isinstance(self.initializer_range, int | float) or not 0 <= self.initializer_range < math.inf:
            problems.append(f"initializer_range {self.initializer_range!r}, it must be 0 or more")
        if not problems and self.hidden_size % self.num_attention_heads:
            heads = self.num_attention_heads
            problems.append(f"hidden_size {self.hidden_size}, num_attention_heads {heads} must divide it")
        if not problems and self.pad_token_id >= self.vocab_size:
            problems.append(f"pad_token_id {self.pad_token_id}, it must be below vocab_size {self.vocab_size}")
        if not problems and self.max_tokens < 8:
            problems.append(
                f"max_position_embeddings {self.max_position_embeddings}, it leaves {self.max_tokens} tokens"
            )
        if self.hidden_act not in get_args(Activation):
            problems.append(f"hidden_act {self.hidden_act!r}, known are {', '.join(get_args(Activation))}")
        if self.problem_type is not None and self.problem_type not in get_args(ProblemType):
            problems.append(f"problem_type {self.problem_type!r}, known are {', '.join(get_args(ProblemType))}")
        if self.position_embedding_type != "absolute":
            problems.append(f"position_embedding_type {self.position_embedding_type!r}, only 'absolute' is implemented")
        if not isinstance(self.is_decoder, bool):
            problems.append(f"is_decoder {self.is_decoder!r}, it must be true or false")
        return problems

    def to_dict(self) -> dict[str, Any]:
        """The keys of a `config.json` that `transformers` opens too."""
        plain = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("extra", "id2label", "architectures")
        }
        plain = {key: value for key, value in plain.items() if value is not None}
        if self.id2label:
            plain["id2label"] = {str(index): label for index, label in enumerate(self.id2label)}
            plain["label2id"] = {label: index for index, label in enumerate(self.id2label)}
        if self.architectures:
            plain["architectures"] = list(self.architectures)
        return {**self.extra, **plain}


def _labels(raw: Any) -> tuple[tuple[str, ...], str | None]:
    """Label names in order of id, and what is wrong with them."""
    rule = "it must map 0, 1, 2, ... to distinct names; correct it in the file"
    try:
        by_id = {int(key): str(name) for key, name in raw.items()}
    except (AttributeError, TypeError, ValueError):
        return (), f"id2label is not a map from whole numbers to names, {rule}"
    if sorted(by_id) != list(range(len(by_id))):
        return (), f"id2label has the ids {sorted(by_id)[:8]}, {rule}"
    names = tuple(by_id[index] for index in range(len(by_id)))
    if len(set(names)) != len(names):
        return (), f"id2label repeats a name in {names[:8]}, {rule}"
    return names, None
