"""The RoBERTa classes: those of XLM-RoBERTa with `RobertaConfig`. It is the same model with another vocabulary."""

from xlmr_core.models.configuration import RobertaConfig
from xlmr_core.models.xlm_roberta import XLMRobertaModel
from xlmr_core.models.xlm_roberta_heads import (
    XLMRobertaForCausalLM,
    XLMRobertaForMaskedLM,
    XLMRobertaForMultipleChoice,
    XLMRobertaForQuestionAnswering,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
)


class RobertaModel(XLMRobertaModel):
    """See `XLMRobertaModel`."""

    config_class = RobertaConfig


class RobertaForMaskedLM(XLMRobertaForMaskedLM):
    """See `XLMRobertaForMaskedLM`."""

    config_class, model_class = RobertaConfig, RobertaModel


class RobertaForCausalLM(XLMRobertaForCausalLM):
    """See `XLMRobertaForCausalLM`."""

    config_class, model_class = RobertaConfig, RobertaModel


class RobertaForSequenceClassification(XLMRobertaForSequenceClassification):
    """See `XLMRobertaForSequenceClassification`."""

    config_class, model_class = RobertaConfig, RobertaModel


class RobertaForMultipleChoice(XLMRobertaForMultipleChoice):
    """See `XLMRobertaForMultipleChoice`."""

    config_class, model_class = RobertaConfig, RobertaModel


class RobertaForTokenClassification(XLMRobertaForTokenClassification):
    """See `XLMRobertaForTokenClassification`."""

    config_class, model_class = RobertaConfig, RobertaModel


class RobertaForQuestionAnswering(XLMRobertaForQuestionAnswering):
    """See `XLMRobertaForQuestionAnswering`."""

    config_class, model_class = RobertaConfig, RobertaModel
