"""The encoder with a head for each documented purpose.

Letters: B rows, L columns, T real tokens, C outputs, V tokens of the vocabulary.
"""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.errors import ArgumentError
from xlmr_core.heads import IGNORED, MaskedLMHead, SequenceHead, classifier_dropout
from xlmr_core.linear import Linear
from xlmr_core.models import losses
from xlmr_core.models.configuration import XLMRobertaConfig
from xlmr_core.models.outputs import (
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    Result,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from xlmr_core.models.padded import Call, Encoded, split_choices
from xlmr_core.models.pretrained import PreTrainedModel
from xlmr_core.models.xlm_roberta import XLMRobertaModel, refuse_decoding


class WithHead(PreTrainedModel):
    """A model with a head over `roberta`."""

    model_class: ClassVar[type[XLMRobertaModel]] = XLMRobertaModel
    has_pooler: ClassVar[bool] = False

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        self.roberta = self.model_class(config, add_pooling_layer=self.has_pooler)

    @property
    def num_labels(self) -> int:
        """Outputs of the head."""
        return self.config.num_labels

    def _each_token(self, call: Call, labels_BL: Tensor | None, head: Callable[[Encoded], Tensor]) -> dict[str, Any]:
        """Fields of an output: logits of every token, and the loss where labels are given."""
        encoded = self.roberta.run(call, whole=losses.counts_padding(labels_BL, call.inputs.real_BL))
        logits_TC = head(encoded)
        return {
            "loss": None if labels_BL is None else losses.cross_entropy(logits_TC, encoded.grid.pack(labels_BL)),
            "logits": encoded.grid.pad(logits_TC),
            "hidden_states": encoded.states,
            "attentions": encoded.attentions,
        }


class WithLMHead(WithHead):
    """A model that predicts tokens of the vocabulary."""

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        self.lm_head = MaskedLMHead(self.roberta.shape, config.vocab_size)
        self._initialise(self.lm_head)

    def get_output_embeddings(self) -> nn.Linear:
        """The projection to the vocabulary."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the projection to the vocabulary."""
        self.lm_head.decoder = new_embeddings  # type: ignore[assignment]

    def _lm_logits(self, encoded: Encoded) -> Tensor:
        logits_TV: Tensor = self.lm_head(encoded.hidden_TD)
        return logits_TV


class XLMRobertaForMaskedLM(WithLMHead):
    """The encoder with a masked language modelling head.

    Args:
        config: Its settings.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        if config.is_decoder:
            rule = "a masked language model reads both sides; set config.is_decoder=False"
            warnings.warn(f"is_decoder is True, {rule}", stacklevel=2)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Result:
        """Logits of every token, and the loss where labels (B, L) are given, -100 to ignore.

        Other arguments and errors are those of `XLMRobertaModel.forward`.
        """
        refuse_decoding(self.config, encoder_hidden_states, encoder_attention_mask)
        given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        call = self.roberta.read(given, head_mask, output_attentions, output_hidden_states, return_dict)
        labels = losses.token_labels(labels, call.inputs.real_BL, self.config.vocab_size)
        return call.result(MaskedLMOutput(**self._each_token(call, labels, self._lm_logits)))


class XLMRobertaForCausalLM(WithLMHead):
    """The encoder with a language modelling head, each token seeing those before it where `is_decoder` is set.

    Args:
        config: Its settings.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            rule = "every token sees the ones it should predict; set config.is_decoder=True"
            warnings.warn(f"is_decoder is False, {rule}", stacklevel=2)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: object = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Result:
        """Logits of every next token, and the loss where labels (B, L) are given: token i predicts label i + 1.

        Other arguments and errors are those of `XLMRobertaModel.forward`.
        """
        refuse_decoding(self.config, encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache)
        given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        call = self.roberta.read(given, head_mask, output_attentions, output_hidden_states, return_dict)
        labels = losses.token_labels(labels, call.inputs.real_BL, self.config.vocab_size)
        if labels is not None:
            labels = F.pad(labels, (0, 1), value=IGNORED)[:, 1:]
        return call.result(CausalLMOutputWithCrossAttentions(**self._each_token(call, labels, self._lm_logits)))


class XLMRobertaForSequenceClassification(WithHead):
    """The encoder with a classification or regression head over `<s>`.

    Args:
        config: Its settings; `num_labels` and `problem_type` among them.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        self.classifier = SequenceHead(self.roberta.shape, config.num_labels)
        self._initialise(self.classifier)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Result:
        """Logits (B, C), and the loss where labels are given.

        A `problem_type` that is None is settled by the first labels and kept in the config: one output is regression,
        whole numbers (B,) are one class each, anything else (B, C) is several.

        Other arguments and errors are those of `XLMRobertaModel.forward`.
        """
        given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        call = self.roberta.read(given, head_mask, output_attentions, output_hidden_states, return_dict)
        encoded = self.roberta.run_for_first(call)
        logits_BC = self.classifier(encoded.hidden_TD, encoded.batch)
        loss = None
        if labels is not None:
            problem_type = self.config.problem_type or losses.problem_type(self.num_labels, labels)
            loss = losses.sequence_loss(logits_BC, labels, problem_type)
            self.config.problem_type = problem_type
        output = SequenceClassifierOutput(
            loss=loss, logits=logits_BC, hidden_states=encoded.states, attentions=encoded.attentions
        )
        return call.result(output)


class XLMRobertaForMultipleChoice(WithHead):
    """The encoder with one score for each choice, from the pooler.

    Args:
        config: Its settings.
    """

    has_pooler = True

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = Linear(config.hidden_size, 1)
        self._initialise(self.classifier)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Result:
        """Logits (B, choices), and the loss where the right choices (B,) are given.

        The tensors have one dimension more, (B, choices, L); other arguments and errors are those of
        `XLMRobertaModel.forward`.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        given, choices = split_choices(inputs)
        call = self.roberta.read(given, head_mask, output_attentions, output_hidden_states, return_dict)
        encoded = self.roberta.run_for_first(call)
        logits_BC = self.classifier(self.dropout(self.roberta.pool(encoded))).view(-1, choices)
        output = MultipleChoiceModelOutput(
            loss=None if labels is None else losses.sequence_loss(logits_BC, labels, "single_label_classification"),
            logits=logits_BC,
            hidden_states=encoded.states,
            attentions=encoded.attentions,
        )
        return call.result(output)


class XLMRobertaForTokenClassification(WithHead):
    """The encoder with a classification head over each token.

    Args:
        config: Its settings; `num_labels` among them.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(classifier_dropout(self.roberta.shape))
        self.classifier = Linear(config.hidden_size, config.num_labels)
        self._initialise(self.classifier)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Result:
        """Logits (B, L, C), and the loss where labels (B, L) are given, -100 to ignore.

        Other arguments and errors are those of `XLMRobertaModel.forward`.
        """
        given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        call = self.roberta.read(given, head_mask, output_attentions, output_hidden_states, return_dict)
        labels = losses.token_labels(labels, call.inputs.real_BL, self.num_labels)
        fields = self._each_token(call, labels, lambda encoded: self.classifier(self.dropout(encoded.hidden_TD)))
        output = TokenClassifierOutput(**fields)
        return call.result(output)


class XLMRobertaForQuestionAnswering(WithHead):
    """The encoder with a start and an end score for each token.

    Args:
        config: Its settings; `num_labels` must be 2.
    """

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__(config)
        if config.num_labels != 2:
            raise ArgumentError(f"num_labels {config.num_labels}, question answering has 2 outputs; leave it out")
        self.qa_outputs = Linear(config.hidden_size, 2)
        self._initialise(self.qa_outputs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Result:
        """Start and end logits (B, L), and the loss where the right columns (B,) are given.

        Columns from L on are ignored. The loss is a softmax over all columns, padding too, as in transformers, so
        that padding is computed for it. Other arguments and errors are those of `XLMRobertaModel.forward`.
        """
        given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        call = self.roberta.read(given, head_mask, output_attentions, output_hidden_states, return_dict)
        trains = start_positions is not None and end_positions is not None
        encoded = self.roberta.run(call, whole=trains and not bool(call.inputs.real_BL.all()))
        start_BL, end_BL = encoded.grid.pad(self.qa_outputs(encoded.hidden_TD)).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = losses.span_loss(start_BL, end_BL, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_BL.contiguous(),
            end_logits=end_BL.contiguous(),
            hidden_states=encoded.states,
            attentions=encoded.attentions,
        )
        return call.result(output)
