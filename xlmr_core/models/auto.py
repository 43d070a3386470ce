"""`AutoConfig` and `AutoModel...`: the class that a model directory's `model_type` asks for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch

from xlmr_core.checkpoint.location import at_revision
from xlmr_core.errors import ArgumentError, CheckpointError
from xlmr_core.models import loading, roberta, xlm_roberta, xlm_roberta_heads
from xlmr_core.models.configuration import RobertaConfig, XLMRobertaConfig, read_config
from xlmr_core.models.pretrained import PreTrainedModel

_CONFIGS: Mapping[str, type[XLMRobertaConfig]] = {
    "xlm-roberta": XLMRobertaConfig,
    "roberta": RobertaConfig,
    "camembert": RobertaConfig,
}


class AutoConfig:
    """Opens the configuration of a model directory or Hub id."""

    def __init__(self) -> None:
        _refuse_instance(self)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> XLMRobertaConfig:
        """The settings, with `kwargs` in place of some of them.

        Raises:
            CheckpointError: There are none, or their `model_type` is of another family.
        """
        path = Path(pretrained_model_name_or_path)
        name = at_revision(pretrained_model_name_or_path, kwargs.pop("revision", None))
        where = path if path.is_file() else loading.locate_model(name, weights=False)
        kind = str(read_config(where).get("model_type"))
        if kind not in _CONFIGS:
            rule = f"the classes here are for {', '.join(_CONFIGS)}; `xlmr doctor` says what else can be done with it"
            raise CheckpointError(f"{pretrained_model_name_or_path} has model_type {kind!r}, {rule}")
        return _CONFIGS[kind].from_pretrained(where, **kwargs)


class AutoModel:
    """Opens the bare encoder of a model directory or Hub id."""

    classes: ClassVar[tuple[type[PreTrainedModel], type[PreTrainedModel]]] = (
        xlm_roberta.XLMRobertaModel,
        roberta.RobertaModel,
    )

    def __init__(self) -> None:
        _refuse_instance(self)

    @classmethod
    def _class_for(cls, config: XLMRobertaConfig) -> type[PreTrainedModel]:
        return cls.classes[isinstance(config, RobertaConfig)]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: XLMRobertaConfig | str | Path | None = None,
        **kwargs: Any,
    ) -> PreTrainedModel:
        """See `PreTrainedModel.from_pretrained`."""
        name = at_revision(pretrained_model_name_or_path, kwargs.pop("revision", None))
        where = name if config is None else config
        chosen = where if isinstance(where, XLMRobertaConfig) else AutoConfig.from_pretrained(where)
        return cls._class_for(chosen).from_pretrained(name, config=config, **kwargs)

    @classmethod
    def from_config(
        cls,
        config: XLMRobertaConfig,
        *,
        dtype: torch.dtype | None = None,
        attn_implementation: str | None = None,
    ) -> PreTrainedModel:
        """A model with fresh weights, float32 unless asked otherwise."""
        if attn_implementation is not None:
            config.attn_implementation = attn_implementation
        model = cls._class_for(config)(config)
        return model if dtype is None else model.to(dtype)


class AutoModelForMaskedLM(AutoModel):
    """Likewise with a masked language modelling head."""

    classes = (xlm_roberta_heads.XLMRobertaForMaskedLM, roberta.RobertaForMaskedLM)


class AutoModelForCausalLM(AutoModel):
    """Likewise with a language modelling head."""

    classes = (xlm_roberta_heads.XLMRobertaForCausalLM, roberta.RobertaForCausalLM)


class AutoModelForSequenceClassification(AutoModel):
    """Likewise with a classification head over `<s>`."""

    classes = (xlm_roberta_heads.XLMRobertaForSequenceClassification, roberta.RobertaForSequenceClassification)


class AutoModelForMultipleChoice(AutoModel):
    """Likewise with one score for each choice."""

    classes = (xlm_roberta_heads.XLMRobertaForMultipleChoice, roberta.RobertaForMultipleChoice)


class AutoModelForTokenClassification(AutoModel):
    """Likewise with a classification head over each token."""

    classes = (xlm_roberta_heads.XLMRobertaForTokenClassification, roberta.RobertaForTokenClassification)


class AutoModelForQuestionAnswering(AutoModel):
    """Likewise with start and end scores."""

    classes = (xlm_roberta_heads.XLMRobertaForQuestionAnswering, roberta.RobertaForQuestionAnswering)


def _refuse_instance(self: object) -> NoReturn:
    name = type(self).__name__
    raise ArgumentError(f"{name}() makes nothing, it only opens; use {name}.from_pretrained(...)")
