"""`XLMRobertaConfig` and `RobertaConfig`: settings of a documented class, which users read and change.

Parameters and defaults are those of transformers 4.56.2. What a model is built from is checked when it is built:
`encoder_config` gives the checked form.
"""

import copy
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.location import at_revision, locate
from xlmr_core.config import EncoderConfig
from xlmr_core.errors import ArgumentError, CheckpointError

# What every configuration of transformers may be told besides the parameters of its own.
_COMMON: dict[str, Any] = {
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "problem_type": None,
    "architectures": None,
    "dtype": None,
    "attn_implementation": None,
    "name_or_path": "",
}
# Likewise, of no consequence for an encoder; kept as given.
_KEPT = frozenset(
    (
        "transformers_version",
        "torch_dtype",
        "tokenizer_class",
        "finetuning_task",
        "task_specific_params",
        "prefix",
        "sep_token_id",
        "decoder_start_token_id",
        "is_encoder_decoder",
        "chunk_size_feed_forward",
        "cross_attention_hidden_size",
        "pruned_heads",
        "tie_encoder_decoder",
        "torchscript",
        "use_bfloat16",
        "_name_or_path",
        "output_past",
        "gradient_checkpointing",
    )
)
_ATTENTION = (None, "eager", "sdpa", "flash_attention_2")


class XLMRobertaConfig:
    """Settings of an XLM-RoBERTa model.

    Args:
        vocab_size: Rows of the word embedding table.
        hidden_size: Width of the encoder.
        num_hidden_layers: Number of encoder layers.
        num_attention_heads: Attention heads; must divide `hidden_size`.
        intermediate_size: Width of the feed-forward layer.
        hidden_act: Activation of the feed-forward layer: "gelu", "gelu_new", "relu", "silu" or "tanh".
        hidden_dropout_prob: Dropout of embeddings and sub-layer outputs.
        attention_probs_dropout_prob: Dropout of attention probabilities.
        max_position_embeddings: Rows of the position table; a sequence may have `pad_token_id + 1` tokens less.
        type_vocab_size: Rows of the token type table.
        initializer_range: Standard deviation of fresh weights.
        layer_norm_eps: Epsilon of every LayerNorm.
        pad_token_id: Padding id; positions begin behind it.
        bos_token_id: Id of `<s>`.
        eos_token_id: Id of `</s>`.
        position_embedding_type: Only "absolute" is implemented.
        use_cache: Kept; nothing here has a cache.
        classifier_dropout: Dropout of classification heads; None means `hidden_dropout_prob`.
        kwargs: What every configuration may have: `num_labels`, `id2label`, `label2id`, `problem_type`, `is_decoder`,
            `output_attentions`, `output_hidden_states`, `return_dict`, `tie_word_embeddings`, `attn_implementation`,
            `dtype`, `architectures` and a few that are kept and mean nothing to an encoder.

    Raises:
        ArgumentError: An unknown setting, or labels that contradict each other. Values are checked when a model is
            built of them.
    """

    model_type: ClassVar[str] = "xlm-roberta"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int = 1,
        bos_token_id: int = 0,
        eos_token_id: int = 2,
        position_embedding_type: str = "absolute",
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        unknown = kwargs.keys() - _COMMON.keys() - _KEPT - {"num_labels", "id2label", "label2id"}
        if unknown:
            known = ", ".join(sorted({*_COMMON, "num_labels", "id2label", "label2id"}))
            raise ArgumentError(
                f"{type(self).__name__} got {', '.join(sorted(unknown))}, it is no setting of this family; "
                f"correct the name (besides the documented parameters there are {known})"
            )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.position_embedding_type = position_embedding_type
        self.use_cache = use_cache
        self.classifier_dropout = classifier_dropout
        self._set_labels(kwargs.pop("num_labels", None), kwargs.pop("id2label", None), kwargs.pop("label2id", None))
        kwargs["dtype"] = _dtype(kwargs.get("dtype"), kwargs.pop("torch_dtype", None))
        for name, value in (_COMMON | kwargs).items():
            setattr(self, name, copy.copy(value))
        if self.attn_implementation not in _ATTENTION:
            known = ", ".join(map(repr, _ATTENTION))
            raise ArgumentError(f"attn_implementation {self.attn_implementation!r}, it must be one of {known}")

    # Settings of `_COMMON`, set by name.
    output_hidden_states: bool
    output_attentions: bool
    return_dict: bool
    is_decoder: bool
    add_cross_attention: bool
    tie_word_embeddings: bool
    problem_type: str | None
    architectures: list[str] | None
    dtype: torch.dtype | None
    attn_implementation: str | None
    name_or_path: str

    def _set_labels(self, count: int | None, id2label: Any, label2id: Any) -> None:
        """Names of the outputs; a number that contradicts them counts, as in `from_pretrained(..., num_labels=5)`."""
        if id2label is None:
            self.num_labels = 2 if count is None else count
            return
        try:
            self.id2label = {int(index): str(name) for index, name in dict(id2label).items()}
            names = self.id2label.items() if label2id is None else ((index, name) for name, index in label2id.items())
            self.label2id = {str(name): int(index) for index, name in names}
        except (AttributeError, TypeError, ValueError):
            rule = "they must map whole numbers to names and names to whole numbers"
            raise ArgumentError(f"id2label {id2label!r:.80} and label2id {label2id!r:.80}, {rule}") from None
        if count is not None:
            self.num_labels = count

    @property
    def num_labels(self) -> int:
        """Outputs of a classification head."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
            raise ArgumentError(f"num_labels {count!r}, it must be a whole number from 1")
        # Names stay where their number does.
        if len(getattr(self, "id2label", {})) != count:
            self.id2label = {index: f"LABEL_{index}" for index in range(count)}
            self.label2id = {name: index for index, name in self.id2label.items()}

    @property
    def use_return_dict(self) -> bool:
        """Whether a forward pass gives an object rather than a tuple."""
        return self.return_dict

    def encoder_config(self) -> EncoderConfig:
        """The checked form that a model is built from.

        Raises:
            ArgumentError: A value is not allowed; all of them at once.
        """
        problems = []
        if self.add_cross_attention:
            problems.append("add_cross_attention True, cross-attention is not implemented; set it to False")
        if self.pad_token_id is None:
            problems.append("pad_token_id None, positions are counted behind it; give the tokenizer's")
        if not self.id2label:
            problems.append("id2label is empty, a head needs at least one output; leave it out or name one")
        try:
            checked = EncoderConfig.from_dict(self.to_dict(), source=type(self).__name__)
        except CheckpointError as error:
            # The first line says whose problems they are.
            problems += [line.strip() for line in str(error).splitlines()[1:]]
        if problems:
            lines = "\n".join(f"  {line}" for line in problems)
            source = f" of {self.name_or_path}" if self.name_or_path else ""
            raise ArgumentError(f"no model can be built of this {type(self).__name__}{source}:\n{lines}")
        return checked

    def to_dict(self) -> dict[str, Any]:
        """Everything, as a `config.json` holds it."""
        values = {"model_type": self.model_type} | copy.deepcopy(self.__dict__)
        # `transformers` writes neither of them.
        for name in ("attn_implementation", "name_or_path", "_name_or_path"):
            values.pop(name, None)
        if values["dtype"] is not None:
            values["dtype"] = str(values["dtype"]).removeprefix("torch.")
        # A documented parameter may be None where its default is not.
        return {name: value for name, value in values.items() if value is not None or name not in _COMMON}

    @property
    def torch_dtype(self) -> Any:
        """`dtype` by its older name."""
        return self.dtype

    def to_json_string(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes `config.json` into a directory, which is made if need be.

        Raises:
            CheckpointError: The path is a file.
        """
        folder = Path(save_directory)
        layout.make_directory(folder)
        draft = folder / f".{layout.CONFIG}"
        draft.write_text(self.to_json_string(), encoding="utf-8")
        draft.replace(folder / layout.CONFIG)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Self:
        """Settings of a `config.json`, with some of them overridden; keys of a file that are unknown are kept.

        Raises:
            ArgumentError: An override is no setting of this family.
        """
        # New names take the place of old ones and their ids, a new number that of names as many.
        replaced = {"model_type"} | ({"label2id", "num_labels"} if "id2label" in kwargs else set())
        values = {key: value for key, value in config_dict.items() if key not in replaced}
        known = set(cls().__dict__) | _KEPT | {"num_labels"}
        config = cls(**{key: value for key, value in values.items() if key in known} | kwargs)
        for key in values.keys() - known:
            setattr(config, key, copy.deepcopy(values[key]))
        return config

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Reads the `config.json` of a model directory or Hub id, or one by its path; `kwargs` override it.

        `revision` names one of a Hub id.

        Raises:
            CheckpointError: There is none, or it is of another family.
            ArgumentError: An override is no setting of this family.
        """
        raw = read_config(at_revision(pretrained_model_name_or_path, kwargs.pop("revision", None)))
        kind = raw.get("model_type", cls.model_type)
        if kind != cls.model_type and not (kind == "camembert" and cls.model_type == "roberta"):
            rule = f"{cls.__name__} is for {cls.model_type!r}; open it with the class of its own kind or AutoConfig"
            raise CheckpointError(f"{pretrained_model_name_or_path} has model_type {kind!r}, {rule}")
        return cls.from_dict(raw, **({"name_or_path": str(pretrained_model_name_or_path)} | kwargs))

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Reads one file."""
        return cls.from_dict(layout.read_json(Path(json_file), dict))

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Sets several settings."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


