"""`XLMRobertaModel`: padded tensors in, padded tensors out, packed in between.

Parameters, defaults, outputs and numbers are those of transformers 4.56.2 (tests/xlmr_core/models). Padding is not
computed, and hidden states and logits are 0 there, unless the result depends on it:
- attention weights, a head mask, or `attn_implementation="eager"` are asked for;
- a row begins with padding and the head reads the first column, as the pooler and all classifiers do;
- a label is not -100 at padding, or question answering computes its loss over a padded batch.

Letters: B rows, L columns, D width.
"""

import warnings
from dataclasses import replace

from torch import Tensor, nn

from xlmr_core.encoder import Embeddings, Layers
from xlmr_core.errors import ArgumentError
from xlmr_core.linear import Linear
from xlmr_core.models.configuration import XLMRobertaConfig
from xlmr_core.models.outputs import BaseModelOutputWithPoolingAndCrossAttentions, Result
from xlmr_core.models.padded import Call, Encoded, Inputs, encode, read_inputs
from xlmr_core.models.pretrained import PreTrainedModel


class Pooler(nn.Module):
    """dense and tanh over the first column.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, width, activation="tanh")

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, D)."""
        pooled_BD: Tensor = self.dense(hidden_BLD[:, 0])
        return pooled_BD


class XLMRobertaModel(PreTrainedModel):
    """The bare encoder, with a pooler over `<s>`.

    Args:
        config: Its settings.
        add_pooling_layer: Whether `pooler_output` is computed.
    """

    own_arguments = ("add_pooling_layer",)

    def __init__(self, config: XLMRobertaConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.shape = config.encoder_config()
        # The parts of `Encoder`, under the names that they have in transformers.
        self.embeddings = Embeddings(self.shape)
        self.encoder = Layers(self.shape)
        self.pooler = Pooler(config.hidden_size) if add_pooling_layer else None
        self._initialise(self)

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embedding table."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the word embedding table; the vocabulary has its size from then on."""
        self.embeddings.word_embeddings = value
        self.shape = replace(self.shape, vocab_size=value.num_embeddings)

    def read(
        self,
        inputs: Inputs,
        head_mask: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
    ) -> Call:
        """Checks the arguments of a forward pass; what is None is as the config says.

        Raises:
            ArgumentError: They do not fit.
        """
        config = self.config
        return Call(
            inputs=read_inputs(self.shape, inputs, head_mask),
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            return_dict=config.use_return_dict if return_dict is None else return_dict,
        )

    def run(self, call: Call, *, whole: bool = False) -> Encoded:
        """The encoder over a call's tokens; `whole` computes padding as well."""
        return encode(self.embeddings, self.encoder, call, whole=whole or self.config.attn_implementation == "eager")

    def run_for_first(self, call: Call) -> Encoded:
        """The encoder for a head that reads the first column, be it padding: that is what transformers' heads do."""
        if call.starts_with_padding:
            rule = "this head reads the first token of a row; pad on the right"
            warnings.warn(f"attention_mask is 0 in the first column, {rule}", stacklevel=4)
        return self.run(call, whole=call.starts_with_padding)

    def pool(self, encoded: Encoded) -> Tensor | None:
        """`<s>` through the pooler (B, D)."""
        if self.pooler is None:
            return None
        pooled_BD: Tensor = self.pooler.dense(encoded.hidden_TD[encoded.batch.starts])
        return pooled_BD

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
        past_key_values: object = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> Result:
        """Hidden states of a padded batch.

        Args:
            input_ids: Token ids (B, L).
            attention_mask: 0 at padding, on either side (B, L); default: nothing is padding.
            token_type_ids: Rows of the token type table (B, L); default: 0.
            position_ids: Rows of the position table (B, L); default: counted from `pad_token_id + 1`.
            head_mask: Factors of the heads' attention (heads,) or (layers, heads).
            inputs_embeds: Vectors in place of `input_ids` (B, L, D).
            encoder_hidden_states: Cross-attention is not implemented.
            encoder_attention_mask: Likewise.
            past_key_values: A cache is not implemented.
            use_cache: Likewise; True is refused for a decoder.
            output_attentions: Whether attention weights are wanted.
            output_hidden_states: Whether hidden states of all layers are wanted.
            return_dict: False gives a tuple.
            cache_position: Of a cache.

        Raises:
            ArgumentError: The arguments do not fit each other or the model.
        """
        refuse_decoding(
            self.config, encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache, cache_position
        )
        given = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        call = self.read(given, head_mask, output_attentions, output_hidden_states, return_dict)
        # The pooler reads the first column; without it nothing depends on padding.
        encoded = self.run(call) if self.pooler is None else self.run_for_first(call)
        output = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=encoded.grid.pad(encoded.hidden_TD),
            pooler_output=self.pool(encoded),
            hidden_states=encoded.states,
            attentions=encoded.attentions,
        )
        return call.result(output)


def refuse_decoding(
    config: XLMRobertaConfig,
    encoder_hidden_states: object = None,
    encoder_attention_mask: object = None,
    past_key_values: object = None,
    use_cache: bool | None = None,
    cache_position: object = None,
) -> None:
    """Raises ArgumentError for what only a decoder with a cache or cross-attention can take."""
    given = {
        "encoder_hidden_states": encoder_hidden_states,
        "encoder_attention_mask": encoder_attention_mask,
        "past_key_values": past_key_values,
        "cache_position": cache_position,
        "use_cache": (use_cache and config.is_decoder) or None,
    }
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ArgumentError(f"{', '.join(names)} given, cross-attention and caches are not implemented; leave them out")
