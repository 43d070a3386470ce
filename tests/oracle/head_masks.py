"""Golden values of head masks, which transformers 5 dropped, by transformers 4.56.2 (`make oracle`)."""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from checkpoint import file_sha256, write_checkpoint
from observation import Json, call_model, observe
from question_answering import dump

CHECKPOINTS: dict[str, dict[str, Any]] = {
    "XLMRobertaModel": {"architecture": "XLMRobertaModel", "seed": 11, "max_positions": 66},
    "XLMRobertaForMaskedLM": {"architecture": "XLMRobertaForMaskedLM", "seed": 12, "max_positions": 66},
    "XLMRobertaForSequenceClassification": {
        "architecture": "XLMRobertaForSequenceClassification", "seed": 13, "max_positions": 66,
        "labels": ["one", "two", "three"],
    },
    "XLMRobertaForTokenClassification": {
        "architecture": "XLMRobertaForTokenClassification", "seed": 14, "max_positions": 66,
        "labels": ["O", "B", "I"],
    },
    # Both families have the same tensors.
    "RobertaForQuestionAnswering": {
        "architecture": "XLMRobertaForQuestionAnswering", "seed": 15, "max_positions": 66,
        "config": {"model_type": "roberta", "architectures": ["RobertaForQuestionAnswering"]},
    },
}  # fmt: skip
HEAD_MASKS: dict[str, Any] = {
    "heads": [1.0, 0.0, 0.5, 0.25],
    "layers and heads": [[0.0, 1.0, 0.3, 1.0], [0.75, 0.0, 1.0, 0.1]],
}
FIRST = [0, 4711, 815, 31999, 27, 9000, 12345, 3, 2]
SECOND = [0, 256, 31, 20001, 777, 2]
REST = [29, 1111, 2]
LABELS: dict[str, Json] = {
    "XLMRobertaModel": {},
    "XLMRobertaForMaskedLM": {
        "labels": [[-100, 5, -100, -100, 31000, -100, 12, -100, -100], [-100, -100, 9, 8, -100, *[-100] * 4]],
    },
    "XLMRobertaForSequenceClassification": {"labels": [2, 0]},
    "XLMRobertaForTokenClassification": {
        "labels": [[-100, 0, 1, 2, 0, 0, 1, 0, -100], [-100, 1, 0, 2, 1, *[-100] * 4]],
    },
    "RobertaForQuestionAnswering": {"start_positions": [1, 3], "end_positions": [6, 4]},
}
ENCODER_PARAMETERS = (
    "embeddings.word_embeddings.weight",
    "encoder.layer.0.attention.self.query.weight",
    "encoder.layer.0.attention.output.dense.weight",
    "encoder.layer.1.attention.self.value.bias",
)


def inputs(*, padded: bool) -> Json:
    """Two texts, the second with padding on the right or as long as the first."""
    second = SECOND + ([1, 1, 1] if padded else REST)
    mask = [[1] * 9, [1] * 6 + [0 if padded else 1] * 3]
    return {"input_ids": [FIRST, second], "attention_mask": mask}


def cases(name: str, directory: Path) -> list[Json]:
    """What a class answers with each shape of mask, padded and not; once without attentions."""
    model = getattr(transformers, name).from_pretrained(directory)
    prefix = "" if name.endswith("Model") else "roberta."
    wanted = [prefix + parameter for parameter in ENCODER_PARAMETERS]
    found = []
    settings = [(True, *both) for both in itertools.product(HEAD_MASKS, (False, True))]
    for with_attentions, shape, padded in [*settings, (False, "layers and heads", True)]:
        case = {
            "class": name,
            "inputs": inputs(padded=padded) | LABELS[name],
            "head_mask": HEAD_MASKS[shape],
            "output_attentions": with_attentions,
        }
        output, importance = call_model(model, case)
        parameters = dict(model.named_parameters())
        gradients = {"head_mask": importance} | {parameter: parameters[parameter].grad for parameter in wanted}
        found.append(case | observe(output, torch.tensor(case["inputs"]["attention_mask"]), gradients))
    return found


def main() -> None:
    """Writes the golden file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    made_with = {"transformers": transformers.__version__, "torch": torch.__version__}
    golden: Json = {"made_with": made_with, "checkpoints": {}, "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in CHECKPOINTS.items():
            directory = write_checkpoint(Path(folder) / name, **arguments)
            golden["checkpoints"][name] = arguments | {"sha256": file_sha256(directory / "model.safetensors")}
            golden["cases"] += cases(name, directory)
    dump(golden, output)


if __name__ == "__main__":
    main()
