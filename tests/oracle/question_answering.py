"""Golden values of the pipelines that transformers 5 dropped or changed, by transformers 4.56.2 (`make oracle`)."""

import argparse
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from answers import answer_cases, contexts, list_cases, quirks, window_records
from checkpoint import MINI, file_sha256, write_checkpoint
from other_tasks import fill_mask_cases, zero_shot_cases

NLI = ["contradiction", "neutral", "entailment"]
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "answers": {"architecture": "XLMRobertaForQuestionAnswering", "seed": 2, "max_positions": 66, "head_spread": 0.6},
    "other answers": {
        "architecture": "XLMRobertaForQuestionAnswering", "seed": 5, "max_positions": 66, "head_spread": 0.9,
    },
    "long answers": {
        "architecture": "XLMRobertaForQuestionAnswering", "seed": 3, "max_positions": 514, "head_spread": 1.2,
    },
    "words": {"architecture": "XLMRobertaForMaskedLM", "seed": 1, "max_positions": 66},
    "inference": {
        "architecture": "XLMRobertaForSequenceClassification", "seed": 4, "max_positions": 66, "labels": NLI,
        "head_spread": 0.9,
    },
    "inference, reversed": {
        "architecture": "XLMRobertaForSequenceClassification", "seed": 4, "max_positions": 66, "labels": NLI[::-1],
        "head_spread": 0.9,
    },
}  # fmt: skip


def dump(golden: Mapping[str, Any], path: Path) -> None:
    """One line for each case, so that a difference reads."""
    lines = []
    for key, value in golden.items():
        items = value if isinstance(value, list) else value.items()
        if isinstance(value, list):
            body = [json.dumps(item, ensure_ascii=False) for item in items]
        else:
            body = [
                f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(item, ensure_ascii=False)}"
                for name, item in items
            ]
        opening, closing = "[]" if isinstance(value, list) else "{}"
        lines.append(f"{json.dumps(key)}: {opening}\n" + ",\n".join(body) + f"\n{closing}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    """Writes the golden file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    named = contexts()
    with tempfile.TemporaryDirectory() as folder:
        directories = {
            name: write_checkpoint(Path(folder) / name.replace(", ", "-").replace(" ", "-"), **arguments)
            for name, arguments in CHECKPOINTS.items()
        }
        tasks = {"answers": "question-answering", "words": "fill-mask", "inference": "zero-shot-classification"}
        pipes: dict[str, dict[str, Any]] = {task: {} for task in tasks.values()}
        for name, directory in directories.items():
            task = next(task for word, task in tasks.items() if word in name)
            pipes[task][name] = transformers.pipeline(task, model=str(directory), device="cpu")
        answering = pipes["question-answering"]
        cases = answer_cases(answering, named)
        golden = {
            "made_with": {
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "tokenizer_sha256": file_sha256(MINI / "tokenizer.json"),
            },
            "checkpoints": {
                name: arguments | {"sha256": file_sha256(directories[name] / "model.safetensors")}
                for name, arguments in CHECKPOINTS.items()
            },
            "contexts": named,
            "question_answering": cases,
            "lists": list_cases(answering, named, cases),
            "windows": window_records(answering, named, cases),
            "quirks": quirks(answering["answers"]),
            "fill_mask": fill_mask_cases(pipes["fill-mask"]),
            "zero_shot_classification": zero_shot_cases(pipes["zero-shot-classification"]),
        }
    dump(golden, output)


if __name__ == "__main__":
    main()
