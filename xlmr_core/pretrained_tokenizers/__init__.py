"""The documented tokenizer classes, with the methods of transformers' tokenizers.

Ids, masks, offsets and texts are those of transformers 5.23, except for what is listed here. Behind each difference: on
how many texts it shows, of the 26,634 lines of NTREX-128 and UDHR in 100 languages, or of every fourth (RoBERTa) or
twentieth of them. "Masked" lines have one word in their middle replaced by `<mask>`.

| what | here | transformers 5.23 | shows on |
|---|---|---|---|
| `<mask>`, XLM-R's vocabulary file | takes the blank on its left, as up to version 4 | leaves it | offsets of all \
22,163 masked lines, ids of none |
| `<mask>`, RoBERTa's vocabulary files | takes the blank on its left, as up to version 4 | leaves it | ids of all \
5,529 masked lines |
| `XLMRobertaTokenizer` of a `tokenizer.json` | as the file has it | takes the vocabulary, builds the rest anew | \
none with XLM-R's file, ids of 3,773 of 26,634 with `mini`'s |
| `RobertaTokenizer` with words | each word gets a blank, as documented | does not | 1,331 of 1,331 |
| `clean_up_tokenization_spaces=True`, RoBERTa | done | ignored with a warning | 12 of 1,332 |
| `errors` of RoBERTa | steers decoding | ignored | ids that end inside a character; no whole text |
| `add_prefix_space` of a call, RoBERTa | done, as documented | ignored | each text that begins with no blank |
| `sp_model_kwargs` | draws, with SentencePiece's probabilities | ignored | each drawn text |
| XLM-R's frame | `cls_token`, `sep_token`, as documented | `bos_token`, `eos_token` | none by default |
| `build_inputs_with_special_tokens`, `create_token_type_ids_from_sequences` | as documented | missing | calls |
| `get_special_tokens_mask` of bare ids | as documented | NotImplementedError | calls |
| `tokenizer("a", "")` | a pair, as in a list | a single text | calls |
| `tokenizer([])` | no rows | IndexError | calls |
| unknown arguments | refused, all named | ignored | calls |
| lone surrogates, strides that do not fit | refused, the row is named | TypeError, the library's panic | calls |
| threads | independent | "Already borrowed" | calls |
| `return_tensors="np"`, rows of different lengths | refused | an array of arrays | calls |
| `pad(return_attention_mask=False)` with a mask | fills it too | leaves it shorter than the ids | calls |
| `add_tokens` of a piece of the vocabulary | is not counted | is | calls |
| places below zero in `BatchEncoding` | count from the end | AttributeError | calls |
"""

from xlmr_core.pretrained_tokenizers.auto import AutoTokenizer
from xlmr_core.pretrained_tokenizers.base import PreTrainedTokenizer
from xlmr_core.pretrained_tokenizers.batch_encoding import BatchEncoding, CharSpan, TokenSpan
from xlmr_core.pretrained_tokenizers.roberta import RobertaTokenizer, RobertaTokenizerFast
from xlmr_core.pretrained_tokenizers.xlm_roberta import XLMRobertaTokenizer, XLMRobertaTokenizerFast

__all__ = [
    "AutoTokenizer",
    "BatchEncoding",
    "CharSpan",
    "PreTrainedTokenizer",
    "RobertaTokenizer",
    "RobertaTokenizerFast",
    "TokenSpan",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
]
