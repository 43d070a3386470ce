"""Signatures of the documented classes and of their methods, as transformers 4.56.2 has them (`make oracle`)."""

import argparse
import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import transformers
from question_answering import dump

Json = dict[str, Any]

FAMILIES = ("XLMRoberta", "Roberta")
HEADS = (
    "Model",
    "ForCausalLM",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
_FRAMING = ("build_inputs_with_special_tokens", "create_token_type_ids_from_sequences")
_PYTHON = (*_FRAMING, "get_special_tokens_mask", "save_vocabulary")
# The methods that the documentation of each tokenizer describes.
TOKENIZERS = {
    "XLMRobertaTokenizer": _PYTHON,
    "XLMRobertaTokenizerFast": _FRAMING,
    "RobertaTokenizer": _PYTHON,
    "RobertaTokenizerFast": _FRAMING[:1],
}
# Settings that every configuration has, those of consequence for an encoder.
COMMON = (
    "num_labels",
    "id2label",
    "label2id",
    "problem_type",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_return_dict",
    "is_decoder",
    "add_cross_attention",
    "tie_word_embeddings",
    "architectures",
    "model_type",
)


def parameters(function: Any) -> list[list[Any]]:
    """Names and defaults in their order, without `self`; no default is "required", `*` and `**` stand at the name."""
    marks: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        [
            marks.get(parameter.kind, "") + name,
            "required" if parameter.default is inspect.Parameter.empty else parameter.default,
        ]
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    ]


def output_of(model: type) -> Json:
    """The class that a forward pass gives, by its annotation, and its fields."""
    annotation: Any = inspect.signature(model.forward).return_annotation  # type: ignore[attr-defined]
    output: Any = next(kind for kind in typing.get_args(annotation) if dataclasses.is_dataclass(kind))
    return {"class": output.__name__, "fields": [field.name for field in dataclasses.fields(output)]}


def main() -> None:
    """Writes the golden file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    configs = {f"{family}Config": getattr(transformers, f"{family}Config") for family in FAMILIES}
    models = {family + head: getattr(transformers, family + head) for family in FAMILIES for head in HEADS}
    tokenizers = {name: getattr(transformers, name) for name in TOKENIZERS}
    golden = {
        "made_with": {"transformers": transformers.__version__},
        "config_parameters": {name: parameters(kind.__init__) for name, kind in configs.items()},
        "config_values": {name: {key: getattr(kind(), key) for key in COMMON} for name, kind in configs.items()},
        "model_parameters": {name: parameters(kind.__init__) for name, kind in models.items()},
        "forward_parameters": {name: parameters(kind.forward) for name, kind in models.items()},
        "tokenizer_parameters": {name: parameters(kind.__init__) for name, kind in tokenizers.items()},
        "tokenizer_methods": {
            name: {method: parameters(getattr(kind, method)) for method in TOKENIZERS[name]}
            for name, kind in tokenizers.items()
        },
        "outputs": {name: output_of(kind) for name, kind in models.items()},
    }
    dump(golden, output)


if __name__ == "__main__":
    main()