class RobertaConfig(XLMRobertaConfig):
    """Settings of a RoBERTa model: those of `XLMRobertaConfig`, with RoBERTa's vocabulary of 50,265 by default."""

    model_type: ClassVar[str] = "roberta"

    def __init__(self, vocab_size: int = 50265, *args: Any, **kwargs: Any) -> None:
        super().__init__(vocab_size, *args, **kwargs)


# So that editors and `help` show the parameters, with the one default that differs.
_parameters = dict(inspect.signature(XLMRobertaConfig).parameters)
_parameters["vocab_size"] = _parameters["vocab_size"].replace(default=50265)
setattr(RobertaConfig, "__signature__", inspect.Signature(list(_parameters.values())))  # noqa: B010


def read_config(name_or_path: str | Path) -> dict[str, Any]:
    """The `config.json` of a model directory, a Hub id, or of that very path.

    Raises:
        CheckpointError: There is none, or it is no JSON object.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = locate(str(name_or_path), weights=False).directory / layout.CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist, a model directory needs it; check the path")
    return layout.read_json(path, dict)


def _dtype(*wanted: Any) -> torch.dtype | None:
    """The first type that is given, by itself or its name."""
    given = next((dtype for dtype in wanted if dtype is not None), None)
    dtype = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if given is not None and not isinstance(dtype, torch.dtype):
        raise ArgumentError(f"dtype {given!r}, it must be a type of torch or its name, such as 'bfloat16'")
    return dtype
